//! The daemon under test: started with its own configuration, observed through its log, metrics and signals.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use super::{PATIENCE, client::Client, config::Config, eventually, wait_for};

/// A running daemon; dropping it kills it.
pub struct Tidegate {
    child: Child,
    folder: TempDir,
    log: Log,
    addresses: Vec<SocketAddr>,
    admin: Option<SocketAddr>,
}

/// The lines that the daemon wrote to standard error.
#[derive(Debug, Clone, Default)]
struct Log {
    lines: Arc<Mutex<Vec<String>>>,
    is_unread: Arc<AtomicBool>,
}

impl Tidegate {
    /// Starts it and waits until it reports that it is ready.
    #[track_caller]
    pub fn start(config: &Config) -> Self {
        Self::start_by(&[], config)
    }

    /// Like [`Self::start`], through another program such as `setpriv` or `taskset` that ends in `exec`.
    #[track_caller]
    pub fn start_by(launcher: &[&str], config: &Config) -> Self {
        let folder = folder_with(config);
        let mut command = command(launcher);
        command.arg("serve").arg("--config").arg(folder.path().join("tidegate.toml"));
        Self::spawn(command, folder)
    }

    /// Starts it as a sidecar: `serve` with these flags, these variables and no file.
    #[track_caller]
    pub fn start_without_file(variables: &[(&str, &str)], flags: &[&str]) -> Self {
        let mut command = command(&[]);
        command.arg("serve").args(flags).envs(variables.iter().copied());
        Self::spawn(command, tempfile::tempdir().expect("a temporary folder"))
    }

