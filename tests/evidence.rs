//! The record of the perimeter: what an auditor is handed, whatever happened to the daemon and its disk.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use serde_json::Value;
use support::{
    config::{Config, ONE_PATIENT_TRY},
    eventually, namespace,
    query::Query,
    records::Reply,
    tidegate::{Tidegate, run},
    upstream::Upstream,
};
use tidegate::{
    clock::{self, Moment},
    config::Plan,
    perimeter::{
        Exposure, NameVerdict, Report, Seen,
        record::{Recorder, day_of, read},
    },
};

/// A daemon that records into a folder here.
struct Site {
    upstream: Upstream,
    folder: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let upstream = Upstream::answering("10.20.0.1");
        upstream.on("public.eu-west-1.amazonaws.com.", support::query::rtype::A, Reply::a("52.1.2.3"));
        Self { upstream, folder: tempfile::tempdir().unwrap() }
    }

    fn record(&self) -> PathBuf {
        self.folder.path().join("record")
    }

    fn config(&self, on_public: &str) -> Config {
        let guard = format!("private = [\"10.20.0.0/16\"]\non_public = \"{on_public}\"");
        Config::new()
            .upstream("vpc", &[&self.upstream], ONE_PATIENT_TRY)
            .forward("aws", &["preset:aws"], "vpc", &guard)
            .raw(&format!("[perimeter]\nrecord = {:?}", self.record()))
    }

    fn text(&self) -> String {
        files(&self.record()).iter().map(|path| fs::read_to_string(path).unwrap_or_default()).collect()
    }

    /// Has the record written, and waits for this text in it.
    #[track_caller]
    fn await_recorded(&self, tidegate: &Tidegate, text: &str) {
        tidegate.signal("USR1");
        eventually(&format!("{text} is recorded"), || self.text().contains(text));
    }

    fn report(&self, more: &[&str]) -> Output {
        run(&[&["perimeter", "--from", "2020-01-01", "--record", self.record().to_str().unwrap()], more].concat())
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.report(&["--format", "json"]).stdout).unwrap()
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort_unstable();
    files
}

fn ask(tidegate: &Tidegate, name: &str) {
    tidegate.client().ask(&Query::a(&format!("{name}.eu-west-1.amazonaws.com.")));
}

fn said(output: &Output) -> String {
    String::from_utf8([&output.stdout[..], &output.stderr].concat()).unwrap()
}

