//! Starting, and refusing to: one line that says what to do, and the exit code that scripts rely on.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::{TcpListener, UdpSocket},
    process::{Command, Output, Stdio},
};

use rstest::rstest;
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::support::{
    config::Config,
    namespace,
    query::Query,
    tidegate::{self, Tidegate},
    upstream::Upstream,
};

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The one line of trouble on standard error.
#[track_caller]
fn only_error(output: &Output) -> String {
    let text = text(output);
    assert!(!text.contains("panicked") && !text.contains("RUST_BACKTRACE"), "{text}");
    let errors: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("\"ERROR\"") || line.starts_with("tidegate:") || line.starts_with("error"))
        .collect();
    let [line] = errors[..] else { panic!("one line of trouble:\n{text}") };
    line.to_owned()
}

#[test]
fn a_port_in_use_is_one_line_that_names_it() {
    let upstream = Upstream::start();
    let over_udp = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let over_tcp = TcpListener::bind("127.0.0.1:0").expect("a free port");
    for address in [over_udp.local_addr(), over_tcp.local_addr()].map(|address| address.expect("a bound socket")) {
        let address = address.to_string();
        let output = tidegate::refused_start(&Config::forwarding_to(&[&upstream]).listen(&[&address]));
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        let line = only_error(&output);
        assert!(line.contains(&address) && line.contains("in use"), "{line}");
    }
}

#[test]
fn a_port_shared_by_another_process_is_in_use_all_the_same() {
    let upstream = Upstream::start();
    let other = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("a socket");
    other.set_reuse_port(true).expect("SO_REUSEPORT");
    other.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().expect("an address").into()).expect("a free port");
    let address = other.local_addr().ok().and_then(|address| address.as_socket()).expect("an address").to_string();

    let output = tidegate::refused_start(&Config::forwarding_to(&[&upstream]).listen(&[&address]));
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(only_error(&output).contains(&address), "{}", text(&output));
}

#[test]
fn an_address_the_host_does_not_have_is_one_line() {
    let upstream = Upstream::start();
    let output = tidegate::refused_start(&Config::forwarding_to(&[&upstream]).listen(&["192.0.2.1:0"]));
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(only_error(&output).contains("192.0.2.1"), "{}", text(&output));
}

/// The systemd unit hides all of /proc but processes (ProcSubset=pid): what is said of the host must be true there, too.
#[rstest]
#[case::all_of_proc("proc")]
#[case::as_in_the_unit("subset=pid,hidepid=invisible")]
fn messages_about_the_host_are_right_with_and_without_proc_net(#[case] options: &str) {
    let case = if options == "proc" { "case_1_all_of_proc" } else { "case_2_as_in_the_unit" };
    let test = format!("start::messages_about_the_host_are_right_with_and_without_proc_net::{case}");
    namespace::inside(&test, || {
        if options != "proc" {
            namespace::command(&["mount", "-t", "proc", "-o", options, "proc", "/proc"]);
        }
        let upstream = Upstream::start();
        let config = Config::forwarding_to(&[&upstream]);
        let refused = |address: &str| only_error(&tidegate::refused_start(&config.clone().listen(&[address])));
        let line = refused("[2001:db8::1]:5353");
        assert!(line.contains("this host does not have the address"), "IPv6 is on: {line}");
        let _busy = UdpSocket::bind("127.0.0.1:5353").expect("every port is free here");
        let line = refused("127.0.0.1:5353");
        assert!(line.contains("in use by") && !line.contains("by nobody"), "{line}");

        // The default addresses: ::1 is not there, and that is said.
        namespace::command(&["ip", "address", "del", "::1/128", "dev", "lo"]);
        let tidegate = Tidegate::start(&config.clone().listen(&[]));
        let said = tidegate.logged("INFO", "`listen` does not name it, so it goes on without");
        assert_eq!(said.len(), 1, "{:?}", tidegate.log());
        assert!(said[0].contains("[::1]:53"), "{said:?}");
    });
}

