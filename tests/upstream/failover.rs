//! A query gets its answer whatever one server does.

use std::time::Duration;

use rstest::rstest;
use tidegate::{
    clock::Moment,
    upstream::{
        Availability, ExchangeError, LetterCase,
        tally::{MismatchReason, QueryResult},
    },
    wire::{Rcode, ResponseKind, Transport},
};

use crate::{
    address, ask, build, client, on_a_worker, query,
    script::{ONE, Says, Script, TWO, Tcp, UdpException},
    server, spec, tcp, udp,
};

const SERVFAIL: Says = Says::Rcode(2);
const REFUSED: Says = Says::Rcode(5);

#[rstest]
#[case::silence(Says::Nothing, None)]
#[case::servfail(SERVFAIL, Some(QueryResult::Servfail))]
#[case::refused(REFUSED, Some(QueryResult::Refused))]
#[case::a_referral(Says::Referral, Some(QueryResult::Refused))]
#[case::formerr(Says::Rcode(1), Some(QueryResult::Malformed))]
#[case::malformed(Says::Malformed, Some(QueryResult::Malformed))]
#[case::garbage(Says::Garbage, None)]
#[case::another_id(Says::WrongId, None)]
#[case::another_question(Says::WrongQuestion, None)]
#[case::a_query(Says::NotAResponse, None)]
fn the_other_server_answers_after(#[case] first: Says, #[case] result: Option<QueryResult>) {
    let (bad, good) = (Script::new(first), Script::new(Says::Address(ONE)));
    let group = build(&spec(&[&[udp(bad.address), udp(good.address)]]));
    on_a_worker(async {
        let exchanged = ask(&client(), &group, "a.example").await.unwrap();
        assert_eq!(address(&exchanged), ONE);
        assert_eq!(exchanged.tries, 2);
        assert_eq!(exchanged.server.spec().address, good.address);
    });
    if let Some(result) = result {
        assert!(server(&group, 0).tally.queries(Transport::Udp, result) >= 1);
    }
    assert_eq!(server(&group, 1).tally.queries(Transport::Udp, QueryResult::Ok), 1);
}

#[rstest]
#[case::another_id(Says::WrongId, MismatchReason::Id)]
#[case::another_question(Says::WrongQuestion, MismatchReason::Question)]
#[case::a_query(Says::NotAResponse, MismatchReason::NotAResponse)]
fn mismatched_responses_are_counted_and_the_query_keeps_waiting(#[case] says: Says, #[case] reason: MismatchReason) {
    let bad = Script::new(says);
    let group = build(&spec(&[&[udp(bad.address)]]));
    on_a_worker(async {
        let client = client();
        // The true answer comes behind the false one, to the try that is still waiting.
        let asking = ask(&client, &group, "a.example");
        let mending = async {
            crate::until("a mismatch", || server(&group, 0).tally.mismatches(reason) > 0).await;
            bad.say(Says::Address(ONE));
        };
        let (exchanged, ()) = tokio::join!(asking, mending);
        assert_eq!(address(&exchanged.unwrap()), ONE);
    });
}

#[test]
fn nxdomain_is_an_answer() {
    let (first, second) = (Script::new(Says::NxDomain), Script::new(Says::Address(ONE)));
    let group = build(&spec(&[&[udp(first.address), udp(second.address)]]));
    let exchanged = on_a_worker(async { ask(&client(), &group, "a.example").await.unwrap() });
    assert_eq!(exchanged.response.kind(), ResponseKind::NxDomain);
    assert_eq!(second.queries(), 0);
}

#[test]
fn the_last_code_is_reported_when_all_fail() {
    let (first, second) = (Script::new(REFUSED), Script::new(SERVFAIL));
    let group = build(&spec(&[&[udp(first.address), udp(second.address)]]));
    let failure = on_a_worker(async { ask(&client(), &group, "a.example").await.unwrap_err() });
    let ExchangeError::AllFailed(reasons) = failure else { panic!("{failure}") };
    assert_eq!(reasons.rcode, Some(Rcode::SERVFAIL));
    assert_eq!((reasons.of(QueryResult::Refused), reasons.of(QueryResult::Servfail)), (1, 1));
    assert_eq!(first.queries() + second.queries(), 2, "a server that said no is not asked again");
}

