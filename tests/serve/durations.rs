//! Every reply has its duration in the histogram, whatever path produced it.

use crate::support::{
    config::Config,
    eventually,
    query::{Query, rtype},
    tidegate::Tidegate,
    upstream::Upstream,
};

#[test]
fn every_reply_has_its_duration() {
    let upstream = Upstream::answering("10.0.0.1");
    let config = Config::forwarding_to(&[&upstream]).section("server", "deny = [\"127.0.0.2/32\"]");
    let tidegate = Tidegate::start(&config);
    let client = tidegate.client();
    let expected = [("upstream", 1.0), ("cache", 3.0), ("refused", 2.0), ("error", 1.0), ("local", 1.0)];
    // No batch of datagrams comes behind it that could take what a stream forgot.
    client.at("127.0.0.2").ask(&Query::a("www.example."));
    for _ in 0..4 {
        client.ask_over_tcp(&Query::a("www.example."));
    }
    client.ask_over_tcp(&Query::new("www.example.", rtype::AXFR));
    client.ask_over_tcp(&Query::a("www.example.").edns().version(1));
    client.ask_over_tcp(&Query::a("localhost."));
    for (source, count) in expected {
        let replies = || tidegate.metric("tidegate_responses_total", &[("source", source)]);
        let timed = || tidegate.metric("tidegate_query_duration_seconds_count", &[("source", source)]);
        eventually(&format!("{count} replies from {source}, each with its time"), || {
            (replies(), timed()) == (count, count)
        });
    }
}
