//! A hundred reloads under load: no query is lost, and what is known of servers is kept.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    thread,
};

use hickory_proto::op::ResponseCode;
use serde_json::Value;

use crate::support::{
    client::{Answer, Client},
    config::{Config, ONE_PATIENT_TRY},
    eventually,
    query::{Query, rtype},
    tidegate::{Tidegate, run},
    upstream::{Seen, Upstream},
};

const RELOADS: usize = 100;

/// Servers in every state: one that answers, a drained one, one that is down, a tier that is down before one that
/// answers, and two that each reload exchanges.
struct Site {
    folder: tempfile::TempDir,
    good: Upstream,
    drained: Upstream,
    dead: Upstream,
    dead_tier: Upstream,
    backup: Upstream,
    others: [Upstream; 2],
}

impl Site {
    fn start() -> Self {
        let site = Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
            good: Upstream::answering("10.1.0.1"),
            drained: Upstream::answering("10.1.0.2"),
            dead: Upstream::answering("10.1.0.3"),
            dead_tier: Upstream::answering("10.2.0.1"),
            backup: Upstream::answering("10.2.0.2"),
            others: [Upstream::answering("10.3.0.1"), Upstream::answering("10.3.0.2")],
        };
        site.dead.go_silent();
        site.dead_tier.go_silent();
        site
    }

    /// One of two files: the other server of one group, and another bound of another.
    fn config(&self, which: usize) -> Config {
        let socket = self.folder.path().join("control.sock");
        let patient = format!("timeout = \"{}s\"\nhedge = false", 2 + which);
        let tiers = format!("backup = [[\"{}\"]]\nfail_back = \"60s\"\nhedge = false", self.backup.address);
        Config::without_admin()
            .section("admin", &format!("http = \"127.0.0.1:0\"\nsocket = \"{}\"", socket.display()))
            .upstream("kept", &[&self.good, &self.drained, &self.dead], &patient)
            .upstream("tiered", &[&self.dead_tier], &tiers)
            .upstream("changed", &[&self.others[which]], ONE_PATIENT_TRY)
            .forward("kept", &["kept.example"], "kept", "")
            .forward("tiered", &["tiered.example"], "tiered", "")
            .forward("changed", &["changed.example"], "changed", "")
    }

    fn drain(&self) {
        let socket = self.folder.path().join("control.sock").display().to_string();
        let output = run(&["drain", &self.drained.address.to_string(), "--socket", &socket]);
        assert!(output.status.success(), "{output:?}");
    }
}

/// What is known of each server that reloads keep: its state, and whether its RTT is known.
fn known(tidegate: &Tidegate) -> BTreeMap<String, [Value; 4]> {
    let page: Value = serde_json::from_str(&tidegate.get("/api/v1/upstreams").1).expect("a page of JSON");
    let groups = page["groups"].as_array().expect("groups").iter().filter(|group| group["name"] != "changed");
    let servers = groups.flat_map(|group| group["tiers"].as_array().expect("tiers").iter());
    let servers = servers.flat_map(|tier| tier.as_array().expect("servers").iter());
    let of = |server: &Value| {
        let name = server["server"].as_str().expect("a name").to_owned();
        let rtt = Value::from(!server["rtt"].is_null());
        // A busy machine makes a late answer, and that a doubt, now and then.
        let is_down = Value::from(server["state"] == "down");
        (name, [is_down, server["drained"].clone(), rtt, server["fault"].clone()])
    };
    servers.map(of).collect()
}

/// Asks for cached and for new names until it is over; returns how often.
fn ask_until(is_over: &AtomicBool, number: &AtomicUsize, warm: &Query, ask: &mut dyn FnMut(&Query) -> Answer) -> usize {
    let mut count = 0;
    while !is_over.load(SeqCst) {
        let number = number.fetch_add(1, SeqCst);
        expects(ask(warm), &["10.1.0.1"]);
        expects(ask(&Query::a(&format!("n{number}.kept.example.")).edns()), &["10.1.0.1"]);
        expects(ask(&Query::a(&format!("n{number}.tiered.example."))), &["10.2.0.2"]);
        expects(ask(&Query::a(&format!("n{number}.changed.example."))), &["10.3.0.1", "10.3.0.2"]);
        count += 4;
    }
    count
}

