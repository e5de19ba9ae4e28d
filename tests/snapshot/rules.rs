//! Entries from a file are served only as today's rules allow.

use crate::{
    restart::{Place, kill, save},
    support::{
        config::{Config, ONE_PATIENT_TRY},
        query::Query,
        tidegate::Tidegate,
        upstream::Upstream,
    },
};

fn config(place: &Place, upstream: &Upstream) -> Config {
    Config::new().section("cache", &place.cache()).upstream("vpc", &[upstream], ONE_PATIENT_TRY)
}

/// Warms `asked` under one configuration, and gives what upstream is asked for under the other.
fn asked_again(before: &dyn Fn(Config) -> Config, after: &dyn Fn(Config) -> Config, asked: &[&str]) -> Vec<usize> {
    let (place, upstream) = (Place::new(), Upstream::answering("10.20.0.1"));
    let tidegate = Tidegate::start(&before(config(&place, &upstream)));
    let ask = |tidegate: &Tidegate| {
        for name in asked {
            assert_eq!(tidegate.client().ask(&Query::a(name)).address_texts(), ["10.20.0.1"], "{name}");
        }
    };
    ask(&tidegate);
    save(&tidegate, &place);
    kill(tidegate);
    let tidegate = Tidegate::start(&after(config(&place, &upstream)));
    ask(&tidegate);
    asked.iter().map(|name| upstream.count(name) - 1).collect()
}

const NAMES: [&str; 2] = ["www.one.example.", "www.two.example."];

fn one(config: Config) -> Config {
    config.forward("one", &["one.example"], "vpc", "")
}

fn two(config: Config) -> Config {
    config.forward("two", &["two.example"], "vpc", "")
}

#[test]
fn rules_in_another_order_are_the_same_rules() {
    assert_eq!(asked_again(&|config| two(one(config)), &|config| one(two(config)), &NAMES), [0, 0]);
}

#[test]
fn entries_of_a_rule_that_changed_its_name_stay_behind() {
    let renamed = |config: Config| two(config.forward("uno", &["one.example"], "vpc", ""));
    assert_eq!(asked_again(&|config| two(one(config)), &renamed, &NAMES), [1, 0]);
}

#[test]
fn entries_of_a_rule_whose_settings_changed_stay_behind() {
    let guarded = |config: Config| {
        let guard = "private = [\"10.20.0.0/16\"]\non_public = \"refuse\"";
        two(config.forward("one", &["one.example"], "vpc", guard))
    };
    assert_eq!(asked_again(&|config| two(one(config)), &guarded, &NAMES), [1, 0]);
    assert_eq!(asked_again(&guarded, &guarded, &NAMES), [0, 0]);
}

#[test]
fn entries_of_a_rule_that_is_gone_stay_behind() {
    let merged = |config: Config| two(config.forward("rest", &["."], "vpc", ""));
    assert_eq!(asked_again(&|config| two(one(config)), &merged, &NAMES), [1, 0]);
}

#[test]
fn a_new_rule_below_takes_its_names() {
    let carved = |config: Config| two(one(config)).forward("www", &["www.one.example"], "vpc", "");
    assert_eq!(asked_again(&|config| two(one(config)), &carved, &NAMES), [1, 0]);
}

#[test]
fn views_stay_apart() {
    let (here, there) = (Upstream::answering("10.1.0.1"), Upstream::answering("10.2.0.1"));
    let place = Place::new();
    let config = |first: bool| {
        let config = Config::new()
            .section("cache", &place.cache())
            .upstream("here", &[&here], ONE_PATIENT_TRY)
            .upstream("there", &[&there], ONE_PATIENT_TRY);
        let lab = |config: Config| config.forward("lab", &["example"], "there", "clients = [\"127.0.0.2/32\"]");
        let config = if first { lab(config) } else { config };
        let config = config.forward("all", &["."], "here", "");
        if first { config } else { lab(config) }
    };
    let ask = |tidegate: &Tidegate, from: &str| {
        tidegate.client().at(from).ask(&Query::a("www.example.")).address_texts().concat()
    };
    let tidegate = Tidegate::start(&config(true));
    for (from, address) in [("127.0.0.1", "10.1.0.1"), ("127.0.0.2", "10.2.0.1")] {
        assert_eq!(ask(&tidegate, from), address);
    }
    save(&tidegate, &place);
    kill(tidegate);
    // The rule has another number now, and its view with it.
    let tidegate = Tidegate::start(&config(false));
    for (from, address) in [("127.0.0.2", "10.2.0.1"), ("127.0.0.1", "10.1.0.1")] {
        assert_eq!(ask(&tidegate, from), address);
    }
    assert_eq!((here.count("www.example."), there.count("www.example.")), (1, 1), "both came from the file");
}
