//! Events that change what is known of a server.

use super::*;
use crate::wire::{Name, RecordType, Transport};

fn server() -> Server {
    let spec = ServerSpec::plain(Transport::Udp, "192.0.2.1:53".parse().unwrap());
    let rules = ServerPolicy {
        health: HealthSpec::probing(Name::root(), RecordType::NS),
        timeout: Duration::from_secs(1),
        max_qps: None,
    };
    Server::new("vpc".into(), spec, rules, Arc::default(), Arc::default())
}

fn query() -> Arc<UpstreamQuery> {
    Arc::new(HealthSpec::probing(Name::root(), RecordType::NS).probe)
}

#[test]
fn a_late_answer_among_others_is_no_doubt() {
    let server = server();
    let start = Moment::now();
    server.answered(&query(), start);
    server.liveness.heard(start + Duration::from_millis(10));
    server.late(start + Duration::from_millis(5), start + Duration::from_millis(30), Role::Traffic);
    assert_eq!(server.state(), HealthState::Up);
    server.late(start + Duration::from_millis(11), start + Duration::from_millis(40), Role::Traffic);
    assert_eq!(server.state(), HealthState::Suspect);
}

#[test]
fn each_refusal_asks_for_a_probe_until_the_server_is_down() {
    let server = server();
    let start = Moment::now();
    let doubts = server.doubts();
    server.observe(Event::Refused, start);
    assert_eq!((server.state(), server.is_judged(), server.doubts()), (HealthState::Suspect, false, doubts + 1));
    server.answered(&query(), start);
    server.observe(Event::Refused, start + Duration::from_millis(1));
    assert_eq!((server.state(), server.doubts()), (HealthState::Suspect, doubts + 2));
    server.observe(Event::Refused, start + Duration::from_millis(2));
    assert_eq!((server.state(), server.is_judged(), server.doubts()), (HealthState::Down, true, doubts + 3));
    server.observe(Event::Refused, start + Duration::from_millis(3));
    assert_eq!(server.doubts(), doubts + 3);
}

#[test]
fn silence_for_every_query_over_a_timeout_is_down() {
    let server = server();
    let start = Moment::now();
    server.answered(&query(), start);
    server.liveness.heard(start);
    for at in 1..=20_u64 {
        let sent_at = start + Duration::from_millis(at);
        server.late(sent_at, sent_at + Duration::from_millis(20), Role::Traffic);
    }
    assert_eq!(server.state(), HealthState::Suspect);
    server.late(start + Duration::from_millis(30), start + Duration::from_millis(360), Role::Probe);
    server.late(start + Duration::from_millis(800), start + Duration::from_millis(890), Role::Traffic);
    assert_eq!(server.state(), HealthState::Suspect);
    server.late(start + Duration::from_millis(810), start + Duration::from_millis(902), Role::Traffic);
    assert_eq!(server.state(), HealthState::Down);
}

#[test]
fn silence_in_traffic_alone_is_not_down() {
    let server = server();
    let start = Moment::now();
    for at in 1..=20_u64 {
        server.liveness.heard(start + Duration::from_secs(at));
        for sent_at in [1, 200, 400, 600, 900].map(|later| start + Duration::from_millis(at * 1000 + later)) {
            server.late(sent_at, sent_at + Duration::from_millis(250), Role::Traffic);
            server.late(sent_at, sent_at + Duration::from_millis(250), Role::Traffic);
        }
    }
    assert_eq!(server.state(), HealthState::Suspect);
}

#[test]
fn one_answer_ends_a_silence() {
    let server = server();
    let start = Moment::now();
    for at in 1..=20_u64 {
        let sent_at = start + Duration::from_millis(at);
        server.late(sent_at, sent_at + Duration::from_millis(20), Role::Traffic);
    }
    server.liveness.heard(start + Duration::from_millis(500));
    server.late(start + Duration::from_millis(900), start + Duration::from_millis(1100), Role::Traffic);
    assert_eq!(server.state(), HealthState::Suspect);
}

#[test]
fn few_lost_queries_are_not_silence() {
    let server = server();
    let start = Moment::now();
    for at in 1..liveness::SILENT_TRIES {
        let sent_at = start + Duration::from_secs(u64::from(at));
        server.late(sent_at, sent_at + Duration::from_millis(250), Role::Traffic);
    }
    assert_eq!(server.state(), HealthState::Suspect);
}

#[test]
fn each_doubt_wakes_the_prober_once() {
    let server = server();
    let now = Moment::now();
    let before = server.doubts();
    server.answered(&query(), now);
    server.observe(Event::Broken, now);
    server.observe(Event::Broken, now);
    assert_eq!(server.doubts(), before + 1);
    assert_eq!(server.transitions(HealthState::Suspect), 1);
}
