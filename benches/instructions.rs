//! Instructions that a hit, a miss and a wake-up execute in user mode, counted by valgrind: the same on a busy machine.
//!
//! ```text
//! cargo bench --bench instructions                 # prints them beside the baseline; fails when a hit costs over 5 % more
//! cargo bench --bench instructions -- --record     # writes the baseline
//! ```
//!
//! Each workload runs twice in a process of its own under callgrind, with few and with many queries; the difference is
//! the queries' own, whatever the start cost. A hit is [`Engine::handle`] alone. Over UDP it is all that a worker does
//! for a query, from its listening socket to the upstream's and back, 32 queries at a time; client and upstream are
//! outside valgrind. How messages gather in batches there is up to the kernel, so that a count may differ by some per
//! cent: it is shown, and does not fail. What a local zone answers is asked for once each there. One at a time, a query finds the worker asleep: the count is that of a whole
//! wake-up, from `epoll_wait` to `epoll_wait`, the runtime's part included; a miss takes two. The kernel's own
//! instructions are not counted.
//!
//! The dumps of the longer runs stay in `target/callgrind`, for callgrind_annotate.
//!
//! [`Engine::handle`]: tidegate::engine::Engine::handle

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it reports to who started it")]

mod support;

use std::{
    env, fs,
    io::{self, BufRead, BufReader},
    net::{SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::{Command, ExitCode, ExitStatus, Stdio},
    rc::Rc,
    sync::Arc,
    thread,
    time::Duration,
};

use support::{Bench, Manner, answer_all, names, query};
use tidegate::{
    engine::{Action, Context},
    net::socket::{ListenOptions, udp_listeners},
    serve::udp,
    upstream::{self, ServerSpec, TierMember, UpstreamClient},
    wire::{Name, Transport},
};
use tokio::{
    runtime::{Builder, LocalOptions},
    sync::watch,
};

/// What a hit may cost over the baseline, in per cent. A compiler's whims stay below it.
const TOLERANCE: f64 = 5.0;
/// Queries of the shorter and of the longer run: what the start costs differs by some hundred thousand instructions.
const RUNS: [usize; 2] = [3_200, 51_200];
/// The same over UDP, where valgrind has more to do.
const RUNS_OVER_UDP: [usize; 2] = [3_200, 16_000];
/// The same for names of a local zone, each asked for once.
const RUNS_IN_ZONE: [usize; 2] = [800, 3_200];
/// Queries under way at a time: what a batch of a listener holds.
const BATCH: usize = 32;
/// The longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Names that the cache holds for hits.
const CACHED: usize = 1_000;

/// What is measured, and whether it may fail.
const WORKLOADS: [(&str, Verdict); 11] = [
    ("hit", Verdict::Binding),
    (UNGUARDED, Verdict::Binding),
    (PLAIN, Verdict::Binding),
    (MIXED_CASE, Verdict::Binding),
    (ROTATED, Verdict::Binding),
    (LOCAL, Verdict::Shown),
    (LOCAL_NXDOMAIN, Verdict::Shown),
    (HIT_OVER_UDP, Verdict::Shown),
    (MISS_OVER_UDP, Verdict::Shown),
    (HIT_ALONE, Verdict::Binding),
    (MISS_ALONE, Verdict::Shown),
];
const UNGUARDED: &str = "hit, without guard and follow";
const PLAIN: &str = "hit, plain";
const MIXED_CASE: &str = "hit, mixed case";
const ROTATED: &str = "hit, three addresses rotated";
const LOCAL: &str = "local answer, zone of 4,000, over UDP";
const LOCAL_NXDOMAIN: &str = "NXDOMAIN, zone of 4,000, over UDP";
const HIT_OVER_UDP: &str = "hit, over UDP";
const MISS_OVER_UDP: &str = "miss, over UDP";
const HIT_ALONE: &str = "hit, one at a time over UDP";
const MISS_ALONE: &str = "miss, one at a time over UDP";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Binding,
    Shown,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let is = |flag: &str| arguments.iter().any(|argument| argument == flag);
    match arguments.as_slice() {
        [run, workload, count, upstream] if run == "--run" => {
            let count = count.parse().expect("the parent passes a number");
            work(workload, count, upstream.parse().expect("the parent passes an address"));
            ExitCode::SUCCESS
        }
        _ if is("--test") => {
            let upstream = answer_all();
            WORKLOADS.iter().for_each(|(workload, _)| run(&[], workload, BATCH, upstream).1.expect("it ends well"));
            ExitCode::SUCCESS
        }
        _ => compare(is("--record")),
    }
}

