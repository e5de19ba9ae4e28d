//! Names that are answered here, unless a rule or zone says otherwise (RFC 6761, RFC 6303, RFC 7686).

use hickory_proto::op::ResponseCode;
use rstest::rstest;

use crate::support::{
    config::{Config, ONE_PATIENT_TRY},
    query::{Query, rtype},
    tidegate::Tidegate,
    upstream::Upstream,
};

#[rstest]
#[case::localhost("localhost.", rtype::A, ResponseCode::NoError, Some("127.0.0.1"))]
#[case::localhost_in_capitals("LocalHost.", rtype::A, ResponseCode::NoError, Some("127.0.0.1"))]
#[case::localhost_v6("localhost.", rtype::AAAA, ResponseCode::NoError, Some("::1"))]
#[case::below_localhost("www.localhost.", rtype::A, ResponseCode::NoError, Some("127.0.0.1"))]
#[case::localhost_without_data("localhost.", rtype::TXT, ResponseCode::NoError, None)]
#[case::invalid("www.invalid.", rtype::A, ResponseCode::NXDomain, None)]
#[case::for_tests("www.test.", rtype::A, ResponseCode::NXDomain, None)]
#[case::onion("abc.onion.", rtype::A, ResponseCode::NXDomain, None)]
#[case::reverse_of_10("5.4.3.10.in-addr.arpa.", rtype::PTR, ResponseCode::NXDomain, None)]
#[case::reverse_of_172("5.4.31.172.in-addr.arpa.", rtype::PTR, ResponseCode::NXDomain, None)]
#[case::reverse_of_192("5.4.168.192.in-addr.arpa.", rtype::PTR, ResponseCode::NXDomain, None)]
fn special_use_names_are_answered_here(
    #[case] name: &str,
    #[case] qtype: u16,
    #[case] rcode: ResponseCode,
    #[case] address: Option<&str>,
) {
    let upstream = Upstream::answering("10.0.0.1");
    let tidegate = Tidegate::start(&Config::forwarding_to(&[&upstream]));

    let query = Query::new(name, qtype);
    let answer = tidegate.client().ask(&query);
    assert_eq!(answer.rcode(), rcode);
    assert!(answer.repeats(&query));
    assert_eq!(answer.address_texts(), address.into_iter().collect::<Vec<_>>());
    assert_eq!(upstream.count(name), 0, "a rule for the root does not count");
}

#[test]
fn public_neighbours_of_special_names_are_forwarded() {
    let upstream = Upstream::answering("10.0.0.1");
    let tidegate = Tidegate::start(&Config::forwarding_to(&[&upstream]));

    for name in ["nolocalhost.", "32.172.in-addr.arpa.", "11.in-addr.arpa.", "test.example.", "invalid.example."] {
        assert_eq!(tidegate.client().ask(&Query::a(name)).address_texts(), ["10.0.0.1"], "{name}");
        assert_eq!(upstream.count(name), 1, "{name}");
    }
}

#[test]
fn a_rule_for_a_special_name_wins() {
    let upstream = Upstream::answering("10.0.0.1");
    let config = Config::new().upstream("site", &[&upstream], ONE_PATIENT_TRY).forward(
        "everything",
        &[".", "reverse:private", "corp.test"],
        "site",
        "",
    );
    let tidegate = Tidegate::start(&config);

    for (name, count) in [("5.4.3.10.in-addr.arpa.", 1), ("www.corp.test.", 1), ("www.other.test.", 0)] {
        tidegate.client().ask(&Query::a(name));
        assert_eq!(upstream.count(name), count, "{name}");
    }
}

#[test]
fn switched_off_they_are_names_like_others() {
    let upstream = Upstream::answering("10.0.0.1");
    let config = Config::forwarding_to(&[&upstream]).section("special", "enabled = false");
    let tidegate = Tidegate::start(&config);

    assert_eq!(tidegate.client().ask(&Query::a("www.test.")).address_texts(), ["10.0.0.1"]);
    assert_eq!(upstream.count("www.test."), 1);
}
