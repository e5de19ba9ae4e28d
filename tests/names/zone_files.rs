//! Zone files and hosts files that change: new answers at once and whole, and the old ones as long as a file is bad.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
};

use rstest::rstest;
use tempfile::TempDir;

use crate::{
    Config, Site, ask,
    support::{
        client::Client,
        eventually,
        peers::dig,
        query::Query,
        tidegate::{Tidegate, run},
    },
};

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// As `mv` would put it in place.
    fn put(&self, name: &str, text: &str) -> PathBuf {
        let (path, new) = (self.path(name), self.path("new"));
        fs::write(&new, text).expect("the folder is writable");
        fs::rename(new, &path).expect("the folder is writable");
        path
    }
}

fn zone(records: &str) -> String {
    format!("$TTL 60\n@ SOA ns h 1 2 3 4 30\n@ NS ns\nns A 10.3.0.53\n{records}\n")
}

fn with_zone(config: Config, path: &Path) -> Config {
    config.raw(&format!("[[local]]\nzone = \"edge.example\"\nfile = {path:?}"))
}

const OLD: [&str; 2] = ["NOERROR qr aa rd ra", "www.edge.example. 60 A 10.3.0.1"];
const NEW: [&str; 2] = ["NOERROR qr aa rd ra", "www.edge.example. 60 A 10.3.0.2"];

/// How a change is noticed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum By {
    Watch,
    Hangup,
}

impl By {
    /// Makes the change, lets the daemon notice, and says whether it took what it found.
    #[track_caller]
    fn notices(self, tidegate: &Tidegate, config: &Config, change: impl FnOnce()) -> bool {
        let reloads = || tidegate.metric("tidegate_config_reloads_total", &[]);
        let before = reloads();
        change();
        match self {
            Self::Watch => eventually("the change is noticed", || reloads() > before),
            Self::Hangup => return tidegate.reload(config),
        }
        tidegate.metric("tidegate_config_last_reload_success", &[]) > 0.5
    }
}

#[rstest]
fn a_changed_zone_file_is_answered_from(#[values(By::Watch, By::Hangup)] by: By) {
    let (files, site) = (Files::new(), Site::start());
    let path = files.put("zone", &zone("www A 10.3.0.1\nlogin CNAME sts.us-east-1.amazonaws.com."));
    let config = with_zone(site.config_with_open_chains(""), &path);
    let tidegate = Tidegate::start(&config);
    ask(&tidegate, "www.edge.example", "A").shows(&OLD);
    ask(&tidegate, "www.edge.example", "A").shows_aged(&OLD);
    assert_eq!(ask(&tidegate, "new.edge.example", "A").status, "NXDOMAIN");
    assert_eq!(ask(&tidegate, "login.edge.example", "A").answers.len(), 2);

    assert!(by.notices(&tidegate, &config, || drop(
        files.put("zone", &zone("www A 10.3.0.2\nnew A 10.3.0.3\nlogin CNAME backups.s3.us-east-1.amazonaws.com."))
    )));
    ask(&tidegate, "www.edge.example", "A").shows(&NEW);
    ask(&tidegate, "new.edge.example", "A").shows(&["NOERROR qr aa rd ra", "new.edge.example. 60 A 10.3.0.3"]);
    ask(&tidegate, "login.edge.example", "A").shows(&[
        "NOERROR qr rd ra",
        "login.edge.example. 60 CNAME backups.s3.us-east-1.amazonaws.com.",
        "backups.s3.us-east-1.amazonaws.com. 60 A 10.20.1.10",
    ]);
}

#[rstest]
#[case::does_not_parse("www A 10.3.0.2\nwww2 A 10.3.0.999", "10.3.0.999")]
#[case::outside_the_zone("www A 10.3.0.2\nwww.example. A 10.3.0.3", "www.example.")]
#[case::cname_beside_data("www A 10.3.0.2\nwww CNAME www2", "CNAME")]
fn a_bad_zone_file_leaves_the_old_zone_in_force(
    #[case] records: &str,
    #[case] told: &str,
    #[values(By::Watch, By::Hangup)] by: By,
) {
    let files = Files::new();
    let path = files.put("zone", &zone("www A 10.3.0.1"));
    let config = with_zone(Config::new(), &path);
    let tidegate = Tidegate::start(&config);
    ask(&tidegate, "www.edge.example", "A").shows(&OLD);

    assert!(
        !by.notices(&tidegate, &config, || drop(files.put("zone", &zone(records)))),
        "a bad file is refused, and metrics say so"
    );
    ask(&tidegate, "www.edge.example", "A").shows_aged(&OLD);
    assert_eq!(ask(&tidegate, "www2.edge.example", "A").status, "NXDOMAIN");
    let said = [tidegate.logged("WARN", told), tidegate.logged("ERROR", told)].concat();
    let place = format!("{}:", path.display());
    assert!(said.iter().any(|line| line.contains(&place)), "file and line are named: {:?}", tidegate.log());

    assert!(by.notices(&tidegate, &config, || drop(files.put("zone", &zone("www A 10.3.0.2")))));
    ask(&tidegate, "www.edge.example", "A").shows(&NEW);
}

