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
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use hickory_proto::op::ResponseCode;
use serde_json::Value;
use support::{
    config::{Config, ONE_PATIENT_TRY},
    eventually,
    query::{Query, rtype},
    records::{Record, Reply},
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

    /// A verb's output and its exit code.
    #[track_caller]
    fn says(&self, words: &[&str]) -> (Option<i32>, String) {
        let Output { status, stdout, stderr } = self.order(words);
        (status.code(), String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap())
    }
}

fn two_servers(config: Config, one: &Upstream, other: &Upstream) -> Config {
    let lines = format!("policy = \"ordered\"\n{ONE_PATIENT_TRY}");
    config.upstream("vpc", &[one, other], &lines).forward("all", &["."], "vpc", "")
}

fn ask(tidegate: &Tidegate, n: usize) -> Vec<String> {
    tidegate.client().ask(&Query::a(&format!("n{n}.example."))).address_texts()
}

/// Waits until new names go to the server that answers with this address. At first, and after a hiccup of the machine,
/// the preferred server is suspect, and another is asked before it.
#[track_caller]
fn await_preferred(tidegate: &Tidegate, address: &str) {
    static NEXT: AtomicUsize = AtomicUsize::new(1000);
    eventually(&format!("answers are {address}"), || ask(tidegate, NEXT.fetch_add(1, Ordering::Relaxed)) == [address]);
}

#[test]
fn a_drained_server_gets_no_queries_until_undrained_even_after_a_reload() {
    let (place, one, other) = (Place::new(), Upstream::answering("10.0.0.1"), Upstream::answering("10.0.0.2"));
    let config = two_servers(place.config(), &one, &other);
    let tidegate = Tidegate::start(&config);
    await_preferred(&tidegate, "10.0.0.1");

    let server = one.address.to_string();
    assert_eq!(place.says(&["drain", &server]), (Some(0), format!("vpc/{server} gets no more queries\n")));
    assert_eq!(
        place.says(&["drain", &format!("vpc/{server}")]),
        (Some(0), format!("vpc/{server} gets no queries already\n"))
    );
    assert!((1..20).all(|n| ask(&tidegate, n) == ["10.0.0.2"]));
    assert!(tidegate.reload(&config));
    assert!((20..40).all(|n| ask(&tidegate, n) == ["10.0.0.2"]));
    let page: Value = serde_json::from_str(&tidegate.get("/api/v1/upstreams").1).unwrap();
    assert_eq!(page["groups"][0]["tiers"][0][0]["drained"], true);

    assert_eq!(place.says(&["undrain", &server]), (Some(0), format!("vpc/{server} gets queries again\n")));
    await_preferred(&tidegate, "10.0.0.1");
    let (code, text) = place.says(&["drain", "10.9.9.9"]);
    assert_eq!(code, Some(2));
    assert!(text.contains(&format!("vpc/{server}, vpc/{}", other.address)), "{text}");
}

#[test]
fn system_is_every_server_that_resolv_conf_gave_the_group() {
    let (place, upstream) = (Place::new(), Upstream::answering("10.0.0.1"));
    let resolv_conf = place.0.path().join("resolv.conf");
    fs::write(&resolv_conf, "nameserver 192.0.2.1\nnameserver 192.0.2.2\n").unwrap();
    let entry = format!("system:{}", resolv_conf.display());
    let fixed = upstream.address.to_string();
    let config = place.config().servers("site", &[fixed.clone(), entry.clone()], "").upstream("vpc", &[&upstream], "");
    let _tidegate =
        Tidegate::start(&config.forward("all", &["."], "site", "").forward("aws", &["a.example"], "vpc", ""));

    let (code, text) = place.says(&["drain", "system"]);
    assert_eq!((code, &*text), (Some(0), "site/192.0.2.1 gets no more queries\nsite/192.0.2.2 gets no more queries\n"));
    let (code, text) = place.says(&["undrain", &format!("site/{entry}")]);
    assert_eq!((code, text.lines().count()), (Some(0), 2), "{text}");
    for unknown in ["vpc/system", "system:/etc/other.conf"] {
        let (code, text) = place.says(&["drain", unknown]);
        assert_eq!(code, Some(2), "{unknown}: {text}");
        assert!(text.contains("there are site/"), "{unknown}: {text}");
    }
}

