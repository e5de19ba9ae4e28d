//! EDNS is hop by hop: what a client sends in its OPT stays with us, and what it gets is our own (RFC 6891).

use hickory_proto::op::ResponseCode;

use crate::support::{
    config::Config,
    query::{Query, flag, rtype},
    records::{Record, Reply},
    tidegate::Tidegate,
    upstream::Upstream,
};

const CLIENT_SUBNET: u16 = 8;
const COOKIE: u16 = 10;
const PADDING: u16 = 12;
const LOCAL_USE: u16 = 65_001;

fn start() -> (Upstream, Tidegate) {
    let upstream = Upstream::answering("10.0.0.1");
    let tidegate = Tidegate::start(&Config::forwarding_to(&[&upstream]));
    (upstream, tidegate)
}

#[test]
fn a_client_gets_our_own_opt_and_only_if_it_sent_one() {
    let (_upstream, tidegate) = start();
    for turn in ["fresh", "cached"] {
        let answer = tidegate.client().ask(&Query::a("www.example.").payload(4096));
        let edns = answer.message.edns.as_ref().expect("an OPT for a client with EDNS");
        assert_eq!((edns.max_payload(), edns.version()), (1232, 0), "{turn}");
        assert!(answer.option_codes().is_empty(), "{turn}");

        let plain = tidegate.client().ask(&Query::a("www.example."));
        assert!(plain.message.edns.is_none(), "{turn}");
        assert_eq!(plain.address_texts(), ["10.0.0.1"], "{turn}");
    }
}

#[test]
fn a_higher_version_is_badvers() {
    let (upstream, tidegate) = start();
    for version in [1, 100, 255] {
        let query = Query::a("www.example.").edns().version(version).option(LOCAL_USE, b"x");
        let answer = tidegate.client().ask(&query);
        assert_eq!(u16::from(answer.rcode()), 16, "version {version}");
        let edns = answer.message.edns.as_ref().expect("BADVERS stands in an OPT");
        assert_eq!(edns.version(), 0, "version {version}");
        assert!(answer.answers().is_empty(), "version {version}");
    }
    assert_eq!(upstream.count("www.example."), 0);
}

#[test]
fn unknown_options_are_ignored() {
    let (_upstream, tidegate) = start();
    let query = Query::a("www.example.").option(LOCAL_USE, b"anything").option(LOCAL_USE, b"").option(4, b"1");
    let answer = tidegate.client().ask(&query);

    assert_eq!(answer.address_texts(), ["10.0.0.1"]);
    assert!(answer.option_codes().is_empty(), "unknown options are not sent back: {:?}", answer.option_codes());
}

#[test]
fn unknown_edns_flags_are_not_sent_back() {
    let (_upstream, tidegate) = start();
    let answer = tidegate.client().ask(&Query::a("www.example.").edns_flags(0x7FFF));
    let flags = *answer.message.edns.as_ref().expect("an OPT").flags();
    assert_eq!((flags.dnssec_ok, flags.z), (false, 0));

    let answer = tidegate.client().ask(&Query::a("www.example.").edns_flags(0xFFFF));
    let flags = *answer.message.edns.as_ref().expect("an OPT").flags();
    assert_eq!((flags.dnssec_ok, flags.z), (true, 0), "DO is copied, the rest is not");
}

#[test]
fn no_option_of_a_client_reaches_an_upstream() {
    let (upstream, tidegate) = start();
    let query = Query::a("www.example.")
        .option(CLIENT_SUBNET, &[0, 1, 24, 0, 192, 0, 2])
        .option(COOKIE, b"12345678")
        .option(PADDING, &[0; 32])
        .option(LOCAL_USE, b"secret");
    assert_eq!(tidegate.client().ask(&query).address_texts(), ["10.0.0.1"]);

    let seen = &upstream.seen("www.example.")[0];
    let edns = seen.message().edns.expect("upstreams are asked with EDNS");
    assert_eq!((edns.max_payload(), edns.version()), (1232, 0));
    let codes: Vec<u16> = edns.options().options.iter().map(|(code, _)| u16::from(*code)).collect();
    let ours = |code: &u16| [CLIENT_SUBNET, PADDING, LOCAL_USE].contains(code);
    assert!(!codes.iter().any(ours), "{codes:?}");
    assert!(!seen.bytes.windows(8).any(|window| window == b"12345678"), "the client's cookie is its own");
}

