//! No configuration turns the guard off unnoticed: a guard without effect is refused, a weak one is warned of.

use rstest::rstest;
use tidegate::config::{Color, Plan};

use crate::{problems, warnings};

/// A rule for `zones` with these keys, beside one for the rest.
fn rule(zones: &str, keys: &str) -> String {
    format!(
        "[special]\nenabled = false\n[upstream.vpc]\nservers = [\"10.20.1.10\"]\n[upstream.site]\nservers = \
         [\"10.1.1.53\"]\n[[forward]]\nzones = [\".\"]\nto = \"site\"\n[[forward]]\nname = \"aws\"\nto = \"vpc\"\nzones = \
         {zones}\n{keys}\n"
    )
}

const GUARD: &str = "private = [\"10.20.0.0/16\"]\non_public = \"refuse\"";

#[rstest]
#[case::absent("on_public = \"refuse\"")]
#[case::empty("private = []\non_public = \"log\"")]
fn a_guard_without_networks_is_refused(#[case] keys: &str) {
    let found = problems(&rule("[\"amazonaws.com\"]", keys));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("rule \"aws\" has `on_public` and no networks in `private`"), "{found:?}");
}

#[rstest]
#[case::the_zone_itself("[\"s3.amazonaws.com\"]", "[\"s3.amazonaws.com\"]")]
#[case::a_domain_above("[\"s3.amazonaws.com\"]", "[\"amazonaws.com\"]")]
#[case::the_root("[\"s3.amazonaws.com\", \"api.aws\"]", "[\".\"]")]
#[case::one_by_one("[\"s3.amazonaws.com\", \"api.aws\"]", "[\"amazonaws.com\", \"API.aws.\"]")]
#[case::a_preset(
    "[\"preset:aws\"]",
    "[\"amazonaws.com\", \"api.aws\", \"on.aws\", \"sagemaker.aws\", \"compute.internal\", \"ec2.internal\", \
     \"compute-1.internal\"]"
)]
fn an_except_that_leaves_nothing_guarded_is_refused(#[case] zones: &str, #[case] except: &str) {
    for keys in [GUARD, "rebind = \"refuse\""] {
        let found = problems(&rule(zones, &format!("{keys}\nexcept = {except}")));
        assert_eq!(found.len(), 1, "{keys}: {found:?}");
        assert!(found[0].contains("rule \"aws\" excepts all of its zones: it guards nothing"), "{found:?}");
    }
}

#[test]
fn the_advice_for_an_except_never_spares_a_zone_again() {
    let text = rule("[\"s3.amazonaws.com\"]", &format!("{GUARD}\nexcept = [\"s3.amazonaws.com\"]"));
    let said = Plan::from_text("t.toml", &text).expect_err("nothing is guarded").render(Color::Never);
    assert!(said.contains("such as \"public-only.s3.amazonaws.com\""), "{said}");
}

#[rstest]
#[case::no_guard("", true)]
#[case::a_guard(GUARD, false)]
#[case::rebinding("rebind = \"refuse\"", false)]
fn an_except_without_a_guard_is_warned_of(#[case] keys: &str, #[case] expected: bool) {
    let found = warnings(&rule("[\"corp.example\"]", &format!("{keys}\nexcept = [\"app.corp.example\"]")));
    assert_eq!(found.len(), usize::from(expected), "{found:?}");
    assert!(!expected || found[0].contains("guards nothing that could be spared"), "{found:?}");
}

#[rstest]
#[case::below("[\"amazonaws.com\"]", "[\"s3.amazonaws.com\"]", None)]
#[case::one_of_two("[\"s3.amazonaws.com\", \"api.aws\"]", "[\"api.aws\"]", Some("which is all of its zone api.aws"))]
#[case::above_one_of_two(
    "[\"s3.amazonaws.com\", \"api.aws\"]",
    "[\"amazonaws.com\"]",
    Some("which is above its zone s3.amazonaws.com and spares nothing")
)]
#[case::elsewhere("[\"amazonaws.com\"]", "[\"corp.example\"]", Some("which is below none of its zones"))]
fn an_except_that_spares_a_zone_or_nothing_is_warned_of(
    #[case] zones: &str,
    #[case] except: &str,
    #[case] warning: Option<&str>,
) {
    let found = warnings(&rule(zones, &format!("{GUARD}\nexcept = {except}")));
    assert_eq!(found.len(), usize::from(warning.is_some()), "{found:?}");
    assert!(warning.is_none_or(|warning| found[0].contains(warning)), "{found:?}");
}

