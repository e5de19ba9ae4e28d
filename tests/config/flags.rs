//! The sidecar without a file, and flags over a file.

use std::path::Path;

use tidegate::config::{OnPublic, Plan, ServeFlags, ServerAddress};

use crate::lines;

fn list(text: &str) -> Vec<String> {
    vec![text.to_owned()]
}

#[test]
fn a_sidecar_needs_no_file() {
    let flags = ServeFlags {
        listen: list("127.0.0.1:5353"),
        aws: list("10.20.1.10,10.20.2.10"),
        default: list("system"),
        private: list("10.20.0.0/16"),
        on_public: None,
        ..ServeFlags::default()
    };
    let plan = Plan::from_flags(&flags).unwrap();
    assert_eq!(plan.boot.listen.len(), 1);
    let rules: Vec<&str> = plan.live.rules.iter().map(|rule| &*rule.name).collect();
    assert_eq!(rules, ["aws", "default"]);
    let reverse = |name: &str| plan.live.rules[1].zones.contains(&name.parse().unwrap());
    assert!(reverse(".") && reverse("10.in-addr.arpa") && reverse("168.192.in-addr.arpa"), "all other names");
    assert_eq!(lines(&plan.warnings), [""; 0]);
    assert_eq!(plan.live.groups[0].tiers[0].len(), 2);
    assert_eq!(plan.live.groups[1].tiers[0][0].address, ServerAddress::System { path: None });
    let guard = plan.live.rules[0].guard.as_ref().unwrap();
    assert_eq!(guard.on_public, OnPublic::Refuse);
}

#[test]
fn an_empty_variable_is_one_that_is_not_set() {
    let flags = ServeFlags { aws: list("10.20.1.10"), default: list(""), private: list(""), ..ServeFlags::default() };
    let plan = Plan::from_flags(&flags).unwrap();
    assert_eq!(plan.live.rules.len(), 1);
    assert_eq!(plan.live.rules[0].guard, None);
}

#[test]
fn flags_beat_the_file() {
    let flags = ServeFlags {
        listen: list("127.0.0.1:5353"),
        aws: list("10.99.1.10"),
        private: list("10.99.0.0/16"),
        on_public: Some("strip".to_owned()),
        ..ServeFlags::default()
    };
    let plan = Plan::load_with(Path::new("config/site.toml"), &flags).unwrap();
    assert_eq!(plan.boot.listen[0].endpoint.to_string(), "127.0.0.1:5353");
    let rule = plan.live.rules.iter().find(|rule| *rule.name == *"aws").unwrap();
    assert_eq!(plan.live.group(rule.to).tiers[0][0].address.to_string(), "10.99.1.10");
    let guard = rule.guard.as_ref().unwrap();
    assert_eq!(guard.networks, ["10.99.0.0/16".parse().unwrap()]);
    assert_eq!(guard.on_public, OnPublic::Strip);
}

#[test]
fn problems_with_a_flag_name_the_flag() {
    let flags = ServeFlags {
        listen: list("x"),
        aws: list("10.20.1.10,"),
        on_public: Some("drop".to_owned()),
        private: list("10.20.0.0/16,z"),
        ..ServeFlags::default()
    };
    let Err(problems) = Plan::from_flags(&flags) else { panic!("they are wrong") };
    assert_eq!(
        lines(&problems),
        [
            "--listen: listen \"x\" is no address to listen on: it is not an IPv4 or IPv6 address",
            "--aws: server \"\" cannot be used: it is empty",
            "--on-public: on_public cannot be \"drop\"; it is one of log, strip, refuse",
            "--private: \"z\" is not a network",
        ]
    );
    let Err(problems) = Plan::from_flags(&ServeFlags { private: list("10.0.0.0/8"), ..ServeFlags::default() }) else {
        panic!("nothing to guard")
    };
    assert_eq!(lines(&problems), ["--private: there is no rule for preset:aws to guard"]);
}
