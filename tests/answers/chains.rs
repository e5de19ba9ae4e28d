//! Chains of aliases as they occur: long ones, DNAMEs without their CNAME, names that grow too long.

use std::{
    process,
    time::{Duration, Instant},
};

use hickory_proto::op::ResponseCode;
use rstest::rstest;

use crate::support::{
    config::Config,
    now,
    query::{Query, rtype, wire_name},
    records::{Record, Reply},
    script::Script,
    tidegate::Tidegate,
    upstream::{Transport, Upstream},
};

const DNAME: u16 = 39;
const YXDOMAIN: u16 = 6;

fn start(upstream: &Upstream) -> Tidegate {
    Tidegate::start(&Config::forwarding_to(&[upstream]))
}

/// An answer in which this many aliases lead from the queried name to an address.
fn chain(links: usize) -> Reply {
    let name = |at: usize| if at == 0 { "@".to_owned() } else { format!("n{at}.example.") };
    let aliases = (0..links).map(|at| Record::cname(&name(at), 300, &name(at + 1)));
    Reply::of(aliases.chain([Record::a(&name(links), 300, "10.0.0.1")]))
}

#[rstest]
#[case::as_linkedin_has_them(9, true)]
#[case::as_microsoft_has_them(11, true)]
#[case::the_longest(64, true)]
#[case::too_long(65, false)]
fn a_chain_in_one_answer_is_passed_on_up_to_64_links(#[case] links: usize, #[case] passes: bool) {
    let upstream = Upstream::start();
    upstream.on("www.example.", rtype::A, chain(links));
    let tidegate = start(&upstream);
    for turn in ["fresh", "again"] {
        let answer = tidegate.client().ask_over_tcp(&Query::a("www.example.").edns());
        if passes {
            assert_eq!(
                (answer.aliases().len(), answer.address_texts()),
                (links, vec!["10.0.0.1".to_owned()]),
                "{turn}"
            );
        } else {
            assert_eq!(answer.verdict(), (ResponseCode::ServFail, Some(0)), "{turn}");
        }
    }
    assert_eq!(upstream.seen("www.example.").iter().filter(|seen| seen.transport == Transport::Udp).count(), 1);
}

/// As many aliases as a message holds, in the worst order, take no noticeable time.
#[test]
fn a_message_full_of_aliases_is_read_in_no_time() {
    let upstream = Upstream::start();
    let aliases =
        (0..1900).rev().map(|n| Record::cname(&format!("n{n}.example."), 300, &format!("n{}.example.", n + 1)));
    upstream.on_transport("www.example.", rtype::A, Transport::Udp, Reply::default().truncated());
    let reply = Reply::of(aliases).answer(Record::cname("@", 300, "n0.example."));
    upstream.on_transport("www.example.", rtype::A, Transport::Tcp, reply);
    let tidegate = start(&upstream);
    let start: Instant = now();
    assert_eq!(tidegate.client().ask(&Query::a("www.example.")).rcode(), ResponseCode::ServFail);
    assert!(start.elapsed() < Duration::from_secs(3), "{:?} in {}", start.elapsed(), process::id());
}

#[test]
fn a_dname_without_its_cname_leads_on() {
    let upstream = Upstream::start();
    let dname = || Record::raw("old.example.", DNAME, 120, wire_name("new.example."));
    upstream.on("www.old.example.", rtype::A, Reply::of([dname(), Record::a("www.new.example.", 300, "10.0.0.1")]));
    upstream.on(
        "open.old.example.",
        rtype::A,
        Reply::of([Record::raw("old.example.", DNAME, 120, wire_name("far.test."))]),
    );
    upstream.on("open.far.test.", rtype::A, Reply::a("10.0.0.2"));
    let other = Upstream::start();
    other.on("open.far.test.", rtype::A, Reply::a("10.0.0.3"));
    let config =
        Config::forwarding_to(&[&upstream]).upstream("far", &[&other], "").forward("far", &["far.test"], "far", "");
    let tidegate = Tidegate::start(&config);
    for turn in ["fresh", "cached"] {
        let answer = tidegate.client().ask(&Query::a("www.old.example."));
        assert_eq!(
            (answer.aliases(), answer.address_texts()),
            (vec!["www.new.example.".to_owned()], vec!["10.0.0.1".to_owned()]),
            "{turn}"
        );
        assert!(answer.answers()[1].ttl <= 120, "the CNAME has the DNAME's TTL, {turn}: {answer:?}");
        let answer = tidegate.client().ask(&Query::a("open.old.example."));
        assert_eq!(
            (answer.aliases(), answer.address_texts()),
            (vec!["open.far.test.".to_owned()], vec!["10.0.0.3".to_owned()]),
            "{turn}"
        );
    }
}

#[rstest]
#[case::with_its_dname(true)]
#[case::alone(false)]
fn yxdomain_is_an_answer(#[case] has_dname: bool) {
    let upstream = Upstream::start();
    let long = format!("{0}.{0}.{0}.old.example.", "x".repeat(60));
    let reply = match has_dname {
        true => Reply::rcode(YXDOMAIN).answer(Record::raw(
            "old.example.",
            DNAME,
            300,
            wire_name(&format!("{}.{}.test.", "t".repeat(63), "u".repeat(9))),
        )),
        false => Reply::rcode(YXDOMAIN),
    };
    upstream.on(&long, rtype::A, reply);
    let tidegate = start(&upstream);
    for query in [Query::a(&long), Query::a(&long).edns(), Query::a(&long).dnssec_ok()] {
        for answer in [tidegate.client().ask(&query), tidegate.client().ask_over_tcp(&query)] {
            assert_eq!(answer.verdict(), (ResponseCode::YXDomain, None));
            assert_eq!(answer.answers().len(), usize::from(has_dname));
            assert!(answer.repeats(&query));
        }
    }
}

/// A DNAME that makes a name too long means YXDOMAIN, whatever code it comes with.
#[test]
fn a_dname_that_leads_too_far_is_yxdomain() {
    let upstream = Upstream::start();
    let long = format!("{0}.{0}.{0}.old.example.", "x".repeat(60));
    let dname =
        Record::raw("old.example.", DNAME, 300, wire_name(&format!("{}.{}.test.", "t".repeat(63), "u".repeat(9))));
    upstream.on(&long, rtype::A, Reply::of([dname]));
    let answer = start(&upstream).client().ask(&Query::a(&long));
    assert_eq!((answer.rcode(), answer.answers().len()), (ResponseCode::YXDomain, 1));
}

#[test]
fn octets_behind_a_whole_message_are_ignored() {
    let upstream = Upstream::answering("10.0.0.1");
    upstream.on("odd.example.", rtype::A, Script::from(Reply::a("10.0.0.2").trailing(b"\0\0padding")));
    let tidegate = start(&upstream);
    assert_eq!(tidegate.client().ask(&Query::a("odd.example.")).address_texts(), ["10.0.0.2"]);
    for query in [Query::a("www.example."), Query::a("www.example.").edns()] {
        let socket = tidegate.client().socket();
        socket.send_bytes(&[&query.bytes()[..], b"\0\xffmore"].concat());
        let answer = socket.receive();
        assert_eq!((answer.id(), answer.address_texts()), (query.id, vec!["10.0.0.1".to_owned()]));
        let mut stream = tidegate.client().stream();
        let longer = [&query.bytes()[..], b"x"].concat();
        let length = u16::try_from(longer.len()).expect("it is short").to_be_bytes();
        stream.send_bytes(&[&length[..], &longer].concat()).expect("it is sent");
        assert_eq!(stream.receive().address_texts(), ["10.0.0.1"]);
    }
}
