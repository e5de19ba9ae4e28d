//! Independent DNS servers and tools, from Debian's packages.

use std::{
    fs::{self, File},
    mem,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::Duration,
};

use tempfile::TempDir;

use super::{PATIENCE, client::Client, now, query::Query};

/// A running BIND or Unbound; dropping it kills it.
pub struct Peer {
    /// The address it answers on.
    pub address: SocketAddr,
    child: Child,
    folder: TempDir,
}

impl Peer {
    /// BIND as the authoritative server for these zones: each a name and the text of its master file.
    #[track_caller]
    pub fn named(zones: &[(&str, &str)]) -> Self {
        Self::named_with("minimal-responses yes;", zones)
    }

    /// Like [`Self::named`], with further options.
    #[track_caller]
    pub fn named_with(options: &str, zones: &[(&str, &str)]) -> Self {
        let probe = Query::new(zones[0].0, super::query::rtype::SOA);
        Self::start("named", "bind9", &probe, |folder, port| {
            let mut conf = format!(
                "options {{ directory \"{}\"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
                 pid-file none; session-keyfile none; lock-file none; recursion no; allow-query {{ any; }};
                 dnssec-validation no; empty-zones-enable no; {options} }};
                 controls {{ }};\n",
                folder.display()
            );
            for (number, (zone, text)) in zones.iter().enumerate() {
                fs::write(folder.join(format!("{number}.zone")), text).expect("the folder is writable");
                conf.push_str(&format!("zone \"{zone}\" {{ type primary; file \"{number}.zone\"; }};\n"));
            }
            fs::write(folder.join("named.conf"), conf).expect("the folder is writable");
            let mut command = Command::new("named");
            command.args(["-g", "-n", "1", "-c"]).arg(folder.join("named.conf"));
            command
        })
    }

    /// Unbound with this local data and further lines: of its `server:` section, then other sections.
    #[track_caller]
    pub fn unbound(server: &str, sections: &str, probe: &Query) -> Self {
        Self::start("unbound", "unbound", probe, |folder, port| {
            let conf = format!(
                "server:\n interface: 127.0.0.1\n port: {port}\n do-daemonize: no\n username: \"\"\n chroot: \"\"\n \
                 directory: \"{}\"\n pidfile: \"\"\n use-syslog: no\n logfile: \"\"\n num-threads: 1\n \
                 access-control: 127.0.0.0/8 allow\n module-config: \"iterator\"\n do-not-query-localhost: no\n\
                 {server}\nremote-control:\n control-enable: no\n{sections}\n",
                folder.display()
            );
            fs::write(folder.join("unbound.conf"), conf).expect("the folder is writable");
            let mut command = Command::new("unbound");
            command.arg("-d").arg("-c").arg(folder.join("unbound.conf"));
            command
        })
    }

    /// The folder with its files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Kills it at once, as a power cut would.
    pub fn kill(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// Starts any server: `prepare` writes its files into the folder and returns the command that answers on the port.
    #[track_caller]
    pub fn start(program: &str, package: &str, probe: &Query, prepare: impl Fn(&Path, u16) -> Command) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = folder.path().join("log");
        for _ in 0..5 {
            let port = free_port();
            let mut command = prepare(folder.path(), port);
            let output = File::create(&log).expect("the folder is writable");
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
            let mut child = command.spawn().unwrap_or_else(|error| missing(program, package, &error));
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            if answers(&mut child, address, probe) {
                return Self { address, child, folder };
            }
            drop(child.kill());
            drop(child.wait());
        }
        panic!("{program} does not answer:\n{}", fs::read_to_string(log).unwrap_or_default());
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether the server answers the probe before it exits or the patience ends.
fn answers(child: &mut Child, address: SocketAddr, probe: &Query) -> bool {
    let start = now();
    let socket = Client::new(address).socket();
    socket.set_patience(Duration::from_millis(50));
    while start.elapsed() < PATIENCE {
        if child.try_wait().expect("it is our child").is_some() {
            return false;
        }
        if socket.probe(probe) {
            return true;
        }
        thread::sleep(Duration::from_millis(10));
    }
    false
}

/// A port on this address reserves the same port of 127.0.0.1 for a test. Two BINDs on one port would share it
/// unnoticed, and answer each other's queries.
const RESERVATION: Ipv4Addr = Ipv4Addr::new(127, 77, 77, 77);

/// A port that is currently free for UDP and TCP on loopback, and that no other test gets while this process lives.
pub fn free_port() -> u16 {
    for _ in 0..50 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("a bound socket").port();
        if UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
            && let Ok(reservation) = TcpListener::bind((RESERVATION, port))
        {
            mem::forget(reservation);
            return port;
        }
    }
    panic!("no port is free for both UDP and TCP");
}

