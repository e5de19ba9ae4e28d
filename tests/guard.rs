//! No address outside a guard's networks ever leaves, whatever an upstream answers, wherever the answer comes from, and
//! during reloads that put the guard into force under load.
//!
//! Addresses outside begin with octets that appear nowhere else in a reply, so a search of the bytes finds them in
//! every section and every record, well-formed or not.

mod support;

use std::{
    env,
    io::Write,
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestRunner},
};
use support::{
    PATIENCE,
    client::Client,
    eventually,
    query::{Query, rtype, wire_name},
    records::{Record, Reply},
    script::{Gate, Script},
    upstream::{Upstream, frame, read_frame},
};
use tidegate::{
    cache::{
        EntryView, Stamp,
        snapshot::{SavedEntry, SnapshotHeader, SnapshotReader, SnapshotRule, SnapshotWriter},
    },
    clock::Moment,
    config::Plan,
    daemon::Daemon,
};
use tokio::runtime::{self, Runtime};

const INSIDE: [&str; 2] = ["10.20.1.1", "fd20::1"];
const OUTSIDE_IPV4: [u8; 3] = [198, 51, 100];
const OUTSIDE_IPV6: [u8; 4] = [0x20, 0x01, 0x0d, 0xb8];
const SVCB: u16 = 64;
const HTTPS: u16 = 65;

#[derive(Clone, Copy, PartialEq)]
enum Guard {
    On(&'static str),
    Off,
}

/// Rules for AWS and for everything else, both at one upstream.
fn plan(upstream: &Upstream, guard: Guard) -> Plan {
    let guard = match guard {
        Guard::On(action) => format!("private = [\"10.20.0.0/16\", \"fd20::/16\"]\non_public = \"{action}\"\n"),
        Guard::Off => String::new(),
    };
    let text = format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nworkers = 2\n[admin]\nhttp = \"\"\nsocket = \"\"\n\
         [cache]\nstale_ttl = \"1s\"\nfailure_ttl = \"1s\"\n\
         [upstream.vpc]\nservers = [\"{}\"]\nattempts = 1\nhedge = false\ntimeout = \"3s\"\n\
         [[forward]]\nname = \"aws\"\nzones = [\"preset:aws\"]\nto = \"vpc\"\n{guard}\
         [[forward]]\nname = \"rest\"\nzones = [\".\"]\nto = \"vpc\"\n\
         [[local]]\nzone = \"edge.example\"\nrecords = [\"*.edge.example. 60 CNAME local.eu-west-1.amazonaws.com.\"]\n",
        upstream.address
    );
    Plan::from_text("t.toml", &text).expect("a valid configuration")
}

fn start(upstream: &Upstream, guard: Guard) -> (Daemon, Client) {
    let plan = plan(upstream, guard);
    let daemon = Daemon::start(&plan.boot, plan.live, None).expect("it starts");
    let client = Client::new(daemon.addresses()[0]);
    (daemon, client)
}

fn runtime() -> Runtime {
    runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn reload(runtime: &Runtime, daemon: &Daemon, upstream: &Upstream, guard: Guard) {
    runtime.block_on(daemon.reload(plan(upstream, guard).live)).expect("it is taken");
}

/// Whether an outside address appears anywhere after the header.
fn leaks(reply: &[u8]) -> bool {
    let body = &reply[12..];
    body.windows(3).any(|octets| octets == OUTSIDE_IPV4) || body.windows(4).any(|octets| octets == OUTSIDE_IPV6)
}

/// What a generated record holds.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// A record of the queried type.
    Asked,
    A,
    Aaaa,
    Svcb,
    Https,
    /// The record's data cut short, or too long.
    Odd(u16),
    Txt,
}

/// Whose record it is.
#[derive(Debug, Clone, Copy)]
enum Owner {
    Asked,
    EndOfChain,
    Stranger,
}

#[derive(Debug, Clone, Copy)]
struct Generated {
    kind: Kind,
    owner: Owner,
    outside: bool,
}

/// An upstream's answer.
#[derive(Debug, Clone)]
struct Answer {
    qtype: u16,
    rcode: u16,
    /// Where the chain's names lie: in AWS or elsewhere.
    chain: Vec<bool>,
    sections: [Vec<Generated>; 3],
}