/// Counts every workload and prints it beside the baseline.
fn compare(records: bool) -> ExitCode {
    let upstream = answer_all();
    let counts: Vec<(&str, f64)> =
        WORKLOADS.iter().map(|(workload, _)| (*workload, count(workload, upstream))).collect();
    if records {
        let mut text =
            "# Instructions a query; `cargo bench --bench instructions -- --record` writes this.\n".to_owned();
        counts.iter().for_each(|(workload, count)| text += &format!("\"{workload}\" = {count:.1}\n"));
        fs::write(baseline_file(), text).expect("the baseline can be written");
    }
    let text = fs::read_to_string(baseline_file()).expect("there is a baseline: --record makes one");
    let baseline: toml::Table = text.parse().expect("the baseline is TOML");
    println!("| instructions a query | baseline | now | |\n| --- | ---: | ---: | ---: |");
    let mut code = ExitCode::SUCCESS;
    for ((workload, now), (_, verdict)) in counts.iter().zip(WORKLOADS) {
        let Some(before) = baseline.get(*workload).and_then(toml::Value::as_float) else {
            println!("| {workload} | | {now:.0} | |");
            continue;
        };
        let more = (now / before - 1.0) * 100.0;
        println!("| {workload} | {before:.0} | {now:.0} | {more:+.1} % |");
        if verdict == Verdict::Binding && more > TOLERANCE {
            eprintln!("{workload}: {more:.1} % more instructions than the baseline, {TOLERANCE} % are allowed");
            code = ExitCode::FAILURE;
        }
    }
    code
}

fn baseline_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.toml")
}

/// Queries under way at a time; none where no socket is involved.
fn at_a_time(workload: &str) -> Option<usize> {
    match workload {
        HIT_OVER_UDP | MISS_OVER_UDP | LOCAL | LOCAL_NXDOMAIN => Some(BATCH),
        HIT_ALONE | MISS_ALONE => Some(1),
        _ => None,
    }
}

/// Instructions of one query.
fn count(workload: &str, upstream: SocketAddr) -> f64 {
    let runs = match workload {
        LOCAL | LOCAL_NXDOMAIN => RUNS_IN_ZONE,
        _ if at_a_time(workload).is_some() => RUNS_OVER_UDP,
        _ => RUNS,
    };
    let [few, many] = runs.map(|queries| instructions(workload, queries, upstream));
    (many - few) / (runs[1] - runs[0]) as f64
}

/// Instructions of a whole run.
fn instructions(workload: &str, queries: usize, upstream: SocketAddr) -> f64 {
    let dumps = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("callgrind");
    fs::create_dir_all(&dumps).expect("the build's directory can be written");
    let dump = format!("--callgrind-out-file={}", dumps.join(workload.replace([' ', ','], "-")).display());
    let (said, end) = run(&["valgrind", "--tool=callgrind", &dump], workload, queries, upstream);
    end.unwrap_or_else(|status| panic!("{workload}: {status}: {said}"));
    let total = said.lines().find_map(|line| line.split_once("Collected :")).expect("callgrind says its sum");
    total.1.trim().parse().expect("the sum is a number")
}

