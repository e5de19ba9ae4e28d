//! A restart, or kill -9, while no upstream answers: clients get the answers that they got before.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use hickory_proto::op::ResponseCode;
use tempfile::TempDir;

use crate::support::{
    config::{Config, ONE_PATIENT_TRY},
    eventually, namespace, now,
    query::{Query, rtype},
    records::{Record, Reply},
    tidegate::Tidegate,
    upstream::Upstream,
};

/// A folder for a snapshot that outlives the daemons.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("cache.snapshot")
    }

    pub(crate) fn cache(&self) -> String {
        cache(&self.path())
    }
}

fn cache(path: &Path) -> String {
    format!("snapshot = \"{}\"", path.display())
}

fn config(upstream: &Upstream, place: &Place, cache: &str) -> Config {
    Config::new()
        .section("cache", &format!("{}\n{cache}", place.cache()))
        .upstream("vpc", &[upstream], ONE_PATIENT_TRY)
        .forward("all", &["."], "vpc", "")
}

fn name(n: usize) -> String {
    format!("host-{n}.example.")
}

fn warm(tidegate: &Tidegate, names: usize) {
    let client = tidegate.client();
    for n in 0..names {
        assert_eq!(client.ask(&Query::a(&name(n))).address_texts(), ["10.0.0.1"]);
    }
}

/// Has the snapshot written and waits for it.
pub(crate) fn save(tidegate: &Tidegate, place: &Place) {
    let age = || fs::metadata(place.path()).and_then(|file| file.modified()).ok();
    let before = age();
    tidegate.signal("USR1");
    eventually("a snapshot is written", || age() != before);
}

pub(crate) fn kill(mut tidegate: Tidegate) {
    tidegate.signal("KILL");
    tidegate.wait();
}