fn answer() -> impl Strategy<Value = Answer> {
    let kind = prop_oneof![
        6 => Just(Kind::Asked),
        2 => Just(Kind::A),
        2 => Just(Kind::Aaaa),
        1 => Just(Kind::Svcb),
        1 => Just(Kind::Https),
        1 => prop_oneof![Just(rtype::A), Just(rtype::AAAA), Just(SVCB), Just(HTTPS)].prop_map(Kind::Odd),
        1 => Just(Kind::Txt),
    ];
    let owner = prop_oneof![2 => Just(Owner::Asked), 2 => Just(Owner::EndOfChain), 1 => Just(Owner::Stranger)];
    let record =
        (kind, owner, prop::bool::weighted(0.3)).prop_map(|(kind, owner, outside)| Generated { kind, owner, outside });
    let qtype = prop_oneof![Just(rtype::A), Just(rtype::AAAA), Just(SVCB), Just(HTTPS), Just(rtype::TXT)];
    let sections = [vec(record.clone(), 0..4), vec(record.clone(), 0..2), vec(record, 0..3)];
    (qtype, prop_oneof![4 => Just(0u16), 1 => Just(3)], vec(any::<bool>(), 0..4), sections)
        .prop_map(|(qtype, rcode, chain, sections)| Answer { qtype, rcode, chain, sections })
}

impl Answer {
    /// The reply to a query for the `n`th name.
    fn reply(&self, n: u64) -> Reply {
        let link = |at: usize, is_aws: bool| match is_aws {
            true => format!("c{at}.n{n}.eu-west-1.amazonaws.com."),
            false => format!("c{at}.n{n}.example."),
        };
        let links: Vec<String> = self.chain.iter().enumerate().map(|(at, is_aws)| link(at, *is_aws)).collect();
        let mut reply = Reply::rcode(self.rcode);
        let mut end = "@".to_owned();
        for target in links {
            reply = reply.answer(Record::cname(&end, 60, &target));
            end = target;
        }
        let [answers, authorities, additionals] = &self.sections;
        reply = answers.iter().fold(reply, |reply, record| reply.answer(record.record(&end, self.qtype)));
        reply = authorities.iter().fold(reply, |reply, record| reply.authority(record.record(&end, self.qtype)));
        additionals.iter().fold(reply, |reply, record| reply.additional(record.record(&end, self.qtype)))
    }
}

impl Generated {
    fn record(self, end: &str, qtype: u16) -> Record {
        let owner = match self.owner {
            Owner::Asked => "@",
            Owner::EndOfChain => end,
            Owner::Stranger => "stranger.eu-west-1.amazonaws.com.",
        };
        let (ipv4, ipv6) = if self.outside { ("198.51.100.7", "2001:db8::7") } else { (INSIDE[0], INSIDE[1]) };
        let octets = |text: &str| match text.parse().expect("an address") {
            std::net::IpAddr::V4(address) => address.octets().to_vec(),
            std::net::IpAddr::V6(address) => address.octets().to_vec(),
        };
        let (v4, v6) = (octets(ipv4), octets(ipv6));
        let kind = match (self.kind, qtype) {
            (Kind::Asked, rtype::A) => Kind::A,
            (Kind::Asked, rtype::AAAA) => Kind::Aaaa,
            (Kind::Asked, SVCB) => Kind::Svcb,
            (Kind::Asked, HTTPS) => Kind::Https,
            (Kind::Asked, _) => Kind::Txt,
            (kind, _) => kind,
        };
        match kind {
            Kind::A => Record::a(owner, 60, ipv4),
            Kind::Aaaa => Record::aaaa(owner, 60, ipv6),
            Kind::Svcb => Record::raw(owner, SVCB, 60, hints(&v4, &v6)),
            Kind::Https => Record::raw(owner, HTTPS, 60, hints(&v4, &v6)),
            Kind::Odd(rtype::A) => Record::raw(owner, rtype::A, 60, [&v4[..], &[9]].concat()),
            Kind::Odd(rtype::AAAA) => Record::raw(owner, rtype::AAAA, 60, v6[..15].to_vec()),
            Kind::Odd(qtype) => Record::raw(owner, qtype, 60, hints(&v4, &v6)[..27].to_vec()),
            Kind::Txt | Kind::Asked => Record::txt(owner, 60, "harmless"),
        }
    }
}

/// SvcPriority 1, target ".", ipv4hint with two addresses, ipv6hint (RFC 9460 2.2).
fn hints(ipv4: &[u8], ipv6: &[u8]) -> Vec<u8> {
    let target = wire_name(".");
    [&[0, 1], &target[..], &[0, 4, 0, 8, 10, 20, 9, 9], ipv4, &[0, 6, 0, 16], ipv6].concat()
}

