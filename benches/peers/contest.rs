//! The contest: for each workload all servers are started and warmed, then measured in turns, round after round. Who is
//! not measured is stopped where it stands. A server that is not installed, does not start or does not answer is named
//! and left out.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tidegate::{
    clock::Moment,
    net::socket::{ListenOptions, listeners},
};

use crate::{
    Result, load,
    load::{Edge, Outcome, Plan},
    load_tcp,
    mix::{MANY, Mix, Names, POPULAR, site},
    process::{Cores, Server, Used, tail, working_directory},
    query::{self, Name, QUESTION_MAX, Verdict},
    servers::{self, Entry, Role},
    simulate,
    table::{self, Round, Row, Subject},
    upstream,
};

/// How the contest goes.
#[derive(clap::Args)]
pub(crate) struct Settings {
    /// H hits, T hits over TCP, M misses, X one in ten new, L 20,000 a second, l 2,000 a second, lm the same with one in
    /// five new, W 500,000 names, S start, idle; R09, R10, RF hit ratios of a small cache.
    #[arg(long, value_delimiter = ',', default_value = "H,T,M,X,L,l,lm,W,S,idle,R09,R10,RF")]
    workloads: Vec<Workload>,
    /// Who takes part; by default all that are installed.
    #[arg(long, value_delimiter = ',')]
    servers: Vec<String>,
    /// How often each is measured.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How long each time.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    #[command(flatten)]
    cores: Cores,
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "UPPER")]
enum Workload {
    H,
    T,
    M,
    X,
    L,
    #[value(name = "l")]
    Low,
    #[value(name = "lm")]
    LowMixed,
    W,
    S,
    #[value(name = "idle")]
    Idle,
    R09,
    R10,
    RF,
}

/// The load average up to which a machine counts as idle.
const IDLE: f64 = 0.5;
/// The bytes of a cache that holds a tenth of what is asked for, in MiB.
const SMALL_CACHE: u32 = 12;
/// How long nothing is asked while a server is measured, and before.
const QUIET: Duration = Duration::from_secs(20);
const SETTLE: Duration = Duration::from_secs(5);
/// How long a server may take to give its first answer.
const PATIENCE: Duration = Duration::from_secs(10);

impl Workload {
    const fn title(self) -> &'static str {
        match self {
            Self::H => "H: cached, Zipf over 10,000 names, 200 in flight",
            Self::T => "T: as H, over TCP: 20 connections with 10 in flight on each",
            Self::M => "M: every name new and of AWS, forwarded over UDP to one of three servers, 200 in flight",
            Self::X => "X: as H, every tenth name new",
            Self::L => "L: as H, paced at 20,000 a second",
            Self::Low => "l: as H, paced at 2,000 a second",
            Self::LowMixed => "lm: as l, every fifth name new",
            Self::W => "W: 500,000 names of 56 characters, asked evenly, 200 in flight",
            Self::S => "S: from start to the first answer",
            Self::Idle => {
                "idle: nothing asked; dnsdist probes its servers each second, tidegate every five, as they do by default"
            }
            Self::R09 => "R09: 12 MiB of cache, 1,000,000 names, Zipf 0.9, 200 in flight",
            Self::R10 => "R10: 12 MiB of cache, 1,000,000 names, Zipf 1.0, 200 in flight",
            Self::RF => "RF: as R10, while every second query is for a name that is never asked for again",
        }
    }

    const fn names(self) -> Names {
        match self {
            Self::H | Self::T | Self::L | Self::Low => Names::Popular,
            Self::M | Self::S | Self::Idle => Names::New,
            Self::X => Names::Mixed,
            Self::LowMixed => Names::FifthNew,
            Self::W => Names::Even,
            Self::R09 => Names::Skew09,
            Self::R10 => Names::Skew10,
            Self::RF => Names::Flood,
        }
    }

    /// Whether the share of hits is measured, with a cache that is too small.
    const fn is_ratio(self) -> bool {
        matches!(self, Self::R09 | Self::R10 | Self::RF)
    }

    /// The cache entries of `entry`, where its file counts them.
    fn entries(self, entry: &Entry) -> u32 {
        match self {
            Self::R09 | Self::R10 | Self::RF => (SMALL_CACHE << 20) / entry.bytes_a_name(),
            // dnsmasq sets all of them aside at start.
            Self::W if entry.name == "dnsmasq" => 10 * MANY + POPULAR,
            _ if entry.name == "dnsmasq" => 100_000,
            _ => 1_000_000,
        }
    }

    /// The MiB of a cache, where a file counts them.
    const fn cache(self, entry: &Entry) -> u32 {
        if self.is_ratio() { SMALL_CACHE } else { entry.cache }
    }

    /// The floor of this workload: what the system calls alone cost.
    fn has(self, entry: &Entry) -> bool {
        match entry.name {
            "reflector" => matches!(self, Self::H | Self::L | Self::Low | Self::W),
            "relay" => self == Self::M,
            name => self != Self::Idle || entry.idle_config().is_some() || name == "unbound",
        }
    }

    /// Questions a second, where they do not wait for answers.
    const fn pace(self) -> Option<u32> {
        match self {
            Self::L => Some(20_000),
            Self::Low | Self::LowMixed => Some(2_000),
            _ => None,
        }
    }

    const fn subject(self) -> Subject {
        match self {
            Self::L | Self::Low | Self::LowMixed => Subject::Latency,
            Self::S => Subject::Start,
            Self::Idle => Subject::Idle,
            Self::R09 | Self::R10 | Self::RF => Subject::Ratio,
            _ => Subject::Processor,
        }
    }
}

