//! Instructions that a hit and a miss execute in user mode, counted by valgrind: the same on a busy machine.
//!
//! ```text
//! cargo bench --bench instructions                 # prints them beside the baseline; fails when a hit costs over 5 % more
//! cargo bench --bench instructions -- --record     # writes the baseline
//! ```
//!
//! Each workload runs twice in a process of its own under callgrind, with few and with many questions; the difference is
//! the questions' own, whatever the start cost. A hit is [`Engine::handle`] alone. Over UDP it is all that a worker does
//! for a question, from its listening socket to the upstream's and back, 32 questions at a time; client and upstream are
//! outside valgrind. How messages gather in batches there is the kernel's mood, so that a count may differ by some per
//! cent: it is shown, and does not fail. The system calls are the kernel's instructions, which nobody counts here.
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

use support::{Bench, Manner, names, query};
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
/// Questions of the shorter and of the longer run: what the start costs differs by some hundred thousand instructions.
const RUNS: [usize; 2] = [3_200, 51_200];
/// The same over UDP, where valgrind has more to do.
const RUNS_OVER_UDP: [usize; 2] = [3_200, 16_000];
/// Questions under way at a time: what a batch of a listener holds.
const AT_A_TIME: usize = 32;
/// The longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Names that the cache holds for hits.
const CACHED: usize = 1_000;

/// What is measured, and whether it may fail.
const WORKLOADS: [(&str, Verdict); 6] = [
    ("hit", Verdict::Binding),
    (UNGUARDED, Verdict::Binding),
    (PLAIN, Verdict::Binding),
    (MIXED_CASE, Verdict::Binding),
    (HIT_OVER_UDP, Verdict::Shown),
    (MISS_OVER_UDP, Verdict::Shown),
];
const UNGUARDED: &str = "hit, without guard and follow";
const PLAIN: &str = "hit, plain";
const MIXED_CASE: &str = "hit, mixed case";
const HIT_OVER_UDP: &str = "hit, over UDP";
const MISS_OVER_UDP: &str = "miss, over UDP";

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
            WORKLOADS.iter().for_each(|(workload, _)| run(&[], workload, AT_A_TIME, upstream).1.expect("it ends well"));
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
            "# Instructions a question; `cargo bench --bench instructions -- --record` writes this.\n".to_owned();
        counts.iter().for_each(|(workload, count)| text += &format!("\"{workload}\" = {count:.1}\n"));
        fs::write(baseline_file(), text).expect("the baseline can be written");
    }
    let text = fs::read_to_string(baseline_file()).expect("there is a baseline: --record makes one");
    let baseline: toml::Table = text.parse().expect("the baseline is TOML");
    println!("| instructions a question | baseline | now | |\n| --- | ---: | ---: | ---: |");
    let mut code = ExitCode::SUCCESS;
    for ((workload, now), (_, verdict)) in counts.iter().zip(WORKLOADS) {
        let before = baseline.get(*workload).and_then(toml::Value::as_float).expect("the baseline has every workload");
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

fn is_over_udp(workload: &str) -> bool {
    [HIT_OVER_UDP, MISS_OVER_UDP].contains(&workload)
}

/// Instructions of one question.
fn count(workload: &str, upstream: SocketAddr) -> f64 {
    let runs = if is_over_udp(workload) { RUNS_OVER_UDP } else { RUNS };
    let [few, many] = runs.map(|questions| instructions(workload, questions, upstream));
    (many - few) / (runs[1] - runs[0]) as f64
}

/// Instructions of a whole run.
fn instructions(workload: &str, questions: usize, upstream: SocketAddr) -> f64 {
    let valgrind = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"];
    let (said, end) = run(&valgrind, workload, questions, upstream);
    end.unwrap_or_else(|status| panic!("{workload}: {status}: {said}"));
    let total = said.lines().find_map(|line| line.split_once("Collected :")).expect("callgrind says its sum");
    total.1.trim().parse().expect("the sum is a number")
}

/// Runs a workload in a process of its own, behind `wrapper`, and asks it what it wants to be asked. Gives what it wrote
/// to its standard error.
fn run(wrapper: &[&str], workload: &str, questions: usize, upstream: SocketAddr) -> (String, Result<(), ExitStatus>) {
    let this = env::current_exe().expect("this program has a file");
    let mut command = match wrapper {
        [] => Command::new(this),
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments).arg(this);
            command
        }
    };
    command.args(["--run", workload, &questions.to_string(), &upstream.to_string()]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("valgrind can be started; apt-get install valgrind");
    if is_over_udp(workload) {
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("the child says its address");
        ask(line.trim().parse().expect("it is an address"), workload, questions);
    }
    drop(child.stdin.take());
    let output = child.wait_with_output().expect("the child ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (said, if output.status.success() { Ok(()) } else { Err(output.status) })
}

/// Asks the server over UDP, a batch at a time, and checks the answers.
fn ask(server: SocketAddr, workload: &str, questions: usize) {
    let socket = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.connect(server).map(|()| socket));
    let socket = socket.expect("a port on loopback");
    socket.set_read_timeout(Some(PATIENCE)).expect("it is not zero");
    let names = names(if workload == HIT_OVER_UDP { CACHED } else { questions });
    let mut names = names.iter().cycle();
    let mut reply = [0; 1232];
    for _ in 0..questions / AT_A_TIME {
        for name in names.by_ref().take(AT_A_TIME) {
            socket.send(&query(name, Manner::Edns)).expect("loopback takes a datagram");
        }
        for _ in 0..AT_A_TIME {
            socket.recv(&mut reply).expect("every question is answered");
            assert_eq!((reply[3] & 0x0f, reply[7]), (0, 1), "NOERROR and an address");
        }
    }
}

