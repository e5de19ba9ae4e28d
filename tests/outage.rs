//! Many questions while an upstream keeps everybody waiting: what each costs.

mod support;

use support::{
    client::Client,
    eventually,
    query::{Query, rtype},
    records::{Record, Reply},
    script::{Gate, Script},
    upstream::Upstream,
};
use tidegate::{config::Plan, daemon::Daemon};

const NAME: &str = "hot.example.";

/// A daemon in this process that gives stale answers at once.
fn start(upstream: &Upstream) -> Daemon {
    let text = format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nworkers = 1\n[admin]\nhttp = \"\"\nsocket = \"\"\n\
         [cache]\nstale_after = \"0s\"\nprefetch = false\n\
         [upstream.site]\nservers = [\"{}\"]\nattempts = 1\nhedge = false\ntimeout = \"3s\"\n\
         [[forward]]\nzones = [\".\"]\nto = \"site\"\n",
        upstream.address
    );
    let plan = Plan::from_text("t.toml", &text).expect("a valid configuration");
    Daemon::start(&plan.boot, plan.live).expect("it starts")
}

#[test]
fn who_was_given_a_stale_answer_waits_for_nothing_more() {
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
