//! A server whose answers lead back to us is found by a probe of ours that comes back, and left out for that rule.

mod support;

use std::{
    collections::HashSet,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use hickory_proto::op::ResponseCode;
use serde_json::Value;
use support::{
    config::{Config, ONE_PATIENT_TRY},
    eventually,
    peers::{Peer, free_port},
    query::{Query, rtype},
    records::Reply,
    tidegate::{Tidegate, run},
    upstream::Upstream,
};

/// A server that forwards A questions below amazonaws.com to us while it loops, in capitals, and answers 10.9.9.9 to all
/// others.
struct Looper {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    back_to: Mutex<Option<SocketAddr>>,
    tagged: AtomicUsize,
    others: AtomicUsize,
    stops: AtomicBool,
}

impl Looper {
    fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a positive time-out");
        let address = socket.local_addr().expect("it is bound");
        let shared = Arc::<Shared>::default();
        let inside = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            let mut buffer = [0; 1500];
            while !inside.stops.load(Ordering::SeqCst) {
                let Ok((length, client)) = socket.recv_from(&mut buffer) else { continue };
                let back = *inside.back_to.lock().expect("no holder panics");
                if let Some(reply) = inside.answer(&buffer[..length], back) {
                    socket.send_to(&reply, client).expect("loopback takes it");
                }
            }
        });
        Self { address, shared, thread: Some(thread) }
    }

    fn leads_to(&self, address: Option<SocketAddr>) {
        *self.shared.back_to.lock().expect("no holder panics") = address;
    }

    fn others(&self) -> usize {
        self.shared.others.load(Ordering::SeqCst)
    }
}

impl Drop for Looper {
    fn drop(&mut self) {
        self.shared.stops.store(true, Ordering::SeqCst);
        self.thread.take().expect("it was started").join().expect("the looper does not panic");
    }
}

impl Shared {
    fn answer(&self, query: &[u8], back: Option<SocketAddr>) -> Option<Vec<u8>> {
        let name_end = 12 + query[12..].iter().position(|&octet| octet == 0)? + 1;
        let question_end = name_end + 4;
        let is_probe = query[12..name_end].windows(13).any(|octets| octets == b"tidegate-loop");
        let is_health = query[name_end..name_end + 2] != [0, 1];
        if is_probe {
            self.tagged.fetch_add(1, Ordering::SeqCst);
        } else if !is_health {
            self.others.fetch_add(1, Ordering::SeqCst);
        }
        let rcode = match back {
            Some(back) if query[12..name_end].ends_with(b"\x09amazonaws\x03com\0") && !is_health => {
                let mut onward = query[..question_end].to_vec();
                onward[6..12].fill(0);
                onward[12..name_end].make_ascii_uppercase();
                let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
                socket.set_read_timeout(Some(Duration::from_secs(2))).expect("a positive time-out");
                socket.send_to(&onward, back).expect("loopback takes it");
                let mut reply = [0; 1500];
                let length = socket.recv(&mut reply).ok()?;
                assert!(length > 12);
                reply[3] & 0x0f
            }
            _ => 0,
        };
        let mut reply = query[..question_end].to_vec();
        reply[2] |= 0x80;
        reply[3] = 0x80 | rcode;
        reply[6..12].fill(0);
        if rcode == 0 && !is_health {
            reply[7] = 1;
            reply.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 9, 9, 9]);
        }
        Some(reply)
    }
}

/// The rules that each server is left out for.
fn loops(tidegate: &Tidegate) -> Vec<Vec<String>> {
    let (_, page) = tidegate.get("/api/v1/upstreams");
    let page: Value = serde_json::from_str(&page).expect("it is JSON");
    let groups = page["groups"].as_array().expect("groups").iter();
    let tiers = groups.flat_map(|group| group["tiers"].as_array().expect("tiers"));
    let servers = tiers.flat_map(|tier| tier.as_array().expect("servers"));
    let texts = |value: &Value| serde_json::from_value(value["loops_for"].clone()).expect("texts");
    servers.map(texts).collect()
}

/// Names that nobody asked for before.
fn ask(tidegate: &Tidegate, n: usize, zone: &str) -> Vec<String> {
    tidegate.client().ask(&Query::a(&format!("n{n}.{zone}"))).address_texts()
}

