//! Many queries at once: failures stay isolated, and working servers are shared fairly and within their budgets.

use std::{
    thread,
    time::{Duration, Instant},
};

use hickory_proto::op::ResponseCode;
use rstest::rstest;

use crate::support::{
    client::{Answer, Socket},
    config::{Config, ONE_PATIENT_TRY},
    eventually, now,
    query::{Query, rtype},
    records::{Record, Reply},
    script::Script,
    tidegate::Tidegate,
    upstream::Upstream,
};

const DEAD: &str = "10.0.0.1";
const ALIVE: &str = "10.0.0.2";

/// Sends a query per millisecond for new names below `domain` over these sockets in turn, while `is_time` is true.
/// Returns every answer.
fn flood(sockets: &[Socket], domain: &str, mut is_time: impl FnMut(usize) -> bool) -> Vec<Answer> {
    let start = now();
    let mut sent = 0_usize;
    while is_time(sent) {
        sockets[sent % sockets.len()].send(&Query::a(&format!("n{sent}.{domain}")).edns());
        sent += 1;
        let due = start + Duration::from_micros(1000 * u64::try_from(sent).expect("a number of questions"));
        thread::sleep(due.saturating_duration_since(now()));
    }
    let answers_of = |at: usize| (at..sent).step_by(sockets.len()).map(move |_| sockets[at].receive());
    (0..sockets.len()).flat_map(answers_of).collect()
}

/// Enough sockets that none holds more unread answers than the kernel keeps for it, and that the kernel spreads them
/// over all workers.
fn sockets(tidegate: &Tidegate) -> Vec<Socket> {
    (0..32).map(|_| tidegate.client().socket()).collect()
}

/// A group whose servers answer nothing is soon known to be down. If a group answers probes but no queries, only its
/// limit on waiting queries protects the others.
#[rstest]
#[case::it_is_silent(false)]
#[case::it_answers_probes_alone(true)]
fn a_dead_group_under_load_starves_no_other(#[case] answers_probes: bool) {
    let (dead, alive) = (Upstream::start(), Upstream::answering(ALIVE));
    if answers_probes {
        dead.on_type(rtype::A, Script::silence());
    } else {
        dead.go_silent();
    }
    // Probes that a busy machine answers late are no verdict either.
    let lines = if answers_probes { "in_flight = 100\n[upstream.dead.health]\nfall = 100" } else { "in_flight = 100" };
    let config = Config::new()
        .section("limits", "in_flight = 400")
        .upstream("dead", &[&dead], lines)
        .upstream("alive", &[&alive], ONE_PATIENT_TRY)
        .forward("dead", &["dead.example"], "dead", "")
        .forward("alive", &["alive.example"], "alive", "");
    let tidegate = Tidegate::start(&config);
    let client = tidegate.client();

    let over = now() + Duration::from_secs(3);
    let failures = thread::scope(|scope| {
        let sockets = sockets(&tidegate);
        let flooding = scope.spawn(move || flood(&sockets, "dead.example.", |_| now() < over));
        for number in 0.. {
            if now() > over {
                break;
            }
            let answer = client.ask(&Query::a(&format!("n{number}.alive.example.")).edns());
            assert_eq!((answer.rcode(), answer.address_texts()), (ResponseCode::NoError, vec![ALIVE.to_owned()]));
        }
        flooding.join().expect("every question gets a reply")
    });
    assert!(failures.iter().all(|answer| answer.rcode() == ResponseCode::ServFail));
    if answers_probes {
        let overload = failures.iter().filter(|answer| answer.ede().is_some_and(|ede| ede == (0, "overload".into())));
        assert!(overload.count() > 100, "those over the bound are told so at once");
        assert_eq!(transitions(&tidegate, &dead, "down"), 0.0, "questions alone are no verdict");
    }
    assert_eq!(transitions(&tidegate, &alive, "down"), 0.0);
}

#[test]
fn the_group_for_when_another_is_down_takes_its_whole_load() {
    let (dead, alive) = (Upstream::start(), Upstream::answering(ALIVE));
    dead.go_silent();
    // Its own tries, since a server that a busy machine does not run loses what its socket has no room for.
    let config = Config::new()
        .section("server", "deadline = \"15s\"")
        .upstream("dead", &[&dead], "in_flight = 100\nattempts = 1\ntimeout = \"500ms\"")
        .upstream("alive", &[&alive], "timeout = \"3s\"")
        .forward("dead", &["dead.example"], "dead", "when_down = \"upstream:alive\"");
    let tidegate = Tidegate::start(&config);
    let answers = flood(&sockets(&tidegate), "dead.example.", |sent| sent < 2000);
    let other = answers.iter().position(|answer| answer.address_texts() != [ALIVE]);
    assert!(other.is_none(), "{other:?} of 2000: {:?}", other.map(|at| (answers[at].rcode(), answers[at].ede())));
}

