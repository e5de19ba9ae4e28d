use std::{collections::BTreeSet, time::Duration};

use super::{super::TRIALS, *};
use crate::{
    upstream::{
        GroupLimits, GroupSpec, HealthSpec, OwnAddresses, ServerSpec, TierMember,
        server::health::{Event, ProbeError},
    },
    wire::{Name, RecordType, Transport},
};

type QueueSlot = (u8, u8);

fn spec(policy: Policy, tiers: &[usize]) -> GroupSpec {
    let mut port = 0;
    let mut servers = |count: usize| {
        let mut server = || {
            port += 1;
            TierMember::Server(ServerSpec::plain(Transport::Udp, ([127, 0, 0, 1], port).into()))
        };
        (0..count).map(|_| server()).collect()
    };
    GroupSpec {
        name: "vpc".into(),
        tiers: tiers.iter().map(|&count| servers(count)).collect(),
        policy,
        limits: GroupLimits::default(),
        health: HealthSpec::probing(Name::root(), RecordType::NS),
    }
}

fn build(spec: &GroupSpec) -> Group {
    Group::build(spec, &OwnAddresses::default(), &Arc::default())
}

fn server(group: &Group, (tier, place): QueueSlot) -> &Arc<Server> {
    &group.tiers()[usize::from(tier)][usize::from(place)]
}

/// A server that nobody has asked yet is suspect.
fn bring(group: &Group, state: HealthState, places: &[QueueSlot]) {
    for &place in places {
        let server = server(group, place);
        match state {
            HealthState::Up => server.observe(Event::ProbePassed, Moment::now()),
            HealthState::Suspect => {}
            HealthState::Down => server.observe(Event::Silent, Moment::now()),
        }
        assert_eq!(server.state(), state);
    }
}

fn places(group: &Group, loops: &Marks) -> Vec<QueueSlot> {
    let candidates = Candidates::of(group, loops, Moment::now()).unwrap();
    candidates.as_slice().iter().map(|candidate| (candidate.tier, candidate.place)).collect()
}

/// Which servers come first, over many turns, and in what order the last turn had all.
fn first(group: &Group) -> (BTreeSet<u8>, Vec<u8>) {
    let turns: Vec<Vec<u8>> =
        (0..24).map(|_| places(group, &Marks::default()).iter().map(|(_, place)| *place).collect()).collect();
    (turns.iter().map(|turn| turn[0]).collect(), turns[23].clone())
}

#[test]
fn those_that_are_up_come_before_doubtful_ones_tier_by_tier_and_those_down_last() {
    let group = build(&spec(Policy::Ordered, &[3, 3]));
    bring(&group, HealthState::Up, &[(0, 1), (1, 0)]);
    bring(&group, HealthState::Down, &[(0, 2), (1, 2)]);
    let loops = Marks::default();
    assert_eq!(places(&group, &loops), [(0, 1), (0, 0), (1, 0), (1, 1), (0, 2), (1, 2)]);
    server(&group, (0, 1)).drain();
    assert_eq!(places(&group, &loops), [(0, 0), (1, 0), (1, 1), (0, 2), (1, 2)]);
    loops.set(server(&group, (1, 0)).id(), &Name::root());
    assert_eq!(places(&group, &loops), [(0, 0), (1, 1), (0, 2), (1, 2)]);
}

#[test]
fn the_tier_in_use_comes_first() {
    let group = build(&spec(Policy::Ordered, &[2, 1, 1]));
    bring(&group, HealthState::Down, &[(0, 0), (0, 1), (1, 0)]);
    assert_eq!(places(&group, &Marks::default()), [(2, 0), (0, 0), (0, 1), (1, 0)]);
    // Back up, and not yet for long enough to be the tier in use again.
    (0..2).for_each(|_| server(&group, (0, 1)).observe(Event::ProbePassed, Moment::now()));
    assert_eq!(places(&group, &Marks::default()), [(2, 0), (0, 1), (0, 0), (1, 0)]);
}

#[test]
fn without_a_server_it_is_said_why() {
    let group = build(&spec(Policy::Ordered, &[1, 1]));
    let (loops, now) = (Marks::default(), Moment::now());
    let why = |group: &Group, loops: &Marks| Candidates::of(group, loops, now).map(|_| ()).unwrap_err();
    loops.set(server(&group, (0, 0)).id(), &Name::root());
    assert_eq!(places(&group, &loops), [(1, 0)]);
    server(&group, (1, 0)).drain();
    assert_eq!(why(&group, &loops), Availability::Loops);
    server(&group, (0, 0)).drain();
    assert_eq!(why(&group, &loops), Availability::NoServers);
}

#[test]
fn with_expect_a_server_that_is_down_is_never_asked() {
    let mut spec = spec(Policy::Ordered, &[2]);
    spec.health.expect = vec!["10.0.0.0/8".parse().unwrap()];
    let group = build(&spec);
    bring(&group, HealthState::Up, &[(0, 0)]);
    bring(&group, HealthState::Down, &[(0, 1)]);
    assert_eq!(places(&group, &Marks::default()), [(0, 0)]);
    bring(&group, HealthState::Down, &[(0, 0)]);
    let now = Moment::now() + Duration::from_secs(60);
    assert_eq!(Candidates::of(&group, &Marks::default(), now).unwrap_err(), Availability::AllDown);
}