/// Asks `query` over UDP, again over UDP (from the cache, where it was kept), and over TCP.
fn replies(server: SocketAddr, query: &Query) -> Vec<Vec<u8>> {
    let mut replies = Vec::new();
    for _ in 0..2 {
        let socket = Client::new(server).socket();
        socket.send(query);
        replies.push(socket.receive_bytes());
    }
    let mut stream = TcpStream::connect(server).expect("it accepts TCP");
    stream.set_read_timeout(Some(PATIENCE)).expect("a positive time-out");
    stream.write_all(&frame(&query.bytes())).expect("it reads");
    replies.push(read_frame(&mut stream).expect("an answer over TCP in time"));
    replies
}

fn cases() -> u32 {
    number("TIDEGATE_GUARD_CASES").unwrap_or(400)
}

fn number(variable: &str) -> Option<u32> {
    env::var(variable).ok()?.parse().ok()
}

/// Sends every generated answer to queries for an AWS name, for an alias elsewhere that leads into AWS, and for a local
/// alias; returns how many replies had an outside address, an inside one, and a refusal.
fn run(on_public: &'static str) -> (u64, u64, u64) {
    let upstream = Upstream::start();
    let (daemon, _) = start(&upstream, Guard::On(on_public));
    let server = daemon.addresses()[0];
    let (mut n, mut leaked, mut passed, mut refused) = (0, 0, 0, 0);
    let mut runner = TestRunner::new(Config { cases: cases(), failure_persistence: None, ..Config::default() });
    let counts = std::cell::RefCell::new((&mut n, &mut leaked, &mut passed, &mut refused));
    let result = runner.run(&answer(), |answer| {
        let mut counts = counts.borrow_mut();
        *counts.0 += 1;
        let n = *counts.0;
        let name = format!("n{n}.eu-west-1.amazonaws.com.");
        let alias = format!("alias{n}.corp.example.");
        upstream.on(&name, answer.qtype, answer.reply(n));
        // Records after the alias are the upstream's own, and not trusted because of it.
        let lure = answer.sections[0].iter().fold(Reply::of([Record::cname("@", 60, &name)]), |reply, record| {
            reply.answer(record.record(&name, answer.qtype))
        });
        upstream.on(&alias, answer.qtype, lure);
        // And so it is behind an alias of AWS that leads elsewhere.
        for at in (0..answer.chain.len()).filter(|at| !answer.chain[*at]) {
            let outside = Generated { kind: Kind::Asked, owner: Owner::Asked, outside: n % 2 == 0 };
            upstream.on(&format!("c{at}.n{n}.example."), answer.qtype, Reply::of([outside.record("@", answer.qtype)]));
        }
        for asked in [&name, &alias] {
            for reply in replies(server, &Query::new(asked, answer.qtype).edns()) {
                let is_leak = leaks(&reply);
                *counts.1 += u64::from(is_leak);
                *counts.2 += u64::from(reply.windows(4).any(|octets| octets == [10, 20, 1, 1]));
                *counts.3 += u64::from(reply[3] & 0x0f == 2);
                prop_assert!(!is_leak || on_public == "log", "{asked}: {answer:?}\n{reply:?}");
            }
        }
        Ok(())
    });
    daemon.stop();
    if let Err(error) = result {
        panic!("{error}");
    }
    (leaked, passed, refused)
}

#[test]
fn with_refuse_no_generated_answer_brings_an_outside_address_out() {
    let (leaked, passed, refused) = run("refuse");
    assert_eq!(leaked, 0);
    assert!(passed > 100 && refused > 100, "both happen: {passed} passed, {refused} refused");
}

#[test]
fn with_strip_no_generated_answer_brings_an_outside_address_out() {
    let (leaked, passed, _) = run("strip");
    assert_eq!(leaked, 0);
    assert!(passed > 100, "{passed} passed");
}

#[test]
fn the_look_at_the_bytes_finds_outside_addresses_where_they_pass() {
    let (leaked, ..) = run("log");
    assert!(leaked > 100, "{leaked}");
}