#[test]
fn a_refusal_by_the_host_and_a_refused_probe_count_at_once() {
    let (mut first, second) = (Upstream::answering(DEAD), Upstream::answering(ALIVE));
    let lines =
        "policy = \"ordered\"\nhedge = false\n[upstream.site.health]\ninterval = \"60s\"\ninterval_down = \"60s\"";
    let config = Config::new().upstream("site", &[&first, &second], lines).forward("everything", &["."], "site", "");
    let tidegate = Tidegate::start(&config);
    eventually("both are up", || [&first, &second].iter().all(|server| transitions(&tidegate, server, "up") > 0.0));
    assert_eq!(tidegate.client().ask(&Query::a("one.example.")).address_texts(), [DEAD]);

    first.stop();
    assert_eq!(tidegate.client().ask(&Query::a("two.example.")).address_texts(), [ALIVE]);
    eventually("it is down, long before its probes by the clock", || transitions(&tidegate, &first, "down") > 0.0);
    assert_eq!(tidegate.metric("tidegate_upstream_healthy", &[("server", &first.address.to_string())]), 0.0);
    let labels = [("server", &*first.address.to_string()), ("transport", "udp"), ("result", "network")];
    assert!(tidegate.metric("tidegate_upstream_queries_total", &labels) >= 1.0);
}

#[rstest]
#[case::servfail(Reply::servfail().into())]
#[case::refused(Reply::refused().into())]
#[case::silence(Script::silence())]
fn a_thousand_broken_names_of_one_server_are_no_verdict_on_it(#[case] broken: Script) {
    let servers = [Upstream::answering("10.0.0.1"), Upstream::answering("10.0.0.2")];
    servers[0].on_below("broken.example.", rtype::A, broken);
    // A busy machine makes one slower than the other, until probes find it as fast.
    let lines = "hedge = false\n[upstream.site.health]\ninterval = \"100ms\"";
    let config =
        Config::new().upstream("site", &[&servers[0], &servers[1]], lines).forward("everything", &["."], "site", "");
    let tidegate = Tidegate::start(&config);
    let ask = |name: String| {
        let answer = tidegate.client().ask(&Query::a(&name).edns());
        assert_eq!(answer.rcode(), ResponseCode::NoError, "{name}: {answer:?}");
    };
    thread::scope(|scope| {
        for worker in 0..4 {
            let ask = &ask;
            scope.spawn(move || {
                for number in 0..250 {
                    ask(format!("n{number}-{worker}.broken.example."));
                    ask(format!("n{number}-{worker}.sound.example."));
                }
            });
        }
    });
    for server in &servers {
        assert_eq!(transitions(&tidegate, server, "down"), 0.0);
    }
    let before = servers[0].count_type(rtype::A);
    // A doubt may stand until the next probe.
    let mut later = 0_usize..;
    eventually("it is asked as before", || {
        later.next().into_iter().for_each(|number| ask(format!("n{number}.later.example.")));
        servers[0].count_type(rtype::A) > before
    });
}

#[test]
fn names_that_nobody_answers_are_no_verdict_on_any_server() {
    let servers = [Upstream::answering("10.0.0.1"), Upstream::answering("10.0.0.2")];
    servers.iter().for_each(|server| _ = server.on_below("broken.example.", rtype::A, Script::silence()));
    // A busy machine answers a probe late, too.
    let lines = "timeout = \"1500ms\"";
    let config =
        Config::new().upstream("site", &[&servers[0], &servers[1]], lines).forward("everything", &["."], "site", "");
    let tidegate = Tidegate::start(&config);
    // No other query is sent meanwhile: only probes show that the servers are well.
    let answers = flood(&sockets(&tidegate), "broken.example.", |sent| sent < 1000);
    assert!(answers.iter().all(|answer| answer.rcode() == ResponseCode::ServFail));
    for server in &servers {
        assert_eq!(transitions(&tidegate, server, "down"), 0.0);
    }
    assert_eq!(tidegate.client().ask(&Query::a("sound.example.")).rcode(), ResponseCode::NoError);
}