/// What a process does under valgrind.
fn work(workload: &str, questions: usize, upstream: SocketAddr) {
    match workload {
        HIT_OVER_UDP => listen(&Bench::with_names(&names(CACHED))),
        MISS_OVER_UDP => {
            listen(&Bench::forwarding(vec![TierMember::Server(ServerSpec::plain(Transport::Udp, upstream))]));
        }
        PLAIN => hits(Bench::with_names, questions, Manner::Plain),
        MIXED_CASE => hits(Bench::with_names, questions, Manner::MixedCase),
        UNGUARDED => hits(Bench::unguarded, questions, Manner::Edns),
        _ => hits(Bench::with_names, questions, Manner::Edns),
    }
}

fn hits(bench: fn(&[Name]) -> Bench, questions: usize, manner: Manner) {
    let names = names(CACHED);
    let bench = bench(&names);
    let queries: Vec<_> = names.iter().map(|name| query(name, manner)).collect();
    let mut reply = vec![0; 1232];
    for query in queries.iter().cycle().take(questions) {
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

/// A server that answers every question with an address, on a thread that ends with the process.
fn answer_all() -> SocketAddr {
    const RECORD: [u8; 16] = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0x0e, 0x10, 0, 4, 10, 0, 0, 1];
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port on loopback");
    let address = socket.local_addr().expect("it is bound");
    thread::spawn(move || {
        let mut buffer = [0; 1232];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            let Some(question) = buffer[..length].get(12..) else { continue };
            // The question ends four octets behind the root label; the OPT record that follows is left out.
            let Some(end) = question.iter().position(|&octet| octet == 0).map(|root| 12 + root + 5) else { continue };
            buffer[2] |= 0x80;
            buffer[6..12].copy_from_slice(&[0, 1, 0, 0, 0, 0]);
            buffer[end..end + RECORD.len()].copy_from_slice(&RECORD);
            // Who went away is no news.
            socket.send_to(&buffer[..end + RECORD.len()], client).ok();
        }
    });
    address
}