#[test]
fn an_empty_question_with_a_cookie_gets_a_cookie() {
    let (_upstream, tidegate) = start();
    let query = Query::a("www.example.").option(COOKIE, b"87654321");
    let socket = tidegate.client().socket();
    socket.send_bytes(&query.bytes_asking(0));
    let answer = socket.receive();

    assert_eq!(answer.rcode(), ResponseCode::NoError);
    assert_eq!(answer.option_codes(), [COOKIE]);
}

#[test]
fn an_empty_question_without_a_cookie_is_a_format_error_and_has_an_opt_where_the_query_had_one() {
    let (_upstream, tidegate) = start();
    for (query, expected) in [(Query::a("www.example.").edns(), true), (Query::a("www.example."), false)] {
        let socket = tidegate.client().socket();
        socket.send_bytes(&query.bytes_asking(0));
        let answer = socket.receive();
        assert_eq!(answer.rcode(), ResponseCode::FormErr);
        assert_eq!(answer.message.edns.is_some(), expected);
    }
}

#[test]
fn do_and_cd_are_forwarded_and_kept_apart_in_the_cache() {
    let (upstream, tidegate) = start();
    let plain = Query::a("www.example.").edns();
    let kinds =
        [plain.clone(), plain.clone().dnssec_ok(), plain.clone().with(flag::CD), plain.with(flag::CD).dnssec_ok()];
    for turn in ["fresh", "cached"] {
        for kind in &kinds {
            let mut query = kind.clone();
            query.id = rand::random();
            let answer = tidegate.client().ask(&query);
            assert_eq!(answer.address_texts(), ["10.0.0.1"], "{turn}");
            assert_eq!(answer.has(flag::CD), query.bytes()[3] & 0x10 != 0, "CD is copied, {turn}");
        }
    }
    let asked: Vec<(bool, bool)> =
        upstream.seen("www.example.").iter().map(|seen| (seen.dnssec_ok(), seen.checking_disabled())).collect();
    assert_eq!(asked, [(false, false), (true, false), (false, true), (true, true)]);
}

#[test]
fn ad_goes_to_those_who_ask_for_it_and_only_as_the_upstream_gave_it() {
    let (upstream, tidegate) = start();
    upstream.on("signed.example.", rtype::A, Reply::a("10.0.0.2").with(flag::AD));
    let client = tidegate.client();

    for turn in ["fresh", "cached"] {
        assert!(!client.ask(&Query::a("signed.example.")).has(flag::AD), "not asked for, {turn}");
        assert!(client.ask(&Query::a("signed.example.").with(flag::AD)).has(flag::AD), "AD asks for it, {turn}");
        assert!(client.ask(&Query::a("signed.example.").dnssec_ok()).has(flag::AD), "DO asks for it, {turn}");
        assert!(!client.ask(&Query::a("plain.example.").with(flag::AD)).has(flag::AD), "not given, {turn}");
    }
    assert_eq!(upstream.count("signed.example."), 2, "AD is no part of the key, DO is");
}

/// RFC 7830 6: padding of what everyone can read is of no use.
#[test]
fn plain_queries_are_not_padded() {
    let upstream = Upstream::answering("10.0.0.1");
    for scheme in ["udp", "tcp"] {
        let servers = [format!("{scheme}://{}", upstream.address)];
        let config = Config::new().servers("site", &servers, "").forward("all", &["."], "site", "");
        let name = format!("{scheme}.example.");
        assert_eq!(Tidegate::start(&config).client().ask(&Query::a(&name)).address_texts(), ["10.0.0.1"]);
        let edns = upstream.seen(&name)[0].message().edns.expect("upstreams are asked with EDNS");
        assert!(edns.options().options.is_empty(), "{scheme}");
    }
}

#[test]
fn an_upstreams_opt_does_not_become_the_clients() {
    let (upstream, tidegate) = start();
    // The scripted upstream advertises 4096 in an OPT; a second record follows it in the additional section.
    let reply = Reply::a("10.0.0.3").additional(Record::txt("note.example.", 300, "hello"));
    upstream.on("www.example.", rtype::A, reply);
    let answer = tidegate.client().ask(&Query::a("www.example.").edns());

    let edns = answer.message.edns.as_ref().expect("an OPT");
    assert_eq!(edns.max_payload(), 1232);
    assert_eq!(answer.address_texts(), ["10.0.0.3"]);
}