/// Load while the guard comes and goes: a query sent after a reload's reply never gets an outside address.
#[test]
fn no_outside_address_leaves_after_the_reply_to_a_reload_that_guards() {
    let upstream = Upstream::answering("198.51.100.7");
    let (daemon, client) = start(&upstream, Guard::Off);
    // Odd while the guard is in force; changed after a reload's reply, and before the next reload is requested.
    let epoch = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let (judged, seen) = (AtomicU64::new(0), AtomicU64::new(0));
    let load = |number: u64| {
        let socket = client.socket();
        let mut turn = 0;
        while !stop.load(Ordering::SeqCst) {
            turn += 1;
            let name = match turn % 4 {
                0 => format!("fresh{turn}-{number}.eu-west-1.amazonaws.com."),
                1 => format!("www{turn}-{number}.edge.example."),
                _ => format!("hot{}.eu-west-1.amazonaws.com.", turn % 16),
            };
            let before = epoch.load(Ordering::SeqCst);
            socket.send(&Query::a(&name));
            let reply = socket.receive_bytes();
            let is_leak = leaks(&reply);
            if before == epoch.load(Ordering::SeqCst) && before % 2 == 1 {
                assert!(!is_leak, "epoch {before}: {name}: {reply:?}");
                judged.fetch_add(1, Ordering::SeqCst);
            }
            seen.fetch_add(u64::from(is_leak), Ordering::SeqCst);
        }
    };
    let runtime = runtime();
    thread::scope(|scope| {
        let loads: Vec<_> = (0..2).map(|number| scope.spawn(move || load(number))).collect();
        let is_alive = || loads.iter().all(|load| !load.is_finished());
        for _ in 0..number("TIDEGATE_RELOADS").unwrap_or(100) {
            let before = (seen.load(Ordering::SeqCst), judged.load(Ordering::SeqCst));
            eventually("outside addresses pass without a guard", || {
                !is_alive() || seen.load(Ordering::SeqCst) > before.0 + 8
            });
            reload(&runtime, &daemon, &upstream, Guard::On("refuse"));
            epoch.fetch_add(1, Ordering::SeqCst);
            eventually("questions are judged", || !is_alive() || judged.load(Ordering::SeqCst) > before.1 + 8);
            epoch.fetch_add(1, Ordering::SeqCst);
            reload(&runtime, &daemon, &upstream, Guard::Off);
            assert!(is_alive(), "a load thread has failed");
        }
        stop.store(true, Ordering::SeqCst);
    });
    daemon.stop();
}

#[test]
fn a_query_under_way_is_judged_by_the_reloaded_guard() {
    let upstream = Upstream::start();
    let gate = Gate::default();
    upstream.on("slow.eu-west-1.amazonaws.com.", rtype::A, Script::held(&gate, Reply::a("198.51.100.7")));
    let (daemon, client) = start(&upstream, Guard::Off);
    let socket = client.socket();
    socket.send(&Query::a("slow.eu-west-1.amazonaws.com."));
    upstream.wait_for("slow.eu-west-1.amazonaws.com.", 1);
    reload(&runtime(), &daemon, &upstream, Guard::On("refuse"));
    gate.open();
    let reply = socket.receive_bytes();
    assert!(!leaks(&reply), "{reply:?}");
    assert_eq!(reply[3] & 0x0f, 2, "SERVFAIL");
    daemon.stop();
}

#[test]
fn a_query_under_way_over_several_reloads_is_judged_by_the_last_guard() {
    let upstream = Upstream::start();
    let name = "slow.eu-west-1.amazonaws.com.";
    let held = || {
        let gate = Gate::default();
        upstream.on(name, rtype::A, Script::held(&gate, Reply::a("198.51.100.7")));
        gate
    };
    let mut gate = held();
    let (daemon, client) = start(&upstream, Guard::Off);
    let socket = client.socket();
    socket.send(&Query::a(name));
    let runtime = runtime();
    for (number, guard) in [Guard::On("log"), Guard::Off, Guard::On("log"), Guard::On("refuse")].iter().enumerate() {
        // A busy machine may not have read it yet: nothing waits then either.
        eventually("it is asked, or given up", || {
            upstream.count(name) > number || (number > 0 && daemon.engine().waiting.count() == 0)
        });
        reload(&runtime, &daemon, &upstream, *guard);
        let next = held();
        std::mem::replace(&mut gate, next).open();
    }
    gate.open();
    let reply = socket.receive_bytes();
    assert!(!leaks(&reply), "{reply:?}");
    assert_eq!(reply[3] & 0x0f, 2, "SERVFAIL");
    daemon.stop();
}

