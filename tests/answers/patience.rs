//! Names that are slow at their origin are waited for. Each is asked for a few times at most, and the server is not blamed.

use std::{thread, time::Duration};

use rstest::rstest;

use crate::support::{
    client::Client,
    config::Config,
    query::{Query, rtype},
    records::Reply,
    script::Script,
    tidegate::Tidegate,
    upstream::Upstream,
};

/// The most tries to one server for one query (RFC 9520 3.1).
const TRIES: usize = 3;

/// Probes are answered at once meanwhile, so that it is known that the server and the path to it work.
#[rstest]
fn a_slow_name_is_answered_and_not_asked_for_again_and_again(#[values("", "tcp://")] scheme: &str
) {
    let upstream = Upstream::start();
    upstream.on_below("slow.example.", rtype::A, Script::late(Duration::from_millis(2800), Reply::a("10.0.0.1")));
    let server = format!("{scheme}{}", upstream.address);
    let lines = "[upstream.site.health]\ninterval = \"200ms\"\ninterval_down = \"200ms\"";
    let config = Config::new().servers("site", &[server], lines).forward("everything", &["."], "site", "");
    let tidegate = Tidegate::start(&config);
    tidegate.await_metric("tidegate_upstream_transitions_total", &[("to", "up")], 1.0);

    let names: Vec<String> = (0..6).map(|number| format!("n{number}.slow.example.")).collect();
    thread::scope(|scope| {
        for name in &names {
            let client = Client::new(tidegate.address());
            scope.spawn(move || assert_eq!(client.ask(&Query::a(name).edns()).address_texts(), ["10.0.0.1"], "{name}"));
        }
    });
    for name in &names {
        assert!((1..=TRIES).contains(&upstream.count(name)), "{name}: {}", upstream.count(name));
    }
    assert_eq!(tidegate.metric("tidegate_upstream_transitions_total", &[("to", "down")]), 0.0);
}
