//! Servers change state only for good reasons, and what is known of them survives a reload.

use std::{sync::Arc, time::Duration};

use rstest::rstest;
use tidegate::{
    clock::Moment,
    config::Recursion,
    upstream::{
        Alarm, Availability, ExchangeError, Group, GroupSpec, HealthState, OwnAddresses, ServerRegistry, TierMember,
        health::ProbeError, tally::QueryResult,
    },
    wire::Transport,
};

use crate::{
    address, ask, ask_now, by_default, client, is, on_a_worker, probe,
    script::{ONE, Says, Script, TWO},
    server, spec, tcp, udp, until, watched,
};

#[test]
fn the_first_verdict_comes_from_the_first_probes() {
    let (good, dead) = (Script::new(Says::Address(ONE)), Script::new(Says::Nothing));
    let mut both = spec(&[&[udp(good.address), udp(dead.address)]]);
    both.limits.timeout = Duration::from_millis(200);
    let (group, alarm) = watched(&both);
    assert!(!group.has_first_verdict());
    on_a_worker(async {
        let _probes = probe(&group, &alarm);
        until("a verdict", || group.has_first_verdict()).await;
    });
    let mut alone = spec(&[&[udp(dead.address)]]);
    alone.limits.timeout = Duration::from_millis(200);
    let (group, alarm) = watched(&alone);
    on_a_worker(async {
        let _probes = probe(&group, &alarm);
        until("a verdict", || group.has_first_verdict()).await;
    });
}

#[test]
fn a_silent_server_goes_down_and_comes_back() {
    let script = Script::new(Says::Address(ONE));
    let mut spec = spec(&[&[udp(script.address)]]);
    spec.limits.timeout = Duration::from_millis(100);
    let (group, alarm) = watched(&spec);
    on_a_worker(async {
        let _probes = probe(&group, &alarm);
        let server = server(&group, 0);
        until("up", || is(server, HealthState::Up)).await;
        script.say(Says::Nothing);
        until("down", || is(server, HealthState::Down)).await;
        assert!(group.is_down());
        assert_eq!(server.last_probe_error(), Some(ProbeError::Silent));
        script.say(Says::Address(ONE));
        let mended = Moment::now();
        until("up again", || is(server, HealthState::Up)).await;
        // Two probes, 100 ms apart with a fifth of jitter, and the one already under way.
        assert!(Moment::now().since(mended) < Duration::from_millis(600));
        assert_eq!(server.transitions(HealthState::Down), 1);
    });
}

#[test]
fn a_thousand_broken_names_do_not_bring_a_server_down() {
    let scripts = [Script::new(Says::Address(ONE)), Script::new(Says::Address(TWO))];
    for script in &scripts {
        script.break_names("broken");
    }
    let (group, alarm) = watched(&spec(&[&[udp(scripts[0].address), udp(scripts[1].address)]]));
    on_a_worker(async {
        let _probes = probe(&group, &alarm);
        until("both up", || group.servers().all(|server| is(server, HealthState::Up))).await;
        let client = client();
        for at in 0..1000 {
            let failure = ask(&client, &group, &format!("broken{at}.example")).await.unwrap_err();
            assert!(matches!(failure, ExchangeError::AllFailed(_)));
            assert!(!group.is_down());
        }
        // A hedge may have been first.
        assert!([ONE, TWO].contains(&address(&ask(&client, &group, "a.example").await.unwrap())));
        for server in group.servers() {
            assert_eq!(server.transitions(HealthState::Down), 0);
        }
    });
    // Two tries a name, a third where a busy machine made one late, and a probe now and then.
    assert!(scripts.iter().map(Script::queries).sum::<usize>() < 3200);
}