#[rstest]
#[case::not_toml("[server\n", "1:")]
#[case::unknown_key("[server]\nlisten = [\"127.0.0.1:0\"]\nworker = 1\n", "worker")]
#[case::no_such_group("[[forward]]\nzones = [\".\"]\nto = \"nowhere\"\n", "nowhere")]
#[case::no_servers("[upstream.site]\nservers = []\n", "servers")]
#[case::not_an_address("[upstream.site]\nservers = [\"10.0.0\"]\n", "10.0.0")]
fn a_bad_file_is_exit_2_and_says_where(#[case] file: &str, #[case] culprit: &str) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("tidegate.toml");
    fs::write(&path, file).expect("the folder is writable");
    let path = path.to_string_lossy().into_owned();

    for arguments in [vec!["serve", "--config", &path], vec!["check", &path]] {
        let output = tidegate::run(&arguments);
        let said = text(&output) + &String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains("tidegate.toml:"), "it names the file and the line, {arguments:?}: {said}");
        assert!(said.contains(culprit), "it names {culprit}, {arguments:?}: {said}");
    }
}

#[test]
fn every_mistake_in_a_file_is_reported_at_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("tidegate.toml");
    let file = "[upstream.site]\nservers = [\"10.0.0\"]\n[[forward]]\nzones = [\".\"]\nto = \"nowhere\"\n";
    fs::write(&path, file).expect("the folder is writable");
    let output = tidegate::run(&["check", &path.to_string_lossy()]);
    let said = text(&output) + &String::from_utf8_lossy(&output.stdout);

    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("tidegate.toml:2:") && said.contains("tidegate.toml:5:"), "{said}");
}

