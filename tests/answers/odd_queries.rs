//! Headers, counts and types that no stub resolver sends (RFC 8906, RFC 9267, RFC 9619).

use hickory_proto::op::ResponseCode;
use rstest::rstest;

use crate::support::{
    client::Client,
    config::Config,
    query::{Query, flag, rtype, short, wire_name},
    records::{Record, Reply},
    tidegate::Tidegate,
    upstream::Upstream,
};

fn start() -> (Upstream, Tidegate) {
    let upstream = Upstream::answering("10.0.0.1");
    let tidegate = Tidegate::start(&Config::forwarding_to(&[&upstream]));
    (upstream, tidegate)
}

/// A header with this id, the flags of a plain query and these counts.
fn header(id: u16, counts: [u16; 4]) -> Vec<u8> {
    let words = [id, flag::RD, counts[0], counts[1], counts[2], counts[3]];
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// Sends bytes that get no answer, then a good query from the same port: the first answer must be to that query.
#[track_caller]
fn expect_nothing(client: Client, bytes: &[u8]) {
    let socket = client.socket();
    socket.send_bytes(bytes);
    let good = Query::a("after.example.");
    socket.send(&good);
    let answer = socket.receive();
    assert!(answer.repeats(&good), "{bytes:02x?} was answered: {answer:?}");
    assert_eq!(answer.id(), good.id);
}

#[test]
fn malformed_behind_a_whole_header_is_a_format_error() {
    let (_upstream, tidegate) = start();
    let question = Query::a("www.example.").question_bytes();
    let opt = [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];
    let long_name = [&[63; 64][..], &[63; 64], &[63; 64], &[63; 64], &[0, 0, 1, 0, 1]].concat();
    let cases: [(&str, [u16; 4], Vec<u8>); 13] = [
        ("no question behind the header", [1, 0, 0, 0], vec![]),
        ("a label cut short", [1, 0, 0, 0], b"\x07exam".to_vec()),
        ("no type and class", [1, 0, 0, 0], wire_name("www.example.")),
        ("half a class", [1, 0, 0, 0], question[..question.len() - 1].to_vec()),
        ("a pointer to itself", [1, 0, 0, 0], vec![0xC0, 12, 0, 1, 0, 1]),
        ("a pointer forwards", [1, 0, 0, 0], vec![0xC0, 40, 0, 1, 0, 1]),
        ("a reserved label type", [1, 0, 0, 0], vec![0x81, b'a', 0, 0, 1, 0, 1]),
        ("a binary label", [1, 0, 0, 0], vec![0x41, 1, 0, 0, 0, 1, 0, 1]),
        ("a name over 255 octets", [1, 0, 0, 0], long_name),
        ("an answer that is not there", [1, 1, 0, 0], question.clone()),
        ("two OPT records", [1, 0, 0, 2], [&question[..], &opt, &opt].concat()),
        ("an OPT below a name", [1, 0, 0, 1], [&question[..], b"\x01a", &opt].concat()),
        ("an OPT longer than the message", [1, 0, 0, 1], [&question[..], &opt[..9], &[0, 9]].concat()),
    ];
    for (case, counts, rest) in cases {
        let socket = tidegate.client().socket();
        let id = rand::random();
        socket.send_bytes(&[header(id, counts), rest].concat());
        let answer = socket.receive();
        assert_eq!(answer.rcode(), ResponseCode::FormErr, "{case}");
        assert_eq!(answer.id(), id, "{case}");
        assert!(answer.has(flag::QR), "{case}");
        assert!(answer.answers().is_empty(), "{case}");
    }
}

#[rstest]
#[case::none(0)]
#[case::two(2)]
#[case::many(9)]
fn another_count_of_questions_than_one_is_a_format_error(#[case] questions: u16) {
    let (upstream, tidegate) = start();
    let query = Query::a("www.example.");

    let socket = tidegate.client().socket();
    socket.send_bytes(&query.bytes_asking(questions));
    let answer = socket.receive();
    assert_eq!(answer.rcode(), ResponseCode::FormErr);
    assert_eq!(answer.id(), query.id);
    assert_eq!(upstream.count("www.example."), 0);
}

#[test]
fn less_than_a_header_gets_nothing() {
    let (_upstream, tidegate) = start();
    let header = header(0x1234, [1, 0, 0, 0]);
    for length in [0, 1, 2, 4, 11] {
        expect_nothing(tidegate.client(), &header[..length]);
    }
}

#[test]
fn a_response_gets_nothing() {
    let (upstream, tidegate) = start();
    for query in [
        Query::a("www.example.").with(flag::QR),
        Query::a("www.example.").with(flag::QR).opcode(4),
        Query::a("www.example.").with(flag::QR).edns().version(1),
    ] {
        expect_nothing(tidegate.client(), &query.bytes());
    }
    assert_eq!(upstream.count("www.example."), 0);
    tidegate.await_metric("tidegate_dropped_total", &[("reason", "response")], 3.0);
}

#[test]
fn a_query_without_rd_is_answered_too() {
    let (upstream, tidegate) = start();
    let answer = tidegate.client().ask(&Query::a("www.example.").without(flag::RD));

    assert_eq!(answer.address_texts(), ["10.0.0.1"]);
    assert!(!answer.has(flag::RD), "RD is copied");
    assert!(answer.has(flag::RA));
    assert_ne!(upstream.seen("www.example.")[0].flags & flag::RD, 0, "the upstream is asked to recurse");
    let again = tidegate.client().ask(&Query::a("www.example."));
    assert!(again.has(flag::RD));
    assert_eq!(upstream.count("www.example."), 1, "RD is no part of the key");
}

#[test]
fn stray_header_bits_change_nothing() {
    let (_upstream, tidegate) = start();
    let stray = [flag::AA, flag::TC, flag::RA, flag::Z, flag::AA | flag::TC | flag::RA | flag::Z];
    for bits in stray {
        let query = Query::a("www.example.").with(bits);
        let answer = tidegate.client().ask(&query);
        assert_eq!(answer.address_texts(), ["10.0.0.1"], "{bits:04x}");
        assert!(answer.repeats(&query), "{bits:04x}");
        assert!(answer.has(flag::QR) && answer.has(flag::RA), "{bits:04x}");
        assert!(!answer.has(flag::Z) && !answer.has(flag::TC), "{bits:04x}");
    }
}

#[rstest]
#[case::unassigned(1000)]
#[case::private_use(65_280)]
#[case::zero_octets(65_534)]
fn any_type_is_forwarded_and_its_data_comes_back_whole(#[case] qtype: u16) {
    let (upstream, tidegate) = start();
    let data = match qtype {
        65_534 => vec![],
        _ => vec![0xC0, 0x0C, 0, 255, 1, 2, 3],
    };
    upstream.on("odd.example.", qtype, Reply::of([Record::raw("@", qtype, 300, data.clone())]));
    upstream.on("none.example.", qtype, Reply::nodata(300));

    let query = Query::new("odd.example.", qtype);
    for turn in ["fresh", "cached"] {
        let socket = tidegate.client().socket();
        socket.send(&query);
        // Read as it is: hickory-proto does not take a record without data.
        let answer = socket.receive_bytes();
        let length = short(data.len()).to_be_bytes();
        assert_eq!((answer[3] & 0x0F, &answer[6..8]), (0, &[0, 1][..]), "NOERROR and one answer, {turn}");
        assert!(answer.ends_with(&[&length[..], &data].concat()), "{turn}: {answer:02x?}");
    }
    let empty = tidegate.client().ask(&Query::new("none.example.", qtype));
    assert_eq!((empty.rcode(), empty.answers().len()), (ResponseCode::NoError, 0));
}

#[test]
fn names_may_hold_any_octets() {
    let (upstream, tidegate) = start();
    let name = "\u{7f} *_\\;\".example.";
    let query = Query::a(name);
    let answer = tidegate.client().ask(&query);

    assert_eq!(answer.address_texts(), ["10.0.0.1"]);
    assert!(answer.repeats(&query));
    assert_eq!(upstream.count(name), 1);
}

#[test]
fn the_longest_name_is_answered() {
    let (upstream, tidegate) = start();
    // 63 + 63 + 63 + 61 octets, four lengths and the root make 255.
    let name = format!("{}.{}.{}.{}.", "a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61));
    assert_eq!(tidegate.client().ask(&Query::a(&name)).address_texts(), ["10.0.0.1"]);
    assert_eq!(upstream.count(&name), 1);
    assert_eq!(tidegate.client().ask(&Query::new(".", rtype::A)).rcode(), ResponseCode::NoError);
}
