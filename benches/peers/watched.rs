//! What those who look on cost: the same load in turns with and without a scrape a second, `tidegate top`, the status page
//! followed by its events, and an explain a second.
//!
//! The daemon's threads share one core, so that what it spends on views is missing from answers. Those who look run on the
//! core of the load, and so do not take the server's time; they take the load's, which waits for answers at times. Rounds
//! are short and their order alternates, since a machine's mood lasts longer than a round: each ratio is of two neighbours.

use std::{
    fmt::Write as _,
    fs,
    io::{self, BufRead, BufReader, Read, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tidegate::clock::Moment;

use crate::{
    Result,
    contest::{first_answer, free_port},
    load::{self, Edge, Plan},
    mix::{Mix, Names},
    process::{Cores, Server, Used, tail, working_directory},
    servers::{self, Role},
};

/// What is measured.
#[derive(clap::Args)]
pub(crate) struct Settings {
    /// Who looks on.
    #[arg(long, value_delimiter = ',', default_value = "scrape,top,page,explain")]
    views: Vec<View>,
    /// Groups of two servers, besides the one that answers.
    #[arg(long, default_value_t = 2)]
    groups: usize,
    /// How often each of both is measured.
    #[arg(long, default_value_t = 40)]
    rounds: usize,
    /// How long each time.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    #[command(flatten)]
    cores: Cores,
}

/// Somebody who looks on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum View {
    /// `/metrics`, once a second.
    Scrape,
    /// `tidegate top`, as it comes: every two seconds.
    Top,
    /// The status page in a browser: loaded once a round, and then its events.
    Page,
    /// `/api/v1/explain`, once a second.
    Explain,
}

/// How often a scrape and an explain come.
const PERIOD: Duration = Duration::from_secs(1);
/// How soon a view sees that the round is over.
const NAP: Duration = Duration::from_millis(20);

/// One figure of a round.
type Figure = fn(&Figures) -> f64;

/// One round.
#[derive(Debug, Clone, Copy)]
struct Figures {
    /// Answers a second.
    rate: f64,
    /// Microseconds of the server's processor time an answer.
    processor: f64,
    /// Questions without a right answer.
    lost: u64,
}

/// Measures and prints a table.
pub(crate) fn run(settings: &Settings) -> Result<()> {
    let (server_core, load_core) = settings.cores.take()?;
    let directory = working_directory();
    fs::create_dir_all(&directory)?;
    let outcome = measure(settings, &directory, server_core, load_core);
    fs::remove_dir_all(directory)?;
    outcome
}

fn measure(settings: &Settings, directory: &Path, server_core: usize, load_core: usize) -> Result<()> {
    let (upstream, address, admin) = (free_port()?, free_port()?, free_port()?);
    let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, upstream.port())).to_string();
    let mock = ["upstream".to_owned(), "--listen".to_owned(), everywhere];
    let _mock = Server::start(&std::env::current_exe()?, &mock, load_core, load_core, &directory.join("upstream.log"))?;
    first_answer(upstream, || true)?;

    let entry = servers::ALL.iter().find(|entry| entry.role == Role::Subject).ok_or("no subject")?;
    let program = entry.locate().ok_or("tidegate is not built")?;
    let file = directory.join("watched.toml");
    fs::write(&file, configuration(address, admin, upstream, settings.groups))?;
    let log = directory.join("log");
    let serve = ["serve".to_owned(), "--config".to_owned(), file.display().to_string()];
    let mut server = Server::start(&program, &serve, server_core, load_core, &log)?;
    if let Err(error) = first_answer(address, || server.is_running()) {
        return Err(format!("{error}; it said:\n{}", tail(&log)?).into());
    }
    load::warm(address, Names::Popular)?;
    let top = match settings.views.contains(&View::Top) {
        false => None,
        true => {
            let arguments = ["top", "--json", "--admin", &format!("http://{admin}")].map(str::to_owned);
            let top = Server::start(&program, &arguments, load_core, load_core, &directory.join("top.log"))?;
            top.hold();
            Some(top)
        }
    };

    let mut rounds = [Vec::new(), Vec::new()];
    let mut views = Vec::new();
    for round in 0..2 * settings.rounds {
        // Without, with, with, without, and so on: a drift falls on both alike.
        let is_watched = matches!(round % 4, 1 | 2);
        let watching = is_watched.then(|| Watching::start(&settings.views, admin, top.as_ref()));
        let figures = one_round(address, &server, Duration::from_secs_f64(settings.seconds))?;
        if let Some(watching) = watching {
            views.push(watching.end()?);
        }
        rounds[usize::from(is_watched)].push(figures);
    }
    let views = views.iter().sum::<usize>() / views.len().max(1);
    print!("{}", table(settings, &rounds, views));
    Ok(())
}

fn one_round(address: SocketAddr, server: &Server, time: Duration) -> Result<Figures> {
    let mut edges = [Used::default(); 2];
    let mut meter = |edge: Edge| edges[usize::from(edge == Edge::End)] = server.used();
    let plan = Plan::Closed { window: load::WINDOW };
    let outcome = load::run(address, &mut Mix::new(Names::Popular), plan, time, &mut meter)?;
    let used = edges[1].since(edges[0]);
    let processor = used.total.as_secs_f64() * 1e6 / outcome.answered as f64;
    Ok(Figures { rate: outcome.rate(), processor, lost: outcome.lost + outcome.failures + outcome.wrong })
}

