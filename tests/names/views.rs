//! Rules for some clients only: each client gets the answers of its own view, in whatever order they ask.

use rstest::rstest;

use crate::{
    CORPORATE_ZONE, Config, ONE_PATIENT_TRY, Peer,
    support::{
        eventually,
        peers::{Dig, dig},
        query::{Query, rtype},
        records::{Record, Reply},
        script::{Gate, Script},
        tidegate::Tidegate,
        upstream::Upstream,
    },
};

/// Clients: of no view, of the lab, and of the lab's bench.
const ANYONE: &str = "127.0.9.9";
const LAB: &str = "127.1.1.1";
const BENCH: &str = "127.1.2.1";

/// Each VPC's answers for the same names.
fn vpc(address: &str) -> Peer {
    let zone = format!(
        "$TTL 60\n@ SOA ns h 1 7200 900 1209600 30\n@ NS ns\nns A 10.0.0.1\n*.us-east-1 A {address}\n\
         *.s3.us-east-1 A {address}\nalias.us-east-1 CNAME sts.us-east-1\n"
    );
    Peer::named(&[("amazonaws.com", &zone)])
}

struct Vpcs {
    everybody: Peer,
    lab: Peer,
    bench: Peer,
    company: Peer,
}

impl Vpcs {
    fn start() -> Self {
        Self {
            everybody: vpc("10.20.0.1"),
            lab: vpc("10.21.0.1"),
            bench: vpc("10.22.0.1"),
            company: Peer::named(&[("corp.example", CORPORATE_ZONE)]),
        }
    }

    fn config(&self) -> Config {
        let group = |config: Config, name: &str, peer: &Peer| {
            config.servers(name, &[peer.address.to_string()], ONE_PATIENT_TRY)
        };
        let config = [("everybody", &self.everybody), ("lab", &self.lab), ("bench", &self.bench)]
            .into_iter()
            .fold(group(Config::new(), "site", &self.company), |config, (name, peer)| group(config, name, peer));
        config
            .forward("everybody", &["amazonaws.com"], "everybody", "")
            .forward("lab", &["amazonaws.com"], "lab", "clients = [\"127.1.0.0/16\"]")
            .forward("bench", &["amazonaws.com"], "bench", "clients = [\"127.1.2.0/24\"]")
            .forward("rest", &["."], "site", "")
            .raw("[[local]]\nzone = \"edge.example\"\nrecords = [\"login 60 CNAME sts.us-east-1.amazonaws.com.\"]")
    }
}

fn ask_from(tidegate: &Tidegate, client: &str, name: &str) -> Dig {
    dig(tidegate.address(), name, &["A", "-b", client])
}

/// The order of queries does not matter, and each answer is cached for its own view only.
#[rstest]
#[case::a_name_of_the_view("sts.us-east-1.amazonaws.com", &[])]
#[case::an_alias_inside_it("alias.us-east-1.amazonaws.com", &["alias.us-east-1.amazonaws.com. 60 CNAME sts.us-east-1.amazonaws.com."])]
#[case::a_corporate_alias_into_it("a1.corp.example", &["a1.corp.example. 120 CNAME sts.us-east-1.amazonaws.com."])]
#[case::a_local_alias_into_it("login.edge.example", &["login.edge.example. 60 CNAME sts.us-east-1.amazonaws.com."])]
fn each_client_has_its_own_answers(
    #[case] name: &str,
    #[case] alias: &[&str],
    #[values([ANYONE, LAB, BENCH], [BENCH, LAB, ANYONE], [LAB, ANYONE, BENCH])] order: [&str; 3],
) {
    let vpcs = Vpcs::start();
    let tidegate = Tidegate::start(&vpcs.config());
    for turn in 0..3 {
        for client in order {
            let address = match client {
                LAB => "10.21.0.1",
                BENCH => "10.22.0.1",
                _ => "10.20.0.1",
            };
            let last = format!("sts.us-east-1.amazonaws.com. 60 A {address}");
            let dig = ask_from(&tidegate, client, name);
            dig.shows_aged(&[&["NOERROR qr rd ra"], alias, &[last.as_str()]].concat());
        }
        if turn == 0 && alias.is_empty() {
            assert_eq!(tidegate.hits(), 0.0, "nobody is answered from another view");
        }
    }
    for group in ["everybody", "lab", "bench"] {
        let asked = tidegate.metric("tidegate_rule_queries_total", &[("rule", group)]);
        assert!(asked > 0.0, "{group}");
    }
    tidegate.await_metric("tidegate_responses_total", &[("source", "cache")], 6.0);
}

#[test]
fn a_view_of_some_clients_is_not_there_for_others() {
    let vpcs = Vpcs::start();
    let config = Config::new()
        .servers("lab", &[vpcs.lab.address.to_string()], ONE_PATIENT_TRY)
        .servers("site", &[vpcs.everybody.address.to_string()], ONE_PATIENT_TRY)
        .forward("lab", &["us-east-1.amazonaws.com"], "lab", "clients = [\"127.1.0.0/16\"]")
        .forward("rest", &["."], "site", "");
    let tidegate = Tidegate::start(&config);
    for _ in 0..2 {
        for (client, address) in [(ANYONE, "10.20.0.1"), (LAB, "10.21.0.1"), (BENCH, "10.21.0.1")] {
            let line = format!("sts.us-east-1.amazonaws.com. 60 A {address}");
            ask_from(&tidegate, client, "sts.us-east-1.amazonaws.com").shows_aged(&["NOERROR qr rd ra", &line]);
        }
    }
}