#[test]
fn the_deadline_holds_against_silence() {
    let silent = Script::new(Says::Nothing);
    let group = build(&spec(&[&[udp(silent.address)]]));
    on_a_worker(async {
        let start = Moment::now();
        let result = client()
            .exchange(
                &group,
                &tidegate::upstream::Marks::default(),
                &query("a.example"),
                start,
                start + Duration::from_millis(120),
            )
            .await;
        assert!(matches!(result, Err(ExchangeError::AllFailed(_))));
        let took = Moment::now().since(start);
        assert!((Duration::from_millis(119)..Duration::from_millis(400)).contains(&took), "{took:?}");
    });
}

#[test]
fn one_query_is_a_bounded_number_of_queries() {
    let silent = Script::new(Says::Nothing);
    let group = build(&spec(&[&[udp(silent.address)]]));
    on_a_worker(async { ask(&client(), &group, "a.example").await.unwrap_err() });
    assert_eq!(silent.queries(), 3);
}

#[test]
fn a_late_answer_still_wins() {
    let slow = Script::new(Says::Address(ONE));
    let silent = Script::new(Says::Nothing);
    slow.delay(Duration::from_millis(400));
    let group = build(&spec(&[&[udp(slow.address), udp(silent.address)]]));
    let exchanged = on_a_worker(async { ask(&client(), &group, "a.example").await.unwrap() });
    assert_eq!(exchanged.server.spec().address, slow.address);
    assert!(exchanged.tries > 1);
}

#[test]
fn a_truncated_answer_is_asked_again_over_tcp() {
    let script = Script::with_tcp(Says::Truncated, Tcp::Says(Says::Address(TWO)));
    let group = build(&spec(&[&[udp(script.address)]]));
    let exchanged = on_a_worker(async { ask(&client(), &group, "a.example").await.unwrap() });
    assert_eq!((address(&exchanged), exchanged.transport, exchanged.tries), (TWO, Transport::Tcp, 1));
}

#[rstest]
#[case::dead(Tcp::Dead)]
#[case::dripping(Tcp::Drip(Duration::from_secs(1)))]
#[case::truncated_again(Tcp::Says(Says::Truncated))]
#[case::another_question(Tcp::Says(Says::WrongQuestion))]
fn a_truncated_answer_is_never_handed_on(#[case] how: Tcp) {
    let (bad, good) = (Script::with_tcp(Says::Truncated, how), Script::new(Says::Address(ONE)));
    let both = build(&spec(&[&[udp(bad.address), udp(good.address)]]));
    let alone = build(&spec(&[&[udp(bad.address)]]));
    on_a_worker(async {
        let exchanged = ask(&client(), &both, "a.example").await.unwrap();
        assert_eq!(address(&exchanged), ONE);
        let failure = ask(&client(), &alone, "a.example").await.unwrap_err();
        assert!(
            matches!(&failure, ExchangeError::AllFailed(reasons) if reasons.availability == Availability::Asked),
            "{failure}"
        );
    });
}

#[rstest]
#[case::dead(Tcp::Dead)]
#[case::dripping(Tcp::Drip(Duration::from_secs(1)))]
fn one_octet_a_second_holds_no_query_up(#[case] how: Tcp) {
    let (slow, good) = (Script::with_tcp(Says::Nothing, how), Script::new(Says::Address(TWO)));
    let group = build(&spec(&[&[tcp(slow.address), tcp(good.address)]]));
    on_a_worker(async {
        let start = Moment::now();
        let exchanged = ask(&client(), &group, "a.example").await.unwrap();
        assert_eq!(address(&exchanged), TWO);
        assert!(Moment::now().since(start) < Duration::from_millis(600));
    });
}

#[test]
fn a_connection_is_kept_and_pipelined() {
    let script = Script::new(Says::Address(ONE));
    let group = build(&spec(&[&[tcp(script.address)]]));
    on_a_worker(async {
        let client = client();
        let names: Vec<String> = (0..20).map(|at| format!("n{at}.example")).collect();
        let mut asking = tokio::task::JoinSet::new();
        for name in names {
            let (client, group) = (std::rc::Rc::clone(&client), std::sync::Arc::clone(&group));
            asking.spawn_local(async move { ask(&client, &group, &name).await.unwrap() });
        }
        assert_eq!(asking.join_all().await.len(), 20);
        ask(&client, &group, "last.example").await.unwrap();
    });
    assert_eq!(script.connections(), 1);
}

#[test]
fn a_connection_closed_by_the_far_end_is_renewed() {
    let script = Script::with_tcp(Says::Nothing, Tcp::OneEach(ONE));
    // A query may cross the end of its connection, and is then asked again, which counts in `attempts`.
    let group = build(&spec(&[&[tcp(script.address)]]));
    on_a_worker(async {
        let client = client();
        for at in 0..10 {
            let exchanged = ask(&client, &group, &format!("n{at}.example")).await.unwrap();
            assert_eq!(exchanged.tries, 1);
        }
    });
    assert_eq!(script.connections(), 10);
}