/// What all contestants share.
struct Arena {
    directory: PathBuf,
    server_core: usize,
    load_core: usize,
    upstream: SocketAddr,
    time: Duration,
}

struct Contestant {
    entry: Entry,
    program: PathBuf,
    address: SocketAddr,
    directory: PathBuf,
    server: Server,
    row: Row,
}

/// Runs the contest and prints its tables.
pub(crate) fn run(settings: &Settings) -> Result<()> {
    if let Some(unknown) = settings.servers.iter().find(|name| servers::ALL.iter().all(|entry| entry.name != **name)) {
        let known = servers::ALL.map(|entry| entry.name).join(", ");
        return Err(format!("no server is called {unknown}; there are {known}").into());
    }
    let (server_core, load_core) = settings.cores.take()?;
    let directory = working_directory();
    fs::create_dir_all(&directory)?;
    let arguments = |address: SocketAddr| ["upstream".into(), "--listen".into(), address.to_string()];
    let upstream = free_port()?;
    let program = std::env::current_exe()?;
    // Some groups have several servers, which are addresses of this one.
    let everywhere = arguments((Ipv4Addr::UNSPECIFIED, upstream.port()).into());
    let mut mock = Server::start(&program, &everywhere, load_core, load_core, &directory.join("upstream.log"))?;
    first_answer(upstream, || true)?;
    let time = Duration::from_secs_f64(settings.seconds);
    let arena = Arena { directory: directory.clone(), server_core, load_core, upstream, time };
    println!("{}\n", arena.describe(settings));
    let outcome = settings.workloads.iter().try_for_each(|workload| {
        arena.contest(*workload, settings)?;
        if mock.is_running() {
            return Ok(());
        }
        let said = tail(&directory.join("upstream.log"))?;
        Err(format!("the upstream has ended, so that the last table is worth nothing; it said:\n{said}").into())
    });
    drop(mock);
    fs::remove_dir_all(directory)?;
    outcome
}