#[test]
fn a_stale_answer_from_before_the_guard_does_not_leave() {
    let upstream = Upstream::start();
    let name = "old.eu-west-1.amazonaws.com.";
    upstream.on(name, rtype::A, Reply::of([Record::a("@", 1, "198.51.100.7")]));
    let (daemon, client) = start(&upstream, Guard::Off);
    let ask = || {
        let socket = client.socket();
        socket.send(&Query::a(name).edns());
        socket.receive()
    };
    assert_eq!(ask().address_texts(), ["198.51.100.7"]);
    upstream.otherwise(Reply::servfail());
    eventually("a stale answer", || ask().verdict().1 == Some(3));

    let runtime = runtime();
    reload(&runtime, &daemon, &upstream, Guard::Off);
    assert_eq!(ask().verdict().1, Some(3), "a reload that changes nothing keeps it");
    reload(&runtime, &daemon, &upstream, Guard::On("refuse"));
    assert!(ask().addresses().is_empty());
    daemon.stop();
}

/// The file of a daemon without a guard, its rules and entries signed as if the guard had been there.
fn signed_anew(file: &[u8], guarded: &Daemon) -> Vec<u8> {
    let snapshot = guarded.engine().snapshot_owned();
    let reader = SnapshotReader::begin(file).expect("a whole file");
    let rule = |rule: &tidegate::engine::snapshot::Rule| SnapshotRule {
        name: rule.name.to_string(),
        fingerprint: rule.fingerprint,
    };
    let header = SnapshotHeader { rules: snapshot.rules().iter().map(rule).collect(), ..reader.header().clone() };
    let mut writer = SnapshotWriter::begin(Vec::new(), 1, &header).expect("memory takes it");
    reader
        .read(|saved, ttl_offsets| {
            let fingerprint = snapshot.fingerprint(saved.message, [127, 0, 0, 1].into()).expect("a rule covers it");
            let stamp = Stamp { generation: 0, fingerprint, rule: saved.rule };
            let SavedEntry { key, message, lifetime, integrity, .. } = *saved;
            writer.push(&EntryView { key, message, ttl_offsets, stored_at: 0, lifetime, stamp, integrity }, saved.age);
        })
        .expect("a whole file");
    writer.finish().expect("memory takes it").0
}

/// What was kept before the guard came is asked for under the guard, while nothing answers us.
#[test]
fn no_outside_address_comes_back_from_a_snapshot() {
    let upstream = Upstream::start();
    let (unguarded, client) = start(&upstream, Guard::Off);
    let (mut questions, mut brought) = (Vec::new(), 0);
    let questions_in = std::cell::RefCell::new((&mut questions, &mut brought));
    let mut runner = TestRunner::new(Config { cases: cases(), failure_persistence: None, ..Config::default() });
    let result = runner.run(&answer(), |answer| {
        let mut questions = questions_in.borrow_mut();
        let n = u64::try_from(questions.0.len()).expect("a small number");
        let name = format!("n{n}.eu-west-1.amazonaws.com.");
        let alias = format!("alias{n}.corp.example.");
        upstream.on(&name, answer.qtype, answer.reply(n));
        upstream.on(&alias, answer.qtype, Reply::of([Record::cname("@", 60, &name)]));
        for asked in [name, alias] {
            let query = Query::new(&asked, answer.qtype).edns();
            let socket = client.socket();
            socket.send(&query);
            *questions.1 += u64::from(leaks(&socket.receive_bytes()));
            questions.0.push(query);
        }
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    assert!(brought > 30, "{brought} outside addresses were kept");
    let wall = tidegate::clock::wall().as_secs();
    let (file, entries) = unguarded.engine().save(Vec::new(), Moment::now(), wall).expect("memory takes it");
    unguarded.stop();
    upstream.go_silent();
    assert!(entries > 200, "{entries} entries");

    for (action, is_signed) in [("refuse", false), ("refuse", true), ("strip", true)] {
        let (daemon, client) = start(&upstream, Guard::On(action));
        let file = if is_signed { signed_anew(&file, &daemon) } else { file.clone() };
        let restored = daemon.engine().restore(&file[..], Moment::now(), wall).expect("it is taken");
        assert_eq!(restored.left_out == 0, is_signed, "a rule with another guard is another rule: {restored:?}");
        let sockets: Vec<_> = questions.iter().map(|query| (client.socket(), query)).collect();
        sockets.iter().for_each(|(socket, query)| socket.send(query));
        let mut good = 0;
        for (socket, query) in sockets {
            let reply = socket.receive_bytes();
            assert!(!leaks(&reply), "{action}: {query:?}: {reply:?}");
            good += u32::from(reply[3] & 0x0f == 0 && reply[7] > 0);
        }
        assert!(!is_signed || good > 50, "{good} answers with data");
        daemon.stop();
    }
}
