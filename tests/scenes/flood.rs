//! Many forged answers from the right address, long before the true one: none ends a query or is passed on, and each is
//! counted (CVE-2023-28452, TuDoor).

use std::time::Duration;

use hickory_proto::op::ResponseCode;
use rstest::rstest;

use crate::support::{
    config::{Config, ONE_PATIENT_TRY},
    query::{Query, rtype},
    records::{Fault, Reply},
    script::Script,
    tidegate::Tidegate,
    upstream::Upstream,
};

const FORGED: &str = "6.6.6.6";
const TRUE: &str = "10.0.0.1";
const NAMES: usize = 20;

/// This many forgeries of one kind, a pause, and again; the true answer comes last.
fn lies(fault: &Fault, count: usize) -> Script {
    let lie = Reply::a(FORGED).but(fault.clone());
    let burst = |script: Script| (0..count).fold(script, |script, _| script.then(lie.clone()));
    let pause = Duration::from_millis(100);
    burst(burst(Script::silence()).then_wait(pause)).then_wait(pause).then(Reply::a(TRUE))
}

#[rstest]
#[case::another_id(Fault::WrongId, "id")]
#[case::another_question(Fault::WrongQuestion("n0.elsewhere.example.".into()), "question")]
#[case::a_query(Fault::NotAResponse, "not_a_response")]
#[case::two_octets(Fault::Garbage(vec![]), "short")]
fn a_flood_of_forged_answers_ends_no_query(
    #[case] fault: Fault,
    #[case] reason: &str,
    #[values(ONE_PATIENT_TRY, "timeout = \"3s\"")] lines: &str,
) {
    let upstream = Upstream::start();
    upstream.on_type(rtype::A, lies(&fault, 100));
    let config = Config::new().upstream("site", &[&upstream], lines).forward("everything", &["."], "site", "");
    let tidegate = Tidegate::start(&config);
    let label = upstream.address.to_string();
    let labels = [("server", label.as_str())];
    tidegate.await_metric("tidegate_upstream_transitions_total", &[labels[0], ("to", "up")], 1.0);

    let queries: Vec<_> = (0..NAMES).map(|number| Query::a(&format!("n{number}.example.")).edns()).collect();
    for turn in ["fresh", "cached"] {
        let sockets: Vec<_> = queries.iter().map(|_| tidegate.client().socket()).collect();
        sockets.iter().zip(&queries).for_each(|(socket, query)| socket.send(query));
        for socket in &sockets {
            let answer = socket.receive();
            assert_eq!(
                (answer.rcode(), answer.address_texts()),
                (ResponseCode::NoError, vec![TRUE.to_owned()]),
                "{turn}"
            );
        }
    }
    // Where a queue of the kernel is full, a lie is lost before anyone counts it.
    let counted = tidegate.metric("tidegate_upstream_mismatches_total", &[labels[0], ("reason", reason)]);
    assert!(counted >= 200.0, "{counted}");
    let reasons = tidegate.counted("tidegate_upstream_mismatches_total", &labels, &["reason"]);
    // Once in a hundred runs the wrong id is that of another query in flight, from another port.
    let may_count_too = if reason == "id" { "socket" } else { reason };
    let is_known = |line: &String| [reason, may_count_too].iter().any(|reason| line.starts_with(reason));
    assert!(reasons.iter().all(is_known), "{reasons:?}");
    assert_eq!(tidegate.metric("tidegate_responses_total", &[("rcode", "SERVFAIL")]), 0.0);
    assert_eq!(tidegate.metric("tidegate_upstream_transitions_total", &[labels[0], ("to", "down")]), 0.0);
}