#[test]
fn the_report_has_names_verdicts_and_when_the_guard_let_pass() {
    let site = Site::new();
    let tidegate = Tidegate::start(&site.config("refuse"));
    ask(&tidegate, "sts");
    ask(&tidegate, "public");
    site.await_recorded(&tidegate, "public.eu-west-1");
    let quiet = site.report(&[]);
    assert_eq!(quiet.status.code(), Some(0), "{}", said(&quiet));
    assert!(said(&quiet).contains("\nrefused: "), "{}", said(&quiet));

    assert!(tidegate.reload(&site.config("log")));
    tidegate.client().ask(&Query::new("public.eu-west-1.amazonaws.com.", support::query::rtype::A).edns());
    eventually("it leaks", || {
        ask(&tidegate, "public");
        tidegate.signal("USR1");
        site.text().contains("\"leaked\"")
    });
    assert!(tidegate.stop().success());

    let report = site.report(&[]);
    let text = said(&report);
    assert_eq!(report.status.code(), Some(1), "{text}");
    for part in [
        "1 leaked",
        "public.eu-west-1.amazonaws.com  52.1.2.0/24  rule aws",
        "sts.eu-west-1.amazonaws.com  10.20.0.0/16  rule aws",
        "rule aws counted public addresses and let them pass from ",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let json = site.json();
    assert_eq!((&json["counts"]["leaked"], &json["counts"]["private"]), (&1.into(), &1.into()), "{json}");
    assert_eq!(json["configurations"].as_array().unwrap().len(), 2, "{json}");
    let csv = said(&site.report(&["--format", "csv"]));
    assert!(csv.starts_with("name,worst,") && csv.lines().count() == 3, "{csv}");
    let html = said(&site.report(&["--format", "html"]));
    assert!(html.starts_with("<!DOCTYPE html>") && html.contains("52.1.2.0/24"), "{html}");
}

#[test]
fn kill_9_costs_what_was_not_written_yet_and_the_report_says_so() {
    let site = Site::new();
    let mut tidegate = Tidegate::start(&site.config("refuse"));
    ask(&tidegate, "before");
    site.await_recorded(&tidegate, "before.eu-west-1");
    ask(&tidegate, "lost");
    tidegate.signal("KILL");
    tidegate.wait();
    // The crash may also have cut a line in two.
    let last = files(&site.record()).pop().unwrap();
    let whole = fs::read_to_string(&last).unwrap();
    fs::write(&last, format!("{whole}{{\"kind\":\"name\",\"at\":17")).unwrap();

    let tidegate = Tidegate::start(&site.config("refuse"));
    ask(&tidegate, "after");
    site.await_recorded(&tidegate, "after.eu-west-1");
    let json = site.json();
    let names: Vec<&str> =
        json["names"].as_array().unwrap().iter().map(|name| name["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["after.eu-west-1.amazonaws.com.", "before.eu-west-1.amazonaws.com."], "{json}");
    assert_eq!(json["damaged"], 1, "{json}");
    let why = json["gaps"].as_array().unwrap().iter().map(|gap| gap["why"].as_str().unwrap().to_owned());
    assert!(why.into_iter().any(|why| why.contains("ended without a word")), "{json}");
}

fn seen(name: &str, answers: u64) -> Seen {
    Seen {
        name: name.parse().unwrap(),
        rule: "aws".into(),
        excepted: false,
        verdict: NameVerdict::Private,
        outcome: None::<Exposure>,
        address: Some("10.20.0.1".parse().unwrap()),
        answers: [0, answers, 0, 0],
        clients: 1,
        first: Moment::now(),
        last: Moment::now(),
    }
}

fn report(names: Vec<Seen>) -> Report {
    Report { since: Moment::now(), names, given_up: 0 }
}

fn recorder(folder: &Path) -> Recorder {
    let text = "[upstream.vpc]\nservers = [\"192.0.2.1\"]\n[[forward]]\nname = \"aws\"\nzones = [\"preset:aws\"]\nto = \"vpc\"\n";
    let mut recorder = Recorder::new(folder, Duration::from_secs(3 * 86_400), "0.0.0");
    recorder.configure("h", &Plan::from_text("t.toml", text).unwrap().live);
    recorder
}

/// Noon of a day.
const NOON: u64 = 1_795_910_400 + 43_200;

#[test]
fn a_full_disk_costs_no_count_and_leaves_no_half_line() {
    namespace::inside("a_full_disk_costs_no_count_and_leaves_no_half_line", || {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64k", "tmpfs", folder.path().to_str().unwrap()])
            .status();
        assert!(mounted.unwrap().success());
        let mut recorder = recorder(folder.path());
        recorder.append(&report(vec![seen("a.amazonaws.com", 1)]), NOON).unwrap();
        let filler = folder.path().join("filler");
        assert!(fs::write(&filler, vec![0; 1 << 20]).is_err(), "64 KiB are full");
        let many = |answers| report((0..300).map(|n| seen(&format!("n{n}.amazonaws.com"), answers)).collect());
        for minute in 1..4 {
            assert!(recorder.append(&many(minute), NOON + 60 * minute).is_err());
        }
        let so_far = read(folder.path(), NOON, NOON + 600).unwrap();
        assert_eq!((so_far.names.len(), so_far.damaged), (1, 0), "no half line");

        // It is still no room for all of them, and then there is.
        fs::remove_file(&filler).unwrap();
        let few = report((0..20).map(|n| seen(&format!("n{n}.amazonaws.com"), 7)).collect());
        recorder.append(&few, NOON + 240).unwrap();
        let history = read(folder.path(), NOON, NOON + 600).unwrap();
        assert_eq!((history.names.len(), history.damaged), (21, 0));
        assert!(
            history.names.iter().filter(|name| name.name.starts_with('n')).all(|name| name.answers == [0, 7, 0, 0])
        );
        let gap = &history.gaps[0];
        assert_eq!((gap.from, gap.to), (NOON, NOON + 240));
        assert!(gap.why.contains("full disk"), "{}", gap.why);
    });
}

#[test]
fn each_day_has_its_file_and_old_ones_go() {
    let folder = tempfile::tempdir().unwrap();
    let mut recorder = recorder(folder.path());
    for day in 0..6 {
        let wall = NOON + day * 86_400;
        recorder.append(&report(vec![seen("a.amazonaws.com", day + 1)]), wall).unwrap();
        recorder.append(&report(vec![seen("a.amazonaws.com", day + 1)]), wall + 60).unwrap();
    }
    let days: Vec<String> =
        files(folder.path()).iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    let expected = |day: u64| format!("perimeter-{}.jsonl", day_of(NOON + day * 86_400));
    assert_eq!(days, (2..6).map(expected).collect::<Vec<_>>());
    let history = read(folder.path(), NOON + 3 * 86_400, NOON + 5 * 86_400).unwrap();
    // A count is written once, as what has come since.
    assert_eq!(history.names[0].answers, [0, 2, 0, 0]);
    assert!(history.unguarded.iter().any(|was| was.why == "no guard"), "each file tells the configuration");
}

#[test]
fn a_report_needs_a_record_and_dates() {
    let site = Site::new();
    let missing = site.record().display().to_string();
    for (arguments, code, part) in [
        (&["perimeter", "--from", "yesterday"][..], 2, "is not a date"),
        (&["perimeter", "--from", "2026-11-29", "--to", "2026-11-28", "--record", &missing], 2, "comes before"),
        (&["perimeter", "--from", "2026-11-29", "--record", &missing], 1, "cannot be read"),
        (&["perimeter", "--from", "2026-11-29", "--config", &missing], 1, "say --record DIR"),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        assert!(said(&output).contains(part), "{part}: {}", said(&output));
    }
    fs::create_dir(site.record()).unwrap();
    let empty = site.report(&[]);
    assert!(said(&empty).contains("nothing was recorded"), "{}", said(&empty));
    assert!(clock::wall().as_secs() > NOON / 2, "the clock of this machine is set");
}
