//! UDP replies that the kernel refuses to send.

use crate::support::{
    config::Config,
    namespace,
    query::{Query, rtype},
    records::Reply,
    script::{Gate, Script},
    tidegate::Tidegate,
    upstream::Upstream,
};

const LOST: &str = "10.9.0.1";

#[test]
fn replies_that_cannot_leave_are_dropped_and_not_answered() {
    namespace::inside("refused::replies_that_cannot_leave_are_dropped_and_not_answered", || {
        namespace::command(&["ip", "address", "add", "10.9.0.1/32", "dev", "lo"]);
        let (upstream, gate) = (Upstream::answering("10.0.0.1"), Gate::default());
        upstream.on("late.example.", rtype::A, Script::held(&gate, Reply::a("10.0.0.2")));
        let tidegate = Tidegate::start(&Config::forwarding_to(&[&upstream]));
        let query = Query::a("www.example.");
        let lost = tidegate.client().at(LOST).socket();
        lost.send(&query);
        assert_eq!(lost.receive().address_texts(), ["10.0.0.1"]);
        lost.send(&Query::a("late.example."));
        upstream.wait_for("late.example.", 1);

        // Local addresses are looked up after this rule: the path to the client is gone, the path from it is not.
        namespace::command(&["ip", "rule", "add", "pref", "200", "lookup", "local"]);
        namespace::command(&["ip", "rule", "add", "pref", "100", "to", LOST, "unreachable"]);
        namespace::command(&["ip", "rule", "del", "pref", "0"]);
        gate.open();
        let dropped = [("reason", "send")];
        tidegate.await_metric("tidegate_dropped_total", &dropped, 1.0);
        for _ in 0..20 {
            lost.send(&query);
        }
        tidegate.await_metric("tidegate_dropped_total", &dropped, 21.0);
        assert_eq!(tidegate.client().ask(&query).address_texts(), ["10.0.0.1"], "others are answered");
        let (queries, responses) =
            (tidegate.metric("tidegate_queries_total", &[]), tidegate.metric("tidegate_responses_total", &[]));
        assert_eq!((queries, responses), (23.0, 2.0), "each query is a response or dropped");
        assert_eq!(tidegate.metric("tidegate_dropped_total", &[]), 21.0);
    });
}