#[test]
fn a_server_that_answers_one_query_a_connection_answers_all_that_were_asked_at_once() {
    let script = Script::with_tcp(Says::Nothing, Tcp::OneEach(ONE));
    let group = build(&spec(&[&[tcp(script.address)]]));
    on_a_worker(async {
        let client = client();
        let mut asking = tokio::task::JoinSet::new();
        for at in 0..20 {
            let (client, group) = (std::rc::Rc::clone(&client), std::sync::Arc::clone(&group));
            asking.spawn_local(async move { ask(&client, &group, &format!("n{at}.example")).await });
        }
        for exchanged in asking.join_all().await {
            assert_eq!(address(&exchanged.unwrap()), ONE);
        }
    });
    assert!(script.connections() >= 20);
}

#[test]
fn a_server_that_goes_mute_behind_one_answer_loses_no_query() {
    let script = Script::with_tcp(Says::Nothing, Tcp::Mute(ONE));
    let group = build(&spec(&[&[tcp(script.address)]]));
    on_a_worker(async {
        let client = client();
        let start = Moment::now();
        for at in 0..40 {
            assert_eq!(address(&ask(&client, &group, &format!("n{at}.example")).await.unwrap()), ONE);
        }
        assert!(Moment::now().since(start) < Duration::from_secs(5), "it is remembered of the server");
        let mut asking = tokio::task::JoinSet::new();
        for at in 0..40 {
            let (client, group) = (std::rc::Rc::clone(&client), std::sync::Arc::clone(&group));
            asking.spawn_local(async move { ask(&client, &group, &format!("m{at}.example")).await });
        }
        for exchanged in asking.join_all().await {
            assert_eq!(address(&exchanged.unwrap()), ONE);
        }
    });
}

#[test]
fn a_query_is_waited_for_until_its_deadline() {
    let script = Script::new(Says::Address(ONE));
    let group = build(&spec(&[&[udp(script.address)]]));
    on_a_worker(async {
        let client = client();
        ask(&client, &group, "quick.example").await.unwrap();
        script.delay(Duration::from_millis(2800));
        let before = script.queries();
        assert_eq!(address(&ask(&client, &group, "slow.example").await.unwrap()), ONE);
        assert!(script.queries() - before <= 3);
    });
}

#[test]
fn one_server_gets_three_queries_at_most_and_not_at_once() {
    let script = Script::new(Says::Nothing);
    let mut spec = spec(&[&[udp(script.address)]]);
    spec.limits.attempts = 16;
    let group = build(&spec);
    on_a_worker(async {
        let client = client();
        script.say(Says::Address(ONE));
        ask(&client, &group, "quick.example").await.unwrap();
        script.say(Says::Nothing);
        let before = script.queries();
        let asking = tokio::task::spawn_local({
            let (client, group) = (std::rc::Rc::clone(&client), std::sync::Arc::clone(&group));
            async move { ask(&client, &group, "silent.example").await.map(drop) }
        });
        crate::until("the query", || script.queries() > before).await;
        let start = Moment::now();
        crate::until("a repeat", || script.queries() > before + 1).await;
        assert!(Moment::now().since(start) >= Duration::from_millis(200), "a slow name is no lost datagram");
        asking.await.unwrap().unwrap_err();
        assert_eq!(script.queries() - before, 3);
    });
}

#[test]
fn a_short_pause_sends_no_query_to_the_backup() {
    // A busy machine may make the pause longer than the 250 ms after which the backup is asked: then it is tried again.
    let is_judged = (0..50).any(|_| {
        let scripts = [Script::new(Says::Address(ONE)), Script::new(Says::Address(TWO))];
        let group = build(&spec(&[&[udp(scripts[0].address)], &[udp(scripts[1].address)]]));
        on_a_worker(async {
            let client = client();
            for at in 0..10 {
                ask(&client, &group, &format!("n{at}.example")).await.unwrap();
            }
            let mut asking = tokio::task::JoinSet::new();
            scripts[0].delay(Duration::from_millis(100));
            let start = Moment::now();
            for at in 0..50 {
                let (client, group) = (std::rc::Rc::clone(&client), std::sync::Arc::clone(&group));
                asking.spawn_local(async move { ask(&client, &group, &format!("p{at}.example")).await });
            }
            let answered = asking.join_all().await;
            if Moment::now().since(start) >= Duration::from_millis(250) {
                return false;
            }
            assert!(answered.into_iter().all(|exchanged| address(&exchanged.unwrap()) == ONE));
            assert_eq!(scripts[1].queries(), 0);
            true
        })
    });
    assert!(is_judged, "never within 250 ms");
}