#[test]
fn a_server_that_leads_back_is_left_out_for_that_rule_alone_until_it_does_not() {
    let (looper, good) = (Looper::start(), Upstream::answering("10.0.0.1"));
    let servers = [looper.address.to_string(), good.address.to_string()];
    let config = Config::new()
        .servers("vpc", &servers, "policy = \"ordered\"\nhedge = false")
        .forward("aws", &["preset:aws"], "vpc", "")
        .forward("rest", &["."], "vpc", "");
    let tidegate = Tidegate::start(&config);
    looper.leads_to(Some(tidegate.address()));
    // What the first probe found was an upstream that led nowhere.
    assert!(tidegate.reload(&config));
    eventually("the loop is found", || loops(&tidegate) == [vec!["aws".to_owned()], vec![]]);
    tidegate.logged_once("WARN", "a loop");

    let before = looper.others();
    for n in 0..20 {
        assert_eq!(ask(&tidegate, n, "s3.eu-west-1.amazonaws.com."), ["10.0.0.1"]);
    }
    assert_eq!(looper.others(), before, "no question of the rule goes there");
    assert_eq!(ask(&tidegate, 0, "www.example."), ["10.9.9.9"], "another rule goes on");
    let tagged = looper.shared.tagged.load(Ordering::SeqCst);
    assert!(tagged <= 2 * 3 * (16 + 1), "two starts, three datagrams at the most for each zone: {tagged}");

    looper.leads_to(None);
    assert!(tidegate.reload(&config));
    assert_eq!(loops(&tidegate)[0], ["aws"], "a reload forgets nothing");
    eventually("the loop is gone", || loops(&tidegate)[0].is_empty());
    tidegate.logged_once("INFO", "the loop is gone");
    assert_eq!(ask(&tidegate, 100, "s3.eu-west-1.amazonaws.com."), ["10.9.9.9"]);
}

#[test]
fn a_server_that_refuses_probes_for_loops_has_failed_no_query() {
    let upstream = Upstream::start();
    upstream.otherwise(Reply::refused());
    upstream.on(".", rtype::NS, Reply::nodata(60)).on_below("www.example.", rtype::A, Reply::a("10.0.0.1"));
    let zones = [".", "corp.example", "lab.example"];
    let tidegate =
        Tidegate::start(&Config::new().upstream("site", &[&upstream], "").forward("rest", &zones, "site", ""));
    let is_probe = |name: &str| name.to_ascii_lowercase().contains(".tidegate-loop.");
    eventually("each zone is probed", || {
        let names: HashSet<String> =
            upstream.all_seen().into_iter().map(|seen| seen.name.to_ascii_lowercase()).collect();
        names.iter().filter(|name| is_probe(name)).count() >= zones.len()
    });
    assert_eq!(ask(&tidegate, 0, "www.example."), ["10.0.0.1"]);
    tidegate.await_metric("tidegate_upstream_queries_total", &[("result", "ok")], 1.0);
    assert_eq!(tidegate.metric("tidegate_upstream_queries_total", &[("result", "refused")]), 0.0);
    let output = run(&["status", "--admin", &format!("http://{}", tidegate.admin_address())]);
    let text = String::from_utf8(output.stdout).expect("it is text");
    assert!(text.contains(" answered\n") && !text.contains("failed"), "{text}");
}

#[test]
fn clients_are_told_when_every_server_loops_and_stale_answers_serve() {
    let looper = Looper::start();
    let config = Config::new()
        .section("cache", "stale_after = \"50ms\"\nmax_ttl = \"1s\"")
        .servers("vpc", &[looper.address.to_string()], ONE_PATIENT_TRY)
        .forward("aws", &["preset:aws"], "vpc", "");
    let tidegate = Tidegate::start(&config);
    let warm = Query::a("warm.eu-west-1.amazonaws.com.").edns();
    assert_eq!(tidegate.client().ask(&warm).address_texts(), ["10.9.9.9"]);
    looper.leads_to(Some(tidegate.address()));
    assert!(tidegate.reload(&config));
    eventually("the loop is found", || loops(&tidegate) == [["aws"]]);

    let answer = tidegate.client().ask(&Query::a("new.eu-west-1.amazonaws.com.").edns());
    assert_eq!(answer.verdict(), (ResponseCode::ServFail, Some(0)));
    assert_eq!(answer.ede_text(), "rule aws: a loop, every server leads back here");
    eventually("a stale answer serves", || {
        let answer = tidegate.client().ask(&warm);
        answer.address_texts() == ["10.9.9.9"] && answer.ede().is_some_and(|(code, _)| code == 3)
    });
}

#[test]
fn a_loop_of_one_zone_is_found_among_others_and_another_group_answers_if_it_may() {
    let (looper, other) = (Looper::start(), Upstream::answering("10.0.0.2"));
    let port = free_port();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    looper.leads_to(Some(address));
    let config = Config::new()
        .listen(&[&address.to_string()])
        .servers("site", &[looper.address.to_string()], "")
        .upstream("other", &[&other], "")
        .forward("site", &[".", "example.org", "amazonaws.com"], "site", "when_down = \"upstream:other\"");
    let tidegate = Tidegate::start(&config);
    eventually("the loop is found", || loops(&tidegate)[0] == ["site"]);
    tidegate.await_logged("WARN", "a loop");
    let lines = tidegate.logged("WARN", "a loop");
    let line: Value = serde_json::from_str(&lines[0]).expect("it is JSON");
    let named = ["rule", "group", "server", "zone"].map(|field| line["fields"][field].as_str().expect("text"));
    assert_eq!(named, ["site", "site", &looper.address.to_string(), "amazonaws.com."], "{lines:?}");
    assert_eq!(ask(&tidegate, 0, "s3.eu-west-1.amazonaws.com."), ["10.0.0.2"]);
    assert_eq!(tidegate.get("/readyz").0, 200, "a loop is no reason to send clients away");
}