#[test]
fn a_missing_file_is_exit_2() {
    let output = tidegate::run(&["serve", "--config", "/nonexistent/tidegate.toml"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("/nonexistent/tidegate.toml"), "{}", text(&output));
}

#[test]
fn a_good_file_passes_the_check_and_opens_no_socket() {
    let busy = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let address = busy.local_addr().expect("a bound socket").to_string();
    let upstream = Upstream::start();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("tidegate.toml");
    let config = Config::forwarding_to(&[&upstream]).listen(&[&address]);
    fs::write(&path, config.text()).expect("the folder is writable");

    let output = tidegate::run(&["check", &path.to_string_lossy()]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(table.contains("everything") && table.contains("site"), "the routing table: {table}");
}

#[test]
fn health_pages_answer_from_the_first_moment() {
    let upstream = Upstream::answering("10.0.0.1");
    let tidegate = Tidegate::start(&Config::forwarding_to(&[&upstream]));

    assert_eq!(tidegate.get("/healthz").0, 200);
    crate::support::eventually("a first verdict on each group", || tidegate.get("/readyz").0 == 200);
    let server = upstream.address.to_string();
    assert!(tidegate.has_metric("tidegate_upstream_healthy", &[("group", "site"), ("server", &server)]));
    for page in ["/api/v1/status", "/api/v1/upstreams"] {
        let (code, body) = tidegate.get(page);
        assert_eq!(code, 200, "{page}");
        assert!(serde_json::from_str::<Value>(&body).is_ok(), "{page}: {body}");
    }
    assert!(tidegate.get("/api/v1/upstreams").1.contains(&server));
    assert_eq!(tidegate.get("/no-such-page").0, 404);
}

#[test]
fn port_53_without_the_permission_is_one_line_that_says_what_to_grant() {
    namespace::inside("start::port_53_without_the_permission_is_one_line_that_says_what_to_grant", || {
        let upstream = Upstream::start();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("tidegate.toml");
        let config = Config::forwarding_to(&[&upstream]).listen(&["127.0.0.1:53"]);
        fs::write(&path, config.text()).expect("the folder is writable");
        let path = path.to_string_lossy().into_owned();

        let launcher = ["setpriv", "--bounding-set=-net_bind_service", "--inh-caps=-net_bind_service"];
        let output = tidegate::run_by(&launcher, &["serve", "--config", &path]);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        let line = only_error(&output);
        assert!(line.contains("127.0.0.1:53") && line.contains("CAP_NET_BIND_SERVICE"), "{line}");
    });
}

#[test]
fn by_default_it_listens_on_port_53_of_the_families_that_the_host_has() {
    namespace::inside("start::by_default_it_listens_on_port_53_of_the_families_that_the_host_has", || {
        let upstream = Upstream::answering("10.0.0.1");
        let config = Config::forwarding_to(&[&upstream]).listen(&[]);
        let listening = |config: &Config| {
            let tidegate = Tidegate::start(config);
            assert_eq!(tidegate.client().ask(&Query::a("www.example.")).address_texts(), ["10.0.0.1"]);
            let mut addresses: Vec<String> = tidegate.addresses().iter().map(ToString::to_string).collect();
            addresses.sort_unstable();
            addresses
        };
        assert_eq!(listening(&config), ["127.0.0.1:53", "[::1]:53"]);

        namespace::command(&["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"]);
        assert_eq!(listening(&config), ["127.0.0.1:53"], "IPv6 is switched off");
        let output = tidegate::refused_start(&config.listen(&["[::1]:53"]));
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(only_error(&output).contains("[::1]:53"), "{}", text(&output));
    });
}

/// Signals that come while the snapshot is still being read wait for the start to be over.
#[test]
fn a_signal_has_a_status_line_written() {
    let (up, drained) = (Upstream::answering("10.0.0.1"), Upstream::start());
    drained.go_silent();
    let config = Config::new().upstream("site", &[&up, &drained], "").forward("everything", &["."], "site", "");
    let tidegate = Tidegate::start(&config);
    let server = drained.address.to_string();
    tidegate.await_metric("tidegate_upstream_transitions_total", &[("server", &server), ("to", "down")], 1.0);
    for _ in 0..2 {
        assert_eq!(tidegate.client().ask(&Query::a("www.example.")).address_texts(), ["10.0.0.1"]);
    }
    tidegate.signal("USR2");
    tidegate.await_logged("INFO", "\"message\":\"status: ");
    let line: Value = serde_json::from_str(&tidegate.logged("INFO", "\"message\":\"status: ")[0]).expect("JSON");
    let fields = &line["fields"];
    assert_eq!((&fields["queries"], &fields["hits"], &fields["cached"]), (&2.into(), &1.into(), &1.into()));
    assert_eq!(fields["not_up"], format!("site {server} down"));
    assert_eq!(tidegate.client().ask(&Query::a("www.example.")).address_texts(), ["10.0.0.1"]);
}

#[test]
fn signals_during_the_start_do_not_kill_it() {
    let upstream = Upstream::start();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (hosts, path) = (folder.path().join("hosts"), folder.path().join("tidegate.toml"));
    // A file that takes a while to read.
    let lines: String = (0..200_000).map(|number| format!("10.1.2.3 host-{number}.example\n")).collect();
    fs::write(&hosts, lines).expect("the folder is writable");
    let config = Config::forwarding_to(&[&upstream]).raw(&format!("[local_hosts]\nfile = {hosts:?}"));
    fs::write(&path, config.text()).expect("the folder is writable");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.arg("serve").arg("--config").arg(&path).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the daemon can be started");
    // It catches SIGUSR2, the last of them, before it reads its files.
    crate::support::eventually("signals are caught", || {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let caught = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigCgt:")?.trim(), 16).ok());
        caught.is_some_and(|caught| caught >> 11 & 1 == 1)
    });
    for signal in ["USR1", "USR2", "HUP"] {
        let sent = Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    }
    // A daemon that was killed closes its log.
    let log = BufReader::new(child.stderr.take().expect("standard error is a pipe"));
    let mut seen = Vec::new();
    let is_reloaded = log.lines().map_while(Result::ok).any(|line| {
        seen.push(line);
        seen.last().is_some_and(|line| line.contains("\"reloaded\""))
    });
    drop((child.kill(), child.wait()));
    assert!(is_reloaded, "{seen:#?}");
}