#[rstest]
fn a_zone_file_that_is_gone_leaves_the_old_zone_in_force(#[values(By::Watch, By::Hangup)] by: By) {
    let files = Files::new();
    let path = files.put("zone", &zone("www A 10.3.0.1"));
    let config = with_zone(Config::new(), &path);
    let tidegate = Tidegate::start(&config);
    assert!(!by.notices(&tidegate, &config, || fs::remove_file(&path).expect("it is there")));
    ask(&tidegate, "www.edge.example", "A").shows(&OLD);
    assert!(by.notices(&tidegate, &config, || drop(files.put("zone", &zone("www A 10.3.0.2")))));
    ask(&tidegate, "www.edge.example", "A").shows(&NEW);
}

#[rstest]
#[case::does_not_parse(Some("www A 10.3.0.999"))]
#[case::missing(None)]
fn a_zone_that_is_broken_at_the_start_alone_is_out_of_service(
    #[case] records: Option<&str>,
    #[values(By::Watch, By::Hangup)] by: By,
) {
    let files = Files::new();
    let (path, other) = (files.path("zone"), files.put("other", &zone("www A 10.4.0.1")));
    if let Some(records) = records {
        files.put("zone", &zone(records));
    }
    let config = with_zone(Config::new(), &path).raw(&format!("[[local]]\nzone = \"other.example\"\nfile = {other:?}"));
    let tidegate = Tidegate::start(&config);
    let broken = ask(&tidegate, "www.edge.example", "A");
    assert_eq!(broken.status, "SERVFAIL");
    let words = "EDE: 0 (Other): (the file of the local zone edge.example. cannot be used";
    assert!(broken.text.contains(words), "{}", broken.text);
    ask(&tidegate, "www.other.example", "A").shows(&["NOERROR qr aa rd ra", "www.other.example. 60 A 10.4.0.1"]);
    assert!(!tidegate.logged("ERROR", "edge.example. answers SERVFAIL").is_empty(), "{:?}", tidegate.log());
    let checked = run(&["check".as_ref(), tidegate.folder().join("tidegate.toml").as_os_str()]);
    let told = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.code() == Some(2) && told.contains(path.to_str().expect("ASCII")), "{told}");

    // What is broken does not stand in the way of other changes.
    let more = config.clone().raw("[[local]]\nzone = \"more.example\"\nrecords = [\"www A 10.5.0.1\"]");
    assert!(tidegate.reload(&more));
    assert_eq!(ask(&tidegate, "www.edge.example", "A").status, "SERVFAIL");
    ask(&tidegate, "www.more.example", "A").shows(&["NOERROR qr aa rd ra", "www.more.example. 300 A 10.5.0.1"]);

    assert!(by.notices(&tidegate, &more, || drop(files.put("zone", &zone("www A 10.3.0.1")))));
    ask(&tidegate, "www.edge.example", "A").shows(&OLD);
}

#[rstest]
fn odd_lines_of_a_hosts_file_are_skipped_with_one_warning(#[values(By::Watch, By::Hangup)] by: By) {
    let files = Files::new();
    let odd = "fe80::1%lo0 localhost\n10.5.0.2\n10.5.0.3 a..b\n";
    let path = files.put("hosts", &format!("10.5.0.1 printer\n{odd}::ffff:10.5.0.9 mapped\n"));
    let config = Config::new().raw(&format!("[local_hosts]\nfile = {path:?}"));
    let tidegate = Tidegate::start(&config);
    ask(&tidegate, "printer", "A").shows(&["NOERROR qr aa rd ra", "printer. 60 A 10.5.0.1"]);
    ask(&tidegate, "mapped", "A").shows(&["NOERROR qr aa rd ra", "mapped. 60 A 10.5.0.9"]);
    let warned = || tidegate.logged("WARN", "skipped").len();
    assert_eq!((warned(), tidegate.logged("WARN", "3 lines were skipped").len()), (1, 1), "{:?}", tidegate.log());
    assert!(by.notices(&tidegate, &config, || drop(files.put("hosts", "10.5.0.4 printer\nnonsense\n"))));
    ask(&tidegate, "printer", "A").shows(&["NOERROR qr aa rd ra", "printer. 60 A 10.5.0.4"]);
    let said = tidegate.logged("WARN", "1 line was skipped");
    assert!(!said.is_empty() && said[0].contains(":2: "), "{:?}", tidegate.log());
    let checked = run(&["check".as_ref(), tidegate.folder().join("tidegate.toml").as_os_str()]);
    let told = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success() && told.matches("skipped").count() == 1, "{told}");
}

