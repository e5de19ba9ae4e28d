//! Queries while an upstream keeps everybody waiting: what each costs, and what is counted.

mod support;

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use support::{
    PATIENCE,
    client::Client,
    eventually,
    query::{Query, rtype},
    records::{Record, Reply},
    script::{Gate, Script},
    upstream::Upstream,
};
use tidegate::{
    cache::{CacheKey, New},
    config::Plan,
    daemon::Daemon,
};

const NAME: &str = "hot.example.";

/// A daemon in this process that gives stale answers at once.
fn start(upstream: &Upstream) -> Daemon {
    let text = format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nworkers = 1\n[admin]\nhttp = \"127.0.0.1:0\"\nsocket = \"\"\n\
         [cache]\nstale_after = \"0s\"\n\
         [upstream.site]\nservers = [\"{}\"]\nattempts = 1\nhedge = false\ntimeout = \"3s\"\n\
         [[forward]]\nzones = [\".\"]\nto = \"site\"\n\
         [[forward]]\nzones = [\"vpc.example\"]\nto = \"site\"\n",
        upstream.address
    );
    let plan = Plan::from_text("t.toml", &text).expect("a valid configuration");
    Daemon::start(&plan.boot, plan.live, None).expect("it starts")
}

#[test]
fn a_client_with_a_stale_answer_waits_for_nothing_more() {
    let upstream = Upstream::start();
    upstream.on(NAME, rtype::A, Reply::of([Record::a("@", 1, "10.0.0.1")]));
    let daemon = start(&upstream);
    let client = Client::new(daemon.addresses()[0]);
    let ask = || client.ask(&Query::a(NAME).edns());
    assert_eq!(ask().address_texts(), ["10.0.0.1"]);
    let gate = Gate::default();
    upstream.on(NAME, rtype::A, Script::held(&gate, Reply::a("10.0.0.2")));
    eventually("a stale answer", || ask().verdict().1 == Some(3));
    for _ in 0..50 {
        assert_eq!(ask().address_texts(), ["10.0.0.1"]);
    }
    assert_eq!(daemon.engine().pending.followers(), 0, "one asks; the others have their answer");
    assert_eq!(upstream.count(NAME), 2);
    gate.open();
    eventually("the one who asks has brought the new answer", || ask().address_texts() == ["10.0.0.2"]);
    daemon.stop();
}

/// Makes every entry of the cache this much older.
fn age(daemon: &Daemon, seconds: u32) {
    let cache = &daemon.engine().cache;
    let mut all = Vec::new();
    cache.for_each(|entry| {
        let key = (entry.key.qtype, entry.key.qclass, entry.key.name.to_vec());
        let times = (entry.lifetime, entry.stored_at - seconds, entry.stamp, entry.integrity);
        all.push((key, entry.message.to_vec(), entry.ttl_offsets.to_vec(), times));
    });
    for ((qtype, qclass, name), message, ttl_offsets, (lifetime, now, stamp, integrity)) in all {
        let key = CacheKey { name: &name, qtype, qclass, do_bit: false, cd: false, view: 0 };
        let new = New { message: &message, ttl_offsets: &ttl_offsets, lifetime, now, stamp, integrity };
        cache.insert(&key, key.hash(), new, |_| false);
    }
}

/// The value of a metric without labels.
fn metric(daemon: &Daemon, name: &str) -> f64 {
    let admin = daemon.admin_address().expect("it has an admin address");
    let mut stream = TcpStream::connect(admin).expect("it accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a positive time-out");
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n").expect("it reads");
    let mut page = String::new();
    stream.read_to_string(&mut page).expect("a page of text");
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("no {name} in {page}"))
}

#[test]
fn a_popular_answer_is_fetched_before_its_end_and_nobody_was_given_a_stale_one() {
    let upstream = Upstream::start();
    upstream.on(NAME, rtype::A, Reply::of([Record::a("@", 100, "10.0.0.1")]));
    let daemon = start(&upstream);
    let client = Client::new(daemon.addresses()[0]);
    let ask = || client.ask(&Query::a(NAME)).address_texts();
    assert_eq!(ask(), ["10.0.0.1"]);
    age(&daemon, 92);
    let gate = Gate::default();
    upstream.on(NAME, rtype::A, Script::held(&gate, Reply::a("10.0.0.2")));
    for _ in 0..3 {
        assert_eq!(ask(), ["10.0.0.1"], "nobody waits for it");
    }
    upstream.wait_for(NAME, 2);
    gate.open();
    eventually("the new answer, before the old one's end", || ask() == ["10.0.0.2"]);
    assert_eq!(upstream.count(NAME), 2);
    for (name, count) in [("prefetches", 1.0), ("stale", 0.0), ("misses", 1.0)] {
        assert_eq!(metric(&daemon, &format!("tidegate_cache_{name}_total")), count, "{name}");
    }
    daemon.stop();
}

/// The end of the chain is as old as the whole: it is fetched with it.
#[test]
fn a_popular_alias_is_fetched_to_its_end() {
    let upstream = Upstream::start();
    let end = "app.vpc.example.";
    upstream.on(NAME, rtype::A, Reply::of([Record::cname("@", 100, end)]));
    upstream.on(end, rtype::A, Reply::of([Record::a("@", 100, "10.0.0.1")]));
    let daemon = start(&upstream);
    let client = Client::new(daemon.addresses()[0]);
    let ask = || client.ask(&Query::a(NAME)).address_texts();
    assert_eq!(ask(), ["10.0.0.1"]);
    age(&daemon, 92);
    upstream.on(end, rtype::A, Reply::of([Record::a("@", 100, "10.0.0.2")]));
    eventually("the new address, before the old one's end", || ask() == ["10.0.0.2"]);
    assert_eq!((upstream.count(NAME), upstream.count(end)), (2, 2));
    assert_eq!(metric(&daemon, "tidegate_cache_misses_total"), 1.0, "nobody waited");
    daemon.stop();
}

#[test]
fn a_fetch_ahead_that_fails_changes_nothing() {
    let upstream = Upstream::start();
    upstream.on(NAME, rtype::A, Reply::of([Record::a("@", 100, "10.0.0.1")]));
    let daemon = start(&upstream);
    let client = Client::new(daemon.addresses()[0]);
    let ask = || client.ask(&Query::a(NAME)).address_texts();
    assert_eq!(ask(), ["10.0.0.1"]);
    age(&daemon, 92);
    upstream.on(NAME, rtype::A, Reply::servfail());
    eventually("it was tried", || {
        assert_eq!(ask(), ["10.0.0.1"]);
        metric(&daemon, "tidegate_cache_prefetches_total") > 0.5 && upstream.count(NAME) == 2
    });
    assert_eq!(metric(&daemon, "tidegate_cache_stale_total"), 0.0);
    daemon.stop();
}