#[test]
fn slow_names_do_not_bring_a_server_down() {
    let script = Script::new(Says::Address(ONE));
    let (group, alarm) = watched(&spec(&[&[udp(script.address)]]));
    on_a_worker(async {
        let _probes = probe(&group, &alarm);
        until("up", || is(server(&group, 0), HealthState::Up)).await;
        script.delay(Duration::from_millis(300));
        let client = client();
        for at in 0..4 {
            assert_eq!(address(&ask(&client, &group, &format!("slow{at}.example")).await.unwrap()), ONE);
        }
        assert_eq!(server(&group, 0).transitions(HealthState::Down), 0);
    });
}

#[test]
fn servfail_raises_a_doubt_that_a_probe_clears() {
    let scripts = [Script::new(Says::Address(ONE)), Script::new(Says::Address(TWO))];
    scripts[0].break_names("broken");
    let mut spec = spec(&[&[udp(scripts[0].address), udp(scripts[1].address)]]);
    spec.health.interval = Duration::from_secs(60);
    spec.health.interval_down = Duration::from_millis(100);
    let (group, alarm) = watched(&spec);
    on_a_worker(async {
        let _probes = probe(&group, &alarm);
        until("both up", || group.servers().all(|server| is(server, HealthState::Up))).await;
        let client = client();
        let first = server(&group, 0);
        let suspected = first.transitions(HealthState::Suspect);
        until("a doubt", || first.transitions(HealthState::Suspect) > suspected || ask_now(&client, &group)).await;
        until("cleared", || is(first, HealthState::Up)).await;
        assert_eq!(first.transitions(HealthState::Down), 0);
    });
}

/// A port that nobody listens on.
fn gone(transport: Transport) -> TierMember {
    if transport == Transport::Tcp {
        tcp(std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap())
    } else {
        udp(std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap())
    }
}

#[rstest]
#[case::icmp(Transport::Udp)]
#[case::a_refused_connect(Transport::Tcp)]
fn one_refusal_leads_to_the_next_server_and_is_a_doubt(#[case] transport: Transport) {
    let good = Script::new(Says::Address(TWO));
    let mut spec = spec(&[&[gone(transport), udp(good.address)]]);
    // A second try of the same query would be a second refusal.
    spec.limits.attempts = 2;
    let (group, _alarm) = watched(&spec);
    on_a_worker(async {
        assert_eq!(address(&ask(&client(), &group, "a.example").await.unwrap()), TWO);
        assert!(is(server(&group, 0), HealthState::Suspect));
    });
}

#[rstest]
#[case::icmp(Transport::Udp)]
#[case::a_refused_connect(Transport::Tcp)]
fn a_server_that_refuses_twice_is_down_long_before_its_probes_say_so(#[case] transport: Transport) {
    let good = Script::new(Says::Address(TWO));
    let mut spec = spec(&[&[gone(transport)], &[udp(good.address)]]);
    // Probes by the clock alone would need the whole test's patience.
    (spec.health.interval_down, spec.health.fall) = (Duration::from_secs(600), 100);
    let (group, alarm) = watched(&spec);
    on_a_worker(async {
        let _probes = probe(&group, &alarm);
        until("down", || is(server(&group, 0), HealthState::Down)).await;
        assert_eq!(address(&ask(&client(), &group, "a.example").await.unwrap()), TWO);
        assert_eq!(group.tier(Moment::now()), 1);
    });
}

#[test]
fn while_all_are_down_a_bounded_number_of_queries_is_tried() {
    let script = Script::new(Says::Nothing);
    let mut spec = spec(&[&[udp(script.address)]]);
    spec.limits.timeout = Duration::from_millis(200);
    let (group, alarm) = watched(&spec);
    on_a_worker(async {
        let probes = probe(&group, &alarm);
        until("down", || group.is_down()).await;
        drop(probes);
        let client = client();
        let before = script.queries();
        let mut asking = tokio::task::JoinSet::new();
        for at in 0..200 {
            let (client, group) = (std::rc::Rc::clone(&client), Arc::clone(&group));
            asking.spawn_local(async move { ask(&client, &group, &format!("n{at}.example")).await.unwrap_err() });
        }
        let is_left_out = |failure: &ExchangeError| matches!(failure, ExchangeError::AllFailed(reasons) if reasons.availability == Availability::AllDown);
        let left_out = asking.join_all().await.iter().filter(|failure| is_left_out(failure)).count();
        assert_eq!(left_out, 200 - 32);
        let tried = script.queries() - before;
        assert!((32..=96).contains(&tried), "{tried} queries to a server that is down");
    });
}