#[rstest]
fn an_answer_that_is_too_long_has_a_body_all_the_same(#[values("+notcp", "+tcp")] over: &str) {
    let files = Files::new();
    let long = "t".repeat(60);
    let many: Vec<String> = (0..3000).map(|n| format!("big A 10.{}.{}.1", n / 250, n % 250)).collect();
    let texts: Vec<String> = (0..200).map(|n| format!("big TXT {n}{}", "x".repeat(200))).collect();
    let records = format!("grow DNAME {long}.elsewhere.\n{}\n{}", many.join("\n"), texts.join("\n"));
    let path = files.put("zone", &zone(&records));
    let tidegate = Tidegate::start(&with_zone(Config::new(), &path));
    let label = "l".repeat(63);
    for _ in 0..2 {
        // RFC 6672 2.2: the DNAME says why.
        let grown = dig(tidegate.address(), &format!("{label}.{label}.{label}.grow.edge.example"), &["A", over]);
        assert_eq!((grown.status.as_str(), grown.answers.len()), ("YXDOMAIN", 1), "{}", grown.text);
        // More than 64 KiB: the record sets that fit (RFC 8482 4.1).
        let any = dig(tidegate.address(), "big.edge.example", &["ANY", "+tcp"]);
        assert_eq!((any.status.as_str(), any.answers.len()), ("NOERROR", 3000), "{} octets shown", any.text.len());
    }
}

#[test]
fn addresses_of_zones_and_hosts_start_at_any_of_them() {
    let files = Files::new();
    let path = files.put("zone", &zone("www A 10.3.0.1\nwww A 10.3.0.2\nwww A 10.3.0.3"));
    let hosts = files.put("hosts", "10.5.0.1 printer\n10.5.0.2 printer\n10.5.0.3 printer\n");
    for cache in ["", "size = \"0\""] {
        let config =
            with_zone(Config::new(), &path).raw(&format!("[local_hosts]\nfile = {hosts:?}")).section("cache", cache);
        let tidegate = Tidegate::start(&config);
        let client = tidegate.client();
        for name in ["www.edge.example.", "printer."] {
            let firsts: Vec<String> =
                (0..60).filter_map(|_| client.ask(&Query::a(name)).address_texts().into_iter().next()).collect();
            let of = |end: &str| firsts.iter().filter(|first| first.ends_with(end)).count();
            // Sixty draws of three: that one is never first has a chance below one in ten thousand millions.
            assert!([".1", ".2", ".3"].iter().all(|end| of(end) > 0), "{cache} {name}: {firsts:?}");
        }
    }
}

#[test]
fn an_included_file_is_watched_too() {
    let files = Files::new();
    files.put("records", "www A 10.3.0.1\n");
    let path = files.put("zone", &zone("$INCLUDE records"));
    let config = with_zone(Config::new(), &path);
    let tidegate = Tidegate::start(&config);
    ask(&tidegate, "www.edge.example", "A").shows(&OLD);
    assert!(By::Watch.notices(&tidegate, &config, || drop(files.put("records", "www A 10.3.0.2\n"))));
    ask(&tidegate, "www.edge.example", "A").shows(&NEW);
}

/// One bad zone of two: neither changes, and what is asked of the good one is no mixture.
#[test]
fn zones_change_together() {
    let files = Files::new();
    let path = files.put("zone", &zone("www A 10.3.0.1"));
    let other = files.put("other", &zone("www A 10.4.0.1"));
    let config = with_zone(Config::new(), &path).raw(&format!("[[local]]\nzone = \"other.example\"\nfile = {other:?}"));
    let tidegate = Tidegate::start(&config);
    files.put("zone", &zone("www A 10.3.0.2"));
    files.put("other", &zone("www A nonsense"));
    assert!(!tidegate.reload(&config));
    ask(&tidegate, "www.edge.example", "A").shows(&OLD);
    files.put("other", &zone("www A 10.4.0.2"));
    assert!(tidegate.reload(&config));
    ask(&tidegate, "www.edge.example", "A").shows(&NEW);
    ask(&tidegate, "www.other.example", "A").shows(&["NOERROR qr aa rd ra", "www.other.example. 60 A 10.4.0.2"]);
}