/// Runs a workload in a process of its own, behind `wrapper`, and asks it what it wants to be asked. Gives what it wrote
/// to its standard error.
fn run(wrapper: &[&str], workload: &str, queries: usize, upstream: SocketAddr) -> (String, Result<(), ExitStatus>) {
    let this = env::current_exe().expect("this program has a file");
    let mut command = match wrapper {
        [] => Command::new(this),
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments).arg(this);
            command
        }
    };
    command.args(["--run", workload, &queries.to_string(), &upstream.to_string()]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("valgrind can be started; apt-get install valgrind");
    if let Some(at_a_time) = at_a_time(workload) {
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("the child says its address");
        ask(line.trim().parse().expect("it is an address"), workload, queries, at_a_time);
    }
    drop(child.stdin.take());
    let output = child.wait_with_output().expect("the child ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (said, if output.status.success() { Ok(()) } else { Err(output.status) })
}

/// Asks the server over UDP, so many queries at a time, and checks the answers.
fn ask(server: SocketAddr, workload: &str, queries: usize, at_a_time: usize) {
    let socket = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.connect(server).map(|()| socket));
    let socket = socket.expect("a port on loopback");
    socket.set_read_timeout(Some(PATIENCE)).expect("it is not zero");
    let mut names = names(if [HIT_OVER_UDP, HIT_ALONE].contains(&workload) { CACHED } else { queries });
    let mut expected = (0, 1);
    if workload == LOCAL_NXDOMAIN {
        names.iter_mut().for_each(|name| *name = format!("no-{name}").parse().expect("it is a name"));
        expected = (3, 0);
    }
    let mut names = names.iter().cycle();
    let mut reply = [0; 1232];
    for _ in 0..queries / at_a_time {
        for name in names.by_ref().take(at_a_time) {
            socket.send(&query(name, Manner::Edns)).expect("loopback takes a datagram");
        }
        for _ in 0..at_a_time {
            socket.recv(&mut reply).expect("every query is answered");
            assert_eq!((reply[3] & 0x0f, reply[7]), expected, "response code and number of answers");
        }
    }
}

/// What a process does under valgrind.
fn work(workload: &str, queries: usize, upstream: SocketAddr) {
    match workload {
        HIT_OVER_UDP | HIT_ALONE => listen(&Bench::with_names(&names(CACHED))),
        MISS_OVER_UDP | MISS_ALONE => {
            listen(&Bench::forwarding(vec![TierMember::Server(ServerSpec::plain(Transport::Udp, upstream))]));
        }
        LOCAL | LOCAL_NXDOMAIN => listen(&Bench::with_zone()),
        PLAIN => hits(Bench::with_names, queries, Manner::Plain),
        MIXED_CASE => hits(Bench::with_names, queries, Manner::MixedCase),
        UNGUARDED => hits(Bench::unguarded, queries, Manner::Edns),
        ROTATED => hits(Bench::with_endpoints, queries, Manner::Edns),
        _ => hits(Bench::with_names, queries, Manner::Edns),
    }
}

fn hits(bench: fn(&[Name]) -> Bench, count: usize, manner: Manner) {
    let names = names(CACHED);
    let bench = bench(&names);
    let queries: Vec<_> = names.iter().map(|name| query(name, manner)).collect();
    let mut reply = vec![0; 1232];
    for query in queries.iter().cycle().take(count) {
        assert!(matches!(bench.handle(query, &mut reply), Action::Reply(_)), "the cache has it");
    }
}

/// Serves datagrams as a worker does, until the standard input ends.
fn listen(bench: &Bench) {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).expect("a runtime");
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let socket = udp_listeners(address, 1, &ListenOptions::default()).expect("a port on loopback").remove(0);
    println!("{}", socket.local_addr().expect("it is bound"));
    let (stop, stopped) = watch::channel(false);
    thread::spawn(move || {
        drop(io::copy(&mut io::stdin(), &mut io::sink()));
        stop.send(true)
    });
    runtime.block_on(async {
        let upstream_client = Rc::new(UpstreamClient::new(upstream::WorkerNumber::ALONE));
        let context = Rc::new(Context::new(Arc::clone(&bench.engine), upstream_client, Arc::clone(&bench.counters)));
        udp::serve(socket, context, 1232, stopped).await.expect("it stops when it is told to");
    });
}
