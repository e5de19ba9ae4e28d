//! `tidegate cache export | tidegate cache import`: a replica starts warm, and a bad snapshot changes nothing.

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Output, Stdio},
};

use tempfile::TempDir;

use crate::support::{
    config::{Config, ONE_PATIENT_TRY},
    query::{Query, rtype},
    records::{Record, Reply},
    tidegate::{Tidegate, run, run_reading},
    upstream::Upstream,
};

/// A daemon with a control socket.
struct Replica {
    tidegate: Tidegate,
    folder: TempDir,
}

impl Replica {
    fn start(upstream: &Upstream, rule: &str) -> Self {
        Self::with(upstream, rule, "")
    }

    fn with(upstream: &Upstream, rule: &str, cache: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let admin = format!("http = \"127.0.0.1:0\"\nsocket = {:?}", folder.path().join("control.sock"));
        let config = Config::without_admin()
            .section("admin", &admin)
            .section("cache", cache)
            .upstream("vpc", &[upstream], ONE_PATIENT_TRY)
            .forward(rule, &["."], "vpc", "");
        Self { tidegate: Tidegate::start(&config), folder }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("control.sock")
    }

    #[track_caller]
    fn ask(&self, n: usize) -> Vec<String> {
        self.tidegate.client().ask(&Query::a(&format!("host-{n}.example."))).address_texts()
    }

    #[track_caller]
    fn export(&self) -> Vec<u8> {
        let output = run(&["cache", "export", "--socket", self.socket().to_str().unwrap()]);
        assert!(output.status.success(), "{output:?}");
        output.stdout
    }

    /// The output of `import` for this snapshot, with its exit code in front.
    fn import(&self, snapshot: &[u8]) -> String {
        let file = self.folder.path().join("in.snapshot");
        fs::write(&file, snapshot).unwrap();
        let input = Stdio::from(File::open(file).unwrap());
        said(&run_reading(input, &["cache", "import", "--socket", self.socket().to_str().unwrap()]))
    }

    /// The daemon's answer to a client that does not check the snapshot first.
    fn post(&self, snapshot: &[u8]) -> String {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        let length = snapshot.len();
        let head =
            format!("POST /v1/cache HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        // One that refuses early may not read all of it.
        drop(stream.write_all(snapshot));
        let mut answer = String::new();
        drop(stream.read_to_string(&mut answer));
        answer
    }
}

fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr].concat();
    format!("{} {}", output.status.code().unwrap(), String::from_utf8(text).unwrap().trim_end())
}

#[test]
fn a_replica_that_imports_answers_what_the_other_one_knew() {
    let mut upstream = Upstream::answering("10.0.0.1");
    let (one, other) = (Replica::start(&upstream, "all"), Replica::start(&upstream, "all"));
    (0..300).for_each(|n| assert_eq!(one.ask(n), ["10.0.0.1"]));
    let snapshot = one.export();
    upstream.stop();
    let said = other.import(&snapshot);
    assert!(said.starts_with("0 300 entries taken, 0 left out; the snapshot is "), "{said}");
    (0..300).for_each(|n| assert_eq!(other.ask(n), ["10.0.0.1"]));
    assert_eq!(other.tidegate.hits(), 300.0);

    // It knows them already, as fresh as they come.
    let again = other.import(&snapshot);
    assert!(again.starts_with("0 0 entries taken, 300 left out"), "{again}");
}

#[test]
fn a_fresher_answer_stays_and_other_rules_entries_are_left_out() {
    let upstream = Upstream::start();
    upstream.on_type(rtype::A, Reply::of([Record::a("@", 100, "10.0.0.1")]));
    let (one, other, stranger) =
        (Replica::start(&upstream, "all"), Replica::start(&upstream, "all"), Replica::start(&upstream, "every"));
    one.ask(1);
    let snapshot = one.export();
    upstream.on_type(rtype::A, Reply::of([Record::a("@", 1000, "10.0.0.2")]));
    other.ask(1);
    assert!(other.import(&snapshot).starts_with("0 0 entries taken, 1 left out"));
    assert_eq!(other.ask(1), ["10.0.0.2"]);
    assert!(stranger.import(&snapshot).starts_with("0 0 entries taken, 1 left out"));
}

#[test]
fn a_snapshot_that_is_cut_or_damaged_changes_nothing() {
    let upstream = Upstream::answering("10.0.0.1");
    let (one, other) = (Replica::start(&upstream, "all"), Replica::start(&upstream, "all"));
    (0..3).for_each(|n| drop(one.ask(n)));
    other.ask(9);
    let snapshot = one.export();
    let mut flipped = snapshot.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let longer = [&snapshot[..], b"x"].concat();
    for (bad, why) in [
        (&b""[..], "it is no cache snapshot"),
        (b"PK\x03\x04 something else entirely", "it is no cache snapshot"),
        (&snapshot[..snapshot.len() - 1], "it is torn"),
        (&snapshot[..30], "it is torn"),
        (&flipped, "it is damaged"),
        (&longer, "it goes on behind its end"),
    ] {
        let said = other.import(bad);
        assert!(said.starts_with(&format!("1 tidegate: the snapshot is not used: {why}")), "{said}");
        let answer = other.post(bad);
        assert!(answer.starts_with("HTTP/1.1 409 ") && answer.contains(why), "{answer}");
    }
    assert_eq!(other.tidegate.metric("tidegate_cache_entries", &[]), 1.0);
    assert_eq!((other.ask(9), other.tidegate.hits()), (vec!["10.0.0.1".to_owned()], 1.0));
}

#[test]
fn a_snapshot_that_cannot_fit_is_refused_before_it_is_buffered() {
    let upstream = Upstream::answering("10.0.0.1");
    let (none, small) =
        (Replica::with(&upstream, "all", "size = \"0\""), Replica::with(&upstream, "all", "size = \"1MiB\""));
    assert!(none.import(&small.export()).contains("this daemon has no cache"));
    // Refused without a reset, however much comes.
    let answer = none.post(&vec![0; 4 << 20]);
    assert!(answer.starts_with("HTTP/1.1 409 ") && answer.contains("this daemon has no cache"), "{answer}");
    let answer = small.post(&vec![0; 4 << 20]);
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    let said = said(&run(&["cache", "export", "--socket", "/nonexistent/control.sock"]));
    assert!(said.starts_with("1 tidegate: no daemon listens at /nonexistent/control.sock"), "{said}");
}
