//! Orders to the running daemon over its control socket, as an operator gives them.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{
    fs,
    io::{Read, Write},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use hickory_proto::op::ResponseCode;
use serde_json::Value;
use support::{
    config::{Config, ONE_PATIENT_TRY},
    eventually,
    query::{Query, rtype},
    records::Reply,
    script::{Gate, Script},
    tidegate::{Tidegate, run},
    upstream::Upstream,
};
use tempfile::TempDir;

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn socket(&self) -> PathBuf {
        self.0.path().join("control.sock")
    }

    /// A configuration with a control socket here.
    fn config(&self) -> Config {
        self.config_at(&self.socket())
    }

    fn config_at(&self, socket: &Path) -> Config {
        Config::without_admin().section("admin", &format!("http = \"127.0.0.1:0\"\nsocket = \"{}\"", socket.display()))
    }

    #[track_caller]
    fn order(&self, words: &[&str]) -> Output {
        let socket = self.socket().display().to_string();
        run(&[words, &["--socket", &socket]].concat())
    }

    /// What a verb says, and its exit code.
    #[track_caller]
    fn says(&self, words: &[&str]) -> (Option<i32>, String) {
        let Output { status, stdout, stderr } = self.order(words);
        (status.code(), String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap())
    }
}

fn two_servers(config: Config, one: &Upstream, other: &Upstream) -> Config {
    config.upstream("vpc", &[one, other], "policy = \"ordered\"\nhedge = false").forward("all", &["."], "vpc", "")
}

fn ask(tidegate: &Tidegate, n: usize) -> Vec<String> {
    tidegate.client().ask(&Query::a(&format!("n{n}.example."))).address_texts()
}

#[test]
fn a_drained_server_gets_no_questions_until_it_is_undrained_and_a_reload_changes_nothing() {
    let (place, one, other) = (Place::new(), Upstream::answering("10.0.0.1"), Upstream::answering("10.0.0.2"));
    let config = two_servers(place.config(), &one, &other);
    let tidegate = Tidegate::start(&config);
    assert_eq!(ask(&tidegate, 0), ["10.0.0.1"]);

    let server = one.address.to_string();
    assert_eq!(place.says(&["drain", &server]), (Some(0), format!("vpc/{server} gets no more questions\n")));
    assert_eq!(
        place.says(&["drain", &format!("vpc/{server}")]),
        (Some(0), format!("vpc/{server} gets none already\n"))
    );
    assert!((1..20).all(|n| ask(&tidegate, n) == ["10.0.0.2"]));
    assert!(tidegate.reload(&config));
    assert!((20..40).all(|n| ask(&tidegate, n) == ["10.0.0.2"]));
    let page: Value = serde_json::from_str(&tidegate.get("/api/v1/upstreams").1).unwrap();
    assert_eq!(page["groups"][0]["tiers"][0][0]["drained"], true);

    assert_eq!(place.says(&["undrain", &server]), (Some(0), format!("vpc/{server} gets questions again\n")));
    assert_eq!(ask(&tidegate, 40), ["10.0.0.1"]);
    let (code, text) = place.says(&["drain", "10.9.9.9"]);
    assert_eq!(code, Some(2));
    assert!(text.contains(&format!("vpc/{server}, vpc/{}", other.address)), "{text}");
}

#[test]
fn a_drain_loses_no_question_that_is_under_way_and_all_drained_is_down() {
    let (place, upstream) = (Place::new(), Upstream::answering("10.0.0.1"));
    let gate = Gate::default();
    upstream.on("slow.example.", rtype::A, Script::held(&gate, Reply::a("10.0.0.1")));
    let config = place.config().upstream("vpc", &[&upstream], ONE_PATIENT_TRY).forward("all", &["."], "vpc", "");
    let tidegate = Tidegate::start(&config);
    let socket = tidegate.client().socket();
    socket.send(&Query::a("slow.example."));
    upstream.wait_for("slow.example.", 1);
    // By its address alone, without the port.
    assert_eq!(place.order(&["drain", "127.0.0.1"]).status.code(), Some(0));
    let answer = tidegate.client().ask(&Query::a("new.example.").edns());
    assert_eq!(answer.verdict(), (ResponseCode::ServFail, Some(22)));
    gate.open();
    assert_eq!(socket.receive().address_texts(), ["10.0.0.1"]);
}

