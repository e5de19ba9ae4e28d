//! `server.sandbox`: what is in force, and that what is needed still works within it.

use std::fs;

use crate::support::{config::Config, query::Query, tidegate::Tidegate, upstream::Upstream};

/// A daemon with a snapshot, a control socket, a hosts file and a zone file in its folder.
fn config(folder: &std::path::Path, upstream: &Upstream) -> Config {
    let path = |name: &str| format!("{:?}", folder.join(name));
    let (hosts, zone) = (path("hosts"), path("zone"));
    Config::without_admin()
        .section("admin", &format!("http = \"127.0.0.1:0\"\nsocket = {}", path("control.sock")))
        .section("cache", &format!("snapshot = {}", path("cache.snapshot")))
        .section("local_hosts", &format!("file = {hosts}"))
        .raw(&format!("[[local]]\nzone = \"corp.example\"\nfile = {zone}"))
        .upstream("site", &[upstream], "")
        .forward("everything", &["."], "site", "")
}

fn write_files(folder: &std::path::Path) {
    let zone = "$TTL 60\n@ SOA ns host 1 1 1 1 1\n@ NS ns\nns A 10.0.0.53\nwww A 10.0.0.80\n";
    fs::write(folder.join("zone"), zone).expect("the folder is writable");
    fs::write(folder.join("hosts"), "10.0.0.81 host.example\n").expect("the folder is writable");
}

fn status(tidegate: &Tidegate, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{}/status", tidegate.pid())).expect("it runs");
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    value.expect("the kernel says so").trim().to_owned()
}

#[test]
fn within_the_sandbox_everything_in_use_works_and_other_folders_need_a_restart() {
    let (folder, elsewhere) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let upstream = Upstream::answering("10.0.0.1");
    write_files(folder.path());
    write_files(elsewhere.path());
    let config = config(folder.path(), &upstream);
    let tidegate = Tidegate::start(&config);
    let lines = [tidegate.logged("INFO", "sandbox: "), tidegate.logged("WARN", "sandbox: ")].concat();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("system calls are restricted") && lines[0].contains("no core dumps"), "{lines:?}");
    assert_eq!((status(&tidegate, "Seccomp"), status(&tidegate, "NoNewPrivs")), ("2".to_owned(), "1".to_owned()));
    let client = tidegate.client();
    let addresses = |name: &str| client.ask(&Query::a(name)).address_texts();
    assert_eq!(addresses("www.example."), ["10.0.0.1"]);
    assert_eq!(client.ask_over_tcp(&Query::a("other.example.")).address_texts(), ["10.0.0.1"]);
    assert_eq!(
        (addresses("www.corp.example."), addresses("host.example.")),
        (vec!["10.0.0.80".to_owned()], vec!["10.0.0.81".to_owned()])
    );
    assert_eq!(tidegate.get("/healthz").0, 200);
    // Files that are replaced by others of their name are read.
    fs::write(folder.path().join("new"), "10.0.0.82 host.example\n").expect("the folder is writable");
    fs::rename(folder.path().join("new"), folder.path().join("hosts")).expect("the folder is writable");
    assert!(tidegate.reload(&config));
    assert_eq!(addresses("host.example."), ["10.0.0.82"]);
    tidegate.signal("USR1");
    crate::support::eventually("a snapshot is written", || folder.path().join("cache.snapshot").exists());

    if lines[0].contains("files are restricted") {
        let text = config.text().replace(
            folder.path().join("hosts").to_str().expect("plain"),
            elsewhere.path().join("hosts").to_str().expect("plain"),
        );
        assert!(!tidegate.reload_text(&text), "a file of another folder");
        tidegate.await_logged("ERROR", "it needs a restart");
        assert_eq!(addresses("host.example."), ["10.0.0.82"]);
    }
    assert!(tidegate.stop().success());
}

#[test]
fn off_is_off() {
    let upstream = Upstream::answering("10.0.0.1");
    let tidegate = Tidegate::start(&Config::forwarding_to(&[&upstream]).section("server", "sandbox = \"off\""));
    tidegate.await_logged("INFO", "the sandbox is off");
    assert_eq!(status(&tidegate, "Seccomp"), "0");
}