/// How many at a time is for the exchange to say.
#[test]
fn all_servers_may_be_tried_when_all_are_down() {
    let group = build(&spec(Policy::Ordered, &[2]));
    bring(&group, HealthState::Down, &[(0, 1)]);
    let candidates = || Candidates::of(&group, &Marks::default(), Moment::now()).unwrap();
    assert!(!candidates().are_all_down());
    bring(&group, HealthState::Down, &[(0, 0)]);
    let candidates = candidates();
    assert!(candidates.are_all_down());
    assert_eq!(candidates.as_slice().len(), 2);
}

/// Such a server answers at once, and perhaps only its probe's name is refused.
#[test]
fn a_server_down_for_the_errors_it_answers_is_asked_all_the_same() {
    let group = build(&spec(Policy::Ordered, &[1]));
    (0..3).for_each(|_| server(&group, (0, 0)).observe(Event::ProbeFailed(ProbeError::Rcode), Moment::now()));
    assert_eq!(server(&group, (0, 0)).state(), HealthState::Down);
    let now = Moment::now();
    assert!((0..20).all(|_| Candidates::of(&group, &Marks::default(), now).is_ok()));
}

#[test]
fn ordered_keeps_the_order_and_spread_takes_turns() {
    let ordered = build(&spec(Policy::Ordered, &[3]));
    server(&ordered, (0, 2)).sample(Duration::from_millis(1));
    assert_eq!(first(&ordered), (BTreeSet::from([0]), vec![0, 1, 2]));
    let spread = build(&spec(Policy::Spread, &[3]));
    server(&spread, (0, 2)).sample(Duration::from_millis(900));
    assert_eq!(first(&spread).0, BTreeSet::from([0, 1, 2]));
}

#[test]
fn fastest_spreads_over_all_that_are_about_as_fast_and_puts_the_others_behind_by_their_rtt() {
    for (millis, fast, slow) in [
        // Within half as much again of the lowest.
        (&[Some(20), Some(30), Some(31), Some(90)][..], &[0, 1][..], &[2, 3][..]),
        // Within five milliseconds of it.
        (&[Some(8), Some(2), Some(7)], &[1, 2], &[0]),
        // A server without an RTT counts as fast, and not as the lowest.
        (&[None, Some(20), Some(30), Some(31)], &[0, 1, 2], &[3]),
        (&[Some(90), Some(20), Some(60)], &[1], &[2, 0]),
        (&[Some(90), Some(20)], &[1], &[0]),
        (&[None, None], &[0, 1], &[]),
    ] {
        let group = build(&spec(Policy::Fastest, &[millis.len()]));
        for (server, millis) in group.servers().zip(millis) {
            millis.iter().for_each(|&millis| server.sample(Duration::from_millis(millis)));
        }
        let (ahead, last) = first(&group);
        assert_eq!(ahead, fast.iter().copied().collect(), "{millis:?}");
        assert_eq!(last[fast.len()..], *slow, "{millis:?}");
    }
}

#[test]
fn what_one_query_gives_back_another_may_take() {
    let mut spec = spec(Policy::Ordered, &[1]);
    spec.limits.in_flight = 2;
    let group = build(&spec);
    for _ in 0..3 {
        let slots = [group.enter(), group.enter()];
        assert!(slots.iter().all(Option::is_some) && group.enter().is_none());
        assert_eq!(group.in_flight(), 2);
        drop(slots);
        let permits: Vec<_> = (0..TRIALS).map(|_| group.enter_trial()).collect();
        assert!(permits.iter().all(Option::is_some) && group.enter_trial().is_none());
    }
    assert_eq!(group.in_flight(), 0);
}

#[test]
fn the_first_verdict_is_one_server_that_answers_or_all_that_do_not() {
    let (up, down) = (build(&spec(Policy::Ordered, &[2])), build(&spec(Policy::Ordered, &[1, 1])));
    assert!(!up.has_first_verdict() && !up.is_down());
    bring(&up, HealthState::Up, &[(0, 1)]);
    assert!(up.has_first_verdict() && !up.is_down());
    bring(&down, HealthState::Down, &[(0, 0)]);
    assert!(!down.has_first_verdict() && !down.is_down(), "the other may answer");
    bring(&down, HealthState::Down, &[(1, 0)]);
    assert!(down.has_first_verdict() && down.is_down());
    let none = build(&spec(Policy::Ordered, &[0]));
    assert!(none.has_first_verdict() && none.is_down());
}

#[test]
fn a_better_tier_waits_for_fail_back_unless_the_tier_in_use_fails() {
    let spec = spec(Policy::Ordered, &[1, 1]);
    let (group, fail_back, second) = (build(&spec), spec.limits.fail_back, Duration::from_secs(1));
    let fall = |place, now| server(&group, place).observe(Event::Silent, now);
    let rise = |place, now| (0..2).for_each(|_| server(&group, place).observe(Event::ProbePassed, now));
    let start = Moment::now();
    rise((1, 0), start);
    assert_eq!(group.tier(start), 0);
    fall((0, 0), start);
    assert_eq!(group.tier(start), 1);
    let risen = start + second;
    rise((0, 0), risen);
    assert_eq!(group.tier(risen + (fail_back - Duration::from_millis(1))), 1);
    assert_eq!(group.tier(risen + fail_back), 0);
    let later = risen + fail_back + second;
    fall((0, 0), later);
    assert_eq!(group.tier(later), 1);
    rise((0, 0), later + second);
    assert_eq!(group.tier(later + second), 1);
    fall((1, 0), later + second);
    assert_eq!(group.tier(later + second), 0);
}