impl Arena {
    fn describe(&self, settings: &Settings) -> String {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let processor = read("/proc/cpuinfo")
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim().to_owned()))
            .unwrap_or_else(|| "unknown processor".to_owned());
        let date = Command::new("date").arg("-I").output().map(|output| output.stdout).unwrap_or_default();
        let busy = read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned();
        if busy.parse().is_ok_and(|busy: f64| busy > IDLE) {
            eprintln!("peers: the machine is busy (load average {busy}): wait until it is idle, above all for L and S");
        }
        format!(
            "{}, {processor}, Linux {}, load average {busy} before, servers on core {}, load on core {}; {} rounds of {} s, interleaved; medians \
             with least and most",
            String::from_utf8_lossy(&date).trim(),
            read("/proc/sys/kernel/osrelease").trim(),
            self.server_core,
            self.load_core,
            settings.rounds,
            settings.seconds,
        )
    }

    fn contest(&self, workload: Workload, settings: &Settings) -> Result<()> {
        println!("### {}\n", workload.title());
        let mut contestants = Vec::new();
        for entry in servers::ALL.iter().filter(|entry| workload.has(entry)) {
            let wanted = settings.servers.is_empty() || settings.servers.iter().any(|name| name == entry.name);
            if !wanted {
                continue;
            }
            let Some(program) = entry.locate() else {
                let package = if entry.package.is_empty() { "not built" } else { entry.package };
                println!("left out: {} ({package})", entry.name);
                continue;
            };
            match self.enter(workload, *entry, program) {
                Ok(contestant) => contestants.push(contestant),
                Err(error) => println!("left out: {}: {error}", entry.name),
            }
        }
        for round in 1..=settings.rounds {
            for contestant in &mut contestants {
                eprintln!("{workload:?} round {round}: {}", contestant.entry.name);
                match self.measure(workload, contestant) {
                    Ok(figures) => contestant.row.rounds.push(figures),
                    Err(error) => println!("round {round} of {}: {error}", contestant.entry.name),
                }
            }
        }
        if workload.is_ratio() {
            println!("{}\n", simulated(workload));
        }
        let mut rows: Vec<Row> = contestants.into_iter().map(|contestant| contestant.row).collect();
        rows.retain(|row| !row.rounds.is_empty());
        println!("\n{}", table::render(workload.subject(), &mut rows));
        Ok(())
    }

    /// Starts a server, warms it, and holds it until its turn.
    fn enter(&self, workload: Workload, entry: Entry, program: PathBuf) -> Result<Contestant> {
        let directory = self.directory.join(format!("{workload:?}-{}", entry.name));
        fs::create_dir_all(&directory)?;
        let address = free_port()?;
        let server = self.start(workload, &entry, &program, address, &directory)?;
        let name = format!("{} {}", entry.name, entry.version(&program)).trim().to_owned();
        let row = Row { name, role: entry.role, memory: None, rounds: Vec::new() };
        let mut contestant = Contestant { entry, program, address, directory, server, row };
        let before = contestant.server.memory();
        let warm = load::warm(address, workload.names())?;
        if let (Workload::T, Some(each)) = (workload, workload.names().each()) {
            // Some keep answers for TCP apart.
            load_tcp::run(address, &mut Mix::new(each), Duration::MAX, &mut |_| {})?;
        }
        if warm.lost + warm.failures + warm.wrong > 0 {
            eprintln!("{}: while warming, {warm}", contestant.entry.name);
        }
        let grown = contestant.server.memory().saturating_sub(before) as f64;
        contestant.row.memory = match workload {
            Workload::W if entry.role != Role::Floor => Some(grown / f64::from(MANY)),
            _ if workload.is_ratio() => Some(grown / f64::from(1 << 20)),
            _ => None,
        };
        contestant.server.hold();
        Ok(contestant)
    }

    fn start(
        &self,
        workload: Workload,
        entry: &Entry,
        program: &Path,
        address: SocketAddr,
        directory: &Path,
    ) -> Result<Server> {
        let config = directory.join(entry.config_name());
        let fill = |text: &str| {
            text.replace("@CONFIG@", &config.display().to_string())
                .replace("@DIR@", &directory.display().to_string())
                .replace("@PORT@", &address.port().to_string())
                .replace("@ENTRIES@", &workload.entries(entry).to_string())
                .replace("@CACHE@", &workload.cache(entry).to_string())
                .replace("@HALF@", &(workload.cache(entry) / 2).to_string())
                .replace("@UPSTREAM@", &self.upstream.port().to_string())
        };
        let text = entry.idle_config().filter(|_| workload == Workload::Idle).unwrap_or(entry.config);
        if !text.is_empty() {
            fs::write(&config, fill(text))?;
        }
        let arguments: Vec<String> = entry.arguments.iter().map(|argument| fill(argument)).collect();
        let log = directory.join("log");
        let mut server = Server::start(program, &arguments, self.server_core, self.load_core, &log)?;
        if let Err(error) = first_answer(address, || server.is_running()) {
            let state = if server.is_running() { "it runs" } else { "it has ended" };
            return Err(format!("{error}; {state}, and said:\n{}", tail(&log)?).into());
        }
        Ok(server)
    }

    fn measure(&self, workload: Workload, contestant: &mut Contestant) -> Result<Round> {
        if workload == Workload::S {
            return self.measure_start(contestant);
        }
        contestant.server.release();
        first_answer(contestant.address, || true)?;
        let round = match workload {
            Workload::Idle => Ok(measure_idle(&contestant.server)),
            _ => self.measure_load(workload, contestant),
        };
        contestant.server.hold();
        round
    }

    fn measure_load(&self, workload: Workload, contestant: &Contestant) -> Result<Round> {
        let server = &contestant.server;
        let mut edges = [(Used::default(), 0); 2];
        let mut meter = |edge: Edge| {
            let forwarded = upstream::count(self.upstream).unwrap_or_default();
            edges[usize::from(edge == Edge::End)] = (server.used(), forwarded);
        };
        let mut mix = Mix::new(workload.names());
        let plan = workload.pace().map_or(Plan::Closed { window: load::WINDOW }, |rate| Plan::Paced { rate });
        let time = if workload.is_ratio() { Duration::MAX } else { self.time };
        let outcome: Outcome = match workload {
            Workload::T => load_tcp::run(contestant.address, &mut mix, time, &mut meter)?,
            _ => load::run(contestant.address, &mut mix, plan, time, &mut meter)?,
        };
        if outcome.answered == 0 {
            return Err(format!("no answers: {outcome}").into());
        }
        let [(before, forwarded_before), (after, forwarded_after)] = edges;
        let used = after.since(before);
        let answered = outcome.answered as f64;
        let processor = used.total.as_secs_f64() * 1e6 / answered;
        let forwarded = f64::from(forwarded_after.wrapping_sub(forwarded_before)) / answered;
        // Of a flood, half of what is asked is new and must be forwarded.
        let misses = if workload == Workload::RF { 2.0 * forwarded - 1.0 } else { forwarded };
        Ok(Round {
            processor,
            user: processor * used.user_share,
            rate: outcome.rate(),
            forwarded,
            misses,
            lost: outcome.lost + outcome.failures + outcome.wrong,
            latency: [500, 990].map(|of_thousand| outcome.latency(of_thousand)),
            ..Round::default()
        })
    }

    /// Starts another one of it, beside the one that is held.
    fn measure_start(&self, contestant: &Contestant) -> Result<Round> {
        let address = free_port()?;
        let directory = contestant.directory.join("start");
        fs::create_dir_all(&directory)?;
        let start = Moment::now();
        let server = self.start(Workload::S, &contestant.entry, &contestant.program, address, &directory)?;
        let start = Moment::now().since(start);
        drop(server);
        fs::remove_dir_all(directory)?;
        Ok(Round { start: start.as_secs_f64() * 1e3, ..Round::default() })
    }
}