#[rstest]
#[case::a_preset("[\"preset:aws\"]", "", true)]
#[case::a_service("[\"corp.example\", \"s3.eu-west-1.amazonaws.com\"]", "", true)]
#[case::another_partition("[\"preset:aws-cn\"]", "private = []", true)]
#[case::for_some_clients("[\"preset:aws\"]", "clients = [\"10.9.0.0/16\"]", true)]
#[case::guarded("[\"preset:aws\"]", GUARD, false)]
#[case::counted("[\"preset:aws\"]", "private = [\"10.20.0.0/16\"]\non_public = \"log\"", false)]
#[case::no_aws_name("[\"cloud.corp.example\"]", "", false)]
fn aws_names_without_a_guard_are_warned_of(#[case] zones: &str, #[case] keys: &str, #[case] expected: bool) {
    let found = warnings(&rule(zones, keys));
    assert_eq!(found.len(), usize::from(expected), "{found:?}");
    assert!(!expected || found[0].contains("rule \"aws\" sends AWS names"), "{found:?}");
}

#[rstest]
#[case::everything("0.0.0.0/0", true)]
#[case::everything_in_ipv6("::/0", true)]
#[case::half("128.0.0.0/1", true)]
#[case::more_than_private("172.0.0.0/8", true)]
#[case::of_aws("52.94.0.0/16", true)]
#[case::global_ipv6("2600:1f00::/24", true)]
#[case::mapped("::ffff:0.0.0.0/96", true)]
#[case::translated_by_nat64("64:ff9b::/96", true)]
#[case::translated_by_6to4("2002:3400::/24", true)]
#[case::a_part_of_6to4("2002:3401:203::/48", true)]
#[case::ipv4_compatible("::/80", true)]
#[case::a_vpc_in_ipv6("2600:1f18:1234:5600::/56", false)]
#[case::rfc1918("172.16.0.0/12", false)]
#[case::shared("100.64.0.0/10", false)]
#[case::unique_local("fd00::/8", false)]
fn public_networks_in_private_are_warned_of(#[case] network: &str, #[case] expected: bool) {
    let text =
        rule("[\"preset:aws\"]", &format!("private = [\"10.20.0.0/16\", \"{network}\"]\non_public = \"refuse\""));
    let found = warnings(&text);
    assert_eq!(found.len(), usize::from(expected), "{found:?}");
    assert!(!expected || found[0].contains("it holds public addresses"), "{found:?}");
}

#[test]
fn aliases_that_are_not_followed_past_a_guard_are_warned_of() {
    let text = rule("[\"preset:aws\"]", GUARD).replace("to = \"site\"", "to = \"site\"\nfollow = false");
    let found = warnings(&text);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("rule \".\" does not follow"), "{found:?}");
}

/// Sockets for both families show IPv4 clients as mapped ones, and files name networks that way.
#[rstest]
#[case::in_allow("[server]\nallow = [\"NETWORK\"]\n")]
#[case::in_deny("[server]\ndeny = [\"NETWORK\"]\n")]
#[case::in_admin_allow("[admin]\nallow = [\"NETWORK\"]\n")]
#[case::in_clients("[[forward]]\nzones = [\"a.example\"]\nto = \"vpc\"\nclients = [\"NETWORK\"]\n")]
#[case::in_private(
    "[[forward]]\nzones = [\"a.example\"]\nto = \"vpc\"\nprivate = [\"NETWORK\"]\non_public = \"refuse\"\n"
)]
#[case::in_expect(
    "[upstream.b]\nservers = [\"10.1.1.1\"]\nhealth = { probe = \"a.example A\", expect = [\"NETWORK\"] }\n"
)]
fn a_mapped_network_is_ipv4_wherever_it_is_read(#[case] template: &str) {
    let base = "[upstream.vpc]\nservers = [\"10.20.1.10\"]\n";
    let with = |network: &str| format!("{base}{}", template.replace("NETWORK", network));
    assert_eq!(crate::plan(&with("::ffff:10.0.0.0/104")).live, crate::plan(&with("10.0.0.0/8")).live);
    let found = problems(&with("::ffff:0.0.0.0/95"));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("IPv4-mapped"), "{found:?}");
}

#[test]
fn the_reverse_zones_of_a_mapped_network_are_those_of_ipv4() {
    let zones = |network: &str| crate::plan(&rule(&format!("[\"reverse:{network}\"]"), "")).live.rules[1].zones.clone();
    assert_eq!(zones("::ffff:10.20.0.0/112"), zones("10.20.0.0/16"));
}
