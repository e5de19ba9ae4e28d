//! The classes of faults that struck DNS forwarders, resolvers and their libraries, with a test for each. What another
//! file already holds is listed in [`ELSEWHERE`]; a test here keeps that list true.

#[path = "../support/mod.rs"]
mod support;

mod amplification;
mod cache;
mod doh;
mod doq;
mod forgery;
mod opcodes;
mod sizes;
mod smuggling;

/// Class, file below `tests/`, and the test there that holds us to it.
const ELSEWHERE: &[(&str, &str, &str)] = &[
    // Unbound and others handed an answer for CD=1 or DO=1 to clients that had not asked so.
    ("cache key without DO or CD", "answers/edns.rs", "do_and_cd_are_forwarded_and_kept_apart_in_the_cache"),
    ("cache key without the view", "answers/caching.rs", "clients_of_a_view_share_nothing_with_others"),
    ("views that wait together", "names/views.rs", "queries_that_wait_together_follow_their_own_views"),
    // Client subnet is not part of the key, because it is never forwarded.
    ("cache key without the client subnet", "answers/edns.rs", "no_option_of_a_client_reaches_an_upstream"),
    (
        "answers to another question",
        "answers/forgery.rs",
        "a_datagram_that_does_not_match_is_ignored_and_the_wait_goes_on",
    ),
    ("answers to another question, encrypted", "serve/encrypted.rs", "an_answer_to_another_question_is_never_cached"),
    // MaginotDNS: CVE-2021-25220 (BIND), CVE-2022-32983 (Knot Resolver).
    ("records outside the question", "answers/forgery.rs", "records_for_other_names_are_neither_passed_on_nor_kept"),
    ("records beside the answer", "names/nasty.rs", "records_beside_the_answer_are_dropped"),
    // Ghost and phoenix domains, CVE-2022-30698 and -30699 (Unbound): no delegation is kept at all.
    ("answers that outlive their TTL", "answers/caching.rs", "an_expired_answer_is_asked_for_again"),
    // CVE-2002-2211; again in dnsmasq, CVE-2020-25686.
    ("birthday, equal queries", "answers/caching.rs", "one_upstream_query_serves_all_who_ask_the_same"),
    // CVE-2008-1447 (Kaminsky).
    ("ids and ports that can be guessed", "scenes/guesses.rs", "neither_port_nor_id_is_predicted_by_the_last"),
    ("answers to another port", "upstream/ports.rs", "an_answer_to_another_socket_is_not_heard"),
    ("answers from another address", "answers/forgery.rs", "an_answer_from_another_address_is_ignored"),
    // TuDoor: the first bad answer ended the wait.
    ("a wrong id or QR=0 first", "scenes/flood.rs", "a_flood_of_forged_answers_ends_no_query"),
    (
        "letter case that was changed on the way (0x20)",
        "upstream/failover.rs",
        "a_lowercase_answer_alone_changes_nothing",
    ),
    ("stale answers after a reload", "guard.rs", "a_stale_answer_from_before_the_guard_does_not_leave"),
    // NAME:WRECK and RFC 9267; SIGRed, CVE-2020-1350 (Windows).
    ("compression that loops or lies", "answers/forgery.rs", "malformed_responses_are_never_relayed"),
    ("SVCB with malformed parameters", "names/nasty.rs", "malformed_rdata_is_no_answer"),
    ("SVCB with parameters out of order", "names/nasty.rs", "addresses_in_records_of_the_asked_type_are_judged"),
    ("transfers that pin a connection", "answers/refusals.rs", "a_zone_transfer_is_refused_over_both_transports"),
    ("half messages that pin connections", "listeners.rs", "half_messages_keep_nobody_out"),
    ("readers that do not read", "listeners.rs", "a_client_that_does_not_read_holds_little"),
    ("chains without an end", "names/follow.rs", "a_chain_without_an_end_is_a_failure_in_words"),
    ("retries without a bound", "answers/failures.rs", "a_query_costs_a_bounded_number_of_upstream_messages"),
    ("rebinding by IPv4 in IPv6", "names/rules.rs", "rebinding_is_refused"),
    ("public addresses as IPv4 in IPv6", "names/guard.rs", "refused"),
];

#[test]
fn what_is_held_elsewhere_is_there() {
    for (class, file, test) in ELSEWHERE {
        let path = format!("{}/tests/{file}", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{class}: {path}: {error}"));
        assert!(text.contains(&format!("fn {test}(")), "{class}: tests/{file} has no test {test}");
    }
}
