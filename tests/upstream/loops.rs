//! Servers whose queries loop back to us are left out, and found and restored by loop probes.

use std::{sync::Arc, time::Duration};

use tidegate::{
    clock::Moment,
    upstream::{
        Alarm, Availability, ExchangeError, Group, HealthState, Loops, Marks, OwnAddresses,
        loops::{
            self, WatchedRule,
            watch::{self, Timing},
        },
        tally::QueryResult,
    },
    wire::{Name, Transport},
};
use tokio::sync::watch::Sender;

use crate::{
    address, build, client, is, on_a_worker, query,
    script::ONE,
    server, spec,
    support::{query::rtype, records::Reply, script::Script, upstream::Upstream},
    udp, until,
};

const HASTY: Timing =
    Timing { every: Duration::from_hours(1), again: Duration::from_millis(100), tag: Duration::from_millis(800) };

/// Watches the group for a rule `aws` of these zones.
fn watch(loops: &Arc<Loops>, group: &Arc<Group>, zones: &[&str], timing: Timing) -> Sender<Arc<[WatchedRule]>> {
    let (sender, receiver) = tokio::sync::watch::channel(Arc::from([target(group, zones)]));
    tokio::task::spawn_local(watch::run(client(), Arc::clone(loops), receiver, timing));
    sender
}

fn target(group: &Arc<Group>, zones: &[&str]) -> WatchedRule {
    WatchedRule::new("aws".into(), &zones.iter().map(|zone| zone.parse().unwrap()).collect(), Arc::clone(group))
}

