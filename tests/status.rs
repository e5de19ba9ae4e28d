//! What the daemon says of itself at one glance: the document, and `tidegate status` that reads it.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{fs, net::TcpListener, path::Path, process::Output};

use support::{
    config::{Config, ONE_PATIENT_TRY},
    eventually,
    query::Query,
    tidegate::{Tidegate, run},
    upstream::Upstream,
};
use tidegate::admin::status::{Severity, Status};

fn document(tidegate: &Tidegate) -> Status {
    let (code, text) = tidegate.get("/api/v1/status");
    assert_eq!(code, 200, "{text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The findings' kinds, each with the text.
fn findings(status: &Status) -> Vec<(&str, &str)> {
    status.findings.iter().map(|finding| (finding.kind.as_str(), finding.text.as_str())).collect()
}

/// Probes that tell soon, also on a busy machine.
const PROBED_OFTEN: &str = "attempts = 1\nhedge = false\ntimeout = \"500ms\"\n[upstream.vpc.health]\ninterval = \"200ms\"\n\
                            interval_down = \"100ms\"";

fn two_groups(vpc: &[&Upstream], site: &Upstream) -> Config {
    two_groups_of(Config::new(), vpc, site)
}

fn two_groups_of(config: Config, vpc: &[&Upstream], site: &Upstream) -> Config {
    config
        .upstream("vpc", vpc, PROBED_OFTEN)
        .upstream("site", &[site], ONE_PATIENT_TRY)
        .forward("aws", &["amazonaws.com"], "vpc", "private = [\"10.0.0.0/8\"]\non_public = \"refuse\"")
        .forward("everything", &["."], "site", "")
}

#[test]
fn the_document_tells_who_is_down_and_why_in_words() {
    let (one, other) = (Upstream::answering("10.0.0.1"), Upstream::answering("10.0.0.2"));
    let site = Upstream::answering("10.9.0.1");
    let tidegate = Tidegate::start(&two_groups(&[&one, &other], &site));
    eventually("all is well", || document(&tidegate).health == Severity::Ok);
    tidegate.client().ask(&Query::a("www.example."));
    tidegate.client().ask(&Query::a("www.example."));
    let status = document(&tidegate);
    assert_eq!((status.findings.len(), status.ready), (0, true), "{status:#?}");
    assert_eq!((status.queries["udp"], status.cache.hit_ratio), (2, Some(0.5)));
    assert_eq!(status.groups[0].words, "all 2 servers are usable");

    one.go_silent();
    other.go_silent();
    eventually("the group is down", || document(&tidegate).groups[0].usable == 0);
    let status = document(&tidegate);
    assert_eq!(status.health, Severity::Error);
    let found = findings(&status);
    assert_eq!(found[0], ("group-down", "upstream vpc: no server is usable: 2 down"), "{found:?}");
    for server in [&one, &other] {
        let expected = format!("upstream {} of group vpc is down: no answer", server.address);
        assert!(found.iter().any(|(kind, text)| *kind == "server-down" && text.starts_with(&expected)), "{found:?}");
    }
    assert!(found.iter().all(|(_, text)| !text.contains("site")), "{found:?}");
}

#[test]
fn the_document_keeps_why_a_reload_was_refused_until_one_succeeds() {
    let upstream = Upstream::answering("10.0.0.1");
    let config = Config::forwarding_to(&[&upstream]);
    let tidegate = Tidegate::start(&config);
    assert_eq!(document(&tidegate).configuration.last_reload, None);
    assert!(!tidegate.reload_text("[upstream.site\n"));
    let status = document(&tidegate);
    let last = status.configuration.last_reload.clone().unwrap();
    assert!(!last.success && last.lines[0].contains("tidegate.toml:1"), "{last:?}");
    let refused = status.findings.iter().find(|finding| finding.kind == "reload-refused").unwrap();
    assert!(refused.severity == Severity::Warning && refused.text.contains(&last.lines[0]), "{refused:?}");
    assert!(tidegate.reload(&config));
    let status = document(&tidegate);
    assert!(status.configuration.last_reload.unwrap().success);
    assert!(!status.findings.iter().any(|finding| finding.kind == "reload-refused"));
}

#[test]
fn a_local_file_that_cannot_be_used_is_a_finding_until_it_is_mended() {
    let upstream = Upstream::answering("10.0.0.1");
    let folder = tempfile::tempdir().unwrap();
    let (zone, hosts) = (folder.path().join("corp.zone"), folder.path().join("hosts"));
    fs::write(&zone, "@ SOA ns h 1 7200 900 1209600 300\n@ NS ns\nns A 10.0.0\n").unwrap();
    let files = format!("[[local]]\nzone = \"corp.example\"\nfile = {zone:?}\n[local_hosts]\nfile = {hosts:?}\n");
    let tidegate = Tidegate::start(&Config::forwarding_to(&[&upstream]).raw(&files));
    let told = || {
        let findings = document(&tidegate).findings.into_iter();
        let about = findings.filter(|finding| finding.kind == "local-file" && finding.severity == Severity::Error);
        about.map(|finding| finding.text).collect::<Vec<_>>()
    };
    let expected = [
        "the local zone corp.example answers SERVFAIL: its file cannot be used; `tidegate check` says why".to_owned(),
        format!(
            "names of the hosts file are not answered here: {} cannot be read; `tidegate check` says why",
            hosts.display()
        ),
    ];
    assert_eq!(told(), expected);
    fs::write(&hosts, "10.0.0.2 printer\n").unwrap();
    eventually("the hosts file is read", || told() == expected[..1]);
    fs::write(&zone, "@ SOA ns h 1 7200 900 1209600 300\n@ NS ns\nns A 10.0.0.1\n").unwrap();
    eventually("the zone is read", || told().is_empty());
}

#[test]
fn a_public_answer_for_a_guarded_name_is_a_finding() {
    let (vpc, site) = (Upstream::answering("52.1.2.3"), Upstream::answering("10.9.0.1"));
    let tidegate = Tidegate::start(&two_groups(&[&vpc], &site));
    tidegate.client().ask(&Query::a("sts.eu-west-1.amazonaws.com."));
    let status = document(&tidegate);
    let finding = status.findings.iter().find(|finding| finding.kind == "guard").unwrap();
    assert!(finding.text.contains("sts.eu-west-1.amazonaws.com"), "{finding:?}");
    assert_eq!(status.guard["refuse"], 1);
}

/// With a control socket in this folder.
fn with_socket(folder: &Path) -> Config {
    let socket = folder.join("control.sock");
    Config::without_admin().section("admin", &format!("http = \"127.0.0.1:0\"\nsocket = {socket:?}"))
}

/// What a verb says on standard output and on standard error, and its exit code.
#[track_caller]
fn says(folder: &Path, words: &[&str]) -> (Option<i32>, String, String) {
    let socket = folder.join("control.sock").display().to_string();
    let Output { status, stdout, stderr } = run(&[words, &["--socket", &socket]].concat());
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn the_verb_shows_the_daemon_and_its_exit_code_says_whether_all_is_well() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other, site) = (Upstream::start(), Upstream::start(), Upstream::start());
    let tidegate = Tidegate::start(&two_groups_of(with_socket(folder.path()), &[&one, &other], &site));
    let says = |words: &[&str]| says(folder.path(), words);
    eventually("all is well", || says(&["status"]).0 == Some(0));
    tidegate.client().ask(&Query::a("www.example."));
    let (code, text, error) = says(&["status"]);
    assert_eq!((code, error.as_str()), (Some(0), ""));
    assert!(text.starts_with("all is well\n\ntidegate "), "{text}");
    let hash = document(&tidegate).configuration.hash;
    for part in [&format!("configuration {hash}"), "1 query (udp 1)", "upstream vpc (", "all 2 servers are usable"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert_eq!(says(&["status", "--live"]), (Some(0), "live\n".to_owned(), String::new()));
    assert_eq!(says(&["status", "--ready"]), (Some(0), "ready\n".to_owned(), String::new()));

    let server = one.address.to_string();
    assert_eq!(says(&["drain", &server]).0, Some(0));
    let (code, text, _) = says(&["status"]);
    assert_eq!(code, Some(0), "a drain is as somebody wanted it\n{text}");
    assert!(text.contains(&format!("note     upstream {server} of group vpc is drained")), "{text}");
    other.go_silent();
    eventually("the group is down", || says(&["status"]).0 == Some(1));
    eventually("down and drained", || says(&["status"]).1.contains("no server is usable: 1 down, 1 drained"));
    let (_, text, _) = says(&["status"]);
    assert!(text.contains(&format!("upstream {} of group vpc is down: ", other.address)), "{text}");
    let (code, text, error) = says(&["status", "--ready"]);
    assert_eq!((code, &*text), (Some(1), "unready\n"), "one word, and why beside it");
    assert_eq!(error, "tidegate: upstream vpc: no server is usable: 1 down, 1 drained\n");
    assert_eq!(says(&["status", "--live"]).0, Some(0));

    let (code, text, _) = says(&["status", "--json"]);
    let status: Status = serde_json::from_str(&text).unwrap();
    assert_eq!((code, status.health), (Some(1), Severity::Error));
    let admin = format!("http://{}", tidegate.admin_address());
    let output = run(&["status", "--json", "--admin", &admin]);
    let over_http: Status = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), over_http.groups.len()), (Some(1), 2));
}