/// What S3-FIFO would make of as many entries as tidegate's bytes are.
fn simulated(workload: Workload) -> String {
    let exponent = if workload == Workload::R09 { 0.9 } else { 1.0 };
    let capacity = servers::ALL.iter().find(|entry| entry.role == Role::Subject).map_or(0, |own| workload.entries(own));
    let entries = usize::try_from(capacity).unwrap_or_default();
    let ratio = simulate::hit_ratio(entries, &site(exponent), &site(exponent), workload == Workload::RF);
    format!("simulated S3-FIFO with {entries} entries: {:.1} % misses", 100.0 * (1.0 - ratio))
}

/// Nothing is asked for a while.
fn measure_idle(server: &Server) -> Round {
    std::thread::sleep(SETTLE);
    let (used, switches, begin) = (server.used(), server.switches(), Moment::now());
    std::thread::sleep(QUIET);
    let time = Moment::now().since(begin).as_secs_f64();
    let processor = server.used().since(used).total.as_secs_f64() * 1e3 * 60.0 / time;
    let switches = server.switches().saturating_sub(switches) as f64 / time;
    Round { processor, switches, ..Round::default() }
}

/// A loopback address whose port nobody has, for UDP and TCP.
pub(crate) fn free_port() -> Result<SocketAddr> {
    Ok(listeners((Ipv4Addr::LOCALHOST, 0).into(), 1, &ListenOptions::default())?.address)
}

/// Asks until there is an answer, every fifth of a millisecond where the port is closed, or the server has ended.
pub(crate) fn first_answer(server: SocketAddr, mut is_running: impl FnMut() -> bool) -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(Duration::from_micros(200)))?;
    let start = Moment::now();
    let mut question = [0; QUESTION_MAX];
    let length = query::write(1, Name::New(0), &mut question);
    let mut answer = [0; 1500];
    let mut asked: Option<Moment> = None;
    while Moment::now().since(start) < PATIENCE {
        // A server that is there but slow is not asked again at once.
        if asked.is_none_or(|asked| Moment::now().since(asked) > Duration::from_millis(100)) {
            asked = socket.send(&question[..length]).is_ok().then(Moment::now);
        }
        match socket.recv(&mut answer) {
            Ok(received) if query::judge(&answer[..received], &question[..length]) == Verdict::Answer => return Ok(()),
            Ok(_) => {
                std::thread::sleep(Duration::from_millis(1));
                asked = None;
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                if !is_running() {
                    break;
                }
                std::thread::sleep(Duration::from_micros(200));
                asked = None;
            }
            Err(_) => {}
        }
    }
    Err(format!("no answer from {server}").into())
}
