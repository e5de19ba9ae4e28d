//! Few source ports, and neither ports nor ids can be guessed.

use std::{collections::HashSet, sync::Arc};

use tidegate::{
    upstream::{
        UpstreamClient, WorkerNumber,
        tally::{MismatchReason, QueryResult},
    },
    wire::Transport,
};

use crate::{
    ask, build, client, on_a_worker,
    script::{ONE, Says, Script},
    server, spec, udp,
};

/// Sends this many queries, one per turn.
async fn ask_in_turn(client: &UpstreamClient, group: &Arc<tidegate::upstream::Group>, count: usize) {
    for at in 0..count {
        ask(client, group, &format!("n{at}.example")).await.unwrap();
    }
}

#[test]
fn there_are_no_more_ports_than_configured_over_all_workers() {
    let script = Script::new(Says::Address(ONE));
    let mut spec = spec(&[&[udp(script.address)]]);
    spec.limits.source_ports = 7;
    let group = build(&spec);
    for index in 0..3 {
        let group = Arc::clone(&group);
        on_a_worker(async move {
            let client = UpstreamClient::new(WorkerNumber { index, count: 3 });
            ask_in_turn(&client, &group, 100).await;
            let open = server(&group, 0).tally.source_ports();
            assert!((2..=3).contains(&open), "{open}");
        });
    }
    assert_eq!(script.ports().len(), 7);
    assert_eq!(server(&group, 0).tally.source_ports(), 0, "closed with their client");
}

#[test]
fn queries_of_one_turn_leave_through_one_port_and_turns_take_any() {
    let script = Script::new(Says::Address(ONE));
    let mut spec = spec(&[&[udp(script.address)]]);
    (spec.limits.source_ports, spec.limits.attempts) = (16, 1);
    let group = build(&spec);
    on_a_worker(async {
        let client = client();
        for turn in 0..50 {
            let mut asking = tokio::task::JoinSet::new();
            for at in 0..10 {
                let (client, group) = (std::rc::Rc::clone(&client), Arc::clone(&group));
                let name = format!("n{at}-{turn}.example");
                asking.spawn_local(async move { ask(&client, &group, &name).await.unwrap() });
            }
            asking.join_all().await;
        }
    });
    let seen = script.seen();
    assert_eq!(seen.len(), 500);
    let turns: Vec<HashSet<_>> =
        seen.chunks(10).map(|turn| turn.iter().map(|(from, _)| from.port()).collect()).collect();
    assert!(turns.iter().all(|ports| ports.len() == 1));
    assert!(script.ports().len() > 8, "50 draws of 16");
}

/// `TIDEGATE_PORT_QUESTIONS` asks for more.
#[test]
fn ids_and_ports_cannot_be_predicted_from_the_last() {
    let count = std::env::var("TIDEGATE_PORT_QUESTIONS").ok().and_then(|count| count.parse().ok()).unwrap_or(4_000);
    let script = Script::new(Says::Address(ONE));
    let mut spec = spec(&[&[udp(script.address)]]);
    (spec.limits.source_ports, spec.limits.attempts) = (16, 1);
    let group = build(&spec);
    on_a_worker(async { ask_in_turn(&client(), &group, count).await });
    let seen = script.seen();
    // Chi-square with 15 degrees of freedom is above 44.3 once in ten thousand times.
    let chi_square = |counts: [u32; 16]| {
        let expected = f64::from(counts.iter().sum::<u32>()) / 16.0;
        counts.iter().map(|&count| (f64::from(count) - expected).powi(2) / expected).sum::<f64>()
    };
    let mut by_id = [0; 16];
    let mut by_step = [0; 16];
    let ports: Vec<u16> = script.ports().into_iter().collect();
    let mut by_port = [0; 16];
    for pair in seen.windows(2) {
        by_id[usize::from(pair[0].1 >> 12)] += 1;
        by_step[usize::from(pair[1].1.wrapping_sub(pair[0].1) >> 12)] += 1;
        by_port[ports.iter().position(|port| *port == pair[0].0.port()).unwrap()] += 1;
    }
    for (what, counts) in [("ids", by_id), ("steps of ids", by_step), ("ports", by_port)] {
        assert!(chi_square(counts) < 44.3, "{what}: {counts:?}");
    }
    let same = seen.windows(2).filter(|pair| pair[0].0 == pair[1].0).count();
    // Within some six deviations.
    let by_chance = count / 16;
    let room = 6 * (1..).find(|n| n * n >= by_chance).unwrap();
    assert!(same.abs_diff(by_chance) <= room, "{same} of {count} by the port of the last, {by_chance} by chance");
}

#[test]
fn an_answer_to_another_socket_is_not_heard() {
    // The answer goes to the port of the query before.
    let script = Script::new(Says::Address(ONE));
    let mut spec = spec(&[&[udp(script.address)]]);
    spec.limits.source_ports = 64;
    let group = build(&spec);
    on_a_worker(async {
        let client = client();
        ask_in_turn(&client, &group, 1).await;
        script.answer_to_the_last(true);
        for at in 0..5 {
            let now = tidegate::clock::Moment::now();
            let deadline = now + std::time::Duration::from_millis(60);
            let _ = client
                .exchange(
                    &group,
                    &tidegate::upstream::Marks::default(),
                    &crate::query(&format!("x{at}.example")),
                    now,
                    deadline,
                )
                .await;
        }
    });
    assert!(server(&group, 0).tally.mismatches(MismatchReason::Socket) > 0);
}

#[test]
fn every_query_is_counted_once() {
    let (silent, good) = (Script::new(Says::Nothing), Script::new(Says::Address(ONE)));
    let mut spec = spec(&[&[udp(silent.address), udp(good.address)]]);
    spec.limits.timeout = std::time::Duration::from_millis(100);
    let group = build(&spec);
    on_a_worker(async {
        let client = client();
        ask_in_turn(&client, &group, 5).await;
        let tally = &server(&group, 0).tally;
        let timed_out = || tally.queries(Transport::Udp, QueryResult::Timeout) == silent.queries() as u64;
        crate::until("every query to the silent server timed out", timed_out).await;
        assert_eq!(tally.in_flight(), 0);
    });
    assert!(silent.queries() > 0);
    assert_eq!(server(&group, 1).tally.queries(Transport::Udp, QueryResult::Ok), 5);
}
