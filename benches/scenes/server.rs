//! The servers of a scene, each with its own settings for the job.

use std::{
    fs,
    net::{SocketAddr, UdpSocket},
    path::PathBuf,
    thread,
    time::Duration,
};

use clap::ValueEnum;
use tempfile::TempDir;
use tidegate::clock::Moment;

use crate::{
    Result,
    process::{Server, tail},
    upstream::{Nature, Upstream},
};

/// How long a start may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Servers run here, upstreams and client on the other core.
const CORE: usize = 0;
const OWN_CORE: usize = 1;

/// A program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    Tidegate,
    Unbound,
    Dnsdist,
    Dnsmasq,
}

/// A running one.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    _server: Server,
    folder: TempDir,
}

impl Kind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tidegate => "tidegate",
            Self::Unbound => "unbound",
            Self::Dnsdist => "dnsdist",
            Self::Dnsmasq => "dnsmasq",
        }
    }

    /// Starts it in front of upstreams in tiers, the best first, with `more` keys for tidegate's group.
    pub(crate) fn start(self, tiers: &[Vec<SocketAddr>], more: &str) -> Result<Running> {
        let program = self.program().ok_or("it is not installed")?;
        // A port that is free for UDP and TCP: that of a server which ends at once.
        let address = Upstream::start_with_tcp(Nature::default()).address;
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("config");
        fs::write(&file, self.config(address.port(), tiers, more, folder.path()))?;
        let file = file.display().to_string();
        let arguments: Vec<String> = match self {
            Self::Tidegate => ["serve", "--config", &file].map(str::to_owned).into(),
            Self::Unbound => ["-d", "-c", &file].map(str::to_owned).into(),
            Self::Dnsdist => ["--supervised", "--disable-syslog", "-C", &file].map(str::to_owned).into(),
            Self::Dnsmasq => ["-k", "-C", &file].map(str::to_owned).into(),
        };
        let server = Server::start(&program, &arguments, CORE, OWN_CORE, &folder.path().join("log"))?;
        let running = Running { address, _server: server, folder };
        running.answers()?;
        Ok(running)
    }

    pub(crate) fn is_installed(self) -> bool {
        self.program().is_some()
    }

    fn program(self) -> Option<PathBuf> {
        if self == Self::Tidegate {
            // Beside the folder of examples.
            let example = std::env::current_exe().ok()?;
            return Some(example.parent()?.parent()?.join("tidegate")).filter(|path| path.exists());
        }
        let folders = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];
        folders.iter().map(|folder| PathBuf::from(folder).join(self.name())).find(|path| path.exists())
    }

    fn config(self, port: u16, tiers: &[Vec<SocketAddr>], more: &str, folder: &std::path::Path) -> String {
        let servers: Vec<(usize, &SocketAddr)> = tiers
            .iter()
            .enumerate()
            .flat_map(|(tier, servers)| servers.iter().map(move |server| (tier, server)))
            .collect();
        let each = |text: &dyn Fn(usize, &SocketAddr) -> String| {
            servers.iter().map(|(tier, server)| text(*tier, server)).collect::<Vec<_>>().join("\n")
        };
        let has_tiers = tiers.len() > 1;
        let when_tiers = |text: &'static str| if has_tiers { text } else { "" };
        match self {
            Self::Tidegate => format!(
                "[server]\nlisten = [\"127.0.0.1:{port}\"]\nworkers = 1\n[admin]\nhttp = \"\"\nsocket = \"\"\n\
                 [upstream.site]\nservers = {}\nbackup = [{}]\n{more}\n[[forward]]\nzones = [\".\"]\nto = \"site\"\n",
                quoted(&tiers[0]),
                tiers[1..].iter().map(|tier| quoted(tier)).collect::<Vec<_>>().join(", ")
            ),
            // It knows no tiers: all forwarders are equal, and the quicker are preferred.
            Self::Unbound => format!(
                "server:\n interface: 127.0.0.1\n port: {port}\n do-daemonize: no\n username: \"\"\n chroot: \"\"\n \
                 directory: \"{}\"\n pidfile: \"\"\n use-syslog: no\n num-threads: 1\n module-config: \"iterator\"\n \
                 do-not-query-localhost: no\n outgoing-range: 4096\n num-queries-per-thread: 2048\n \
                 serve-expired: yes\n serve-expired-ttl: 86400\n serve-expired-client-timeout: 1800\n \
                 ede: yes\n ede-serve-expired: yes\n\
                 remote-control:\n control-enable: no\nforward-zone:\n name: \".\"\n{}\n",
                folder.display(),
                each(&|_, u| format!(" forward-addr: {}@{}", u.ip(), u.port()))
            ),
            Self::Dnsdist => format!(
                "setLocal(\"127.0.0.1:{port}\")\nsetSecurityPollSuffix(\"\")\nsetMaxUDPOutstanding(65535)\n\
                 pc = newPacketCache(100000, {{staleTTL=30}})\ngetPool(\"\"):setCache(pc)\n\
                 setStaleCacheEntriesTTL(86400)\n{}\n{}\n",
                when_tiers("setServerPolicy(firstAvailable)"),
                each(&|tier, u| format!("newServer({{address=\"{u}\", order={}, mustResolve=true}})", tier + 1))
            ),
            // By itself it leaves retries to clients.
            Self::Dnsmasq => format!(
                "port={port}\nlisten-address=127.0.0.1\nbind-interfaces\nno-resolv\nno-hosts\ncache-size=10000\n\
                 dns-forward-max=5000\nuse-stale-cache=86400\nuser=root\npid-file=\n{}\n{}\n",
                when_tiers("strict-order\nfast-dns-retry=100"),
                each(&|_, u| format!("server={}#{}", u.ip(), u.port()))
            ),
        }
    }
}

/// As an array of TOML.
fn quoted(servers: &[SocketAddr]) -> String {
    format!("{:?}", servers.iter().map(SocketAddr::to_string).collect::<Vec<_>>())
}

impl Running {
    /// Waits for its first answer.
    fn answers(&self) -> Result<()> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(self.address)?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let start = Moment::now();
        let question = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x05ready\x04test\0\0\x01\0\x01";
        while Moment::now().since(start) < PATIENCE {
            // Nobody listens yet, or something does.
            drop(socket.send(question));
            if socket.recv(&mut [0; 512]).is_ok() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Err(format!("a server does not answer; it says: {}", tail(&self.folder.path().join("log"))?).into())
    }
}
