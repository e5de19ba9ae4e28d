//! Budgets and limits hold, and excess queries go elsewhere or fail at once.

use std::{rc::Rc, sync::Arc, time::Duration};

use tidegate::{
    clock::Moment,
    upstream::{
        Alarm, Availability, ExchangeError, Group, GroupSpec, HealthState, OwnAddresses, Policy, tally::QueryResult,
    },
    wire::Transport,
};
use tokio::task::JoinSet;

use crate::{
    address, ask, build, client, is, on_a_worker, probe, query,
    script::{ONE, Says, Script, TWO},
    server, spec, tcp, udp, until,
};

#[test]
fn queries_over_max_qps_go_to_the_next_server_and_then_fail_at_once() {
    let (first, second) = (Script::at("127.0.5.1", Says::Address(ONE)), Script::at("127.0.5.2", Says::Address(TWO)));
    let mut spec = spec(&[&[udp(first.address), udp(second.address)]]);
    spec.limits.max_qps = Some(1);
    // A second try would be paid for too.
    spec.limits.attempts = 1;
    let group = build(&spec);
    let start = Moment::now();
    let asked = on_a_worker(async {
        let client = client();
        let mut answers = Vec::new();
        // Four at once each, then nothing for a second.
        loop {
            match ask(&client, &group, &format!("n{}.example", answers.len())).await {
                Ok(exchanged) => answers.push(address(&exchanged)),
                Err(error) => {
                    assert!(matches!(error, ExchangeError::Budget), "{error:?}");
                    return answers;
                }
            }
        }
    });
    assert_eq!((&asked[..4], asked.contains(&TWO)), (&[ONE; 4][..], true));
    // And one for each second that a busy machine took for them.
    let most = 4 + usize::try_from(Moment::now().since(start).as_secs()).unwrap();
    for script in [&first, &second] {
        assert!((4..=most).contains(&script.queries()), "{} queries where {most} are allowed", script.queries());
    }
    let over = server(&group, 0).tally.queries(Transport::Udp, QueryResult::Budget);
    assert!(over >= 2, "{over} queries were kept from the first server");
}

#[test]
fn groups_with_a_server_at_the_same_address_share_its_max_qps() {
    let script = Script::at("127.0.5.3", Says::Address(ONE));
    let mut limited = spec(&[&[udp(script.address)]]);
    limited.limits.max_qps = Some(1);
    let unlimited = GroupSpec { name: "other".into(), ..spec(&[&[tcp(script.address)]]) };
    let groups = [build(&limited), build(&unlimited)];
    let start = Moment::now();
    on_a_worker(async {
        let client = client();
        for at in 0..40 {
            match ask(&client, &groups[at % 2], &format!("n{at}.example")).await {
                Ok(_) => {}
                Err(error) => assert_eq!(error, ExchangeError::Budget),
            }
        }
    });
    // Four at once, and one for each second that a busy machine took for them.
    let most = 4 + usize::try_from(Moment::now().since(start).as_secs()).unwrap();
    assert!((4..=most).contains(&script.queries()), "{} queries where {most} are allowed", script.queries());
}

#[test]
fn queries_over_in_flight_fail_at_once_and_places_are_given_back() {
    let silent = Script::new(Says::Nothing);
    let mut spec = spec(&[&[udp(silent.address)]]);
    spec.limits.in_flight = 3;
    let group = build(&spec);
    on_a_worker(async {
        let client = client();
        let mut asking = JoinSet::new();
        for at in 0..5 {
            let (client, group) = (Rc::clone(&client), Arc::clone(&group));
            asking.spawn_local(async move {
                let now = Moment::now();
                let deadline = now + Duration::from_millis(50);
                client
                    .exchange(
                        &group,
                        &tidegate::upstream::Marks::default(),
                        &query(&format!("n{at}.example")),
                        now,
                        deadline,
                    )
                    .await
                    .unwrap_err()
            });
        }
        let failures = asking.join_all().await;
        assert_eq!(failures.iter().filter(|failure| **failure == ExchangeError::Overload).count(), 2);
        assert_eq!(group.in_flight(), 0);
    });
}

