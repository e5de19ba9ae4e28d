//! `drain` and `undrain`.

use std::{
    fs,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use hickory_proto::op::ResponseCode;
use serde_json::Value;

use crate::{
    Place, ask,
    support::{
        config::{Config, ONE_PATIENT_TRY},
        eventually,
        query::{Query, rtype},
        records::{Record, Reply},
        script::{Gate, Script},
        tidegate::Tidegate,
        upstream::Upstream,
    },
};

fn two_servers(config: Config, one: &Upstream, other: &Upstream) -> Config {
    let lines = format!("policy = \"ordered\"\n{ONE_PATIENT_TRY}");
    config.upstream("vpc", &[one, other], &lines).forward("all", &["."], "vpc", "")
}

/// Waits until new names go to the server that answers with this address. At first, and after a hiccup of the machine,
/// the preferred server is suspect, and another is asked before it.
#[track_caller]
fn await_preferred(tidegate: &Tidegate, address: &str) {
    static NEXT: AtomicUsize = AtomicUsize::new(1000);
    eventually(&format!("answers are {address}"), || ask(tidegate, NEXT.fetch_add(1, Ordering::Relaxed)) == [address]);
}

#[test]
fn a_drained_server_gets_no_queries_until_undrained_even_after_a_reload() {
    let (place, one, other) = (Place::new(), Upstream::answering("10.0.0.1"), Upstream::answering("10.0.0.2"));
    let config = two_servers(place.config(), &one, &other);
    let tidegate = Tidegate::start(&config);
    await_preferred(&tidegate, "10.0.0.1");

    let server = one.address.to_string();
    assert_eq!(place.says(&["drain", &server]), (Some(0), format!("vpc/{server} gets no more queries\n")));
    assert_eq!(
        place.says(&["drain", &format!("vpc/{server}")]),
        (Some(0), format!("vpc/{server} gets no queries already\n"))
    );
    assert!((1..20).all(|n| ask(&tidegate, n) == ["10.0.0.2"]));
    assert!(tidegate.reload(&config));
    assert!((20..40).all(|n| ask(&tidegate, n) == ["10.0.0.2"]));
    let page: Value = serde_json::from_str(&tidegate.get("/api/v1/upstreams").1).unwrap();
    assert_eq!(page["groups"][0]["tiers"][0][0]["drained"], true);

    assert_eq!(place.says(&["undrain", &server]), (Some(0), format!("vpc/{server} gets queries again\n")));
    await_preferred(&tidegate, "10.0.0.1");
    let (code, text) = place.says(&["drain", "vpc"]);
    assert_eq!(code, Some(2));
    assert!(text.contains(&format!("\"vpc\" is a group; its servers are vpc/{server}")), "{text}");
    let (code, text) = place.says(&["drain", "10.9.9.9"]);
    assert_eq!(code, Some(2));
    assert!(text.contains(&format!("vpc/{server}, vpc/{}", other.address)), "{text}");
}

#[test]
fn system_is_every_server_that_resolv_conf_gave_the_group() {
    let (place, upstream) = (Place::new(), Upstream::answering("10.0.0.1"));
    let resolv_conf = place.0.path().join("resolv.conf");
    fs::write(&resolv_conf, "nameserver 192.0.2.1\nnameserver 192.0.2.2\n").unwrap();
    let entry = format!("system:{}", resolv_conf.display());
    let fixed = upstream.address.to_string();
    let config = place.config().servers("site", &[fixed.clone(), entry.clone()], "").upstream("vpc", &[&upstream], "");
    let _tidegate =
        Tidegate::start(&config.forward("all", &["."], "site", "").forward("aws", &["a.example"], "vpc", ""));

    let (code, text) = place.says(&["drain", "system"]);
    assert_eq!((code, &*text), (Some(0), "site/192.0.2.1 gets no more queries\nsite/192.0.2.2 gets no more queries\n"));
    let (code, text) = place.says(&["undrain", &format!("site/{entry}")]);
    assert_eq!((code, text.lines().count()), (Some(0), 2), "{text}");
    for unknown in ["vpc/system", "system:/etc/other.conf"] {
        let (code, text) = place.says(&["drain", unknown]);
        assert_eq!(code, Some(2), "{unknown}: {text}");
        assert!(text.contains("there are site/"), "{unknown}: {text}");
    }
}

#[test]
fn a_drain_loses_no_query_under_way_and_all_drained_is_down() {
    let (place, upstream) = (Place::new(), Upstream::answering("10.0.0.1"));
    let gate = Gate::default();
    upstream.on("slow.example.", rtype::A, Script::held(&gate, Reply::a("10.0.0.1")));
    let config = place.config().upstream("vpc", &[&upstream], ONE_PATIENT_TRY).forward("all", &["."], "vpc", "");
    let tidegate = Tidegate::start(&config);
    let socket = tidegate.client().socket();
    socket.send(&Query::a("slow.example."));
    upstream.wait_for("slow.example.", 1);
    // By its address, without the port.
    assert_eq!(place.order(&["drain", "127.0.0.1"]).status.code(), Some(0));
    let answer = tidegate.client().ask(&Query::a("new.example.").edns());
    assert_eq!(answer.verdict(), (ResponseCode::ServFail, Some(22)));
    gate.open();
    assert_eq!(socket.receive().address_texts(), ["10.0.0.1"]);
}

#[test]
fn a_drained_machine_stays_drained_over_every_path() {
    let (place, one, other) = (Place::new(), Upstream::answering("10.0.0.1"), Upstream::answering("10.0.0.2"));
    let lines = format!("policy = \"ordered\"\n{ONE_PATIENT_TRY}");
    let with = |more: &str| {
        let config = place.config().upstream("vpc", &[&one, &other], &format!("{lines}\n{more}"));
        config.forward("all", &["."], "vpc", "")
    };
    let tidegate = Tidegate::start(&with(""));
    assert!(place.order(&["drain", &one.address.to_string()]).status.success());
    assert!(tidegate.reload(&with("source = \"127.0.0.1\"")));
    assert!((0..10).all(|n| ask(&tidegate, n) == ["10.0.0.2"]));
    assert!(place.order(&["undrain", &one.address.to_string()]).status.success());
    await_preferred(&tidegate, "10.0.0.1");
    assert!(tidegate.reload(&with("")));
    assert!(place.says(&["undrain", "127.0.0.1"]).1.contains("gets queries already"));
}

#[test]
fn with_every_server_of_every_tier_drained_stale_answers_serve_until_one_is_back() {
    let (place, one, other) = (Place::new(), Upstream::answering("10.0.0.1"), Upstream::answering("10.0.0.2"));
    for upstream in [&one, &other] {
        upstream.on("warm.example.", rtype::A, Reply::of([Record::a("@", 1, "10.0.0.9")]));
    }
    let lines = format!("{ONE_PATIENT_TRY}\nbackup = [[\"{}\"]]", other.address);
    let config = place.config().upstream("vpc", &[&one], &lines);
    let tidegate = Tidegate::start(&config.forward("all", &["."], "vpc", ""));
    let client = tidegate.client();
    assert_eq!(client.ask(&Query::a("warm.example.")).address_texts(), ["10.0.0.9"]);

    assert!(place.order(&["drain", &one.address.to_string()]).status.success());
    assert_eq!(ask(&tidegate, 1), ["10.0.0.2"], "the next tier");
    let (code, text) = place.says(&["drain", &format!("vpc/{}", other.address)]);
    assert_eq!((code, text.lines().nth(1)), (Some(0), Some("upstream vpc has no server left, as if all were down")));
    let probes = one.all_seen().len();
    eventually("a stale answer", || {
        let answer = client.ask(&Query::a("warm.example.").edns());
        assert_eq!(answer.address_texts(), ["10.0.0.9"]);
        answer.verdict() == (ResponseCode::NoError, Some(3))
    });
    assert_eq!(client.ask(&Query::a("new.example.").edns()).verdict(), (ResponseCode::ServFail, Some(22)));
    eventually("a drained server is still probed", || one.all_seen().len() > probes);
    let page: Value = serde_json::from_str(&tidegate.get("/api/v1/upstreams").1).unwrap();
    assert_eq!(page["groups"][0]["down"], true);

    assert!(place.order(&["undrain", &other.address.to_string()]).status.success());
    assert_eq!(client.ask(&Query::a("new.example.")).address_texts(), ["10.0.0.2"]);
    assert_eq!(one.count("new.example."), 0);
}

#[test]
fn a_query_that_failed_without_a_server_is_asked_again_when_it_is_back() {
    let (place, one, other) = (Place::new(), Upstream::answering("10.0.0.1"), Upstream::answering("10.0.0.2"));
    other.on("www.example.", rtype::A, Reply::servfail());
    let config = place.config().section("cache", "failure_ttl = \"5m\"");
    // SERVFAIL of one is a reason to ask the other, whichever comes first.
    let config = config.upstream("vpc", &[&one, &other], "attempts = 2\nhedge = false\ntimeout = \"1s\"");
    let tidegate = Tidegate::start(&config.forward("all", &["."], "vpc", ""));
    let server = one.address.to_string();
    assert!(place.order(&["drain", &server]).status.success());
    let ask = || tidegate.client().ask(&Query::a("www.example.").edns());
    assert_eq!(ask().rcode(), ResponseCode::ServFail);
    assert_eq!(ask().verdict(), (ResponseCode::ServFail, Some(13)), "it is remembered");
    assert!(place.order(&["undrain", &server]).status.success());
    assert_eq!(ask().address_texts(), ["10.0.0.1"]);
}

#[test]
fn draining_and_undraining_under_load_loses_no_query() {
    let (place, one, other) = (Place::new(), Upstream::answering("10.0.0.1"), Upstream::answering("10.0.0.2"));
    let late = |address| Script::late(Duration::from_millis(20), Reply::a(address));
    one.on_type(rtype::A, late("10.0.0.1"));
    other.on_type(rtype::A, late("10.0.0.2"));
    let config = place.config().upstream("vpc", &[&one, &other], "policy = \"spread\"");
    let tidegate = Tidegate::start(&config.forward("all", &["."], "vpc", ""));
    let server = one.address.to_string();
    let stop = AtomicBool::new(false);
    let asked = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let socket = tidegate.client().socket();
            let mut asked = 0;
            while !stop.load(Ordering::SeqCst) {
                (0..20).for_each(|n| socket.send(&Query::a(&format!("n{}.example.", asked + n))));
                for _ in 0..20 {
                    let answer = socket.receive();
                    assert_eq!(answer.rcode(), ResponseCode::NoError, "{answer:?}");
                }
                asked += 20;
            }
            asked
        });
        for turn in 0..5 {
            assert!(place.order(&["drain", &server]).status.success());
            // Queries sent before the drain may still arrive; after that there is silence, except for probes.
            let seen = || one.all_seen().iter().filter(|seen| seen.qtype == rtype::A).count();
            let mut last = (seen(), other.all_seen().len());
            eventually(&format!("silence for a hundred questions, turn {turn}"), || {
                let now = (seen(), other.all_seen().len());
                if now.0 != last.0 {
                    last = now;
                }
                now.1 > last.1 + 100
            });
            assert!(place.order(&["undrain", &server]).status.success());
            let before = seen();
            eventually("it is asked again", || seen() > before);
        }
        stop.store(true, Ordering::SeqCst);
        load.join().unwrap()
    });
    assert!(asked > 0);
}