/// Under load, an answer is of one generation of the file, and of the newest once the reload is done.
#[test]
fn under_load_every_answer_is_of_one_file_and_of_the_newest() {
    let files = Files::new();
    let text = |turn: u32| zone(&format!("www A 10.{turn}.0.1\nwww A 10.{turn}.0.2\nwww A 10.{turn}.0.3"));
    let path = files.put("zone", &text(0));
    let config = with_zone(Config::new(), &path).section("server", "workers = 2");
    let tidegate = Tidegate::start(&config);
    let (done, least, stop) = (AtomicU32::new(0), AtomicU32::new(0), AtomicBool::new(false));
    let address = tidegate.address();
    let load = || {
        let client = Client::new(address).socket();
        while !stop.load(Ordering::SeqCst) {
            let newest = least.load(Ordering::SeqCst);
            client.send(&Query::a("www.edge.example."));
            let addresses = client.receive().address_texts();
            let turns: Vec<u32> =
                addresses.iter().filter_map(|address| address.split('.').nth(1)?.parse().ok()).collect();
            assert!(turns.len() == 3 && turns.iter().all(|turn| *turn == turns[0]), "a mixture: {addresses:?}");
            assert!(turns[0] >= newest, "{addresses:?} after the reload to {newest}");
            done.fetch_add(1, Ordering::SeqCst);
        }
    };
    thread::scope(|scope| {
        let loads = [scope.spawn(load), scope.spawn(load)];
        for turn in 1..=20 {
            let before = done.load(Ordering::SeqCst);
            let is_alive = || loads.iter().all(|load| !load.is_finished());
            eventually("questions are answered", || !is_alive() || done.load(Ordering::SeqCst) > before + 20);
            files.put("zone", &text(turn));
            assert!(tidegate.reload(&config) && is_alive());
            least.store(turn, Ordering::SeqCst);
        }
        stop.store(true, Ordering::SeqCst);
    });
}

#[test]
fn hosts_forward_and_reverse() {
    let (files, site) = (Files::new(), Site::start());
    let hosts = "10.5.0.1 printer.corp.example printer\nfd00:5::1 printer.corp.example\n\
                 10.5.0.2 Scanner.corp.example # in the hall\n10.5.0.3 sts.us-east-1.amazonaws.com\n";
    let path = files.put("hosts", hosts);
    let config = site.config("").raw(&format!("[local_hosts]\nfile = {path:?}"));
    let tidegate = Tidegate::start(&config);
    let shows = |name: &str, arguments: &[&str], record: &str| {
        for _ in 0..2 {
            let shown = dig(tidegate.address(), name, arguments).shown();
            let without_ttl = shown.get(1).map(|line| {
                let words: Vec<&str> = line.split(' ').collect();
                [&words[..1], &words[2..]].concat().join(" ")
            });
            assert_eq!((shown[0].as_str(), without_ttl.as_deref()), ("NOERROR qr aa rd ra", Some(record)), "{shown:?}");
            assert_eq!(shown.len(), 2, "{shown:?}");
        }
    };
    shows("printer.corp.example", &["A"], "printer.corp.example. A 10.5.0.1");
    shows("PRINTER.corp.example", &["AAAA"], "PRINTER.corp.example. AAAA fd00:5::1");
    shows("printer", &["A"], "printer. A 10.5.0.1");
    shows("scanner.corp.example", &["A"], "scanner.corp.example. A 10.5.0.2");
    shows("-x", &["10.5.0.1"], "1.0.5.10.in-addr.arpa. PTR printer.corp.example.");
    shows("-x", &["10.5.0.2"], "2.0.5.10.in-addr.arpa. PTR scanner.corp.example.");
    // A host below a forwarded domain, and its neighbours.
    shows("sts.us-east-1.amazonaws.com", &["A"], "sts.us-east-1.amazonaws.com. A 10.5.0.3");
    let nodata = ask(&tidegate, "sts.us-east-1.amazonaws.com", "AAAA").shown();
    assert_eq!((nodata[0].as_str(), nodata.len()), ("NOERROR qr aa rd ra", 2), "{nodata:?}");
    ask(&tidegate, "www.corp.example", "A").shows(&["NOERROR qr rd ra", "www.corp.example. 120 A 10.1.2.3"]);
    // An alias elsewhere leads to the host.
    assert_eq!(ask(&tidegate, "login.corp.example", "A").answers.last().map(String::as_str), Some("10.5.0.3"));

    assert!(By::Watch.notices(&tidegate, &config, || drop(files.put("hosts", "10.5.0.9 printer.corp.example\n"))));
    shows("printer.corp.example", &["A"], "printer.corp.example. A 10.5.0.9");
    shows("-x", &["10.5.0.9"], "9.0.5.10.in-addr.arpa. PTR printer.corp.example.");
    ask(&tidegate, "sts.us-east-1.amazonaws.com", "A")
        .shows(&["NOERROR qr rd ra", "sts.us-east-1.amazonaws.com. 300 A 10.20.1.11"]);
    assert_eq!(ask(&tidegate, "login.corp.example", "A").answers.last().map(String::as_str), Some("10.20.1.11"));
}
