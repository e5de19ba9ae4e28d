//! Queries that are not forwarded, and the code that says why.

use hickory_proto::{op::ResponseCode, rr::RData};
use rstest::rstest;

use crate::support::{
    config::Config,
    query::{Query, class, flag, rtype},
    records::Reply,
    tidegate::Tidegate,
    upstream::Upstream,
};

/// A daemon that forwards only `example.`.
fn forwarding_example(upstream: &Upstream) -> Config {
    Config::new().upstream("site", &[upstream], "").forward("everything", &["example"], "site", "")
}

#[test]
fn a_client_that_is_not_allowed_is_refused_with_prohibited() {
    let upstream = Upstream::answering("10.0.0.1");
    let config = forwarding_example(&upstream).section("server", "deny = [\"127.0.0.2/32\"]");
    let tidegate = Tidegate::start(&config);

    let query = Query::a("www.example.").edns();
    let denied = tidegate.client().at("127.0.0.2").ask(&query);
    assert_eq!(denied.verdict(), (ResponseCode::Refused, Some(18)));
    assert!(denied.repeats(&query));
    assert_eq!(upstream.count("www.example."), 0);
    assert_eq!(tidegate.client().at("127.0.0.3").ask(&query).address_texts(), ["10.0.0.1"]);
}

#[test]
fn the_longer_prefix_of_allow_and_deny_wins() {
    let upstream = Upstream::answering("10.0.0.1");
    let lists = "allow = [\"127.0.0.7/32\", \"127.0.0.1/32\"]\ndeny = [\"127.0.0.0/8\"]";
    let tidegate = Tidegate::start(&forwarding_example(&upstream).section("server", lists));

    let query = Query::a("www.example.").edns();
    assert_eq!(tidegate.client().at("127.0.0.7").ask(&query).rcode(), ResponseCode::NoError);
    assert_eq!(tidegate.client().at("127.0.0.8").ask(&query).verdict(), (ResponseCode::Refused, Some(18)));
}

#[test]
fn a_name_without_a_rule_is_refused_as_not_authoritative() {
    let upstream = Upstream::answering("10.0.0.1");
    let tidegate = Tidegate::start(&forwarding_example(&upstream));

    for name in ["www.elsewhere.org.", "notexample.", "example.org.", "."] {
        let query = Query::a(name).edns();
        for answer in [tidegate.client().ask(&query), tidegate.client().ask_over_tcp(&query)] {
            assert_eq!(answer.verdict(), (ResponseCode::Refused, Some(20)), "{name}");
            assert!(answer.repeats(&query), "{name}");
            assert!(answer.answers().is_empty(), "{name}");
        }
        assert_eq!(upstream.count(name), 0, "{name}");
    }
    tidegate.await_metric("tidegate_ede_total", &[("code", "20")], 8.0);
}

#[test]
fn a_client_without_edns_gets_the_code_and_no_opt() {
    let upstream = Upstream::answering("10.0.0.1");
    let tidegate = Tidegate::start(&forwarding_example(&upstream));

    let answer = tidegate.client().ask(&Query::a("www.elsewhere.org."));
    assert_eq!(answer.rcode(), ResponseCode::Refused);
    assert!(answer.message.edns.is_none());
}

#[rstest]
#[case::iquery(1)]
#[case::status(2)]
#[case::unassigned(3)]
#[case::notify(4)]
#[case::update(5)]
#[case::stateful(6)]
#[case::highest(15)]
fn an_opcode_other_than_query_is_not_implemented(#[case] opcode: u16) {
    let upstream = Upstream::answering("10.0.0.1");
    let tidegate = Tidegate::start(&forwarding_example(&upstream));

    let query = Query::new("www.example.", rtype::SOA).opcode(opcode).edns();
    for answer in [tidegate.client().ask(&query), tidegate.client().ask_over_tcp(&query)] {
        assert_eq!(answer.rcode(), ResponseCode::NotImp);
        assert_eq!(u16::from(answer.opcode()), opcode);
        assert_eq!(answer.id(), query.id);
        assert!(answer.has(flag::QR));
    }
    assert_eq!(upstream.count("www.example."), 0);
}

#[rstest]
#[case::opt(rtype::OPT, None)]
#[case::nxname(128, Some(30))]
#[case::unassigned(129, None)]
#[case::unassigned_too(200, None)]
#[case::tkey(249, None)]
#[case::tsig(250, None)]
#[case::mailb(253, None)]
#[case::maila(254, None)]
fn a_type_that_is_no_data_is_a_format_error(#[case] qtype: u16, #[case] ede: Option<u16>) {
    let upstream = Upstream::answering("10.0.0.1");
    let tidegate = Tidegate::start(&Config::forwarding_to(&[&upstream]));
    let query = Query::new("www.example.", qtype).edns();
    for answer in [tidegate.client().ask(&query), tidegate.client().ask_over_tcp(&query)] {
        assert_eq!(answer.verdict(), (ResponseCode::FormErr, ede));
    }
    assert_eq!(upstream.count("www.example."), 0);
}

#[rstest]
#[case::axfr(rtype::AXFR)]
#[case::ixfr(rtype::IXFR)]
fn a_zone_transfer_is_refused_over_both_transports(#[case] qtype: u16) {
    let upstream = Upstream::answering("10.0.0.1");
    let tidegate = Tidegate::start(&forwarding_example(&upstream));

    let query = Query::new("example.", qtype).edns();
    for answer in [tidegate.client().ask(&query), tidegate.client().ask_over_tcp(&query)] {
        assert_eq!(answer.verdict(), (ResponseCode::Refused, Some(20)));
    }
    let transfers = upstream.all_seen().into_iter().filter(|seen| seen.qtype == qtype);
    assert_eq!(transfers.count(), 0);
}