#[test]
fn a_drain_loses_no_query_under_way_and_all_drained_is_down() {
    let (place, upstream) = (Place::new(), Upstream::answering("10.0.0.1"));
    let gate = Gate::default();
    upstream.on("slow.example.", rtype::A, Script::held(&gate, Reply::a("10.0.0.1")));
    let config = place.config().upstream("vpc", &[&upstream], ONE_PATIENT_TRY).forward("all", &["."], "vpc", "");
    let tidegate = Tidegate::start(&config);
    let socket = tidegate.client().socket();
    socket.send(&Query::a("slow.example."));
    upstream.wait_for("slow.example.", 1);
    // By its address, without the port.
    assert_eq!(place.order(&["drain", "127.0.0.1"]).status.code(), Some(0));
    let answer = tidegate.client().ask(&Query::a("new.example.").edns());
    assert_eq!(answer.verdict(), (ResponseCode::ServFail, Some(22)));
    gate.open();
    assert_eq!(socket.receive().address_texts(), ["10.0.0.1"]);
}

#[test]
fn a_drained_machine_stays_drained_over_every_path() {
    let (place, one, other) = (Place::new(), Upstream::answering("10.0.0.1"), Upstream::answering("10.0.0.2"));
    let lines = format!("policy = \"ordered\"\n{ONE_PATIENT_TRY}");
    let with = |more: &str| {
        let config = place.config().upstream("vpc", &[&one, &other], &format!("{lines}\n{more}"));
        config.forward("all", &["."], "vpc", "")
    };
    let tidegate = Tidegate::start(&with(""));
    assert!(place.order(&["drain", &one.address.to_string()]).status.success());
    assert!(tidegate.reload(&with("source = \"127.0.0.1\"")));
    assert!((0..10).all(|n| ask(&tidegate, n) == ["10.0.0.2"]));
    assert!(place.order(&["undrain", &one.address.to_string()]).status.success());
    await_preferred(&tidegate, "10.0.0.1");
    assert!(tidegate.reload(&with("")));
    assert!(place.says(&["undrain", "127.0.0.1"]).1.contains("gets queries already"));
}

#[test]
fn with_every_server_of_every_tier_drained_stale_answers_serve_until_one_is_back() {
    let (place, one, other) = (Place::new(), Upstream::answering("10.0.0.1"), Upstream::answering("10.0.0.2"));
    for upstream in [&one, &other] {
        upstream.on("warm.example.", rtype::A, Reply::of([Record::a("@", 1, "10.0.0.9")]));
    }
    let lines = format!("{ONE_PATIENT_TRY}\nbackup = [[\"{}\"]]", other.address);
    let config = place.config().upstream("vpc", &[&one], &lines);
    let tidegate = Tidegate::start(&config.forward("all", &["."], "vpc", ""));
    let client = tidegate.client();
    assert_eq!(client.ask(&Query::a("warm.example.")).address_texts(), ["10.0.0.9"]);

    assert!(place.order(&["drain", &one.address.to_string()]).status.success());
    assert_eq!(ask(&tidegate, 1), ["10.0.0.2"], "the next tier");
    let (code, text) = place.says(&["drain", &format!("vpc/{}", other.address)]);
    assert_eq!((code, text.lines().nth(1)), (Some(0), Some("upstream vpc has no server left, as if all were down")));
    let probes = one.all_seen().len();
    eventually("a stale answer", || {
        let answer = client.ask(&Query::a("warm.example.").edns());
        assert_eq!(answer.address_texts(), ["10.0.0.9"]);
        answer.verdict() == (ResponseCode::NoError, Some(3))
    });
    assert_eq!(client.ask(&Query::a("new.example.").edns()).verdict(), (ResponseCode::ServFail, Some(22)));
    eventually("a drained server is still probed", || one.all_seen().len() > probes);
    let page: Value = serde_json::from_str(&tidegate.get("/api/v1/upstreams").1).unwrap();
    assert_eq!(page["groups"][0]["down"], true);

    assert!(place.order(&["undrain", &other.address.to_string()]).status.success());
    assert_eq!(client.ask(&Query::a("new.example.")).address_texts(), ["10.0.0.2"]);
    assert_eq!(one.count("new.example."), 0);
}