#[test]
fn the_first_answer_ends_an_outage() {
    let script = Script::new(Says::Nothing);
    let mut spec = by_default(&[&[udp(script.address)]]);
    spec.limits.timeout = Duration::from_millis(200);
    let (group, alarm) = watched(&spec);
    on_a_worker(async {
        let probes = probe(&group, &alarm);
        until("down", || group.is_down()).await;
        drop(probes);
        script.say(Says::Address(ONE));
        assert_eq!(address(&ask(&client(), &group, "a.example").await.unwrap()), ONE);
        assert!(is(server(&group, 0), HealthState::Up));
    });
}

#[test]
fn the_one_query_reaches_every_server() {
    let scripts = [Script::new(Says::Nothing), Script::new(Says::Nothing)];
    let mut spec = spec(&[&[udp(scripts[0].address), udp(scripts[1].address)]]);
    spec.limits.timeout = Duration::from_millis(100);
    let (group, alarm) = watched(&spec);
    on_a_worker(async {
        let probes = probe(&group, &alarm);
        until("all down", || group.is_down()).await;
        drop(probes);
        scripts[1].say(Says::Address(TWO));
        assert_eq!(address(&ask(&client(), &group, "a.example").await.unwrap()), TWO);
    });
}

#[test]
fn a_server_that_dies_under_load_is_not_noticed() {
    let scripts = [Script::new(Says::Address(ONE)), Script::new(Says::Address(ONE)), Script::new(Says::Address(ONE))];
    let entries: Vec<_> = scripts.iter().map(|script| udp(script.address)).collect();
    let mut spec = spec(&[&entries]);
    spec.policy = tidegate::upstream::Policy::Fastest;
    spec.limits.hedge_budget = Some(0.03);
    let (group, alarm) = watched(&spec);
    on_a_worker(async {
        let _probes = probe(&group, &alarm);
        until("all up", || group.servers().all(|server| is(server, HealthState::Up))).await;
        let client = client();
        let mut asking = tokio::task::JoinSet::new();
        let mut ticks = tokio::time::interval(Duration::from_millis(2));
        for at in 0..1000 {
            ticks.tick().await;
            if at == 200 {
                scripts[1].say(Says::Nothing);
            }
            let (client, group) = (std::rc::Rc::clone(&client), Arc::clone(&group));
            asking.spawn_local(async move {
                let start = Moment::now();
                ask(&client, &group, &format!("n{at}.example")).await.unwrap();
                Moment::now().since(start)
            });
        }
        let slowest = asking.join_all().await.into_iter().max().unwrap();
        assert!(
            slowest < Duration::from_secs(1),
            "the slowest took {slowest:?}: it waited for the dead one's time-out"
        );
    });
}

#[test]
fn loss_alone_brings_no_server_down() {
    let scripts = [Script::new(Says::Address(ONE)), Script::new(Says::Address(TWO))];
    let mut spec = spec(&[&[udp(scripts[0].address), udp(scripts[1].address)]]);
    spec.limits.attempts = 8;
    let (group, alarm) = watched(&spec);
    on_a_worker(async {
        let _probes = probe(&group, &alarm);
        until("both up", || group.servers().all(|server| is(server, HealthState::Up))).await;
        scripts.iter().for_each(|script| script.lose(30));
        let client = client();
        let mut asking = tokio::task::JoinSet::new();
        let mut ticks = tokio::time::interval(Duration::from_millis(4));
        for at in 0..400 {
            ticks.tick().await;
            let (client, group) = (std::rc::Rc::clone(&client), Arc::clone(&group));
            asking.spawn_local(async move { ask(&client, &group, &format!("n{at}.example")).await.map(drop) });
        }
        let answers = asking.join_all().await;
        // Eight losses in a row are one in 15,000: three queries of 400 that meet them, one run in 300,000.
        assert!(answers.iter().filter(|answer| answer.is_err()).count() < 3);
        assert!(group.servers().all(|server| server.transitions(HealthState::Down) == 0));
    });
}

