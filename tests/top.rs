//! `tidegate top`: what a daemon does now, on a terminal and into a pipe.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
};

use serde_json::Value;
use support::{
    config::Config,
    eventually,
    query::Query,
    tidegate::{Tidegate, run},
    upstream::Upstream,
    wait_for,
};

fn daemon(upstream: &Upstream) -> Tidegate {
    Tidegate::start(&Config::forwarding_to(&[upstream]))
}

fn url(tidegate: &Tidegate) -> String {
    format!("http://{}", tidegate.admin_address())
}

/// Asks for the same name until stopped.
struct Load(Arc<AtomicBool>);

impl Load {
    fn on(tidegate: &Tidegate) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let (client, told) = (tidegate.client(), Arc::clone(&stop));
        thread::spawn(move || {
            while !told.load(Relaxed) {
                client.ask(&Query::a("www.example."));
            }
        });
        Self(stop)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[test]
fn once_it_shows_rates_and_servers_as_text_and_as_json() {
    let upstream = Upstream::answering("10.0.0.1");
    let tidegate = daemon(&upstream);
    let _load = Load::on(&tidegate);
    let top = |more: &[&str]| {
        let output = run(&[&["top", "--once", "--interval", "1s", "--admin", &url(&tidegate)], more].concat());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let document: Value = serde_json::from_str(&top(&["--json"])).unwrap();
    let rates = &document["rates"];
    assert!(rates["queries"]["udp"].as_f64().unwrap() > 0.0, "{rates}");
    assert!(rates["hit_ratio"].as_f64().unwrap() > 0.5, "{rates}");
    assert!(rates["interval"].as_f64().unwrap() >= 1.0, "{rates}");
    assert_eq!(rates["servers"][0]["group"], "site");
    assert_eq!(document["status"]["configuration"]["generation"], 1);
    let text = top(&[]);
    assert!(text.starts_with("tidegate ") && text.contains("udp ") && !text.contains('\u{1b}'), "{text}");
    assert!(text.contains(&upstream.address.to_string()), "{text}");
}

#[test]
fn into_a_pipe_it_writes_a_line_each_time_and_ends_when_nobody_reads() {
    let upstream = Upstream::answering("10.0.0.1");
    let tidegate = daemon(&upstream);
    let mut top = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["top", "--json", "--interval", "100ms", "--admin", &url(&tidegate)])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(top.stdout.take().unwrap()).lines();
    for _ in 0..3 {
        let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert!(line["status"]["uptime"].is_u64(), "{line}");
    }
    drop(lines);
    assert!(wait_for("its end", || top.try_wait().unwrap()).success());
}

/// `script` gives it a terminal; how that is set, `stty` tells once it is over.
#[test]
fn a_terminal_is_given_back_as_it_was() {
    let upstream = Upstream::answering("10.0.0.1");
    let tidegate = daemon(&upstream);
    for how in ["INT", "TERM", "q"] {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let line = format!(
            "stty -g > {before}; {program} top --interval 100ms --admin {url} & echo $! > {pid}; fg %1; \
             echo $? > {code}; stty -g > {after}",
            before = at("before"),
            program = env!("CARGO_BIN_EXE_tidegate"),
            url = url(&tidegate),
            pid = at("pid"),
            code = at("code"),
            after = at("after"),
        );
        let line = format!("bash -ic '{line}'");
        let mut session = Command::new("script");
        session.args(["-qec", &line, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut session: Child = session.spawn().expect("script is installed");
        let shown = collect(session.stdout.take().unwrap());
        let has = |text: &str| String::from_utf8_lossy(&shown.lock().unwrap()).contains(text);
        eventually("it draws", || has("\u{1b}[?1049h") && has("queries/s") && has("\u{1b}[J"));
        if how == "q" {
            std::io::Write::write_all(session.stdin.as_mut().unwrap(), b"xq").unwrap();
        } else {
            let pid = fs::read_to_string(at("pid")).unwrap();
            assert!(Command::new("kill").args([&format!("-{how}"), pid.trim()]).status().unwrap().success());
        }
        eventually("its end is noted", || fs::read_to_string(at("after")).is_ok_and(|text| !text.is_empty()));
        drop(session.stdin.take());
        wait_for("the session's end", || session.try_wait().unwrap());
        assert!(has("\u{1b}[?25h\u{1b}[?1049l"), "{how}: the first screen and the cursor are back");
        assert_eq!(fs::read_to_string(at("code")).unwrap().trim(), "0", "{how}");
        assert_eq!(fs::read_to_string(at("before")).unwrap(), fs::read_to_string(at("after")).unwrap(), "{how}");
    }
}

fn collect(mut pipe: impl Read + Send + 'static) -> Arc<Mutex<Vec<u8>>> {
    let all = Arc::<Mutex<Vec<u8>>>::default();
    let into = Arc::clone(&all);
    thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(count @ 1..) = pipe.read(&mut piece) {
            into.lock().unwrap().extend_from_slice(&piece[..count]);
        }
    });
    all
}
