//! `mix_case` with servers that answer in small letters: what else they do as well, the query is asked over TCP, where nobody
//! forges, and what comes there counts.

use std::{net::UdpSocket, time::Duration};

use hickory_proto::op::ResponseCode;
use rstest::rstest;

use crate::support::{
    config::Config,
    query::{Query, rtype},
    records::{Fault, Reply},
    rules::{Match, Rules},
    tidegate::Tidegate,
    upstream::{Transport, Upstream},
};

const NAME: &str = "a-rather-long-name-with-many-letters.example.";
const FORMERR: u16 = 1;

fn start(upstream: &Upstream) -> Tidegate {
    let config = Config::new().upstream("site", &[upstream], "mix_case = true");
    Tidegate::start(&config.forward("everything", &["."], "site", ""))
}

fn truncates() -> Rules {
    Rules::everything(Reply::default().truncated().but(Fault::Lowered))
        .and(Match::default().over(Transport::Tcp), Reply::a("10.0.0.1"))
}

fn knows_no_edns() -> Rules {
    Rules::everything(Reply::a("10.0.0.1").but(Fault::Lowered))
        .and(Match::default().edns(true), Reply::rcode(FORMERR).but(Fault::Lowered))
}

fn has_no_name() -> Rules {
    Rules::everything(Reply::nxdomain(300).but(Fault::Lowered))
}

fn fails() -> Rules {
    Rules::everything(Reply::servfail().but(Fault::Lowered))
}

#[rstest]
#[case::truncates(truncates(), ResponseCode::NoError)]
#[case::knows_no_edns(knows_no_edns(), ResponseCode::NoError)]
#[case::has_no_name(has_no_name(), ResponseCode::NXDomain)]
#[case::fails(fails(), ResponseCode::ServFail)]
fn a_server_of_small_letters_is_understood_over_tcp(#[case] rules: Rules, #[case] rcode: ResponseCode) {
    let upstream = Upstream::start();
    upstream.play(rules);
    let tidegate = start(&upstream);
    for name in [NAME, "another-name-with-many-letters.example."] {
        let start = crate::support::now();
        let answer = tidegate.client().ask(&Query::a(name).edns());
        assert_eq!(answer.rcode(), rcode, "{name}");
        // Well before the deadline: it is not silence.
        assert!(start.elapsed() < Duration::from_millis(3000), "{name}: {:?}", start.elapsed());
    }
}

/// Then nothing proves its answers, and the log says so once.
#[test]
fn a_server_of_small_letters_without_tcp_is_named() {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let upstream = Upstream::on_udp(socket).expect("a socket of ours");
    upstream.on_type(rtype::A, Reply::a("10.0.0.1").but(Fault::Lowered));
    let tidegate = start(&upstream);
    for _ in 0..2 {
        assert_eq!(tidegate.client().ask(&Query::a(NAME).edns()).rcode(), ResponseCode::ServFail);
    }
    tidegate.logged_once("WARN", "answers in another letter case");
}