    #[track_caller]
    fn spawn(mut command: Command, folder: TempDir) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the daemon can be started");
        let log = Log::default();
        log.follow(child.stderr.take().expect("standard error is a pipe"));
        let mut daemon = Self { child, folder, log, addresses: Vec::new(), admin: None };
        daemon.await_ready();
        daemon
    }

    /// The first address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// All addresses that it listens on, in the order logged.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where it listens for this transport: `tls`, `https` or `quic`.
    #[track_caller]
    pub fn encrypted_address(&self, transport: &str) -> SocketAddr {
        let says = format!("({transport})");
        let line = self.log().into_iter().find(|line| line.contains(&says)).expect("it listens");
        let fields: Value = serde_json::from_str(&line).expect("lines are JSON");
        fields["fields"]["address"].as_str().expect("an address").parse().expect("an address")
    }

    /// A client for the first address.
    pub fn client(&self) -> Client {
        Client::new(self.address())
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The folder with its configuration.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Resident memory in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has VmRSS");
        line.trim().trim_end_matches(" kB").parse().expect("VmRSS is a number")
    }

    /// The address of its `admin.http`.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin.expect("the daemon has an admin address")
    }

    /// Status code and body of a page at its admin address.
    #[track_caller]
    pub fn get(&self, path: &str) -> (u16, String) {
        let admin = self.admin_address();
        let mut stream = TcpStream::connect_timeout(&admin, PATIENCE).expect("the admin address accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a positive time-out");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n")
            .expect("it takes a request");
        let mut response = String::new();
        stream.read_to_string(&mut response).expect("a page of text");
        let (head, body) = response.split_once("\r\n\r\n").expect("a head and a body");
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status code");
        if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
            return (code, unchunk(body));
        }
        (code, body.to_owned())
    }

    /// The sum of a metric's series with these labels; 0 if there are none.
    #[track_caller]
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let (code, text) = self.get("/metrics");
        assert_eq!(code, 200, "/metrics: {text}");
        text.lines().filter_map(|line| series(line, name, labels)).fold(0.0, |sum, value| sum + value)
    }

    /// Whether `/metrics` has this series at all.
    #[track_caller]
    pub fn has_metric(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        self.get("/metrics").1.lines().any(|line| series(line, name, labels).is_some())
    }

    /// The values of a counter with these labels, a line for each series: the values of the labels `by`, and the
    /// number.
    #[track_caller]
    pub fn counted(&self, name: &str, labels: &[(&str, &str)], by: &[&str]) -> Vec<String> {
        let (_, text) = self.get("/metrics");
        let of = |line: &str| {
            let count = series(line, name, labels).filter(|&count| count > 0.0)?;
            let words = by.iter().filter_map(|label| line.split_once(&format!("{label}=\""))?.1.split('"').next());
            Some(words.chain([count.to_string().as_str()]).collect::<Vec<_>>().join(" "))
        };
        text.lines().filter_map(of).collect()
    }

    /// Waits until a metric is at least this.
    #[track_caller]
    pub fn await_metric(&self, name: &str, labels: &[(&str, &str)], least: f64) {
        eventually(&format!("{name}{labels:?} >= {least}"), || self.metric(name, labels) >= least);
    }

    /// How many answers came from the cache.
    #[track_caller]
    pub fn hits(&self) -> f64 {
        self.metric("tidegate_cache_hits_total", &[])
    }

    /// Sends a signal such as `TERM`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status();
        assert!(status.expect("kill runs").success(), "no process {} to signal", self.pid());
    }

    /// Replaces its file, reloads, and returns whether the daemon accepted it.
    #[track_caller]
    pub fn reload(&self, config: &Config) -> bool {
        self.reload_text(&config.text())
    }

    /// Like [`Self::reload`], with any text.
    #[track_caller]
    pub fn reload_text(&self, text: &str) -> bool {
        fs::write(self.folder.path().join("tidegate.toml"), text).expect("the folder is writable");
        let before = self.metric("tidegate_config_reloads_total", &[]);
        self.signal("HUP");
        self.await_metric("tidegate_config_reloads_total", &[], before + 1.0);
        self.metric("tidegate_config_last_reload_success", &[]) > 0.5
    }

    /// Stops it with SIGTERM and waits until it has exited.
    #[track_caller]
    pub fn stop(mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }

    /// Waits until it has exited.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        wait_for("the daemon's end", || self.child.try_wait().expect("it is our child"))
    }

    /// The log lines so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lines()
    }

    /// Keeps standard error open, but reads at most one more line of it.
    pub fn stop_reading_log(&self) {
        self.log.is_unread.store(true, Relaxed);
    }

    /// The log lines of this level (`WARN`, `ERROR`) that hold this text.
    pub fn logged(&self, level: &str, text: &str) -> Vec<String> {
        let fits = |line: &String| {
            let parsed: Value = serde_json::from_str(line).unwrap_or_default();
            parsed["level"] == level && line.contains(text)
        };
        self.log().into_iter().filter(fits).collect()
    }

    /// Waits for such a log line.
    #[track_caller]
    pub fn await_logged(&self, level: &str, text: &str) {
        eventually(&format!("a {level} line with {text:?}"), || !self.logged(level, text).is_empty());
    }

    /// Waits for such a log line; there is just one. Lines come a moment after what they tell.
    #[track_caller]
    pub fn logged_once(&self, level: &str, text: &str) {
        self.await_logged(level, text);
        let lines = self.logged(level, text);
        assert_eq!(lines.len(), 1, "{lines:#?}");
    }

    #[track_caller]
    fn await_ready(&mut self) {
        eventually("the daemon is ready", || {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                panic!("the daemon ended with {status} instead of getting ready:\n{}", self.log.lines().join("\n"));
            }
            self.log.lines().iter().any(|line| message(line).is_some_and(|(message, _)| message == "ready"))
        });
        for line in self.log.lines() {
            let Some((message, address)) = message(&line) else { continue };
            match message.as_str() {
                // For encrypted listeners the transport is in brackets.
                message if message.starts_with("listening on ") && !message.ends_with(')') => {
                    self.addresses.extend(address)
                }
                message if message.starts_with("status page ") => self.admin = address,
                _ => {}
            }
        }
        assert!(!self.addresses.is_empty(), "no \"listening\" line names an address:\n{}", self.log.lines().join("\n"));
    }
}

impl Drop for Tidegate {
    #[expect(clippy::print_stderr, reason = "the test harness shows it beside the failure")]
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if thread::panicking() {
            eprintln!("--- log of tidegate {} ---\n{}", self.pid(), self.log.lines().join("\n"));
        }
    }
}

impl Log {
    /// Collects lines until the other end closes.
    fn follow(&self, pipe: impl Read + Send + 'static) {
        let (lines, is_unread) = (Arc::clone(&self.lines), Arc::clone(&self.is_unread));
        thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                lines.lock().expect("no holder panics").push(line);
                while is_unread.load(Relaxed) {
                    thread::park();
                }
            }
        });
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("no holder panics").clone()
    }
}

/// Runs `tidegate` with these arguments until it exits by itself.
#[track_caller]
pub fn run<S: AsRef<OsStr>>(arguments: &[S]) -> Output {
    run_by(&[], arguments)
}

/// Like [`run`], through another program.
#[track_caller]
pub fn run_by<S: AsRef<OsStr>>(launcher: &[&str], arguments: &[S]) -> Output {
    let mut command = command(launcher);
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    complete(command)
}

