//! Upstreams over encrypted transports, from the configuration file to the client.

use std::fs;

use rstest::rstest;
use tempfile::TempDir;

use crate::support::{
    authority::{Authority, Validity},
    client::Client,
    config::{Config, ONE_PATIENT_TRY},
    encrypted::{Encrypted, Manner, Speaks},
    namespace::{self, Network, command},
    query::{Query, rtype},
    tidegate::{Tidegate, run},
};

const NAME: &str = "dns.corp.example";

struct Site {
    authority: Authority,
    folder: TempDir,
}

impl Site {
    fn new() -> Self {
        let authority = Authority::new("the site's CA");
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("ca.pem"), authority.pem()).expect("the folder is writable");
        Self { authority, folder }
    }

    fn ca(&self) -> String {
        self.folder.path().join("ca.pem").display().to_string()
    }

    fn server(&self, speaks: Speaks, name: &str, manner: Manner) -> Encrypted {
        Encrypted::start(speaks, &self.authority.issue(name, Validity::Now), manner)
    }

    fn config(&self, servers: &[String]) -> Config {
        let lines = format!("{ONE_PATIENT_TRY}\nca = {:?}", self.ca()).replace("attempts = 1", "attempts = 2");
        Config::new().servers("site", servers, &(lines + "\npolicy = \"ordered\"")).forward("all", &["."], "site", "")
    }
}

const fn scheme(speaks: Speaks) -> &'static str {
    match speaks {
        Speaks::Tls => "tls",
        Speaks::Https => "https",
        Speaks::Quic => "quic",
    }
}

fn text(speaks: Speaks, server: &Encrypted) -> String {
    format!("{}://{}#{NAME}", scheme(speaks), server.address)
}

fn address(client: &Client, name: &str) -> Vec<String> {
    client.ask(&Query::new(name, rtype::A)).address_texts()
}

#[rstest]
fn clients_are_answered_from_a_server_that_shows_who_it_is(
    #[values(Speaks::Tls, Speaks::Https, Speaks::Quic)] speaks: Speaks,
) {
    let site = Site::new();
    let good = site.server(speaks, NAME, Manner::Answers);
    let tidegate = Tidegate::start(&site.config(&[text(speaks, &good)]));
    assert_eq!(address(&tidegate.client(), "n7.example"), ["10.0.1.7"]);
    // The server pads its answers, but only for its own hop.
    let answer = tidegate.client().ask(&Query::new("n8.example", rtype::A).edns());
    assert_eq!((answer.address_texts().concat(), answer.option_codes()), ("10.0.1.8".to_owned(), vec![]));
    let labels = [("transport", scheme(speaks)), ("result", "ok")];
    tidegate.await_metric("tidegate_upstream_queries_total", &labels, 2.0);
    assert!(!tidegate.has_metric("tidegate_upstream_queries_total", &[("transport", "udp")]));
}

#[rstest]
fn a_server_with_anothers_certificate_is_down_and_the_log_says_why(
    #[values(Speaks::Tls, Speaks::Https, Speaks::Quic)] speaks: Speaks,
) {
    let site = Site::new();
    let bad = site.server(speaks, "other.example", Manner::Answers);
    let tidegate = Tidegate::start(&site.config(&[text(speaks, &bad)]));
    tidegate.await_logged("WARN", "of group");
    let lines = tidegate.logged("WARN", "of group");
    assert!(lines[0].contains("other.example"), "{lines:?}");
    let (_, page) = tidegate.get("/api/v1/upstreams");
    assert!(page.contains("\"cause\":\"") && page.contains("other.example"), "{page}");
    assert_eq!(bad.queries(), 0);
}

#[test]
fn an_answer_to_another_question_is_never_cached() {
    let site = Site::new();
    let bad = site.server(Speaks::Tls, NAME, Manner::AnswersAnother);
    let good = site.server(Speaks::Tls, NAME, Manner::Answers);
    let tidegate = Tidegate::start(&site.config(&[text(Speaks::Tls, &bad), text(Speaks::Tls, &good)]));
    let client = tidegate.client();
    assert_eq!(address(&client, "n1.example"), ["10.0.1.1"]);
    assert_eq!(address(&client, "another.example"), ["10.0.0.1"], "not what the bad one said under that name");
    tidegate.await_metric("tidegate_upstream_mismatches_total", &[("reason", "question")], 1.0);
}

#[rstest]
fn the_query_verb_asks_every_scheme(#[values(Speaks::Tls, Speaks::Https, Speaks::Quic)] speaks: Speaks) {
    let site = Site::new();
    let good = site.server(speaks, NAME, Manner::Answers);
    let server = format!("@{}", text(speaks, &good));
    let output = run(&["query", "n9.example", &server, "--ca", &site.ca()]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("10.0.1.9"), "{said}");
    assert_eq!(good.last_query().len() % 128, 0, "it is padded, too");
    assert!(said.contains(&format!("over {}", scheme(speaks).to_ascii_uppercase())), "{said}");
    let output = run(&["query", "n9.example", &format!("@{}://{}", scheme(speaks), good.address), "--ca", &site.ca()]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains(NAME), "it says which name the certificate is for: {said}");
}

#[test]
fn a_closed_quic_port_is_logged_once() {
    let site = Site::new();
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port").local_addr().expect("it is bound");
    let tidegate = Tidegate::start(&site.config(&[format!("quic://{nobody}#{NAME}")]));
    tidegate.await_logged("WARN", "of group");
    tidegate.await_metric("tidegate_upstream_queries_total", &[("transport", "quic"), ("result", "network")], 5.0);
    tidegate.logged_once("WARN", "of group");
    assert_eq!(tidegate.logged("WARN", "sendmsg"), [""; 0], "five datagrams were refused");
}

/// Connections use the path that a group configures: the routing table has another one, and the firewall passes nothing
/// without the mark.
#[test]
fn connections_leave_from_the_source_by_the_device_and_with_the_mark() {
    namespace::inside("encrypted::connections_leave_from_the_source_by_the_device_and_with_the_mark", || {
        let near = ["10.91.0.1/24", "10.91.0.7/24"];
        let network = Network::behind("direct", &near, &["10.91.0.2/24"]);
        let _vpn = Network::behind("vpn", &["10.92.0.1/24"], &["10.92.0.2/24"]);
        command(&["ip", "route", "add", "10.91.0.2/32", "dev", "vpn"]);
        let unmarked = "oifname direct meta l4proto { tcp, udp } meta mark != 7 counter drop";
        command(&[
            "nft",
            &format!("table inet way {{ chain out {{ type filter hook output priority 0; {unmarked}; }}; }}"),
        ]);
        let site = Site::new();
        for speaks in [Speaks::Tls, Speaks::Https, Speaks::Quic] {
            let server = network.encrypted("10.91.0.2:0", speaks, &site.authority.issue(NAME, Validity::Now));
            let way = "source = \"10.91.0.7\"\ndevice = \"direct\"\nmark = 7";
            let lines = format!("{ONE_PATIENT_TRY}\nca = {:?}\n{way}", site.ca());
            let config = Config::new().servers("site", &[text(speaks, &server)], &lines);
            let tidegate = Tidegate::start(&config.forward("all", &["."], "site", ""));
            assert_eq!(address(&tidegate.client(), "n7.example"), ["10.0.1.7"], "{speaks:?}");
            let sources: Vec<_> = server.greetings().iter().map(|greeting| greeting.from.to_string()).collect();
            assert!(
                !sources.is_empty() && sources.iter().all(|source| source == "10.91.0.7"),
                "{speaks:?}: {sources:?}"
            );
        }
    });
}
