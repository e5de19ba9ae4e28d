//! One of two servers gives unusable answers, of every kind: the client gets the other's answer, the error is counted
//! under its own name, and none of the bad answer is kept.

use std::time::Duration;

use hickory_proto::op::ResponseCode;
use rstest::rstest;

use crate::support::{
    client::Answer,
    config::Config,
    eventually,
    query::{Query, flag, rtype, wire_name},
    records::{Fault, Record, Reply},
    script::Script,
    tidegate::Tidegate,
    upstream::{Transport, Upstream},
};

/// An address in every answer of the bad server, which no client may get.
const FALSE: &str = "6.6.6.6";
const TRUE: &str = "10.0.0.1";
const MENDED: &str = "10.0.0.2";

/// The names that it answers badly. It answers all others well, probes included, so it is not down.
const NAMES: [&str; 2] = ["www.example.", "new.example."];

/// A group that asks its first server first and the other once, when that gave nothing.
const IN_ORDER: &str = "policy = \"ordered\"\nattempts = 2\nhedge = false\ntimeout = \"1s\"";

/// How the bad server answers address queries, over UDP and over TCP.
struct Bad {
    udp: Script,
    tcp: OverTcp,
}

enum OverTcp {
    /// It does the same as over UDP.
    Same,
    Says(Script),
    /// Nobody listens.
    Refused,
    /// The group speaks nothing but TCP to it.
    Only(Script),
}

impl Bad {
    fn udp(script: impl Into<Script>) -> Self {
        Self { udp: script.into(), tcp: OverTcp::Same }
    }

    fn truncated(tcp: OverTcp) -> Self {
        Self { udp: a_lie().truncated().into(), tcp }
    }

    fn with(fault: Fault) -> Self {
        Self::udp(a_lie().but(fault))
    }

    fn start(self) -> (Upstream, String) {
        let mut server = Upstream::start();
        let over_tcp = |script: &Script| {
            NAMES.iter().for_each(|name| _ = server.on_transport(name, rtype::A, Transport::Tcp, script.clone()));
        };
        NAMES.iter().for_each(|name| _ = server.on(name, rtype::A, self.udp.clone()));
        let address = server.address.to_string();
        match self.tcp {
            OverTcp::Same => {}
            OverTcp::Says(script) => over_tcp(&script),
            OverTcp::Refused => server.stop_tcp(),
            OverTcp::Only(script) => {
                over_tcp(&script);
                return (server, format!("tcp://{address}"));
            }
        }
        (server, address)
    }
}

fn a_lie() -> Reply {
    Reply::a(FALSE)
}

/// This code, together with an address.
fn a_lie_with(rcode: u16) -> Reply {
    Reply::rcode(rcode).answer(Record::a("@", 300, FALSE))
}

/// A header with these flags, these counts, and octets behind it.
fn message(flags: u16, counts: [u16; 4], rest: &[u8]) -> Fault {
    let words = [flags].into_iter().chain(counts);
    Fault::Garbage(words.flat_map(u16::to_be_bytes).chain(rest.iter().copied()).collect())
}

/// The queried question, and an address record that lacks its last octet.
fn cut_short() -> Fault {
    let question = [wire_name("www.example."), vec![0, 1, 0, 1]].concat();
    let record = [0xC0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 6, 6, 6];
    message(flag::QR | flag::RA, [1, 1, 0, 0], &[&question[..], &record].concat())
}