#[test]
fn what_failed_without_a_server_is_asked_again_when_it_is_back() {
    let (place, one, other) = (Place::new(), Upstream::answering("10.0.0.1"), Upstream::answering("10.0.0.2"));
    other.on("www.example.", rtype::A, Reply::servfail());
    let config = place.config().section("cache", "failure_ttl = \"5m\"");
    // SERVFAIL of one is a reason to ask the other, whichever comes first.
    let config = config.upstream("vpc", &[&one, &other], "attempts = 2\nhedge = false\ntimeout = \"1s\"");
    let tidegate = Tidegate::start(&config.forward("all", &["."], "vpc", ""));
    let server = one.address.to_string();
    assert!(place.order(&["drain", &server]).status.success());
    let ask = || tidegate.client().ask(&Query::a("www.example.").edns());
    assert_eq!(ask().rcode(), ResponseCode::ServFail);
    assert_eq!(ask().verdict(), (ResponseCode::ServFail, Some(13)), "it is remembered");
    assert!(place.order(&["undrain", &server]).status.success());
    assert_eq!(ask().address_texts(), ["10.0.0.1"]);
}

#[test]
fn draining_and_undraining_under_load_loses_no_query() {
    let (place, one, other) = (Place::new(), Upstream::answering("10.0.0.1"), Upstream::answering("10.0.0.2"));
    let late = |address| Script::late(Duration::from_millis(20), Reply::a(address));
    one.on_type(rtype::A, late("10.0.0.1"));
    other.on_type(rtype::A, late("10.0.0.2"));
    let config = place.config().upstream("vpc", &[&one, &other], "policy = \"spread\"");
    let tidegate = Tidegate::start(&config.forward("all", &["."], "vpc", ""));
    let server = one.address.to_string();
    let stop = AtomicBool::new(false);
    let asked = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let socket = tidegate.client().socket();
            let mut asked = 0;
            while !stop.load(Ordering::SeqCst) {
                (0..20).for_each(|n| socket.send(&Query::a(&format!("n{}.example.", asked + n))));
                for _ in 0..20 {
                    let answer = socket.receive();
                    assert_eq!(answer.rcode(), ResponseCode::NoError, "{answer:?}");
                }
                asked += 20;
            }
            asked
        });
        for turn in 0..5 {
            assert!(place.order(&["drain", &server]).status.success());
            // Queries sent before the drain may still arrive; after that there is silence, except for probes.
            let seen = || one.all_seen().iter().filter(|seen| seen.qtype == rtype::A).count();
            let mut last = (seen(), other.all_seen().len());
            eventually(&format!("silence for a hundred questions, turn {turn}"), || {
                let now = (seen(), other.all_seen().len());
                if now.0 != last.0 {
                    last = now;
                }
                now.1 > last.1 + 100
            });
            assert!(place.order(&["undrain", &server]).status.success());
            let before = seen();
            eventually("it is asked again", || seen() > before);
        }
        stop.store(true, Ordering::SeqCst);
        load.join().unwrap()
    });
    assert!(asked > 0);
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

    fs::write(
        &file,
        base().forward("aws", &["preset:aws"], "vpc", "private = [\"10.0.0.0/8\"]\non_public = \"refuse\"").text(),
    )
    .unwrap();
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
    assert!(json["problems"].as_array().unwrap().len() >= 2, "{json}");
    assert!(text.ends_with("the old one stays in force\n"), "{text}");
}