#[test]
fn a_reload_says_what_changed_or_why_it_was_refused() {
    let (place, upstream) = (Place::new(), Upstream::answering("10.0.0.1"));
    let base = || {
        let config = place.config().upstream("vpc", &[&upstream], ONE_PATIENT_TRY);
        config.forward("all", &[".", "reverse:private"], "vpc", "")
    };
    let tidegate = Tidegate::start(&base());
    let file = tidegate.folder().join("tidegate.toml");
    assert_eq!(place.says(&["reload"]), (Some(0), "nothing changed\n".to_owned()));

    fs::write(&file, base().forward("aws", &["preset:aws"], "vpc", "").text()).unwrap();
    assert_eq!(place.says(&["reload"]), (Some(0), "rule aws is new\n".to_owned()));

    fs::write(&file, "[server]\nlisten = [\"nonsense\"]\nlissen = 1\n").unwrap();
    let (code, text) = place.says(&["reload"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("tidegate.toml:2:") && text.contains("tidegate.toml:3:"), "every problem: {text}");
    assert_eq!(ask(&tidegate, 1), ["10.0.0.1"], "the old one is in force");
    assert_eq!(tidegate.metric("tidegate_config_last_reload_success", &[]), 0.0);

    let json = place.order(&["reload", "--json"]);
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["done"], false);
    assert!(json["lines"].as_array().unwrap().len() >= 2, "{json}");
}

#[test]
fn a_flush_forgets_what_it_names() {
    let (place, upstream) = (Place::new(), Upstream::answering("10.0.0.1"));
    let config = place.config().upstream("vpc", &[&upstream], ONE_PATIENT_TRY).forward("all", &["."], "vpc", "");
    let tidegate = Tidegate::start(&config);
    let names = ["a.one.example.", "b.one.example.", "one.example.", "two.example."];
    let ask = || names.map(|name| tidegate.client().ask(&Query::a(name)).address_texts());
    let counts = || names.map(|name| upstream.count(name));
    ask();
    for (words, said, after) in [
        (&["flush", "A.one.example"][..], "1 answers forgotten\n", [2, 1, 1, 1]),
        (&["flush", "nobody.example"], "0 answers forgotten\n", [2, 1, 1, 1]),
        (&["flush", "--zone", "one.example."], "3 answers forgotten\n", [3, 2, 2, 1]),
        (&["flush", "--all"], "4 answers forgotten\n", [4, 3, 3, 2]),
    ] {
        assert_eq!(place.says(words), (Some(0), said.to_owned()));
        ask();
        assert_eq!(counts(), after, "{words:?}");
    }
    assert_eq!(place.order(&["flush"]).status.code(), Some(2), "nothing is named");
    assert_eq!(place.order(&["flush", "a..b"]).status.code(), Some(2), "that is no name");
}

#[test]
fn the_logs_level_changes_while_it_runs() {
    let (place, upstream) = (Place::new(), Upstream::answering("10.0.0.1"));
    let config = place.config().upstream("vpc", &[&upstream], ONE_PATIENT_TRY).forward("all", &["."], "vpc", "");
    let tidegate = Tidegate::start(&config);
    assert_eq!(place.says(&["log", "error"]).0, Some(0));
    let lines = tidegate.log().len();
    assert!(place.order(&["drain", "127.0.0.1"]).status.success());
    assert_eq!(place.says(&["log", "info"]).0, Some(0));
    assert!(place.order(&["undrain", "127.0.0.1"]).status.success());
    tidegate.await_logged("INFO", "upstream back in service");
    assert!(tidegate.logged("INFO", "upstream drained").is_empty(), "{:?}", &tidegate.log()[lines..]);
    let (code, text) = place.says(&["log", "tidegate=loud"]);
    assert_eq!(code, Some(2), "{text}");
}

