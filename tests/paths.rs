//! Two ways to the VPC, each a network namespace of its own: one is cut, the other serves, and the first comes back.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{
    env, fs,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use support::{
    config::Config,
    eventually,
    namespace::{self, command},
    now,
    query::Query,
    tidegate::Tidegate,
};

/// How long the better tier must have been well.
const FAIL_BACK: Duration = Duration::from_secs(2);
/// Between probes of a server that is down, with their jitter.
const PROBE: Duration = Duration::from_millis(1_200);

/// A server at the far end of a link, which gives its own address for every name.
struct FarEnd {
    name: &'static str,
    address: &'static str,
    child: Child,
}

impl FarEnd {
    /// `name` is the namespace and, with a "v" in front, the link's near end.
    fn start(name: &'static str, network: &str, address: &'static str, folder: &Path) -> Self {
        let (near, far) = (format!("v-{name}"), format!("p-{name}"));
        command(&["ip", "netns", "add", name]);
        command(&["ip", "link", "add", &near, "type", "veth", "peer", "name", &far, "netns", name]);
        command(&["ip", "address", "add", &format!("{network}.1/24"), "dev", &near]);
        command(&["ip", "-n", name, "address", "add", &format!("{address}/24"), "dev", &far]);
        command(&["ip", "-n", name, "link", "set", &far, "up"]);
        command(&["ip", "link", "set", &near, "up"]);
        let file = folder.join(format!("{name}.toml"));
        let text = format!(
            "[server]\nlisten = [\"{address}:53\"]\nallow = [\"any\"]\nworkers = 1\n[admin]\nhttp = \"\"\nsocket = \"\"\n\
             [[local]]\nzone = \"example\"\nrecords = [\"* 60 A {address}\"]\n"
        );
        fs::write(&file, text).unwrap();
        let child = Command::new("ip")
            .args(["netns", "exec", name, env!("CARGO_BIN_EXE_tidegate"), "serve", "--config"])
            .arg(&file)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { name, address, child }
    }

    fn link(&self, state: &str) {
        command(&["ip", "link", "set", &format!("v-{}", self.name), state]);
    }
}