#[test]
fn a_reload_keeps_what_is_known() {
    let scripts = [Script::new(Says::Address(ONE)), Script::new(Says::Address(TWO))];
    let registry = ServerRegistry::new(Arc::new(Alarm::new()));
    let build = |spec: &GroupSpec, previous: &[Arc<Group>]| {
        Group::build_all(std::slice::from_ref(spec), previous, &OwnAddresses::default(), &registry, Moment::now())
    };
    let before = build(&spec(&[&[udp(scripts[0].address), udp(scripts[1].address)]]), &[]);
    let group = &before[0];
    on_a_worker(async { ask(&client(), group, "a.example").await.unwrap() });
    let mut after = spec(&[&[udp(scripts[0].address)], &[udp("127.0.0.1:5399".parse().unwrap())]]);
    after.health.fall = 9;
    let next = &build(&after, &before)[0];
    assert!(Arc::ptr_eq(server(group, 0), server(next, 0)));
    assert!(is(server(next, 0), HealthState::Up));
    assert_eq!(server(next, 0).rules().health.fall, 9);
    assert!(server(next, 0).rtt().is_some());
    assert!(server(next, 1).rtt().is_none());
}

/// Below a delegation of ours its server may delegate further. Then it has no answer, and nothing is wrong with it.
#[test]
fn a_referral_is_no_fault_of_a_server_that_is_not_asked_to_resolve() {
    for (recursion, state, result) in [
        (Recursion::NotDesired, HealthState::Up, QueryResult::Ok),
        (Recursion::Desired, HealthState::Suspect, QueryResult::Refused),
    ] {
        let script = Script::new(Says::Address(ONE));
        let mut spec = spec(&[&[udp(script.address)]]);
        spec.limits.recursion = recursion;
        let (group, _) = watched(&spec);
        on_a_worker(async {
            let client = client();
            ask(&client, &group, "a.example").await.unwrap();
            script.say(Says::Referral);
            for at in 0..5 {
                let error = ask(&client, &group, &format!("n{at}.below.example")).await.unwrap_err();
                assert!(matches!(error, ExchangeError::AllFailed(reasons) if reasons.of(QueryResult::Refused) == 1));
            }
        });
        let server = server(&group, 0);
        assert!(is(server, state), "{recursion:?}");
        assert!(server.tally.queries(Transport::Udp, result) >= 5);
    }
}

#[test]
fn a_better_tier_is_used_again_only_after_a_while() {
    let scripts = [Script::new(Says::Address(ONE)), Script::new(Says::Address(TWO))];
    let mut spec = spec(&[&[udp(scripts[0].address)], &[udp(scripts[1].address)]]);
    spec.limits.timeout = Duration::from_millis(100);
    spec.limits.fail_back = Duration::from_millis(700);
    let (group, alarm) = watched(&spec);
    on_a_worker(async {
        let _probes = probe(&group, &alarm);
        until("both up", || group.servers().all(|server| is(server, HealthState::Up))).await;
        assert_eq!(group.tier(Moment::now()), 0);
        scripts[0].say(Says::Nothing);
        until("second tier", || group.tier(Moment::now()) == 1).await;
        scripts[0].say(Says::Address(ONE));
        until("first up", || is(server(&group, 0), HealthState::Up)).await;
        let up_at = Moment::now();
        assert_eq!(group.tier(up_at), 1);
        assert_eq!(address(&ask(&client(), &group, "a.example").await.unwrap()), TWO);
        until("first tier", || group.tier(Moment::now()) == 0).await;
        assert!(Moment::now().since(up_at) >= Duration::from_millis(650));
    });
}