/// One worker, and everything else as shipped.
fn configuration(address: SocketAddr, admin: SocketAddr, upstream: SocketAddr, groups: usize) -> String {
    let port = upstream.port();
    let mut text = format!(
        "[server]\nlisten = [\"{address}\"]\nworkers = 1\n[admin]\nhttp = \"{admin}\"\nsocket = \"\"\n\
         [upstream.mock]\nservers = [\"{upstream}\"]\n[[forward]]\nzones = [\".\"]\nto = \"mock\"\n"
    );
    for group in 0..groups {
        let [high, low] = [group / 250, group % 250 + 1];
        let _ = write!(
            text,
            "[upstream.g{group}]\nservers = [\"127.1.{high}.{low}:{port}\", \"127.2.{high}.{low}:{port}\"]\n\
             [[forward]]\nzones = [\"g{group}.example\"]\nto = \"g{group}\"\n"
        );
    }
    text
}

/// Those who look on, for one round.
struct Watching<'s> {
    is_over: Arc<AtomicBool>,
    looks: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<io::Result<()>>>,
    top: Option<&'s Server>,
}

impl<'s> Watching<'s> {
    fn start(views: &[View], admin: SocketAddr, top: Option<&'s Server>) -> Self {
        let (is_over, looks) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        if let Some(top) = top {
            top.release();
        }
        let threads = views.iter().filter(|view| **view != View::Top).map(|view| {
            let (view, is_over, looks) = (*view, Arc::clone(&is_over), Arc::clone(&looks));
            thread::spawn(move || match view {
                View::Page => follow(admin, &is_over, &looks),
                View::Explain => repeat(admin, "/api/v1/explain?name=www.example.com", &is_over, &looks),
                View::Scrape | View::Top => repeat(admin, "/metrics", &is_over, &looks),
            })
        });
        let threads = threads.collect();
        Self { is_over, looks, threads, top }
    }

    /// Ends the views; returns how many answers they got.
    fn end(self) -> Result<usize> {
        self.is_over.store(true, Relaxed);
        if let Some(top) = self.top {
            top.hold();
        }
        for thread in self.threads {
            thread.join().map_err(|_| "a view panicked")??;
        }
        Ok(self.looks.load(Relaxed))
    }
}

fn repeat(admin: SocketAddr, path: &str, is_over: &AtomicBool, looks: &AtomicUsize) -> io::Result<()> {
    let mut due = Moment::now();
    while !is_over.load(Relaxed) {
        if Moment::now() >= due {
            due = due + PERIOD;
            get(admin, path)?;
            looks.fetch_add(1, Relaxed);
        }
        thread::sleep(NAP);
    }
    Ok(())
}

/// Loads the page as a browser does, and follows its events.
fn follow(admin: SocketAddr, is_over: &AtomicBool, looks: &AtomicUsize) -> io::Result<()> {
    for path in ["/", "/app.css", "/app.js"] {
        get(admin, path)?;
    }
    let mut events = BufReader::new(open(admin, "/events")?);
    events.get_ref().set_read_timeout(Some(NAP))?;
    let mut line = Vec::new();
    while !is_over.load(Relaxed) {
        match events.read_until(b'\n', &mut line) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {
                looks.fetch_add(usize::from(line.starts_with(b"event: page")), Relaxed);
                line.clear();
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn open(admin: SocketAddr, path: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(admin)?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n")?;
    Ok(stream)
}

fn get(admin: SocketAddr, path: &str) -> io::Result<()> {
    let mut answer = Vec::new();
    open(admin, path)?.read_to_end(&mut answer)?;
    match answer.starts_with(b"HTTP/1.1 200") {
        true => Ok(()),
        false => Err(io::Error::other(format!("{path}: {}", String::from_utf8_lossy(&answer)))),
    }
}

fn table(settings: &Settings, rounds: &[Vec<Figures>; 2], views: usize) -> String {
    let [without, with] = rounds;
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let lost: u64 = rounds.iter().flatten().map(|figures| figures.lost).sum();
    let mut text = format!(
        "{} rounds of {} s each, views {:?} ({views} looks a round besides top), {} groups of 2 servers; {lost} lost; load average {} after\n\n\
         | | without | with | with / without: mean ± 95 % | quartiles |\n| --- | --- | --- | --- | --- |\n",
        settings.rounds,
        settings.seconds,
        settings.views,
        settings.groups,
        load.split(' ').next().unwrap_or_default(),
    );
    let figures: [(&str, usize, Figure); 2] =
        [("answers a second", 0, |f| f.rate), ("µs CPU an answer", 2, |f| f.processor)];
    for (title, digits, figure) in figures {
        let values = |rounds: &[Figures]| rounds.iter().map(figure).collect::<Vec<_>>();
        let (without, with) = (values(without), values(with));
        let mut ratios: Vec<f64> = with.iter().zip(&without).map(|(with, without)| with / without).collect();
        let (mean, error) = mean(&ratios);
        let _ = writeln!(
            text,
            "| {title} | {:.digits$} | {:.digits$} | {mean:.4} ± {error:.4} | {:.4} to {:.4} |",
            quantile(&mut without.clone(), 50),
            quantile(&mut with.clone(), 50),
            quantile(&mut ratios, 25),
            quantile(&mut ratios, 75),
        );
    }
    text
}

/// The mean, and the half width of its 95 % confidence interval.
fn mean(values: &[f64]) -> (f64, f64) {
    let count = values.len().max(2) as f64;
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
    (mean, 1.96 * (variance / count).sqrt())
}

fn quantile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) * percent / 100).copied().unwrap_or(f64::NAN)
}
