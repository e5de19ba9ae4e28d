//! Server processes: started on a core, held while others are measured, and what they use.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    time::Duration,
};

use tidegate::{
    clock::Moment,
    net::mmsg::{allowed_cpus, pin_to_cpu},
};

use crate::Result;

/// What `stat` counts in: `USER_HZ` is 100 on every Linux.
const TICK: Duration = Duration::from_millis(10);

/// Which core is whose.
#[derive(Debug, clap::Args)]
pub(crate) struct Cores {
    /// The core of the servers that are measured; by default the first that this process may use.
    #[arg(long)]
    server_core: Option<usize>,
    /// The core of everything else: the load, the server that is forwarded to; by default the last.
    #[arg(long)]
    load_core: Option<usize>,
}

impl Cores {
    /// The cores of the servers and of the load. This process is on the latter from now on.
    pub(crate) fn take(&self) -> Result<(usize, usize)> {
        let cores = allowed_cpus()?;
        let first = *cores.first().ok_or("no core")?;
        let last = *cores.last().ok_or("no core")?;
        let (server_core, load_core) = (self.server_core.unwrap_or(first), self.load_core.unwrap_or(last));
        if server_core == load_core {
            eprintln!("peers: one core for servers and load: figures mean little");
        }
        pin_to_cpu(load_core)?;
        Ok((server_core, load_core))
    }
}

/// Where files of this run may be, in memory if there is such a place.
pub(crate) fn working_directory() -> PathBuf {
    let base = if Path::new("/dev/shm").is_dir() { "/dev/shm".into() } else { std::env::temp_dir() };
    base.join(format!("peers.{}", process::id()))
}

/// The processor time of a process and all its children.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Used {
    /// In all.
    pub(crate) total: Duration,
    /// The share of it outside the kernel.
    pub(crate) user_share: f64,
    ticks: [u32; 2],
}

impl Used {
    /// What was used after `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        let ticks = [0, 1].map(|i| self.ticks[i].saturating_sub(earlier.ticks[i]));
        let all = ticks[0] + ticks[1];
        let user_share = if all == 0 { 0.0 } else { f64::from(ticks[0]) / f64::from(all) };
        Self { total: self.total.saturating_sub(earlier.total), user_share, ticks }
    }
}

/// A running server. It dies with this value, and with this process.
pub(crate) struct Server {
    child: Child,
}

impl Server {
    /// Starts a program on `core`, its output in `log`.
    pub(crate) fn start(
        program: &Path,
        arguments: &[String],
        core: usize,
        own_core: usize,
        log: &Path,
    ) -> Result<Self> {
        let output = File::create(log)?;
        // The kernel kills it when we die, however we die.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program).args(arguments);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        if let Some(directory) = log.parent() {
            command.current_dir(directory);
        }
        // A child runs where its parent's thread may.
        pin_to_cpu(core)?;
        let child = command.spawn();
        pin_to_cpu(own_core)?;
        Ok(Self { child: child? })
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Stops it where it is, so that it uses nothing while others are measured.
    pub(crate) fn hold(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub(crate) fn release(&self) {
        self.signal("-CONT");
    }

    /// The processor time used up to now.
    pub(crate) fn used(&self) -> Used {
        let mut used = Used::default();
        for pid in self.processes() {
            let [user, system, ended_user, ended_system] = ticks(pid).unwrap_or_default();
            used.total += scheduled(pid) + TICK * (ended_user + ended_system);
            used.ticks = [used.ticks[0] + user + ended_user, used.ticks[1] + system + ended_system];
        }
        used
    }

    /// How often its threads have gone to sleep.
    pub(crate) fn switches(&self) -> u64 {
        self.processes().into_iter().map(switches).sum()
    }

    /// Resident memory in bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.processes().into_iter().filter_map(resident).sum()
    }

    /// It and its descendants.
    fn processes(&self) -> Vec<u32> {
        let parents = parents();
        let mut found = vec![self.child.id()];
        let mut at = 0;
        while let Some(parent) = found.get(at).copied() {
            found.extend(parents.iter().filter(|(_, of)| **of == parent).map(|(pid, _)| *pid));
            at += 1;
        }
        found
    }

    fn signal(&self, signal: &str) {
        let pids = self.processes().into_iter().map(|pid| pid.to_string());
        // One of them may have ended meanwhile.
        let _ = Command::new("kill").arg(signal).args(pids).stderr(Stdio::null()).status();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.signal("-CONT");
        self.signal("-TERM");
        let start = Moment::now();
        while self.is_running() && Moment::now().since(start) < Duration::from_secs(3) {
            std::thread::sleep(Duration::from_millis(10));
        }
        if self.is_running() {
            self.signal("-KILL");
        }
        let _ = self.child.wait();
    }
}

/// The nanoseconds that the scheduler gave to the threads of a process (`schedstat`): exact, where `stat` counts in
/// hundredths of a second.
fn scheduled(pid: u32) -> Duration {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Duration::ZERO };
    let nanos = threads.flatten().filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

/// The voluntary context switches of the threads of a process.
fn switches(pid: u32) -> u64 {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    let counts = threads.flatten().filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("status")).ok()?;
        text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?.trim().parse::<u64>().ok()
    });
    counts.sum()
}

/// The fields of `/proc/PID/stat` after the name, which may hold anything: state is the first.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

/// User and system time of a process, and of its children that have ended: dnsmasq has one for each connection.
fn ticks(pid: u32) -> Option<[u32; 4]> {
    let fields = stat(pid)?;
    let field = |at: usize| fields.get(at)?.parse().ok();
    Some([field(11)?, field(12)?, field(13)?, field(14)?])
}

fn resident(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
}

fn parents() -> HashMap<u32, u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return HashMap::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, stat(pid)?.get(1)?.parse().ok()?))).collect()
}

/// The last lines of a log, for the error of a server that did not start.
pub(crate) fn tail(log: &Path) -> io::Result<String> {
    let text = fs::read_to_string(log)?;
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(8)..].join("\n"))
}