#[rstest]
#[case::servfail(Bad::udp(a_lie_with(2)), &["udp servfail 1"], &[])]
#[case::refused(Bad::udp(a_lie_with(5)), &["udp refused 1"], &[])]
// It is asked once more without EDNS, in case it knows none.
#[case::notimp(Bad::udp(a_lie_with(4)), &["udp refused 1", "udp malformed 1"], &[])]
#[case::formerr(Bad::udp(a_lie_with(1)), &["udp malformed 2"], &[])]
#[case::formerr_and_no_more(Bad::with(message(flag::QR | 1, [0; 4], &[])), &["udp malformed 2"], &[])]
#[case::cut_short(Bad::with(cut_short()), &["udp malformed 1"], &[])]
#[case::silence(Bad::udp(Script::silence()), &["udp timeout 1"], &[])]
#[case::garbage(Bad::with(Fault::Garbage(vec![0xFF; 40])), &["udp timeout 1"], &["not_a_response 1"])]
#[case::two_octets(Bad::with(Fault::Garbage(vec![])), &["udp timeout 1"], &["short 1"])]
#[case::another_id(Bad::with(Fault::WrongId), &["udp timeout 1"], &["id 1"])]
#[case::another_question(Bad::with(Fault::WrongQuestion("x.example.".into())), &["udp timeout 1"], &["question 1"])]
#[case::no_question(Bad::with(message(flag::QR | flag::RA, [0; 4], &[])), &["udp timeout 1"], &["question 1"])]
#[case::a_query(Bad::with(Fault::NotAResponse), &["udp timeout 1"], &["not_a_response 1"])]
// The kernel drops these before us: the socket is connected.
#[case::another_port(Bad::udp(Script::from_elsewhere("127.0.0.1", a_lie())), &["udp timeout 1"], &[])]
#[case::another_address(Bad::udp(Script::from_elsewhere("127.0.0.9", a_lie())), &["udp timeout 1"], &[])]
#[case::tcp_refused(Bad::truncated(OverTcp::Refused), &["tcp network 1"], &[])]
#[case::tcp_closed(Bad::truncated(OverTcp::Says(Script::close())), &["tcp network 1"], &[])]
#[case::tcp_silent(Bad::truncated(OverTcp::Says(Script::silence())), &["tcp timeout 1"], &[])]
#[case::tcp_truncated(Bad::truncated(OverTcp::Same), &["tcp malformed 1"], &[])]
#[case::tcp_dripping(Bad::truncated(OverTcp::Says(drip())), &["tcp timeout 1"], &[])]
#[case::tcp_another_question(
    Bad::truncated(OverTcp::Says(a_lie().but(Fault::WrongQuestion("x.example.".into())).into())),
    &["tcp timeout 1"], &["question 1"]
)]
#[case::tcp_alone_dripping(Bad { udp: Script::silence(), tcp: OverTcp::Only(drip()) }, &["tcp timeout 1"], &[])]
#[case::tcp_alone_servfail(
    Bad { udp: Script::silence(), tcp: OverTcp::Only(a_lie_with(2).into()) },
    &["tcp servfail 1"], &[]
)]
fn the_other_server_answers_and_nothing_wrong_is_kept(
    #[case] bad: Bad,
    #[case] results: &[&str],
    #[case] mismatches: &[&str],
) {
    let (bad, server) = bad.start();
    let mut good = Upstream::answering(TRUE);
    let config = Config::new()
        .section("cache", "failure_ttl = \"1s\"")
        .servers("site", &[server.clone(), good.address.to_string()], IN_ORDER)
        .forward("everything", &["."], "site", "");
    let tidegate = Tidegate::start(&config);
    let client = tidegate.client();
    let up = [("server", server.as_str()), ("to", "up")];
    tidegate.await_metric("tidegate_upstream_transitions_total", &up, 1.0);

    let [known, unknown] = NAMES.map(|name| Query::a(name).edns());
    let answer = client.ask(&known);
    assert_eq!((answer.rcode(), answer.address_texts()), (ResponseCode::NoError, vec![TRUE.to_owned()]));
    // A query that is not answered has ended when its time is over. TC is an answer, and so are those to probes.
    let labels = [("group", "site"), ("server", server.as_str())];
    let count = |metric: &str, by: &[&str]| tidegate.counted(metric, &labels, by);
    let ended = || {
        let mut all = count("tidegate_upstream_queries_total", &["transport", "result"]);
        all.retain(|line| !line.contains(" ok "));
        all
    };
    eventually(&format!("{results:?}"), || ended() == results);
    assert_eq!(count("tidegate_upstream_mismatches_total", &["reason"]), mismatches);

    good.stop();
    assert_eq!(client.ask(&known).address_texts(), [TRUE], "the good answer is kept");
    let answer = client.ask(&unknown);
    assert_eq!(answer.rcode(), ResponseCode::ServFail, "{answer:?}");
    holds_no_lie(&answer);
    bad.on(NAMES[1], rtype::A, Reply::a(MENDED));
    eventually("the mended server's answer", || {
        let answer = client.ask(&unknown);
        holds_no_lie(&answer);
        answer.address_texts() == [MENDED]
    });
}

/// One octet a second.
fn drip() -> Script {
    Script::dripping(Duration::from_secs(1), a_lie())
}

#[track_caller]
fn holds_no_lie(answer: &Answer) {
    assert!(!answer.bytes.windows(4).any(|window| window == [6, 6, 6, 6]), "{answer:?}");
}