#[test]
fn a_daemon_that_does_not_answer_is_neither_live_nor_ready() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(says(folder.path(), &["status", "--live"]), (Some(1), "dead\n".to_owned(), String::new()));
    let (code, text, error) = says(folder.path(), &["status", "--ready"]);
    assert_eq!((code, &*text), (Some(1), "unready\n"));
    assert!(error.contains("control.sock"), "{error}");
    let (code, text, error) = says(folder.path(), &["status"]);
    assert_eq!((code, text.as_str()), (Some(1), ""));
    assert!(error.contains("control.sock"), "{error}");
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).unwrap();
    let output = run(&["status", "--live", "--admin", &closed.to_string()]);
    assert_eq!((output.status.code(), output.stdout), (Some(1), b"dead\n".to_vec()));
}

#[test]
fn why_a_server_is_down_is_in_the_words_of_the_log_and_no_handshake_is_a_query() {
    let folder = tempfile::tempdir().unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).unwrap();
    let (mut gone, up) = (Upstream::start(), Upstream::answering("10.0.0.2"));
    let plain = gone.address.to_string();
    gone.stop();
    let servers = [plain, format!("tls://{closed}#dns.example"), up.address.to_string()];
    let config = with_socket(folder.path()).servers("vpc", &servers, PROBED_OFTEN).forward("all", &["."], "vpc", "");
    let tidegate = Tidegate::start(&config);
    for server in &servers[..2] {
        tidegate.await_logged("WARN", &format!("upstream {server} of group vpc is down: "));
        let line = tidegate.logged("WARN", &format!("upstream {server} of group vpc is down: ")).remove(0);
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        let said = line["fields"]["message"].as_str().unwrap();
        let finding = said.to_owned();
        eventually(&format!("the status says: {finding}"), || {
            findings(&document(&tidegate)).iter().any(|(_, text)| *text == finding)
        });
        let (_, text, _) = says(folder.path(), &["status"]);
        assert!(text.contains(&finding), "{finding} is not in\n{text}");
        let row = text.lines().find(|line| line.starts_with("  tier") && line.contains(server)).unwrap();
        assert!(!row.contains("quer") || row.contains("no answer to any query"), "{row}");
    }
}