#[test]
fn a_hundred_reloads_under_load_lose_no_query_and_no_server_record() {
    let site = Site::start();
    let tidegate = Tidegate::start(&site.config(0));
    let counter = |name, server: &Upstream, labels: &[(&str, &str)]| {
        let label = server.address.to_string();
        tidegate.metric(name, &[&[("server", label.as_str())], labels].concat())
    };
    let transitions = |server, to| counter("tidegate_upstream_transitions_total", server, &[("to", to)]);
    site.drain();
    eventually("every verdict", || {
        let is_up = [&site.good, &site.drained, &site.backup].iter().all(|server| transitions(server, "up") > 0.0);
        is_up && [&site.dead, &site.dead_tier].iter().all(|server| transitions(server, "down") > 0.0)
    });
    let warm = Query::a("warm.kept.example.").edns();
    assert_eq!(tidegate.client().ask(&warm).address_texts(), ["10.1.0.1"]);
    let ask_new = Client::new(tidegate.address());
    assert_eq!(ask_new.ask(&Query::a("first.tiered.example.")).address_texts(), ["10.2.0.2"]);
    let drained_before = queries_to(&site.drained);
    let known_before = known(&tidegate);
    let answered_before = counter("tidegate_upstream_rtt_seconds_count", &site.good, &[]);

    let (is_over, number) = (AtomicBool::new(false), AtomicUsize::new(0));
    let asked = thread::scope(|scope| {
        let ask_all = |ask: &mut dyn FnMut(&Query) -> Answer| ask_until(&is_over, &number, &warm, ask);
        let mut clients = Vec::new();
        for _ in 0..2 {
            let client = tidegate.client();
            clients.push(scope.spawn(move || ask_all(&mut |query| client.ask(query))));
            let mut stream = tidegate.client().stream();
            clients.push(scope.spawn(move || {
                ask_all(&mut |query| {
                    stream.send(query);
                    stream.receive()
                })
            }));
        }
        let guard = Over(&is_over);
        for turn in 1..=RELOADS {
            assert!(tidegate.reload(&site.config(turn % 2)));
            let new = ask_new.ask(&Query::a(&format!("after{turn}.changed.example.")));
            assert_eq!(new.address_texts(), [format!("10.3.0.{}", 1 + turn % 2)], "the file in force is the new one");
            assert_eq!(tidegate.metric("tidegate_upstream_tier", &[("group", "tiered")]), 1.0, "reload {turn}");
            assert_eq!(known(&tidegate), known_before, "reload {turn}");
        }
        drop(guard);
        clients.into_iter().map(|client| client.join().expect("every question is answered")).sum::<usize>()
    });

    assert!(asked > RELOADS, "{asked} questions");
    assert_eq!(site.good.count("warm.kept.example."), 1, "the cache is kept");
    assert_eq!(queries_to(&site.drained), drained_before, "a drained server stays so");
    for (server, downs) in [(&site.dead, 1.0), (&site.dead_tier, 1.0), (&site.good, 0.0), (&site.backup, 0.0)] {
        assert_eq!(transitions(server, "down"), downs, "no verdict is begun anew");
    }
    let answered = counter("tidegate_upstream_rtt_seconds_count", &site.good, &[]) - answered_before;
    let quarter = u32::try_from(asked / 4).expect("a count");
    assert!(answered >= f64::from(quarter), "counters go on: {answered} of {asked}");
}

/// Client queries only: each reload also sends loop probes.
fn queries_to(server: &Upstream) -> usize {
    let is_probe = |seen: &Seen| seen.name.contains(".tidegate-loop.");
    server.all_seen().iter().filter(|seen| seen.qtype == rtype::A && !is_probe(seen)).count()
}

#[track_caller]
fn expects(answer: Answer, addresses: &[&str]) {
    assert_eq!(answer.rcode(), ResponseCode::NoError, "{answer:?}");
    let text = answer.address_texts().concat();
    assert!(addresses.contains(&text.as_str()), "{answer:?}");
}

/// Ends the clients, also when an assertion fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}