/// Like [`run`], with these environment variables.
#[track_caller]
pub fn run_with<S: AsRef<OsStr>>(variables: &[(&str, &str)], arguments: &[S]) -> Output {
    let mut command = command(&[]);
    command.args(arguments).envs(variables.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped());
    complete(command)
}

/// Like [`run`], with standard output and standard error redirected; a stream that is not our pipe is empty in the
/// result.
#[track_caller]
pub fn run_into<S: AsRef<OsStr>>(out: Stdio, err: Stdio, arguments: &[S]) -> Output {
    let mut command = command(&[]);
    command.args(arguments).stdout(out).stderr(err);
    complete(command)
}

/// Runs `tidegate` with something to read on standard input.
#[track_caller]
pub fn run_reading<S: AsRef<OsStr>>(input: Stdio, arguments: &[S]) -> Output {
    let mut command = command(&[]);
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    complete_reading(input, command)
}

#[track_caller]
fn complete(command: Command) -> Output {
    complete_reading(Stdio::null(), command)
}

#[track_caller]
fn complete_reading(input: Stdio, mut command: Command) -> Output {
    let mut child = command.stdin(input).spawn().expect("tidegate can be started");
    let (out, err) = (child.stdout.take().map(read_all), child.stderr.take().map(read_all));
    let start = super::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("it is our child") {
            break status;
        }
        if start.elapsed() > PATIENCE {
            drop(child.kill());
            drop(child.wait());
            let err = err.map(|err| err.join().expect("a reader never panics")).unwrap_or_default();
            panic!("tidegate did not end by itself; its log:\n{}", String::from_utf8_lossy(&err));
        }
        thread::sleep(Duration::from_millis(5));
    };
    let join = |reader: Option<JoinHandle<Vec<u8>>>| {
        reader.map(|reader| reader.join().expect("a reader never panics")).unwrap_or_default()
    };
    Output { status, stdout: join(out), stderr: join(err) }
}

/// Reads a pipe to its end on another thread.
fn read_all(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).map(|_| bytes).unwrap_or_default()
    })
}

/// Runs `tidegate serve` with a file that must prevent the start.
#[track_caller]
pub fn refused_start(config: &Config) -> Output {
    let folder = folder_with(config);
    run(&[OsStr::new("serve"), OsStr::new("--config"), folder.path().join("tidegate.toml").as_os_str()])
}

fn folder_with(config: &Config) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("tidegate.toml"), config.text()).expect("the folder is writable");
    folder
}

/// The command `tidegate`, without variables from the tests' environment.
fn command(launcher: &[&str]) -> Command {
    let binary = env!("CARGO_BIN_EXE_tidegate");
    let mut command = match launcher {
        [] => Command::new(binary),
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments).arg(binary);
            command
        }
    };
    for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS", "LISTEN_PID", "RUST_LOG", "JOURNAL_STREAM"] {
        command.env_remove(name);
    }
    for name in [
        "TIDEGATE_LISTEN",
        "TIDEGATE_AWS",
        "TIDEGATE_DEFAULT",
        "TIDEGATE_PRIVATE",
        "TIDEGATE_CONFIG",
        "TIDEGATE_ADMIN",
        "TIDEGATE_SOCKET",
    ] {
        command.env_remove(name);
    }
    command
}

/// The message of a log line, and the address in it.
fn message(line: &str) -> Option<(String, Option<SocketAddr>)> {
    let parsed: Value = serde_json::from_str(line).ok()?;
    let fields = parsed.get("fields")?;
    let address = fields.get("address").and_then(Value::as_str).and_then(|text| text.parse().ok());
    Some((fields.get("message")?.as_str()?.to_owned(), address))
}

/// The value of a line of Prometheus text, if it is of this metric and has all these labels.
fn series(line: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let rest = line.strip_prefix(name)?;
    let (own, value) = match rest.strip_prefix('{') {
        Some(rest) => rest.rsplit_once('}')?,
        None => ("", rest.strip_prefix(' ')?),
    };
    let own = format!(",{own},");
    let has = |(label, value): &(&str, &str)| own.contains(&format!(",{label}=\"{value}\","));
    if !labels.iter().all(has) {
        return None;
    }
    value.split_whitespace().next()?.parse().ok()
}

/// The body of a chunked response (RFC 9112 7.1).
fn unchunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).expect("a chunk size");
        if size == 0 {
            break;
        }
        whole.push_str(&rest[..size]);
        body = rest[size..].trim_start_matches("\r\n");
    }
    whole
}