/// Runs a tool of a Debian package to its end.
#[track_caller]
pub fn tool<S: AsRef<std::ffi::OsStr>>(program: &str, package: &str, arguments: &[S]) -> Output {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    output.unwrap_or_else(|error| missing(program, package, &error))
}

fn missing(program: &str, package: &str, error: &std::io::Error) -> ! {
    panic!("cannot run {program} ({error}); install it with: apt-get install {package}")
}

/// The output of `dig`.
#[derive(Debug)]
pub struct Dig {
    /// `NOERROR`, `SERVFAIL` and so on; empty if there was no answer.
    pub status: String,
    /// The data of the answer section, a line a record.
    pub answers: Vec<String>,
    /// Its whole output.
    pub text: String,
}

impl Dig {
    /// Everything that a client could act on, a line each: the response code with the header's flags, the records (NAME
    /// TTL TYPE DATA; those of the authority and additional sections are marked), and the extended error in dig's
    /// words.
    pub fn shown(&self) -> Vec<String> {
        let flags = self.after(";; flags: ").split(';').next().unwrap_or_default();
        let mut shown = vec![format!("{} {flags}", self.status)];
        for (title, mark) in [("ANSWER", ""), ("AUTHORITY", "authority: "), ("ADDITIONAL", "additional: ")] {
            let section = self.after(&format!(";; {title} SECTION:\n")).split("\n\n").next().unwrap_or_default();
            let records = section.lines().filter(|line| !line.starts_with(';'));
            shown.extend(records.filter_map(|line| {
                let (name, rest) = line.split_once(char::is_whitespace)?;
                let (ttl, rest) = rest.trim_start().split_once(char::is_whitespace)?;
                let (_class, rest) = rest.trim_start().split_once(char::is_whitespace)?;
                let rest = rest.split_whitespace().collect::<Vec<_>>().join(" ");
                Some(format!("{mark}{name} {ttl} {rest}"))
            }));
        }
        shown.extend(self.text.lines().filter_map(|line| line.strip_prefix("; EDE: ")).map(|ede| format!("EDE {ede}")));
        shown
    }

    /// Asserts that it shows exactly these lines.
    #[track_caller]
    pub fn shows(&self, lines: &[&str]) {
        assert_eq!(self.shown(), lines, "{}", self.text);
    }

    /// Like [`Self::shows`], for an answer that has been cached: TTLs may be a few seconds lower.
    #[track_caller]
    pub fn shows_aged(&self, lines: &[&str]) {
        let shown = self.shown();
        let is_alike = |(shown, line): (&String, &&str)| {
            shown == line
                || ttl(shown).zip(ttl(line)).is_some_and(|((before, shown, behind), (front, ttl, back))| {
                    (before, behind) == (front, back) && (ttl.saturating_sub(MAX_AGE)..=ttl).contains(&shown)
                })
        };
        let all = shown.len() == lines.len() && shown.iter().zip(lines).all(is_alike);
        assert!(all, "shown {shown:#?}\nexpected {lines:#?}\n{}", self.text);
    }

    fn after(&self, mark: &str) -> &str {
        self.text.split_once(mark).map_or("", |(_, rest)| rest)
    }
}

/// How many seconds may pass between two looks at an answer on a busy machine.
const MAX_AGE: u32 = 8;

/// A line of [`Dig::shown`], cut at the TTL.
fn ttl(line: &str) -> Option<(&str, u32, &str)> {
    let (mark, record) = line.split_once(": ").unwrap_or(("", line));
    let (name, rest) = record.split_once(' ')?;
    let (ttl, rest) = rest.split_once(' ')?;
    let front = if mark.is_empty() { name } else { &line[..mark.len() + 2 + name.len()] };
    Some((front, ttl.parse().ok()?, rest))
}

/// Asks with `dig`, with further arguments after the name.
#[track_caller]
pub fn dig(server: SocketAddr, name: &str, arguments: &[&str]) -> Dig {
    let (at, port) = (format!("@{}", server.ip()), server.port().to_string());
    let mut all = vec![at.as_str(), "-p", &port, "+tries=1", "+time=5", name];
    all.extend(arguments);
    let output = tool("dig", "dnsutils", &all);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let after = |mark: &str| text.split_once(mark).map_or("", |(_, rest)| rest);
    let status = after("status: ").split(',').next().unwrap_or_default().to_owned();
    let section = after(";; ANSWER SECTION:\n").split("\n\n").next().unwrap_or_default();
    let data = |line: &str| line.split_whitespace().skip(4).collect::<Vec<_>>().join(" ");
    Dig { status, answers: section.lines().map(data).filter(|data| !data.is_empty()).collect(), text }
}

/// The addresses that glibc's `getaddrinfo` finds for a name, each once, sorted.
#[track_caller]
pub fn getaddrinfo(name: &str) -> Vec<IpAddr> {
    let output = tool("getent", "libc-bin", &["ahosts", name]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut addresses: Vec<IpAddr> =
        text.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}