#[test]
fn a_reload_names_every_change_once_and_nothing_else() {
    let (place, upstream) = (Place::new(), Upstream::answering("10.0.0.1"));
    let zone = "[[local]]\nzone = \"corp.example\"\nfile = \"corp.zone\"\n[local_hosts]\nfile = \"hosts\"\n";
    let base = || {
        let config = place.config().upstream("vpc", &[&upstream], ONE_PATIENT_TRY);
        config.forward("all", &[".", "reverse:private"], "vpc", "").raw(zone)
    };
    // Beside the file of the daemon, which has a folder of its own: the names are made absolute.
    let text = |config: &Config| {
        let absolute = |name: &str| format!("file = \"{}\"", place.0.path().join(name).display());
        config
            .text()
            .replace("file = \"corp.zone\"", &absolute("corp.zone"))
            .replace("file = \"hosts\"", &absolute("hosts"))
    };
    let put = |name: &str, text: &str| fs::write(place.0.path().join(name), text).unwrap();
    let corp = |record: &str| {
        put("corp.zone", &format!("@ 300 SOA ns.example. ops.example. 1 2 3 4 5\n@ NS ns.example.\n{record}\n"))
    };
    corp("app 300 A 10.1.2.3");
    put("hosts", "10.1.2.4 printer.example\n");
    let bare = place.config().upstream("vpc", &[&upstream], ONE_PATIENT_TRY);
    let tidegate = Tidegate::start(&bare.forward("all", &[".", "reverse:private"], "vpc", ""));
    let file = tidegate.folder().join("tidegate.toml");
    let reload = |text: String| {
        fs::write(&file, text).unwrap();
        let (code, said) = place.says(&["reload"]);
        assert_eq!(code, Some(0), "{said}");
        said.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(reload(text(&base())), ["local zone corp.example. is new", "local_hosts.file changed"]);
    // Only the content counts, whether the daemon or the order names the file.
    corp("app 300 A 10.9.9.9");
    let said = reload(text(&base()));
    assert!(said == ["local zone corp.example. changed"] || said == ["nothing changed"], "{said:?}");
    assert_eq!(tidegate.client().ask(&Query::a("app.corp.example.")).address_texts(), ["10.9.9.9"]);

    // Another group in front moves all others, and changes none of them.
    let front = place.config().upstream("front", &[&upstream], "").upstream("vpc", &[&upstream], ONE_PATIENT_TRY);
    let front = front.forward("all", &[".", "reverse:private"], "vpc", "").raw(zone);
    assert_eq!(reload(text(&front)).iter().filter(|line| !line.contains("front")).count(), 0);
    let other = front.section("server", "deadline = \"3s\"\nworkers = 1").section("log", "level = \"debug\"");
    let said = reload(text(&other));
    let expected = ["server.workers: this change needs a restart", "server.deadline changed", "log.level changed"];
    assert_eq!(said.iter().filter(|line| !line.contains("front")).collect::<Vec<_>>(), expected);

    // What waits for a restart is a change.
    let restart = other.clone().section("limits", "pipeline = 7");
    let said = reload(text(&restart));
    assert!(
        said.iter().any(|line| line.contains("limits.") && line.ends_with("this change needs a restart")),
        "{said:?}"
    );
    assert!(!said.iter().any(|line| line.contains("nothing changed")), "{said:?}");

    // What is wrong with a zone file is a reason to refuse, too.
    corp("app 300 A nonsense");
    let (code, said) = place.says(&["reload"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("corp.zone:3"), "{said}");
    assert_eq!(tidegate.client().ask(&Query::a("app.corp.example.")).address_texts(), ["10.9.9.9"]);
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
        (&["flush", "A.one.example"][..], "1 answer forgotten\n", [2, 1, 1, 1]),
        (&["flush", "nobody.example"], "0 answers forgotten\n", [2, 1, 1, 1]),
        (&["flush", "--zone", "one.example."], "3 answers forgotten\n", [3, 2, 2, 1]),
        (&["flush", "--all"], "4 answers forgotten\n", [4, 3, 3, 2]),
    ] {
        assert_eq!(place.says(words), (Some(0), said.to_owned()));
        ask();
        assert_eq!(counts(), after, "{words:?}");
    }
    let json: Value = serde_json::from_slice(&place.order(&["flush", "--all", "--json"]).stdout).unwrap();
    assert_eq!(json["forgotten"], 4, "{json}");
    assert_eq!(place.order(&["flush"]).status.code(), Some(2), "nothing is named");
    for words in [&["flush", "s3..foo"][..], &["flush", "--zone", "s3..foo"]] {
        let output = place.order(words);
        assert_eq!(output.status.code(), Some(2), "that is no name");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("'s3..foo'") && said.contains("empty label"), "it says which word is wrong: {said}");
    }
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
    tidegate.await_logged("INFO", "is back in service");
    assert!(tidegate.logged("INFO", "is drained").is_empty(), "{:?}", &tidegate.log()[lines..]);
    for slip in ["tidegate=loud", "inof"] {
        let (code, text) = place.says(&["log", slip]);
        assert_eq!(code, Some(2), "{text}");
    }
    assert_eq!(place.says(&["log", "tidegate::engine=debug"]).0, Some(0));
    assert!(place.order(&["drain", "127.0.0.1"]).status.success());
    tidegate.await_logged("INFO", "is drained");

    // A reload that does not change `log.level` keeps the ordered level; one that changes it takes precedence.
    assert_eq!(place.says(&["log", "error"]).0, Some(0));
    assert!(place.order(&["reload"]).status.success());
    assert!(tidegate.logged("INFO", "reloaded").is_empty());
    assert!(tidegate.reload(&config.section("log", "level = \"debug\"")));
    assert!(place.order(&["reload"]).status.success());
    tidegate.await_logged("INFO", "reloaded");
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
fn the_daemon_of_a_broken_file_is_found_and_tells_what_is_wrong() {
    let (place, upstream) = (Place::new(), Upstream::answering("10.0.0.1"));
    let config = place.config().upstream("vpc", &[&upstream], "").forward("all", &["."], "vpc", "");
    let tidegate = Tidegate::start(&config);
    let file = tidegate.folder().join("tidegate.toml");
    for mistake in ["[upstream.vpc2]\nservers = []", "[cache]\nsize = 12 12\n[special]\nenabled = true"] {
        fs::write(&file, config.text() + mistake).unwrap();
        let output = run(&["reload", "--config", &file.display().to_string()]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{mistake}: {text}");
        assert!(text.contains("tidegate.toml:") && text.contains("stays in force"), "{mistake}: {text}");
        assert_eq!(tidegate.metric("tidegate_config_last_reload_success", &[]), 0.0, "the daemon was asked");
        assert!(tidegate.reload(&config));
    }
    // The variable is for `serve`; an explicit socket takes precedence.
    let socket = place.socket().display().to_string();
    let arguments =
        [&["TIDEGATE_CONFIG=/nonexistent.toml", env!("CARGO_BIN_EXE_tidegate")][..], &["reload", "--socket", &socket]];
    let output = std::process::Command::new("env").args(arguments.concat()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");

    for (text, why) in [("[admin]\nsocket = \"\"\n", "is off"), ("", "cannot be read")] {
        let path = place.0.path().join("other.toml");
        if text.is_empty() {
            fs::remove_file(&path).unwrap()
        } else {
            fs::write(&path, text).unwrap()
        }
        let output = run(&["drain", "10.0.0.1", "--config", &path.display().to_string()]);
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains(why), "{output:?}");
    }
}

#[test]
fn orders_are_accepted_while_the_last_queries_are_answered() {
    let (place, upstream) = (Place::new(), Upstream::answering("10.0.0.1"));
    let config = || place.config().upstream("vpc", &[&upstream], "").forward("all", &["."], "vpc", "");
    let tidegate = Tidegate::start(&config().section("server", "lameduck = \"1h\""));
    tidegate.signal("TERM");
    eventually("it is not ready any more", || tidegate.get("/readyz").0 == 503);
    assert!(place.order(&["flush", "--all"]).status.success());
    assert_eq!(ask(&tidegate, 1), ["10.0.0.1"]);
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
    // A folder that is not there, one that nobody may write to, a name that is too long.
    let long = place.0.path().join("x".repeat(120));
    for path in [Path::new("/nowhere/control.sock"), Path::new("/proc/control.sock"), &long] {
        let nowhere = start(path);
        assert_eq!(nowhere.logged("WARN", "no control socket").len(), 1, "{}", path.display());
        assert_eq!(ask(&nowhere, 1), ["10.0.0.1"]);
    }

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
        // A client that is refused early need not be read to the end.
        drop(stream.write_all(bytes));
        let mut reply = Vec::new();
        drop(stream.read_to_end(&mut reply));
        let reply = String::from_utf8_lossy(&reply);
        assert!(reply.starts_with(&format!("HTTP/1.1 {says}")), "{says}: {reply}");
    }
    drop(silent);
    let sockets = || {
        let links = fs::read_dir(format!("/proc/{}/fd", tidegate.pid())).unwrap().flatten();
        links
            .filter(|link| fs::read_link(link.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:")))
            .count()
    };
    eventually("those have gone", || place.order(&["reload"]).status.success());
    let before = sockets();
    // Half of them say nothing, half stop in the middle of an order.
    let slow: Vec<_> = (0..100)
        .map(|n| {
            let mut stream = UnixStream::connect(place.socket()).unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            if n % 2 == 0 {
                drop(stream.write_all(b"POST /v1/drain HTTP/1.1\r\nHost: x\r\nContent-Length: 90\r\n\r\n{"));
            }
            stream
        })
        .collect();
    eventually("some are accepted", || sockets() > before);
    assert_eq!(ask(&tidegate, 2), ["10.0.0.1"]);
    eventually("they lose their places", || {
        assert!(sockets() <= before + 80, "{} sockets, {before} before", sockets());
        (&slow[0]).read(&mut [0; 16]).is_ok()
    });
    drop(slow);
    eventually("orders are taken", || place.order(&["reload"]).status.success());
    assert_eq!(ask(&tidegate, 1), ["10.0.0.1"]);
}