#[test]
fn after_a_kill_every_warm_name_is_answered_though_nothing_answers_us() {
    let (place, mut upstream) = (Place::new(), Upstream::answering("10.0.0.1"));
    let tidegate = Tidegate::start(&config(&upstream, &place, ""));
    warm(&tidegate, 500);
    save(&tidegate, &place);
    upstream.stop();
    kill(tidegate);

    let tidegate = Tidegate::start(&config(&upstream, &place, ""));
    warm(&tidegate, 500);
    assert_eq!(tidegate.hits(), 500.0);
    assert!(tidegate.metric("tidegate_snapshot_age_seconds", &[]) < 60.0);
    assert_eq!(tidegate.metric("tidegate_snapshot_errors_total", &[]), 0.0);
    assert_eq!(fs::metadata(place.path()).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_fifo_or_folder_in_the_files_place_is_neither_waited_for_nor_replaced() {
    let (place, upstream) = (Place::new(), Upstream::answering("10.0.0.1"));
    let tidegate = Tidegate::start(&config(&upstream, &place, ""));
    warm(&tidegate, 1);
    save(&tidegate, &place);
    fs::remove_file(place.path()).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(place.path()).status().unwrap().success());
    tidegate.signal("USR1");
    tidegate.await_logged("WARN", "it is a FIFO, not a regular file");
    warm(&tidegate, 2);
    assert!(tidegate.stop().success(), "the end waits for nobody to read it");
    assert!(!fs::symlink_metadata(place.path()).unwrap().is_file());
}

#[test]
fn entries_that_expired_meanwhile_are_served_stale() {
    let (place, mut upstream) = (Place::new(), Upstream::start());
    upstream.on_type(rtype::A, Reply::of([Record::a("@", 1, "10.0.0.1")]));
    let config = config(&upstream, &place, "stale_after = \"10ms\"");
    let tidegate = Tidegate::start(&config);
    let query = Query::a("www.example.").edns();
    tidegate.client().ask(&query);
    save(&tidegate, &place);
    upstream.stop();
    kill(tidegate);

    let start = now();
    eventually("the answer has expired", || start.elapsed().as_secs() >= 2);
    let tidegate = Tidegate::start(&config);
    let answer = tidegate.client().ask(&query);
    assert_eq!((answer.address_texts(), answer.ttl()), (vec!["10.0.0.1".to_owned()], 30));
    assert_eq!(answer.verdict(), (ResponseCode::NoError, Some(3)));
}

#[test]
fn ttls_go_on_counting_while_nothing_runs() {
    let (place, upstream) = (Place::new(), Upstream::start());
    upstream.on_type(rtype::A, Reply::of([Record::a("@", 1000, "10.0.0.1")]));
    let tidegate = Tidegate::start(&config(&upstream, &place, ""));
    tidegate.client().ask(&Query::a("www.example."));
    save(&tidegate, &place);
    kill(tidegate);
    let start = now();
    eventually("time passes", || start.elapsed().as_secs() >= 2);
    let tidegate = Tidegate::start(&config(&upstream, &place, ""));
    let ttl = tidegate.client().ask(&Query::a("www.example.")).ttl();
    assert!((900..=998).contains(&ttl), "{ttl}");
    assert_eq!(upstream.count("www.example."), 1);
}

#[test]
fn a_stop_writes_what_has_changed_and_the_next_start_begins_with_it() {
    let (place, upstream) = (Place::new(), Upstream::answering("10.0.0.1"));
    let tidegate = Tidegate::start(&config(&upstream, &place, ""));
    tidegate.await_logged("INFO", "no snapshot yet");
    warm(&tidegate, 3);
    assert!(tidegate.stop().success());
    let written = fs::metadata(place.path()).unwrap().modified().unwrap();
    let tidegate = Tidegate::start(&config(&upstream, &place, ""));
    tidegate.logged_once("INFO", "snapshot read");
    warm(&tidegate, 3);
    assert_eq!(upstream.count(&name(0)), 1);
    assert!(tidegate.stop().success());
    assert_eq!(fs::metadata(place.path()).unwrap().modified().unwrap(), written, "nothing had changed");
}

#[test]
fn a_file_that_is_not_believed_is_left_aside_and_stops_nothing() {
    for (case, text, says) in [
        ("foreign", &b"127.0.0.1 localhost\n# and so on\n"[..], "no cache snapshot"),
        ("empty", b"", "no cache snapshot"),
        ("older", b"tidegate cache\r\n\0\0\0\0\0\0\0\0\0\0\0\0", "version 0"),
        ("torn", b"tidegate cache\r\n\x01\0\0\0\0\0\0\0\0\0\0\0\0\0", "torn"),
    ] {
        let (place, upstream) = (Place::new(), Upstream::answering("10.0.0.1"));
        fs::write(place.path(), text).unwrap();
        let tidegate = Tidegate::start(&config(&upstream, &place, ""));
        let lines = tidegate.logged("WARN", "the snapshot is not used");
        assert!(lines.len() == 1 && lines[0].contains(says), "{case}: {lines:?}");
        assert_eq!(tidegate.metric("tidegate_snapshot_errors_total", &[]), 1.0, "{case}");
        assert_eq!(fs::read(place.path().with_extension("snapshot.rejected")).unwrap(), text, "{case}");
        warm(&tidegate, 3);
        save(&tidegate, &place);
        kill(tidegate);
        let tidegate = Tidegate::start(&config(&upstream, &place, ""));
        warm(&tidegate, 3);
        assert_eq!(tidegate.hits(), 3.0, "{case}: the next one is good");
    }
}

#[test]
fn a_damaged_file_gives_no_entry_at_all() {
    let (place, upstream) = (Place::new(), Upstream::answering("10.0.0.1"));
    let tidegate = Tidegate::start(&config(&upstream, &place, ""));
    warm(&tidegate, 2_000);
    save(&tidegate, &place);
    kill(tidegate);
    let mut file = fs::read(place.path()).unwrap();
    let near_its_end = file.len() - 100;
    file[near_its_end] ^= 1;
    fs::write(place.path(), file).unwrap();
    let tidegate = Tidegate::start(&config(&upstream, &place, ""));
    assert_eq!(tidegate.metric("tidegate_cache_entries", &[]), 0.0);
    tidegate.logged_once("WARN", "the snapshot is not used");
}

#[test]
fn a_folder_that_is_not_there_is_said_and_counted() {
    let (place, upstream) = (Place::new(), Upstream::answering("10.0.0.1"));
    let path = place.path().join("nowhere/cache");
    let config = Config::new().section("cache", &cache(&path)).upstream("vpc", &[&upstream], ONE_PATIENT_TRY).forward(
        "all",
        &["."],
        "vpc",
        "",
    );
    let tidegate = Tidegate::start(&config);
    warm(&tidegate, 1);
    tidegate.signal("USR1");
    tidegate.await_metric("tidegate_snapshot_errors_total", &[], 1.0);
    tidegate.signal("USR1");
    tidegate.await_metric("tidegate_snapshot_errors_total", &[], 2.0);
    tidegate.logged_once("WARN", "the snapshot cannot be written");
    warm(&tidegate, 1);
}

#[test]
fn a_full_disk_is_said_and_the_old_file_stays() {
    namespace::inside("restart::a_full_disk_is_said_and_the_old_file_stays", || {
        let (folder, upstream) = (tempfile::tempdir().unwrap(), Upstream::answering("10.0.0.1"));
        let disk = folder.path().display().to_string();
        namespace::command(&["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", &disk]);
        let path = folder.path().join("cache.snapshot");
        let config = Config::new()
            .section("cache", &cache(&path))
            .upstream("vpc", &[&upstream], ONE_PATIENT_TRY)
            .forward("all", &["."], "vpc", "");
        let tidegate = Tidegate::start(&config);
        warm(&tidegate, 10);
        tidegate.signal("USR1");
        eventually("a snapshot is written", || path.exists());
        let old = fs::read(&path).unwrap();
        warm(&tidegate, 2_000);
        tidegate.signal("USR1");
        tidegate.await_metric("tidegate_snapshot_errors_total", &[], 1.0);
        tidegate.await_logged("WARN", "the snapshot cannot be written");
        assert_eq!(fs::read(&path).unwrap(), old);
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
        assert_eq!(left, ["cache.snapshot"], "what could not be finished is gone");
        warm(&tidegate, 2_000);
    });
}

#[test]
fn a_relative_path_is_beside_the_configuration() {
    let upstream = Upstream::answering("10.0.0.1");
    let config = Config::forwarding_to(&[&upstream]).section("cache", "snapshot = \"kept\"");
    let tidegate = Tidegate::start(&config);
    tidegate.client().ask(&Query::a("www.example."));
    let file = tidegate.folder().join("kept");
    tidegate.signal("USR1");
    eventually("a snapshot is written", || file.exists());
}

/// Queries go on while the snapshot is written again and again.
#[test]
fn writing_holds_no_answer_up() {
    let (place, upstream) = (Place::new(), Upstream::answering("10.0.0.1"));
    let tidegate = Tidegate::start(&config(&upstream, &place, ""));
    warm(&tidegate, 1_000);
    for _ in 0..20 {
        tidegate.signal("USR1");
        warm(&tidegate, 100);
    }
    assert_eq!(tidegate.metric("tidegate_snapshot_errors_total", &[]), 0.0);
}
