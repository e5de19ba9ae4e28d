//! DNS cookies: a client that sends one gets ours with every answer (RFC 7873, RFC 9018).

use hickory_proto::{op::ResponseCode, rr::rdata::opt::EdnsOption};
use rstest::rstest;

use crate::support::{
    client::Answer,
    config::Config,
    peers::dig,
    query::{Query, rtype},
    records::{Record, Reply},
    tidegate::Tidegate,
    upstream::Upstream,
};

const COOKIE: u16 = 10;
const EDE: u16 = 15;
const CLIENT: &[u8; 8] = b"8 octets";
const NEW: &str = "445536bcd2513298075a5d379663c962";
const OLD: &str = "dd3bdf9344b678b185a6f5cb60fca715";

fn start() -> (Upstream, Tidegate) {
    let upstream = Upstream::answering("10.0.0.1");
    let tidegate = Tidegate::start(&Config::forwarding_to(&[&upstream]));
    (upstream, tidegate)
}

/// A daemon with these secrets, newest first.
fn start_with(secrets: &[&str]) -> (tempfile::TempDir, Upstream, Tidegate) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let paths: Vec<_> = (0..secrets.len()).map(|at| folder.path().join(at.to_string())).collect();
    for (path, secret) in paths.iter().zip(secrets) {
        std::fs::write(path, format!("{secret}\n")).expect("a file in a temporary folder");
    }
    let upstream = Upstream::answering("10.0.0.1");
    let config = Config::forwarding_to(&[&upstream]).section("server", &format!("cookie_secrets = {paths:?}"));
    let tidegate = Tidegate::start(&config);
    (folder, upstream, tidegate)
}

/// The cookie in an answer: the client's, then ours.
#[track_caller]
fn cookie(answer: &Answer) -> Vec<u8> {
    let options = answer.message.edns.iter().flat_map(|edns| &edns.options().options);
    let found = options.filter_map(|(code, option)| match option {
        EdnsOption::Unknown(COOKIE, data) => Some(data.clone()),
        _ => (u16::from(*code) == COOKIE).then(Vec::new),
    });
    let found: Vec<_> = found.collect();
    let [cookie] = &found[..] else { panic!("one cookie: {answer:?}") };
    cookie.clone()
}

fn with(presented: &[u8]) -> Query {
    Query::a("www.example.").option(COOKIE, presented)
}

#[test]
fn a_fresh_a_cached_and_a_refused_answer_have_a_cookie() {
    let upstream = Upstream::answering("10.0.0.1");
    let config = Config::new().upstream("site", &[&upstream], "").forward("everything", &["example"], "site", "");
    let tidegate = Tidegate::start(&config);
    let client = tidegate.client();
    for turn in ["fresh", "cached"] {
        for answer in [client.ask(&with(CLIENT)), client.ask_over_tcp(&with(CLIENT))] {
            assert_eq!(answer.address_texts(), ["10.0.0.1"], "{turn}");
            assert_eq!(answer.option_codes(), [COOKIE], "{turn}");
            let cookie = cookie(&answer);
            assert_eq!((cookie.len(), &cookie[..8], &cookie[8..12]), (24, &CLIENT[..], &[1, 0, 0, 0][..]), "{turn}");
        }
        assert!(client.ask(&Query::a("www.example.").edns()).option_codes().is_empty(), "{turn}");
    }
    let refused = client.ask(&Query::a("www.elsewhere.").option(COOKIE, CLIENT));
    assert_eq!((refused.verdict(), refused.option_codes()), ((ResponseCode::Refused, Some(20)), vec![COOKIE, EDE]));
    let hinfo = client.ask(&Query::new("www.example.", rtype::ANY).option(COOKIE, CLIENT));
    assert_eq!((hinfo.answers().len(), hinfo.option_codes()), (1, vec![COOKIE]));
}

#[test]
fn our_cookie_is_given_back_as_long_as_it_is_the_clients_own() {
    let (_upstream, tidegate) = start();
    let ours = cookie(&tidegate.client().ask(&with(CLIENT)));
    assert_eq!(cookie(&tidegate.client().ask(&with(&ours))), ours);
    let elsewhere = cookie(&tidegate.client().at("127.0.0.2").ask(&with(&ours)));
    assert_eq!(elsewhere[..8], *CLIENT);
    assert_ne!(elsewhere[16..], ours[16..], "the address is part of it");
}

#[test]
fn a_cookie_that_is_not_ours_is_no_reason_to_refuse() {
    let (_upstream, tidegate) = start();
    for length in [16, 17, 24, 32, 40] {
        let mut foreign = vec![7; length];
        foreign[..8].copy_from_slice(CLIENT);
        let answer = tidegate.client().ask(&with(&foreign));
        assert_eq!(answer.address_texts(), ["10.0.0.1"], "{length} octets");
        assert_eq!(cookie(&answer)[..8], *CLIENT, "{length} octets");
    }
}