#[test]
fn the_socket_is_for_its_owner_and_group_and_goes_with_the_daemon() {
    let (place, upstream) = (Place::new(), Upstream::answering("10.0.0.1"));
    let config = place.config().upstream("vpc", &[&upstream], "").forward("all", &["."], "vpc", "");
    let tidegate = Tidegate::start(&config);
    assert_eq!(fs::metadata(place.socket()).unwrap().permissions().mode() & 0o777, 0o660);
    // Found by the configuration as well.
    let file = tidegate.folder().join("tidegate.toml");
    let output = run(&["reload", "--config", &file.display().to_string()]);
    assert_eq!(output.status.code(), Some(0));
    assert!(tidegate.stop().success());
    assert!(!place.socket().exists());
    let (code, text) = place.says(&["reload"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("no daemon listens"), "{text}");
}

#[test]
fn the_umask_neither_opens_nor_closes_the_socket() {
    for umask in ["000", "077", "777"] {
        let (place, upstream) = (Place::new(), Upstream::answering("10.0.0.1"));
        let config = place.config().upstream("vpc", &[&upstream], "").forward("all", &["."], "vpc", "");
        let script = format!("umask {umask}; exec \"$@\"");
        let tidegate = Tidegate::start_by(&["sh", "-c", &script, "sh"], &config);
        assert_eq!(fs::metadata(place.socket()).unwrap().permissions().mode() & 0o777, 0o660, "umask {umask}");
        drop(tidegate);
    }
}

#[test]
fn a_socket_that_cannot_be_made_is_one_warning_and_a_dead_ones_file_is_replaced() {
    let (place, upstream) = (Place::new(), Upstream::answering("10.0.0.1"));
    let start = |socket: &Path| {
        let config = place.config_at(socket).upstream("vpc", &[&upstream], "").forward("all", &["."], "vpc", "");
        Tidegate::start(&config)
    };
    let nowhere = start(Path::new("/nowhere/control.sock"));
    assert_eq!(nowhere.logged("WARN", "no control socket").len(), 1);
    assert_eq!(ask(&nowhere, 1), ["10.0.0.1"]);

    drop(UnixListener::bind(place.socket()).unwrap());
    let first = start(&place.socket());
    assert!(first.logged("WARN", "no control socket").is_empty());
    assert!(place.order(&["reload"]).status.success());
    let second = start(&place.socket());
    assert_eq!(second.logged("WARN", "no control socket").len(), 1, "a living one is not robbed");
    assert!(second.stop().success());
    assert!(place.order(&["reload"]).status.success(), "the first has its socket still");

    let file = place.0.path().join("a file");
    fs::write(&file, "of somebody").unwrap();
    let third = start(&file);
    assert_eq!(third.logged("WARN", "no control socket").len(), 1);
    assert_eq!(fs::read_to_string(&file).unwrap(), "of somebody");
}

#[test]
fn garbage_on_the_socket_harms_nothing() {
    let (place, upstream) = (Place::new(), Upstream::answering("10.0.0.1"));
    let config = place.config().upstream("vpc", &[&upstream], "").forward("all", &["."], "vpc", "");
    let tidegate = Tidegate::start(&config);
    let huge =
        format!("POST /v1/flush HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n{}", "x".repeat(1_000_000));
    let silent: Vec<_> = (0..10).map(|_| UnixStream::connect(place.socket()).unwrap()).collect();
    for (bytes, says) in [
        (&b"\x16\x03\x01 not HTTP\r\n\r\n"[..], "400"),
        (b"POST /v1/drain HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nConnection: close\r\n\r\n{]}", "400"),
        (b"POST /v1/drain HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\nConnection: close\r\n\r\n{\"server\":1}", "400"),
        (b"POST /v1/halt HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "404"),
        (b"GET /v1/reload HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "405"),
        (huge.as_bytes(), "413"),
    ] {
        let mut stream = UnixStream::connect(place.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        // Who is told off early need not be read to the end.
        drop(stream.write_all(bytes));
        let mut reply = Vec::new();
        drop(stream.read_to_end(&mut reply));
        let reply = String::from_utf8_lossy(&reply);
        assert!(reply.starts_with(&format!("HTTP/1.1 {says}")), "{says}: {reply}");
    }
    drop(silent);
    eventually("orders are taken", || place.order(&["reload"]).status.success());
    assert_eq!(ask(&tidegate, 1), ["10.0.0.1"]);
}
