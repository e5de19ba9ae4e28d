//! What is kept, and for whom.

use hickory_proto::op::ResponseCode;

use crate::support::{
    config::{Config, ONE_PATIENT_TRY},
    query::{Query, rtype},
    records::Reply,
    script::{Gate, Script},
    tidegate::Tidegate,
    upstream::Upstream,
};

/// RebirthDay, CVE-2025-5994 (Unbound): each client subnet had an upstream query of its own for one name, so that a
/// forger had as many ids to hit as there were subnets. Here subnets share one query, whatever they claim.
#[test]
fn birthday_by_client_subnets_finds_one_query_outstanding() {
    const CLIENT_SUBNET: u16 = 8;
    let upstream = Upstream::start();
    let gate = Gate::default();
    upstream.on("www.example.", rtype::A, Script::held(&gate, Reply::a("10.0.0.1")));
    let tidegate = Tidegate::start(&Config::forwarding_to(&[&upstream]).section("server", "deadline = \"15s\""));

    let ask = |subnet: u8| {
        let socket = tidegate.client().socket();
        socket.send(&Query::a("www.example.").option(CLIENT_SUBNET, &[0, 1, 24, 0, 10, 0, subnet]));
        socket
    };
    let sockets: Vec<_> = (0..100).map(ask).collect();
    tidegate.await_metric("tidegate_coalesced_total", &[], 99.0);
    gate.open();
    for socket in sockets {
        assert_eq!(socket.receive().address_texts(), ["10.0.0.1"]);
    }
    let seen = upstream.seen("www.example.");
    assert_eq!(seen.len(), 1);
    assert!(!seen[0].bytes.windows(3).any(|octets| octets == [24, 0, 10]), "no subnet goes upstream");
}

/// A rule that a reload took away answers nothing any more: not from the cache, and not as a stale answer either.
#[test]
fn a_rule_that_is_gone_leaves_no_answer_fresh_or_stale() {
    let (gone, other) = (Upstream::answering("10.0.0.1"), Upstream::answering("10.0.0.2"));
    let rest =
        || Config::new().upstream("other", &[&other], ONE_PATIENT_TRY).forward("rest", &["other.example"], "other", "");
    let both = rest().upstream("gone", &[&gone], ONE_PATIENT_TRY).forward("gone", &["gone.example"], "gone", "");
    let tidegate = Tidegate::start(&both);
    let query = Query::a("www.gone.example.").edns();
    assert_eq!(tidegate.client().ask(&query).address_texts(), ["10.0.0.1"]);

    assert!(tidegate.reload(&rest()));
    for _ in 0..2 {
        assert_eq!(tidegate.client().ask(&query).verdict(), (ResponseCode::Refused, Some(20)));
    }
    // Where another rule has the name now, it decides.
    let moved = rest().forward("moved", &["gone.example"], "other", "");
    other.go_silent();
    other.on_type(rtype::A, Reply::servfail());
    assert!(tidegate.reload(&moved));
    assert_eq!(tidegate.client().ask(&query).rcode(), ResponseCode::ServFail, "nothing stale of another rule");
}
