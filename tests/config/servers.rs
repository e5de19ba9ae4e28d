//! Addresses of servers and listeners: what looks as if a port was meant, and budgets of one address in two groups.

use rstest::rstest;

use crate::{BASE, problems, warnings};

#[rstest]
#[case::a_server("fd00::53:53", true)]
#[case::loopback("::1:53", true)]
#[case::over_tcp("tcp://fd00::53:5353", true)]
#[case::over_tls("tls://fd00::53:853#dns.example", true)]
#[case::brackets("[fd00::53:53]", false)]
#[case::no_port("fd00::53", false)]
#[case::eight_groups("fd00:1:2:3:4:5:6:53", false)]
fn an_ipv6_address_that_looks_as_if_a_port_was_meant_is_warned_of(#[case] server: &str, #[case] expected: bool) {
    let found = warnings(&BASE.replace("10.20.1.10", server));
    assert_eq!(found.len(), usize::from(expected), "{found:?}");
    assert!(!expected || found[0].contains("was meant as a port"), "{found:?}");
}

#[test]
fn a_listener_and_a_source_may_hide_a_port_too() {
    for text in [
        format!("{BASE}[server]\nlisten = [\"::1:53\"]"),
        format!("{BASE}[admin]\nhttp = \"::1:9153\""),
        BASE.replace("servers = [\"10.20.1.10\"]", "servers = [\"fd00::1\"]\nsource = \"fd00::2:53\""),
    ] {
        let found = warnings(&text);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert!(found[0].contains("was meant as a port"), "{found:?}");
    }
}

#[rstest]
#[case::dnsmasq("10.1.1.53#5353", "10.1.1.53:5353")]
#[case::unbound("10.1.1.53@5353", "10.1.1.53:5353")]
#[case::bind("10.1.1.53 port 5353", "10.1.1.53:5353")]
#[case::ipv6("fd00::53@5353", "[fd00::53]:5353")]
#[case::with_a_scheme("tcp://10.1.1.53@5353", "tcp://10.1.1.53:5353")]
#[case::with_a_name("10.1.1.53@853#dns.example", "tls://10.1.1.53:853#dns.example")]
fn the_notation_of_other_programs_gets_ours_as_advice(#[case] server: &str, #[case] advice: &str) {
    let found = problems(&BASE.replace("10.20.1.10", server));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].ends_with(&format!("write \"{advice}\"")), "{found:?}");
}

#[test]
fn a_listener_in_the_notation_of_other_programs_gets_ours_as_advice() {
    let found = problems(&format!("{BASE}[server]\nlisten = [\"127.0.0.1@5353\"]"));
    assert!(found[0].ends_with("write \"127.0.0.1:5353\""), "{found:?}");
}

#[rstest]
#[case::both_the_same("max_qps = 1500", "max_qps = 1500", None)]
#[case::one_without("max_qps = 1500", "", Some("1500 in upstream \"vpc\" and no limit in upstream \"b\""))]
#[case::both("max_qps = 1500", "max_qps = 900", Some("1500 in upstream \"vpc\" and 900 in upstream \"b\""))]
fn two_budgets_for_one_address_are_warned_of(#[case] one: &str, #[case] two: &str, #[case] expected: Option<&str>) {
    let base = BASE.replace("servers", &format!("{one}\nservers"));
    let text = format!(
        "{base}[upstream.b]\nservers = [\"10.9.9.9\"]\nbackup = [[\"tcp://10.20.1.10\"]]\n{two}\n[[forward]]\nzones = \
         [\"a.example\"]\nto = \"b\"\n"
    );
    let found = warnings(&text);
    assert_eq!(found.len(), usize::from(expected.is_some()), "{found:?}");
    assert!(expected.is_none_or(|expected| found[0].contains(expected)), "{found:?}");
}