/// The names below our label that were asked for so far, each once.
fn probes(upstream: &Upstream) -> Vec<Name> {
    let seen = upstream.all_seen().into_iter().map(|seen| seen.name);
    let mut names = Vec::new();
    for name in seen.filter(|name| name.contains(".tidegate-loop.")).map(|name| name.parse().unwrap()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

async fn ask(loops: &Marks, group: &Arc<Group>, name: &str) -> Result<std::net::Ipv4Addr, ExchangeError> {
    let now = Moment::now();
    let exchanged = client().exchange(group, loops, &query(name), now, now + Duration::from_secs(2)).await?;
    Ok(address(&exchanged))
}

fn availability(failure: ExchangeError) -> Availability {
    let ExchangeError::AllFailed(reasons) = failure else { panic!("{failure}") };
    reasons.availability
}

#[test]
fn a_marked_server_is_probed_again_and_used_from_the_first_clean_probe_on() {
    let upstream = Upstream::answering("10.0.0.1");
    let group = build(&spec(&[&[udp(upstream.address)]]));
    let loops = Arc::<Loops>::default();
    on_a_worker(async {
        let _targets = watch(&loops, &group, &["amazonaws.com"], HASTY);
        let (aws, other) = (loops.marks("aws"), loops.marks("other"));
        until("a probe", || probes(&upstream).len() == 1).await;
        let first = probes(&upstream)[0].clone();
        assert!(first.is_within(&"tidegate-loop.amazonaws.com".parse().unwrap()), "{first}");
        for _ in 0..3 {
            assert!(loops.comes_back(first.as_wire(), Moment::now()), "it may come more than once");
        }
        assert!(aws.has(server(&group, 0)) && !other.has(server(&group, 0)));
        assert_eq!(loops.rules_of(server(&group, 0)), ["aws".into()]);
        assert_eq!(availability(ask(&aws, &group, "a.example").await.unwrap_err()), Availability::Loops);
        assert_eq!(ask(&other, &group, "b.example").await.unwrap(), ONE);

        until("a second probe", || probes(&upstream).len() == 2).await;
        let second = probes(&upstream)[1].clone();
        assert_ne!(second, first, "a tag is used once");
        assert!(!loops.comes_back(first.as_wire(), Moment::now()), "the first is over");
        assert!(loops.comes_back(second.as_wire(), Moment::now()));

        until("no mark", || !aws.has(server(&group, 0))).await;
        assert_eq!(probes(&upstream).len(), 3, "the first probe that does not come back clears the mark");
        assert_eq!(ask(&aws, &group, "c.example").await.unwrap(), ONE);
        until("one more probe behind a loop", || probes(&upstream).len() == 4).await;
    });
    assert_eq!(upstream.count("a.example."), 0);
}

#[test]
fn a_server_that_does_not_answer_its_probe_stays_marked() {
    let upstream = Upstream::answering("10.0.0.1");
    let mut spec = spec(&[&[udp(upstream.address)]]);
    spec.limits.timeout = Duration::from_millis(100);
    let group = build(&spec);
    let loops = Arc::<Loops>::default();
    on_a_worker(async {
        let _targets = watch(&loops, &group, &["amazonaws.com"], HASTY);
        until("a probe", || probes(&upstream).len() == 1).await;
        assert!(loops.comes_back(probes(&upstream)[0].as_wire(), Moment::now()));
        upstream.go_silent();
        until("two silent probes, and a third", || probes(&upstream).len() == 4).await;
        assert!(loops.marks("aws").has(server(&group, 0)), "who is silent may lead back as soon as it speaks");
    });
}

#[test]
fn a_server_that_failed_for_the_moment_is_probed_again_before_long() {
    let upstream = Upstream::start();
    upstream.otherwise(Reply::servfail());
    let group = build(&spec(&[&[udp(upstream.address)]]));
    let loops = Arc::<Loops>::default();
    on_a_worker(async {
        let _targets = watch(&loops, &group, &["amazonaws.com"], HASTY);
        until("a third probe", || probes(&upstream).len() == 3).await;
        assert!(loops.comes_back(probes(&upstream)[2].as_wire(), Moment::now()), "what it leads to is there now");
        // An error is an answer that did not come back.
        until("no mark", || !loops.marks("aws").any()).await;
    });
}

#[test]
fn a_tag_that_is_late_or_made_up_marks_nobody() {
    let upstream = Upstream::answering("10.0.0.1");
    let group = build(&spec(&[&[udp(upstream.address)]]));
    let loops = Arc::<Loops>::default();
    on_a_worker(async {
        let _targets = watch(&loops, &group, &["amazonaws.com"], Timing::default());
        until("a probe", || probes(&upstream).len() == 1).await;
        let probe = probes(&upstream)[0].clone();
        let late = Moment::now() + Duration::from_secs(5);
        assert!(!loops.comes_back(probe.as_wire(), late));
        let forged: Name = "00112233445566778899aabbccddeeff.tidegate-loop.amazonaws.com".parse().unwrap();
        assert!(!loops.comes_back(forged.as_wire(), Moment::now()));
        assert!(!loops.marks("aws").any());
        // In time it is one.
        assert!(loops.comes_back(probe.as_wire(), Moment::now()));
    });
}

#[test]
fn every_zone_is_probed_the_widest_where_there_are_many_and_each_loop_counts() {
    let upstream = Upstream::answering("10.0.0.1");
    let group = build(&spec(&[&[udp(upstream.address)]]));
    let loops = Arc::<Loops>::default();
    let names: Vec<String> = (0..2 * loops::ZONES).map(|n| format!("n{n}.corp.example")).collect();
    let mut zones: Vec<&str> = names.iter().map(String::as_str).collect();
    zones.extend([".", "corp.example"]);
    on_a_worker(async {
        let targets = watch(&loops, &group, &zones, HASTY);
        until("a probe of each", || probes(&upstream).len() == loops::ZONES).await;
        let below = |zone: &str| {
            let zone: Name = zone.parse().unwrap();
            let zone = zone.child(b"tidegate-loop").unwrap();
            probes(&upstream).into_iter().find(|name| name.is_within(&zone)).unwrap()
        };
        let marks = loops.marks("aws");
        assert!(loops.comes_back(below("corp.example").as_wire(), Moment::now()));
        assert!(loops.comes_back(below(".").as_wire(), Moment::now()));
        // A rule that loses a zone loses its loop; a server that still has one stays marked.
        targets.send_replace(Arc::from([target(&group, &["."])]));
        until("a probe of the new targets", || probes(&upstream).len() > loops::ZONES).await;
        assert!(marks.has(server(&group, 0)));
        targets.send_replace(Arc::from([target(&group, &["other.example"])]));
        until("no mark", || !marks.any()).await;
    });
}

#[test]
fn no_probe_for_loops_is_held_against_a_server() {
    let upstream = Upstream::start();
    upstream.otherwise(Script::silence());
    upstream.on("known.example.", rtype::A, Reply::a("10.0.0.1"));
    let mut spec = spec(&[&[udp(upstream.address)]]);
    spec.limits.timeout = Duration::from_millis(200);
    let group = build(&spec);
    let (loops, none) = (Arc::<Loops>::default(), Marks::default());
    let zones: Vec<String> = (0..12).map(|n| format!("n{n}.example")).collect();
    let zones: Vec<&str> = zones.iter().map(String::as_str).collect();
    on_a_worker(async {
        assert_eq!(ask(&none, &group, "known.example").await.unwrap(), ONE);
        let (known, rtt) = (server(&group, 0), server(&group, 0).rtt().unwrap().mean);
        let targets = watch(&loops, &group, &zones, HASTY);
        until("silence over more than a time-out", || upstream.all_seen().len() >= 60).await;
        assert!(is(known, HealthState::Up), "names that nobody has may be dropped");
        assert_eq!(known.transitions(HealthState::Suspect), 0);

        upstream.otherwise(Script::late(Duration::from_millis(100), Reply::nxdomain(60)));
        targets.send_replace(Arc::from([target(&group, &zones)]));
        let before = upstream.all_seen().len();
        let has_asked = || upstream.all_seen().len() >= before + zones.len();
        until("an answer for each", || has_asked() && known.tally.in_flight() == 0).await;
        assert_eq!(known.rtt().unwrap().mean, rtt, "nor does a slow name make it a slow server");
        let counted = QueryResult::ALL.map(|result| known.tally.queries(Transport::Udp, result));
        assert_eq!(counted.iter().sum::<u64>(), 1, "the query alone: {counted:?}");
    });
}

/// There are never more than 256 under way.
#[test]
fn every_server_of_many_rules_is_probed_and_probed_again() {
    let upstream = Upstream::answering("10.0.0.1");
    let group = build(&spec(&[&[udp(upstream.address)]]));
    let loops = Arc::<Loops>::default();
    let timing =
        Timing { every: Duration::from_millis(50), again: Duration::from_millis(50), tag: Duration::from_millis(50) };
    let rule = |rule| {
        let zones = (0..20).map(|zone| format!("zone{zone}.rule{rule}.example").parse().unwrap()).collect();
        WatchedRule::new(format!("rule{rule}").into(), &zones, Arc::clone(&group))
    };
    on_a_worker(async {
        let (_targets, receiver) = tokio::sync::watch::channel((0..20).map(rule).collect());
        tokio::task::spawn_local(watch::run(client(), Arc::clone(&loops), receiver, timing));
        let asked = || {
            let mut counts = std::collections::HashMap::new();
            for seen in upstream.all_seen() {
                let zone = seen.name.split_once(".tidegate-loop.").map(|(_, zone)| zone.to_owned());
                *counts.entry(zone).or_insert(0) += 1;
            }
            counts
        };
        // Of each rule 16 zones.
        until("each twice", || asked().values().filter(|count| **count >= 2).count() >= 20 * 16).await;
        assert_eq!(asked().len(), 20 * 16);
        assert!(!(0..20).any(|rule| loops.marks(format!("rule{rule}")).any()));
    });
}

#[test]
fn a_rule_is_down_when_its_servers_without_loops_are_down() {
    let looping = Upstream::answering("10.0.0.1");
    let gone = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let spec = spec(&[&[udp(looping.address), udp(gone)]]);
    let alarm = Arc::new(Alarm::new());
    let group = Arc::new(Group::build(&spec, &OwnAddresses::default(), &alarm));
    let loops = Arc::<Loops>::default();
    on_a_worker(async {
        let _targets = watch(&loops, &group, &["amazonaws.com"], Timing::default());
        until("a probe", || probes(&looping).len() == 1).await;
        assert!(loops.comes_back(probes(&looping)[0].as_wire(), Moment::now()));
        let marks = loops.marks("aws");
        let _health = crate::probe(&group, &alarm);
        until("down", || is(server(&group, 1), HealthState::Down)).await;
        assert!(group.is_down_without(&marks) && !group.is_down());
        // Servers that are down are tried for real, and the one that leads back is not among them.
        for at in 0..10 {
            assert_eq!(
                availability(ask(&marks, &group, &format!("n{at}.example")).await.unwrap_err()),
                Availability::Asked
            );
        }
        assert!(!looping.all_seen().iter().any(|seen| seen.name.starts_with('n')));
    });
}
