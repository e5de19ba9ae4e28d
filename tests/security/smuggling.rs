//! OPT records where they do not belong: a filter in front looks at one, the server behind at another.

use hickory_proto::op::ResponseCode;
use rstest::rstest;

use crate::support::{
    config::Config,
    query::{Query, flag, rtype, wire_name},
    records::{Record, Reply},
    tidegate::Tidegate,
    upstream::Upstream,
};

const CLIENT_SUBNET: u16 = 8;
/// A client subnet that must not get through: 198.51.100.0/24.
const SUBNET: [u8; 7] = [0, 1, 24, 0, 198, 51, 100];

/// An OPT record with the subnet.
fn opt() -> Vec<u8> {
    let mut record = vec![0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 11];
    record.extend(CLIENT_SUBNET.to_be_bytes());
    record.extend([0, 7]);
    record.extend(SUBNET);
    record
}

/// A query with these counts of records, and the same octets behind its question.
fn query(counts: [u16; 3], records: &[u8]) -> Vec<u8> {
    let mut message = 77u16.to_be_bytes().to_vec();
    message.extend(flag::RD.to_be_bytes());
    message.extend(1u16.to_be_bytes());
    message.extend(counts.iter().flat_map(|count| count.to_be_bytes()));
    message.extend(Query::a("www.example.").question_bytes());
    message.extend(records);
    message
}

/// A filter that looks at the first OPT passes on what it did not see in the second. RFC 6891 6.1.1: FORMERR.
#[rstest]
#[case::two([0, 0, 2], [opt(), opt()].concat())]
#[case::in_the_answer([1, 0, 0], opt())]
#[case::in_the_authority([0, 1, 0], opt())]
#[case::in_the_answer_and_where_it_belongs([1, 0, 1], [opt(), opt()].concat())]
#[case::with_an_owner([0, 0, 1], [&wire_name("a.")[..1], b"a", &opt()].concat())]
fn an_opt_out_of_place_makes_a_query_malformed(#[case] counts: [u16; 3], #[case] records: Vec<u8>) {
    let upstream = Upstream::answering("10.0.0.1");
    let tidegate = Tidegate::start(&Config::forwarding_to(&[&upstream]));
    let socket = tidegate.client().socket();
    socket.send_bytes(&query(counts, &records));
    assert_eq!(socket.receive().rcode(), ResponseCode::FormErr);
    assert_eq!(upstream.count("www.example."), 0, "it is not asked for");
}

/// An OPT behind the message's records is not part of it, and a sound query with a subnet is asked for without it.
#[rstest]
#[case::behind_the_message([0, 0, 0], opt())]
#[case::where_it_belongs([0, 0, 1], opt())]
fn no_option_gets_through_to_the_upstream(#[case] counts: [u16; 3], #[case] records: Vec<u8>) {
    let upstream = Upstream::answering("10.0.0.1");
    let tidegate = Tidegate::start(&Config::forwarding_to(&[&upstream]));
    let socket = tidegate.client().socket();
    socket.send_bytes(&query(counts, &records));
    assert_eq!(socket.receive().address_texts(), ["10.0.0.1"]);
    let seen = upstream.seen("www.example.").remove(0);
    assert!(!seen.bytes.windows(SUBNET.len()).any(|octets| octets == SUBNET));
}

/// The same from the other side: what an upstream puts into OPT records reaches no client.
#[rstest]
#[case::in_the_answer(|reply: Reply, opt| reply.answer(opt))]
#[case::in_the_authority(|reply: Reply, opt| reply.authority(opt))]
#[case::a_second_one(|reply: Reply, opt| reply.additional(opt))]
fn an_upstreams_opt_reaches_no_client(#[case] place: fn(Reply, Record) -> Reply) {
    let upstream = Upstream::start();
    let data = [&CLIENT_SUBNET.to_be_bytes()[..], &[0, 7], &SUBNET].concat();
    let opt = Record::raw(".", rtype::OPT, 0, data).class(1232);
    upstream.on("www.example.", rtype::A, place(Reply::a("10.0.0.1"), opt));
    let config = Config::forwarding_to(&[&upstream]).section("server", "deadline = \"2s\"");
    let tidegate = Tidegate::start(&config);
    for query in [Query::a("www.example."), Query::a("www.example.").edns()] {
        for turn in ["fresh", "cached"] {
            let answer = tidegate.client().ask(&query);
            assert!(!answer.bytes.windows(SUBNET.len()).any(|octets| octets == SUBNET), "{turn}: {answer:?}");
            let addresses = answer.address_texts();
            assert!(addresses.is_empty() || addresses == ["10.0.0.1"], "{turn}: {answer:?}");
        }
    }
}