#[rstest]
#[case::spread("spread")]
#[case::fastest_among_servers_about_as_fast("fastest")]
fn queries_are_spread_evenly(#[case] policy: &str) {
    let servers = [Upstream::answering("10.0.0.1"), Upstream::answering("10.0.0.2"), Upstream::answering("10.0.0.3")];
    let lines = format!("policy = \"{policy}\"\n{ONE_PATIENT_TRY}\n[upstream.site.health]\ninterval = \"100ms\"");
    let all: Vec<&Upstream> = servers.iter().collect();
    let config = Config::new().upstream("site", &all, &lines).forward("everything", &["."], "site", "");
    let tidegate = Tidegate::start(&config);
    eventually("all are up", || servers.iter().all(|server| transitions(&tidegate, server, "up") > 0.0));
    let client = tidegate.client();
    let counts = || servers.each_ref().map(|server| server.count_type(rtype::A));
    // A busy machine makes one of them slower than the others, until probes find it as fast as they are: short rounds, of
    // which one falls between two such moments.
    let mut rounds = Vec::new();
    eventually("the queries are spread evenly", || {
        let before = counts();
        for number in 0..600 {
            let query = Query::a(&format!("n{number}.r{}.example.", rounds.len()));
            assert_eq!(client.ask(&query).rcode(), ResponseCode::NoError);
        }
        let asked: [usize; 3] = std::array::from_fn(|at| counts()[at] - before[at]);
        rounds.push(asked);
        asked.iter().all(|count| (180..=220).contains(count))
    });
}

/// Two workers, whose sockets the kernel chooses by the client's port; one bucket for both.
#[test]
fn max_qps_holds_over_all_workers() {
    const MOST: u32 = 200;
    let second = Upstream::start_at("127.0.0.2:0".parse().unwrap());
    second.on_type(rtype::A, Reply::a("10.0.0.2"));
    second.on_type(rtype::NS, Reply::nodata(300));
    let servers = [Upstream::answering("10.0.0.1"), second];
    let config = Config::new()
        .section("server", "workers = 2")
        .upstream("site", &[&servers[0], &servers[1]], &format!("max_qps = {MOST}\nhedge = false"))
        .forward("everything", &["."], "site", "");
    let tidegate = Tidegate::start(&config);
    eventually("both are up", || servers.iter().all(|server| transitions(&tidegate, server, "up") > 0.0));
    let start = now();
    let answers = flood(&sockets(&tidegate), "example.", |_| start.elapsed() < Duration::from_secs(2));
    let most = most_within(start, MOST);
    let answered = answers.iter().filter(|answer| answer.rcode() == ResponseCode::NoError).count();
    for server in &servers {
        let seen = server.count_type(rtype::A);
        assert!(seen <= most, "{seen} queries where {most} are allowed");
        // Two seconds of it, less what a busy machine did not ask in time.
        assert!(seen >= 300, "{seen} queries");
        let label = server.address.to_string();
        let kept_back = [("server", label.as_str()), ("result", "budget")];
        assert!(tidegate.metric("tidegate_upstream_queries_total", &kept_back) > 0.0);
    }
    assert!(answered <= 2 * most);
    let others: Vec<_> = answers.iter().filter(|answer| answer.rcode() != ResponseCode::NoError).collect();
    assert!(!others.is_empty());
    for answer in others {
        assert_eq!((answer.rcode(), answer.ede()), (ResponseCode::ServFail, Some((0, "upstream budget".into()))));
    }
}

/// Over the budget, a known name gets a stale answer, and an unknown one an error with the reason.
#[test]
fn over_the_budget_comes_stale_and_then_nothing() {
    let upstream = Upstream::answering("10.0.0.1");
    upstream.on("warm.example.", rtype::A, Reply::default().answer(Record::a("@", 1, "10.0.0.9")));
    let config = Config::new()
        .section("cache", "prefetch = false\nfailure_ttl = \"1s\"")
        .upstream("site", &[&upstream], "max_qps = 1\nhedge = false")
        .forward("everything", &["."], "site", "");
    let tidegate = Tidegate::start(&config);
    let client = tidegate.client();
    let warm = Query::a("warm.example.").edns();
    assert_eq!(client.ask(&warm).address_texts(), ["10.0.0.9"]);
    let mut others = (0..).map(|number| Query::a(&format!("n{number}.example.")).edns());
    eventually("a stale answer", || {
        // Whatever the bucket has, these take.
        let answers: Vec<Answer> = others.by_ref().take(8).map(|other| client.ask(&other)).collect();
        let refused: Vec<_> = answers.iter().filter(|answer| answer.rcode() == ResponseCode::ServFail).collect();
        assert!(refused.iter().all(|answer| answer.ede() == Some((0, "upstream budget".into()))));
        let answer = client.ask(&warm);
        assert_eq!(answer.address_texts(), ["10.0.0.9"], "{answer:?}");
        answer.ede().is_some_and(|(code, _)| code == 3)
    });
}

/// What the bucket lets through since `start`: its rate, and a twentieth of a second's at once.
fn most_within(start: Instant, per_second: u32) -> usize {
    let allowed = start.elapsed().as_secs_f64() * f64::from(per_second) + f64::from(per_second / 20);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few hundred")]
    let allowed = allowed.ceil() as usize;
    allowed + 1
}

fn transitions(tidegate: &Tidegate, server: &Upstream, to: &str) -> f64 {
    let label = server.address.to_string();
    tidegate.metric("tidegate_upstream_transitions_total", &[("server", &label), ("to", to)])
}