#[test]
fn a_loop_is_found_while_too_many_queries_wait() {
    let (looper, silent) = (Looper::start(), Upstream::start());
    silent.go_silent();
    let config = Config::new()
        .section("server", "deadline = \"60s\"")
        .section("limits", "in_flight = 1")
        .servers("vpc", &[looper.address.to_string()], "")
        .upstream("slow", &[&silent], "timeout = \"30s\"")
        .forward("aws", &["amazonaws.com"], "vpc", "")
        .forward("slow", &["slow.example"], "slow", "");
    let tidegate = Tidegate::start(&config);
    let waiting = tidegate.client().socket();
    waiting.send(&Query::a("a.slow.example."));
    silent.wait_for("a.slow.example.", 1);
    let answer = tidegate.client().ask(&Query::a("a.amazonaws.com.").edns());
    assert_eq!((answer.verdict(), answer.ede_text().as_str()), ((ResponseCode::ServFail, Some(0)), "overload"));
    looper.leads_to(Some(tidegate.address()));
    assert!(tidegate.reload(&config));
    eventually("the loop is found", || loops(&tidegate)[0] == ["aws"]);
}

/// How many queries this server sent to others.
fn sent(tidegate: &Tidegate) -> f64 {
    tidegate.metric("tidegate_upstream_queries_total", &[])
}

#[test]
fn a_loop_between_two_servers_is_found_by_one_and_ends() {
    let ports = [free_port(), free_port()].map(|port| format!("127.0.0.1:{port}"));
    let start = |own: usize| {
        let config = Config::new()
            .listen(&[&ports[own]])
            .servers("site", &[ports[1 - own].clone()], "mix_case = true\n[upstream.site.health]\ninterval = \"1h\"")
            .forward("everything", &["."], "site", "");
        Tidegate::start(&config)
    };
    let one = start(0);
    let two = start(1);
    // The first was there before the second; a minute later it would look again by itself.
    one.signal("HUP");
    let finds = |tidegate: &Tidegate| loops(tidegate) == [["everything"]];
    eventually("the loop is found", || finds(&one) || finds(&two));
    let before = sent(&one) + sent(&two);
    assert!(
        before < 60.0,
        "two rounds of three datagrams at each, sent on once, and what is asked of health: {before}"
    );
    for n in 0..20 {
        for tidegate in [&one, &two] {
            let answer = tidegate.client().ask(&Query::a(&format!("n{n}.example.")));
            assert_eq!(answer.rcode(), ResponseCode::ServFail);
        }
    }
    let after = sent(&one) + sent(&two);
    assert!(after < before + 60.0, "of 40 questions half may be sent on, once: {before} {after}");
}

#[test]
fn a_tag_of_another_instance_is_an_ordinary_query() {
    let upstream = Upstream::answering("10.0.0.1");
    let tidegate = Tidegate::start(&Config::forwarding_to(&[&upstream]));
    let name = "00112233445566778899aabbccddeeff.tidegate-loop.example.";
    assert_eq!(tidegate.client().ask(&Query::a(name)).address_texts(), ["10.0.0.1"]);
    assert_eq!(upstream.count(name), 1);
    assert_eq!(loops(&tidegate), [Vec::<String>::new()]);
}

#[test]
fn a_loop_through_unbound_is_found_at_the_start() {
    let port = free_port();
    let sections = format!("forward-zone:\n name: \"amazonaws.com\"\n forward-addr: 127.0.0.1@{port}");
    let unbound = Peer::unbound(
        " local-data: \"ready.example. A 10.0.0.9\"\n use-caps-for-id: yes\n",
        &sections,
        &Query::a("ready.example."),
    );
    let config = Config::new()
        .listen(&[&format!("127.0.0.1:{port}")])
        .servers("vpc", &[unbound.address.to_string()], "")
        .forward("aws", &["preset:aws"], "vpc", "");
    let tidegate = Tidegate::start(&config);
    eventually("the loop is found", || loops(&tidegate) == [["aws"]]);
    let answer = tidegate.client().ask(&Query::a("s3.eu-west-1.amazonaws.com.").edns());
    assert_eq!(answer.verdict(), (ResponseCode::ServFail, Some(0)));
}