#[test]
fn a_cookie_of_another_length_is_a_format_error() {
    let (upstream, tidegate) = start();
    for length in [0, 1, 7, 9, 15, 41, 64] {
        for questions in [0, 1] {
            let socket = tidegate.client().socket();
            socket.send_bytes(&with(&vec![7; length]).bytes_asking(questions));
            assert_eq!(socket.receive().rcode(), ResponseCode::FormErr, "{length} octets, {questions} questions");
        }
    }
    assert_eq!(upstream.count("www.example."), 0);
}

#[test]
fn a_client_that_is_not_served_gets_no_answer_for_a_cookie() {
    let upstream = Upstream::answering("10.0.0.1");
    let config = Config::forwarding_to(&[&upstream]).section("server", "deny = [\"127.0.0.2/32\"]");
    let tidegate = Tidegate::start(&config);
    let ask = |address: &str| {
        let socket = tidegate.client().at(address).socket();
        socket.send_bytes(&with(CLIENT).bytes_asking(0));
        socket.receive().verdict()
    };
    assert_eq!(ask("127.0.0.2"), (ResponseCode::Refused, Some(18)));
    assert_eq!(ask("127.0.0.3"), (ResponseCode::NoError, None));
}

#[test]
fn replicas_with_the_same_secrets_take_each_others_cookies() {
    let (_old_folder, _old_upstream, old) = start_with(&[OLD]);
    let (_folder, _upstream, rolled) = start_with(&[NEW, OLD]);
    let (_same_folder, _same_upstream, same) = start_with(&[OLD, NEW]);

    let made = cookie(&old.client().ask(&with(CLIENT)));
    assert_eq!(cookie(&same.client().ask(&with(&made))), made, "made with the first secret, known and kept");
    let renewed = cookie(&rolled.client().ask(&with(&made)));
    assert_ne!(renewed[16..], made[16..], "the first secret makes new ones");
    assert_ne!(cookie(&same.client().ask(&with(&renewed))), renewed, "made with the second secret of this one");
    let fresh = cookie(&rolled.client().ask(&with(&renewed)));
    assert_eq!(fresh, renewed);
}

#[test]
fn a_reply_that_the_cookie_makes_too_long_is_truncated_and_keeps_it() {
    let (upstream, tidegate) = start();
    // Header, question, a TXT record of 434 octets of RDATA at a pointer, OPT: 12 + 17 + 12 + 434 + 11 = 486.
    let rdata = [&[255][..], &[b'x'; 255], &[177], &[b'x'; 177]].concat();
    upstream.on("www.example.", rtype::TXT, Reply::of([Record::raw("@", rtype::TXT, 300, rdata)]));
    let query = Query::new("www.example.", rtype::TXT).payload(512);
    for turn in ["fresh", "cached"] {
        let plain = tidegate.client().ask(&query);
        assert_eq!((plain.bytes.len(), plain.truncated()), (486, false), "{turn}");
        let answer = tidegate.client().ask(&query.clone().option(COOKIE, CLIENT));
        assert!(answer.truncated() && answer.answers().is_empty(), "{turn}");
        assert_eq!(answer.option_codes(), [COOKIE], "{turn}");
        let whole = tidegate.client().ask_over_tcp(&query.clone().option(COOKIE, CLIENT));
        assert_eq!((whole.answers().len(), whole.bytes.len()), (1, 486 + 28), "{turn}");
    }
}

#[rstest]
#[case::over_udp(&[])]
#[case::over_tcp(&["+tcp"])]
#[case::for_nothing_else(&["+header-only", "+edns=0"])]
fn dig_finds_our_cookie_good(#[case] arguments: &[&str]) {
    let (_upstream, tidegate) = start();
    for turn in ["fresh", "cached"] {
        let all = [&["A", "+cookie"][..], arguments].concat();
        let dig = dig(tidegate.address(), "www.example", &all);
        assert_eq!(dig.status, "NOERROR", "{turn}: {}", dig.text);
        let line = dig.text.lines().find(|line| line.starts_with("; COOKIE: ")).unwrap_or_default();
        assert!(line.ends_with(" (good)"), "{turn}: {}", dig.text);
    }
}

#[test]
fn other_secrets_are_in_force_once_a_reload_says_so() {
    let (folder, _upstream, tidegate) = start_with(&[NEW]);
    let query = || Query::a("www.example.").option(COOKIE, CLIENT);
    let proven = |cookie: &[u8]| {
        let answer = tidegate.client().ask(&Query::a("www.example.").option(COOKIE, cookie));
        self::cookie(&answer) == cookie
    };
    let first = cookie(&tidegate.client().ask(&query()));
    assert!(proven(&first));
    std::fs::write(folder.path().join("0"), format!("{OLD}\n")).expect("a file in a temporary folder");
    let text = std::fs::read_to_string(tidegate.folder().join("tidegate.toml")).expect("the configuration");
    assert!(tidegate.reload_text(&text));
    assert!(!proven(&first), "a cookie of a secret that is gone is replaced");
    assert!(proven(&cookie(&tidegate.client().ask(&query()))));
}