#[rstest]
#[case::header_alone(Says::NoEdns(ONE))]
#[case::formerr_with_the_query(Says::Echo(1, ONE))]
#[case::notimp_with_the_query(Says::Echo(4, ONE))]
fn a_server_without_edns_is_asked_without_and_remembered(#[case] says: Says) {
    let script = Script::new(says);
    let group = build(&spec(&[&[udp(script.address)]]));
    on_a_worker(async {
        let client = client();
        for name in ["a.example", "b.example"] {
            assert_eq!(ask(&client, &group, name).await.unwrap().tries, 1);
        }
        assert_eq!(script.queries(), 4);
        for at in 0..5 {
            assert_eq!(address(&ask(&client, &group, &format!("n{at}.example")).await.unwrap()), ONE);
        }
        assert_eq!(script.queries(), 9);
    });
}

#[test]
fn one_name_with_formerr_does_not_cost_the_others_edns() {
    let script = Script::new(Says::Address(ONE));
    script.except_names("odd", UdpException::Says(Says::Echo(1, ONE)));
    let group = build(&spec(&[&[udp(script.address)]]));
    on_a_worker(async {
        let client = client();
        for _ in 0..5 {
            let before = script.queries();
            assert_eq!(address(&ask(&client, &group, "odd.example").await.unwrap()), ONE);
            assert_eq!(script.queries() - before, 2, "it is asked with EDNS first");
        }
    });
}

fn mixed(script: &Script) -> std::sync::Arc<tidegate::upstream::Group> {
    let mut spec = spec(&[&[udp(script.address)]]);
    spec.limits.case = LetterCase::Mixed;
    build(&spec)
}

const LONG: &str = "a-rather-long-name-with-many-letters.example";

#[test]
fn a_lowercase_answer_alone_changes_nothing() {
    let script = Script::with_tcp(Says::Address(ONE), Tcp::Dead);
    let group = mixed(&script);
    on_a_worker(async { ask(&client(), &group, LONG).await.unwrap() });
    script.say(Says::Lowered(ONE));
    for _ in 0..2 {
        let failure = on_a_worker(async { ask(&client(), &group, LONG).await });
        assert!(failure.is_err());
    }
    assert!(server(&group, 0).tally.mismatches(MismatchReason::Question) > 0);
    script.say_tcp(Tcp::Says(Says::Address(TWO)));
    let exchanged = on_a_worker(async { ask(&client(), &group, LONG).await.unwrap() });
    assert_eq!(address(&exchanged), TWO, "the answer that nobody can forge");
    let before = server(&group, 0).tally.mismatches(MismatchReason::Question);
    on_a_worker(async { ask(&client(), &group, LONG).await.unwrap() });
    assert!(
        server(&group, 0).tally.mismatches(MismatchReason::Question) > before,
        "the server is still asked with 0x20"
    );
}

#[test]
fn a_server_that_lowers_letters_is_asked_in_small_ones_once_tcp_agrees() {
    let script = Script::with_tcp(Says::Lowered(ONE), Tcp::Says(Says::Lowered(ONE)));
    let group = mixed(&script);
    on_a_worker(async {
        let client = client();
        let exchanged = ask(&client, &group, LONG).await.unwrap();
        assert_eq!((address(&exchanged), exchanged.transport), (ONE, Transport::Tcp));
        let exchanged = ask(&client, &group, LONG).await.unwrap();
        assert_eq!((address(&exchanged), exchanged.transport), (ONE, Transport::Udp));
    });
    assert_eq!(script.queries(), 3);
}

#[test]
fn the_second_tier_answers_while_the_first_is_silent() {
    let silent = [Script::new(Says::Nothing), Script::new(Says::Nothing), Script::new(Says::Nothing)];
    let good = Script::new(Says::Address(TWO));
    let first: Vec<_> = silent.iter().map(|script| udp(script.address)).collect();
    let group = build(&spec(&[&first, &[udp(good.address)]]));
    on_a_worker(async {
        let client = client();
        let alarm = std::sync::Arc::new(tidegate::upstream::Alarm::new());
        let probes = crate::probe(&group, &alarm);
        crate::until("tier two up", || crate::is(&group.tiers()[1][0], tidegate::upstream::HealthState::Up)).await;
        let exchanged = ask(&client, &group, "a.example").await.unwrap();
        assert_eq!(address(&exchanged), TWO);
        drop(probes);
    });
}
