//! The query log: which queries get a line, and what it says.

use serde_json::Value;

use crate::support::{
    config::Config, eventually, query::Query, records::Reply, tidegate::Tidegate, upstream::Upstream,
};

/// The fields of the query log's lines so far.
fn lines(tidegate: &Tidegate) -> Vec<Value> {
    let parsed = tidegate.log().into_iter().filter_map(|line| serde_json::from_str::<Value>(&line).ok());
    parsed.filter(|line| line["target"] == "tidegate::query").map(|line| line["fields"].clone()).collect()
}

/// The fields of the first line about this name, once it is there.
#[track_caller]
fn line_about(tidegate: &Tidegate, name: &str) -> Value {
    let find = || lines(tidegate).into_iter().find(|fields| fields["name"] == name);
    eventually(&format!("a line about {name}"), || find().is_some());
    find().unwrap_or_default()
}

fn config(upstream: &Upstream, log: &str) -> Config {
    Config::forwarding_to(&[upstream]).section("log", log)
}

#[test]
fn each_query_gets_a_line_that_says_who_asked_and_who_answered() {
    let upstream = Upstream::answering("10.0.0.1");
    let tidegate = Tidegate::start(&config(&upstream, "queries = \"all\""));
    let client = tidegate.client();
    client.ask(&Query::a("wWw.example."));
    let first = line_about(&tidegate, "www.example.");
    for (field, value) in [
        ("message", "query"),
        ("client", "127.0.0.1"),
        ("transport", "udp"),
        ("qtype", "A"),
        ("rcode", "NOERROR"),
        ("source", "upstream"),
    ] {
        assert_eq!(first[field], value, "{field}: {first}");
    }
    assert!(first["group"].is_string() && first["server"].as_str().is_some_and(|s| s.contains("127.0.0.1")), "{first}");
    assert!(first["duration_us"].as_u64().is_some_and(|took| took > 0), "{first}");
    assert!(first["ede"].is_null(), "{first}");

    client.ask_over_tcp(&Query::a("www.example."));
    eventually("a line about the hit", || lines(&tidegate).len() == 2);
    let hit = &lines(&tidegate)[1];
    assert_eq!((&hit["source"], &hit["transport"]), (&"cache".into(), &"tcp".into()), "{hit}");
    assert!(hit["server"].is_null() && hit["group"].is_null(), "the cache answered: {hit}");

    client.ask(&Query::new("transfer.example.", 252).edns());
    let refused = line_about(&tidegate, "transfer.example.");
    assert_eq!((&refused["rcode"], &refused["source"]), (&"REFUSED".into(), &"refused".into()), "{refused}");
    assert_eq!((&refused["qtype"], &refused["ede"]), (&"AXFR".into(), &20.into()), "{refused}");

    // A line is one line, whatever a name holds.
    let odd = Query::new("a\nb.example.", 1);
    client.ask(&odd);
    line_about(&tidegate, "a\\010b.example.");
}

#[test]
fn a_level_of_the_log_holds_no_query_back_and_a_reload_switches_them() {
    let upstream = Upstream::answering("10.0.0.1");
    let tidegate = Tidegate::start(&config(&upstream, "queries = \"off\""));
    let client = tidegate.client();
    client.ask(&Query::a("before.example."));
    assert!(tidegate.reload(&config(&upstream, "queries = \"all\"\nlevel = \"error\"")));
    client.ask(&Query::a("between.example."));
    line_about(&tidegate, "between.example.");
    assert!(tidegate.reload(&config(&upstream, "queries = \"all\"\nsample = 0.0")));
    client.ask(&Query::a("unsampled.example."));
    assert!(tidegate.reload(&config(&upstream, "queries = \"all\"")));
    client.ask(&Query::a("after.example."));
    line_about(&tidegate, "after.example.");
    let names: Vec<_> = lines(&tidegate).iter().map(|fields| fields["name"].clone()).collect();
    assert_eq!(names, ["between.example.", "after.example."]);
}

#[test]
fn with_errors_only_good_answers_get_no_line() {
    let upstream = Upstream::answering("10.0.0.1");
    upstream.on("gone.example.", 1, Reply::nxdomain(300)).on("broken.example.", 1, Reply::servfail());
    let tidegate = Tidegate::start(&config(&upstream, "queries = \"errors\""));
    let client = tidegate.client();
    for name in ["www.example.", "gone.example.", "www.example.", "broken.example."] {
        client.ask(&Query::a(name));
    }
    let error = line_about(&tidegate, "broken.example.");
    assert_eq!((&error["rcode"], &error["source"]), (&"SERVFAIL".into(), &"error".into()), "{error}");
    assert_eq!(lines(&tidegate).len(), 1, "{:?}", lines(&tidegate));
}

#[test]
fn a_query_log_that_nobody_reads_loses_lines_and_no_answers() {
    let upstream = Upstream::answering("10.0.0.1");
    let tidegate = Tidegate::start(&config(&upstream, "queries = \"all\""));
    let lost = || tidegate.metric("tidegate_log_dropped_total", &[("sink", "log")]);
    let client = tidegate.client();
    client.ask(&Query::a("www.example."));
    tidegate.stop_reading_log();
    let mut asked = 0;
    while lost() < 1.0 {
        assert!(asked < 60_000, "the queue has a bound");
        for _ in 0..1000 {
            assert_eq!(client.ask(&Query::a("www.example.")).address_texts(), ["10.0.0.1"]);
        }
        asked += 1000;
    }
    assert!(tidegate.stop().success(), "nor does it hold up the end");
}