#[test]
fn a_daemon_without_a_control_socket_is_found_by_its_pages() {
    let upstream = Upstream::answering("10.0.0.1");
    let tidegate = Tidegate::start(&Config::forwarding_to(&[&upstream]));
    let file = tidegate.folder().join("tidegate.toml");
    let text = fs::read_to_string(&file).unwrap();
    let address = tidegate.admin_address().to_string();
    fs::write(&file, text.replace("http = \"127.0.0.1:0\"", &format!("http = {address:?}"))).unwrap();
    let ask = |word: &str| {
        let output = run(&["status", word, "--config", file.to_str().unwrap()]);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    eventually("ready", || ask("--ready") == (Some(0), "ready\n".to_owned()));
    assert_eq!(ask("--live"), (Some(0), "live\n".to_owned()));
    assert_eq!(ask("--json").0, Some(0));
}

#[test]
fn drains_and_empty_groups_are_in_metrics_and_readiness() {
    let folder = tempfile::tempdir().unwrap();
    let (vpc, site) = (Upstream::start(), Upstream::start());
    let nobody = folder.path().join("resolv.conf");
    fs::write(&nobody, "# nobody\n").unwrap();
    let config = two_groups_of(with_socket(folder.path()), &[&vpc], &site)
        .servers("host", &[format!("system:{}", nobody.display())], "")
        .forward("host", &["host.example"], "host", "");
    let tidegate = Tidegate::start(&config);
    eventually("ready", || tidegate.get("/readyz").0 == 200);
    let usable = |group: &str| format!("{:.0}", tidegate.metric("tidegate_upstream_usable", &[("group", group)]));
    assert!(tidegate.has_metric("tidegate_upstream_usable", &[("group", "host")]));
    assert_eq!([usable("vpc"), usable("site"), usable("host")], ["1", "1", "0"]);
    let (_, text) = tidegate.get("/readyz");
    assert_eq!(text, "ready\nupstream host: it has no server (/readyz?group=host is 503)\n");
    assert_eq!(tidegate.get("/readyz?group=vpc").0, 200);
    let (code, text) = tidegate.get("/readyz?group=host");
    assert_eq!((code, text.as_str()), (503, "upstream host: it has no server\n"));
    let (code, text) = tidegate.get("/readyz?group=dmz");
    assert_eq!(code, 404);
    assert!(text.contains("\"dmz\"") && text.contains("vpc, site, host"), "{text}");
    tidegate.await_logged("WARN", "upstream host has no server to ask");

    let server = vpc.address.to_string();
    let drained = || tidegate.metric("tidegate_upstream_drained", &[("group", "vpc"), ("server", &server)]) > 0.5;
    assert!(!drained());
    assert_eq!(says(folder.path(), &["drain", &format!("vpc/{server}")]).0, Some(0));
    assert!(drained());
    assert_eq!(
        (usable("vpc").as_str(), tidegate.get("/readyz").0, tidegate.get("/readyz?group=vpc").0),
        ("0", 200, 503)
    );
    assert!(
        tidegate.get("/readyz").1.contains("upstream vpc: no server is usable: 1 drained (/readyz?group=vpc is 503)\n")
    );
    assert_eq!(says(folder.path(), &["undrain", &format!("vpc/{server}")]).0, Some(0));
    assert_eq!((usable("vpc").as_str(), drained(), tidegate.get("/readyz?group=vpc").0), ("1", false, 200));
}