/// The keys of two views meet where an alias stands outside of both: one rule's view at the alias, another's at its target.
#[test]
fn views_at_both_ends_of_an_alias_stay_apart() {
    let vpcs = Vpcs::start();
    let config = vpcs.config().servers("labs-company", &[vpcs.company.address.to_string()], ONE_PATIENT_TRY).forward(
        "labs-company",
        &["corp.example"],
        "labs-company",
        "clients = [\"127.1.0.0/16\"]",
    );
    for order in [[LAB, BENCH, ANYONE], [BENCH, ANYONE, LAB], [ANYONE, BENCH, LAB]] {
        let tidegate = Tidegate::start(&config);
        for client in order.into_iter().chain(order) {
            let address = match client {
                LAB => "10.21.0.1",
                BENCH => "10.22.0.1",
                _ => "10.20.0.1",
            };
            let shown = ask_from(&tidegate, client, "a1.corp.example").shown();
            assert!(shown.last().is_some_and(|line| line.ends_with(&format!(" A {address}"))), "{client}: {shown:?}");
        }
    }
}

/// An alias outside the views that leads into them is cached for each view, and survives an outage of everything.
#[test]
fn an_alias_into_views_is_served_stale_to_each_client() {
    let mut vpcs = Vpcs::start();
    let tidegate = Tidegate::start(&vpcs.config().section("cache", "max_ttl = \"1s\"\nfailure_ttl = \"1s\""));
    let clients = [(ANYONE, "10.20.0.1"), (LAB, "10.21.0.1"), (BENCH, "10.22.0.1")];
    for (client, _) in clients {
        assert_eq!(ask_from(&tidegate, client, "a1.corp.example").status, "NOERROR");
    }
    for peer in [&mut vpcs.everybody, &mut vpcs.lab, &mut vpcs.bench, &mut vpcs.company] {
        peer.kill();
    }
    for (client, address) in clients {
        let lines = [
            "NOERROR qr rd ra",
            "a1.corp.example. 30 CNAME sts.us-east-1.amazonaws.com.",
            &format!("sts.us-east-1.amazonaws.com. 30 A {address}"),
            "EDE 3 (Stale Answer)",
        ];
        eventually("a stale answer", || {
            let shown = ask_from(&tidegate, client, "a1.corp.example").shown();
            assert!(shown.iter().all(|line| !line.contains(" A ") || line.ends_with(address)), "{client}: {shown:?}");
            shown == lines
        });
    }
}

/// A reload that brings a view: what was kept for everybody is not for its clients.
#[test]
fn a_view_that_comes_with_a_reload_has_answers_of_its_own() {
    let vpcs = Vpcs::start();
    let before = Config::new()
        .servers("everybody", &[vpcs.everybody.address.to_string()], ONE_PATIENT_TRY)
        .servers("site", &[vpcs.company.address.to_string()], ONE_PATIENT_TRY)
        .forward("everybody", &["amazonaws.com"], "everybody", "")
        .forward("rest", &["."], "site", "");
    let after = before.clone().servers("lab", &[vpcs.lab.address.to_string()], ONE_PATIENT_TRY).forward(
        "lab",
        &["amazonaws.com"],
        "lab",
        "clients = [\"127.1.0.0/16\"]",
    );
    let tidegate = Tidegate::start(&before);
    let ends = |client: &str, address: &str| {
        let shown = ask_from(&tidegate, client, "a1.corp.example").shown();
        assert!(shown.last().is_some_and(|line| line.ends_with(&format!(" A {address}"))), "{client}: {shown:?}");
    };
    ends(ANYONE, "10.20.0.1");
    ends(LAB, "10.20.0.1");
    assert!(tidegate.reload(&after));
    ends(ANYONE, "10.20.0.1");
    ends(LAB, "10.21.0.1");
    ends(ANYONE, "10.20.0.1");
    assert!(tidegate.reload(&before));
    ends(LAB, "10.20.0.1");
}

/// Two clients query one alias at the same moment, and it leads each to another view.
#[rstest]
fn queries_that_wait_together_follow_their_own_views(#[values([ANYONE, LAB], [LAB, ANYONE])] order: [&str; 2]) {
    let company = Upstream::start();
    let lab = Upstream::answering("10.21.0.1");
    let gate = Gate::default();
    let alias = "alias.corp.example.";
    let whole = Reply::of([
        Record::cname("@", 60, "sts.us-east-1.amazonaws.com."),
        Record::a("sts.us-east-1.amazonaws.com.", 60, "203.0.113.1"),
    ]);
    company.on(alias, rtype::A, Script::held(&gate, whole));
    let config = Config::new()
        .upstream("site", &[&company], ONE_PATIENT_TRY)
        .upstream("lab", &[&lab], ONE_PATIENT_TRY)
        .forward("rest", &["."], "site", "")
        .forward("lab", &["amazonaws.com"], "lab", "clients = [\"127.1.0.0/16\"]")
        .section("server", "workers = 1");
    let tidegate = Tidegate::start(&config);
    let sockets = order.map(|client| {
        let socket = tidegate.client().at(client).socket();
        socket.send(&Query::a(alias));
        company.wait_for(alias, 1);
        socket
    });
    tidegate.await_metric("tidegate_queries_total", &[], 2.0);
    gate.open();
    for (client, socket) in order.iter().zip(sockets) {
        let expected = if *client == LAB { "10.21.0.1" } else { "203.0.113.1" };
        assert_eq!(socket.receive().address_texts(), [expected], "{client}");
    }
}