#[rstest]
#[case::version(class::CH, "version.bind.", rtype::TXT)]
#[case::identity(class::CH, "id.server.", rtype::TXT)]
#[case::none(class::NONE, "www.example.", rtype::A)]
#[case::any(class::ANY, "www.example.", rtype::A)]
fn a_class_other_than_in_is_refused(#[case] qclass: u16, #[case] name: &str, #[case] qtype: u16) {
    let upstream = Upstream::answering("10.0.0.1");
    let tidegate = Tidegate::start(&forwarding_example(&upstream));

    let query = Query::new(name, qtype).class(qclass).edns();
    let answer = tidegate.client().ask(&query);
    assert_eq!(answer.rcode(), ResponseCode::Refused);
    assert!(answer.repeats(&query));
    assert_eq!(upstream.count(name), 0);
}

#[test]
fn a_configured_name_is_answered_in_class_ch() {
    let upstream = Upstream::answering("10.0.0.1");
    let config = forwarding_example(&upstream).section("server", "chaos = \"gate-7\"");
    let tidegate = Tidegate::start(&config);

    for name in ["version.bind.", "id.server.", "version.server.", "hostname.bind.", "VERSION.Bind."] {
        let query = Query::new(name, rtype::TXT).class(class::CH);
        let answer = tidegate.client().ask(&query);
        assert!(answer.repeats(&query), "{name}");
        let [record] = answer.answers() else { panic!("one record for {name}: {answer:?}") };
        let RData::TXT(text) = &record.data else { panic!("a TXT record for {name}: {answer:?}") };
        assert_eq!(text.to_string(), "gate-7", "{name}");
        assert_eq!((u16::from(record.dns_class), record.ttl), (class::CH, 0), "{name}");
    }
    for (name, qtype, qclass) in [
        ("version.bind.", rtype::A, class::CH),
        ("version.bind.", rtype::ANY, class::CH),
        ("authors.bind.", rtype::TXT, class::CH),
        ("bind.", rtype::TXT, class::CH),
        ("version.bind.", rtype::TXT, class::NONE),
    ] {
        let answer = tidegate.client().ask(&Query::new(name, qtype).class(qclass));
        assert_eq!(answer.rcode(), ResponseCode::Refused, "{name} {qtype} {qclass}");
    }
    let denied = config.section("server", "deny = [\"127.0.0.2/32\"]");
    let tidegate = Tidegate::start(&denied);
    let query = Query::new("version.bind.", rtype::TXT).class(class::CH).edns();
    assert_eq!(tidegate.client().at("127.0.0.2").ask(&query).verdict(), (ResponseCode::Refused, Some(18)));
}

#[test]
fn the_longest_configured_name_fits_the_smallest_reply() {
    let upstream = Upstream::answering("10.0.0.1");
    let config = forwarding_example(&upstream).section("server", &format!("chaos = \"{}\"", "x".repeat(255)));
    let tidegate = Tidegate::start(&config);

    let query = Query::new("version.server.", rtype::TXT).class(class::CH);
    for query in [query.clone(), query.payload(512).option(10, b"8 octets")] {
        let answer = tidegate.client().ask(&query);
        assert!(!answer.truncated());
        let [record] = answer.answers() else { panic!("one record: {answer:?}") };
        assert_eq!(record.data.to_string().matches('x').count(), 255);
    }
}

#[test]
fn any_over_udp_gets_one_hinfo_record() {
    let upstream = Upstream::answering("10.0.0.1");
    let tidegate = Tidegate::start(&forwarding_example(&upstream));

    let query = Query::new("www.example.", rtype::ANY);
    let answer = tidegate.client().ask(&query);
    assert_eq!(answer.rcode(), ResponseCode::NoError);
    let [record] = answer.answers() else { panic!("one record: {answer:?}") };
    let RData::HINFO(hinfo) = &record.data else { panic!("an HINFO record: {answer:?}") };
    assert_eq!((&*hinfo.cpu, &*hinfo.os), (&b"RFC8482"[..], &b""[..]));
    assert_eq!(upstream.count("www.example."), 0);
}

#[test]
fn a_parents_nxdomain_hides_no_more_specific_rule() {
    let (corporate, vpc) = (Upstream::start(), Upstream::start());
    corporate.on("corp.example.", rtype::A, Reply::nxdomain(300));
    vpc.on("db.aws.corp.example.", rtype::A, Reply::a("10.20.0.9"));
    let config = Config::new()
        .upstream("site", &[&corporate], "")
        .upstream("vpc", &[&vpc], "")
        .forward("everything", &["."], "site", "")
        .forward("aws", &["aws.corp.example"], "vpc", "");
    let tidegate = Tidegate::start(&config);

    assert_eq!(tidegate.client().ask(&Query::a("corp.example.")).rcode(), ResponseCode::NXDomain);
    assert_eq!(tidegate.client().ask(&Query::a("db.aws.corp.example.")).address_texts(), ["10.20.0.9"]);
    assert_eq!(corporate.count("db.aws.corp.example."), 0);
    assert_eq!(vpc.count("corp.example."), 0);
}