#[test]
fn a_query_that_is_given_up_gives_its_place_back() {
    let silent = Script::new(Says::Nothing);
    let group = build(&spec(&[&[udp(silent.address)]]));
    on_a_worker(async {
        let client = client();
        let asked = tokio::time::timeout(Duration::from_millis(20), ask(&client, &group, "a.example")).await;
        assert!(asked.is_err());
        assert_eq!(group.in_flight(), 0);
    });
}

#[test]
fn spread_is_even_and_fastest_leaves_slow_servers_out() {
    let scripts = [Script::new(Says::Address(ONE)), Script::new(Says::Address(ONE)), Script::new(Says::Address(TWO))];
    scripts[2].delay(Duration::from_millis(15));
    let entries: Vec<_> = scripts.iter().map(|script| udp(script.address)).collect();
    let counts = |policy| {
        let mut spec = spec(&[&entries]);
        spec.policy = policy;
        spec.health.interval = Duration::from_secs(60);
        let alarm = Arc::new(Alarm::new());
        let group = Arc::new(Group::build(&spec, &OwnAddresses::default(), &alarm));
        on_a_worker(async {
            let _probes = probe(&group, &alarm);
            until("all up", || group.servers().all(|server| is(server, HealthState::Up))).await;
            let client = client();
            for at in 0..9 {
                ask(&client, &group, &format!("warm{at}.example")).await.unwrap();
            }
            let before = scripts.each_ref().map(Script::queries);
            for at in 0..60 {
                ask(&client, &group, &format!("n{at}.example")).await.unwrap();
            }
            let after = scripts.each_ref().map(Script::queries);
            std::array::from_fn::<_, 3, _>(|at| after[at] - before[at])
        })
    };
    // 20, 20, 20 and 30, 30, 0 and 60, 0, 0, except for answers that a busy machine delays. The sixty queries take a few
    // milliseconds, and a server that answered late right before is left out of them all, so each policy has five rounds.
    let holds = |policy, is_right: fn(&[[usize; 3]]) -> bool| {
        let mut rounds = Vec::new();
        while !is_right(&rounds) {
            assert!(rounds.len() < 5, "{policy:?}: {rounds:?}");
            rounds.push(counts(policy));
        }
    };
    holds(Policy::Spread, |rounds| rounds.iter().any(|counts| counts.iter().all(|count| (12..=28).contains(count))));
    holds(Policy::Fastest, |rounds| {
        let asked_in_all = |server: usize| rounds.iter().map(|counts| counts[server]).sum::<usize>();
        asked_in_all(0) >= 12 && asked_in_all(1) >= 12 && rounds.iter().any(|counts| counts[2] <= 6)
    });
    holds(Policy::Ordered, |rounds| rounds.iter().any(|counts| counts[0] >= 50));
}

#[test]
fn drained_servers_are_not_asked() {
    let (first, second) = (Script::new(Says::Address(ONE)), Script::new(Says::Address(TWO)));
    let group = build(&spec(&[&[udp(first.address), udp(second.address)]]));
    on_a_worker(async {
        let client = client();
        server(&group, 0).drain();
        assert_eq!(address(&ask(&client, &group, "a.example").await.unwrap()), TWO);
        server(&group, 1).drain();
        let failure = ask(&client, &group, "b.example").await.unwrap_err();
        assert!(
            matches!(failure, ExchangeError::AllFailed(reasons) if reasons.availability == Availability::NoServers)
        );
        server(&group, 0).undrain();
        assert_eq!(address(&ask(&client, &group, "c.example").await.unwrap()), ONE);
    });
}

#[test]
fn our_own_listener_is_left_out() {
    let script = Script::new(Says::Address(ONE));
    let spec = spec(&[&[udp(script.address), udp("127.0.0.1:5399".parse().unwrap())]]);
    let ours = OwnAddresses::new([script.address]);
    let group = Group::build(&spec, &ours, &Arc::new(Alarm::new()));
    let left: Vec<&str> = group.servers().map(|server| server.label()).collect();
    assert_eq!(left, ["127.0.0.1:5399"]);
}