impl Drop for FarEnd {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Ends the questions, whatever ends the scene.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// When a question was asked, how long its answer took, and whose it was.
type Asked = (Instant, Duration, Vec<String>);

/// Two tiers behind links of their own, both known to be up, and a daemon in front. Inside namespaces alone.
fn site(folder: &Path) -> (FarEnd, FarEnd, Tidegate) {
    // Network namespaces have names in a folder of their own.
    fs::create_dir_all("/run/netns").unwrap();
    command(&["mount", "-t", "tmpfs", "tmpfs", "/run/netns"]);
    let first = FarEnd::start("direct", "10.99.1", "10.99.1.2", folder);
    let second = FarEnd::start("vpn", "10.99.2", "10.99.2.2", folder);
    let group = format!(
        "backup = [[\"{}\"]]\nfail_back = \"{}s\"\n[upstream.vpc.health]\nprobe = \"probe.example A\"",
        second.address,
        FAIL_BACK.as_secs()
    );
    let config = Config::new()
        .section("server", "allow = [\"any\"]")
        .servers("vpc", &[first.address.to_owned()], &group)
        .forward("all", &["."], "vpc", "");
    let tidegate = Tidegate::start(&config);
    eventually("both are up", || healthy(&tidegate, &first, "0") && healthy(&tidegate, &second, "1"));
    (first, second, tidegate)
}

fn healthy(tidegate: &Tidegate, server: &FarEnd, tier: &str) -> bool {
    let labels = [("group", "vpc"), ("server", server.address), ("tier", tier)];
    tidegate.metric("tidegate_upstream_healthy", &labels) == 1.0
}

/// How often a server went down.
fn downs(tidegate: &Tidegate, server: &FarEnd) -> f64 {
    let labels = [("group", "vpc"), ("server", server.address), ("to", "down")];
    tidegate.metric("tidegate_upstream_transitions_total", &labels)
}

#[test]
fn a_link_that_is_cut_costs_no_answer_and_is_used_again_once_it_is_mended() {
    namespace::inside("a_link_that_is_cut_costs_no_answer_and_is_used_again_once_it_is_mended", || {
        let folder = tempfile::tempdir().unwrap();
        let (first, second, tidegate) = site(folder.path());
        // One that was asked before it listened was down for a moment.
        let before = [downs(&tidegate, &first), downs(&tidegate, &second)];

        let (stop, asked) = (AtomicBool::new(false), Mutex::new(Vec::<Asked>::new()));
        let serves = |server: &FarEnd| asked.lock().unwrap().last().is_some_and(|(.., from)| *from == [server.address]);
        let (cut, mended) = thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    let start = now();
                    let answer = tidegate.client().ask(&Query::a(&format!("n{n}.example.")));
                    asked.lock().unwrap().push((start, start.elapsed(), answer.address_texts()));
                    thread::sleep(Duration::from_millis(5));
                }
            });
            let _stop = StopAtEnd(&stop);
            eventually("the first tier serves", || serves(&first));
            first.link("down");
            let cut = now();
            eventually("the second tier serves", || serves(&second));
            eventually("the first is known to be down", || !healthy(&tidegate, &first, "0"));
            first.link("up");
            let mended = now();
            eventually("the first tier serves again", || serves(&first));
            (cut, mended)
        });
        let asked = asked.into_inner().unwrap();
        assert!(asked.iter().all(|(.., from)| !from.is_empty()), "no failure");
        let at = |server: &FarEnd, after: Instant| {
            let (start, took, _) =
                asked.iter().find(|(start, _, from)| *start >= after && *from == [server.address]).unwrap();
            (*start + *took).duration_since(after)
        };
        let (over, back) = (at(&second, cut), at(&first, mended));
        assert!(over < Duration::from_secs(1), "{over:?}");
        // With room for a busy machine.
        assert!(back < FAIL_BACK + 2 * PROBE + Duration::from_secs(3), "{back:?}");
        let changes = [downs(&tidegate, &first) - before[0], downs(&tidegate, &second) - before[1]];
        assert_eq!(changes, [1.0, 0.0], "each way once, and the other tier never");
    });
}

/// `TIDEGATE_SOAK_SECONDS` makes it longer.
#[test]
fn a_lossy_link_is_left_once_at_the_most() {
    namespace::inside("a_lossy_link_is_left_once_at_the_most", || {
        let folder = tempfile::tempdir().unwrap();
        let (first, _second, tidegate) = site(folder.path());
        let before = downs(&tidegate, &first);
        let seconds = env::var("TIDEGATE_SOAK_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(5);
        command(&["nft", "add", "table", "ip", "loss"]);
        for (hook, interface) in [("input", "iifname"), ("output", "oifname")] {
            let chain = format!("{{ type filter hook {hook} priority 0; }}");
            command(&["nft", "add", "chain", "ip", "loss", hook, &chain]);
            let rule = format!("{interface} \"v-direct\" numgen random mod 100 < 30 drop");
            command(&["nft", &format!("add rule ip loss {hook} {rule}")]);
        }
        let (start, mut asked, mut failed) = (now(), 0, 0);
        while start.elapsed() < Duration::from_secs(seconds) {
            let answer = tidegate.client().ask(&Query::a(&format!("n{asked}.example.")));
            asked += 1;
            failed += u32::from(answer.address_texts().is_empty());
            thread::sleep(Duration::from_millis(5));
        }
        let left = downs(&tidegate, &first) - before;
        assert!(left <= 1.0, "left {left} times in {seconds} s, {failed} of {asked} questions failed");
        // A try fails once in two, and the last of three goes to the other tier.
        assert!(failed * 100 <= asked, "{failed} of {asked} questions failed, left {left} times");
    });
}
