//! `tidegate demo`: the whole job on one machine, with nothing to configure.
//!
//! Two addresses of a simulated Route 53 inbound endpoint, a site's DNS and a public DNS run on loopback, each an
//! independent server ([`servers`]), with tidegate in front of them. Either a person uses keys and `dig` and sees a
//! line for each query ([`relay`]), or a script plays every scene and checks it ([`scenes`]).

mod certificates;
mod keys;
mod relay;
mod scenes;
mod servers;
mod zones;

use std::{io, net::SocketAddr, path::Path, sync::Arc};

use hickory_server::{proto::ProtoError, zone_handler::Catalog};
use tokio::sync::Notify;
use tracing_subscriber::EnvFilter;

use self::{
    certificates::{Authority, CertificateError},
    servers::{DemoTransport, QueryLog, Role, ServerError, Servers, Simulated},
};
use super::output::{ERR, OUT};
use crate::{
    config::Plan,
    daemon::{Daemon, StartError},
    engine::Engine,
};

/// How to play.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Plays every scene, asserts each, and ends
    #[arg(long)]
    script: bool,
    /// Speaks TLS, HTTPS and QUIC with the simulated servers
    #[arg(long)]
    encrypted: bool,
}

/// TTL of the simulated records in seconds: short, so that a person sees them expire.
const TTL: u32 = 5;
/// TTL for the script, which waits for records to expire.
const SCRIPT_TTL: u32 = 2;

/// Everything the demonstration runs.
struct Demo {
    /// tidegate's address.
    tidegate: SocketAddr,
    engine: Arc<Engine>,
    inbound: [Simulated; 2],
    site: Simulated,
    public: Simulated,
    log: Arc<QueryLog>,
    ttl: u32,
}

/// Why the demonstration cannot start.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error("there is no thread for the simulated servers: {0}")]
    Thread(#[from] io::Error),
    #[error("a simulated server cannot start: {0}")]
    Server(#[from] ServerError),
    #[error("there are no certificates: {0}")]
    Certificates(#[from] CertificateError),
    #[error("a simulated zone: {0}")]
    Zone(#[from] ProtoError),
    #[error("its own configuration is wrong: {0}")]
    Plan(String),
    #[error(transparent)]
    Daemon(#[from] StartError),
    #[error("tidegate listens nowhere")]
    NoListener,
}

impl Demo {
    /// Every simulated server that tidegate asks.
    fn servers(&self) -> impl Iterator<Item = &Simulated> {
        self.inbound.iter().chain([&self.site])
    }

    /// Client queries that reached the simulated servers.
    fn asked(&self) -> u64 {
        self.servers().map(Simulated::queries).sum()
    }
}

pub(super) fn run(options: &Options) -> i32 {
    let started = Servers::start().map_err(DemoError::from).and_then(|servers| {
        let ttl = if options.script { SCRIPT_TTL } else { TTL };
        let authority = options.encrypted.then(Authority::new).transpose()?;
        let (demo, daemon) = start_all(&servers, ttl, authority.as_ref())?;
        Ok((servers, demo, daemon, authority))
    });
    // The authority's file must exist while tidegate may read it.
    let (servers, demo, daemon, _authority) = match started {
        Ok(ready) => ready,
        Err(error) => {
            writeln!(ERR, "tidegate: the demonstration cannot start: {error}");
            return super::FAILED;
        }
    };
    let code =
        if options.script { run_script(&demo) } else { run_interactive(&demo, &servers, daemon.admin_address()) };
    daemon.stop();
    servers.end();
    code
}

fn start_all(servers: &Servers, ttl: u32, authority: Option<&Authority>) -> Result<(Demo, Daemon), DemoError> {
    let internet = Arc::new(zones::public(ttl)?);
    let add = |name, ip: [u8; 4], transport, zone: Catalog| {
        servers.add(Role { name, ip: ip.into(), transport }, zone, &internet)
    };
    let [tls, https, quic] = match authority {
        Some(authority) => {
            [DemoTransport::Tls(authority), DemoTransport::Https(authority), DemoTransport::Quic(authority)]
        }
        None => [DemoTransport::Plain; 3],
    };
    let inbound = [
        add("inbound 1", [127, 20, 1, 10], tls, zones::inbound(ttl)?)?,
        add("inbound 2", [127, 20, 2, 10], https, zones::inbound(ttl)?)?,
    ];
    let site = add("the site's DNS", [127, 1, 1, 53], quic, zones::site(ttl)?)?;
    let public = add("the public DNS", [127, 9, 9, 9], DemoTransport::Plain, zones::public(ttl)?)?;
    let text = configuration(&inbound, &site, authority.map(Authority::file));
    let plan = Plan::from_text("demo.toml", &text)
        .map_err(|problems| DemoError::Plan(problems.lines().collect::<Vec<_>>().join("\n")))?;
    let daemon = Daemon::start(&plan.boot, plan.live, None)?;
    let tidegate = *daemon.addresses().first().ok_or(DemoError::NoListener)?;
    let engine = Arc::clone(daemon.engine());
    let log = Arc::clone(servers.log());
    Ok((Demo { tidegate, engine, inbound, site, public, log, ttl }, daemon))
}

/// A site's configuration, with probes that are frequent enough for a person.
fn configuration(inbound: &[Simulated; 2], site: &Simulated, ca: Option<&Path>) -> String {
    let ca = ca.map(|file| format!("ca = {:?}", file.display().to_string())).unwrap_or_default();
    format!(
        r#"[server]
listen = ["127.0.0.1:0"]
workers = 1
[admin]
http = "127.0.0.1:0"
socket = ""
[upstream.vpc]
servers = ["{}", "{}"]
{ca}
[upstream.vpc.health]
interval = "400ms"
interval_down = "200ms"
[upstream.site]
servers = ["{}"]
{ca}
[upstream.site.health]
interval = "400ms"
interval_down = "200ms"
[[forward]]
name = "aws"
zones = ["preset:aws"]
to = "vpc"
private = ["10.20.0.0/16"]
on_public = "refuse"
[[forward]]
name = "site"
zones = ["."]
to = "site"
"#,
        inbound[0].url, inbound[1].url, site.url
    )
}

fn run_script(demo: &Demo) -> i32 {
    let mut broken = 0;
    for (number, (title, scene)) in scenes::SCENES.iter().enumerate() {
        match scene(demo) {
            Ok(saw) => writeln!(OUT, "ok   {:>2}  {title}\n          {saw}", number + 1),
            Err(why) => {
                broken += 1;
                writeln!(OUT, "FAIL {:>2}  {title}\n          {why}", number + 1);
            }
        }
    }
    writeln!(OUT, "\n{} passed, {broken} failed", scenes::SCENES.len() - broken);
    if broken == 0 { super::OK } else { super::FAILED }
}

fn run_interactive(demo: &Demo, servers: &Servers, admin: Option<SocketAddr>) -> i32 {
    let end = Arc::new(Notify::new());
    let relay = match relay::start(servers, demo.tidegate, &end) {
        Ok(relay) => relay,
        Err(error) => {
            writeln!(ERR, "tidegate: the demonstration cannot start: {error}");
            return super::FAILED;
        }
    };
    log_changes();
    print_introduction(demo, relay, admin);
    if OUT.is_closed() {
        return super::OK;
    }
    match keys::wait_for_end(demo, &end) {
        Ok(()) => super::OK,
        Err(error) => {
            writeln!(ERR, "tidegate: the demonstration ends: {error}");
            super::FAILED
        }
    }
}

/// Prints the servers' addresses and what to try.
fn print_introduction(demo: &Demo, relay: SocketAddr, admin: Option<SocketAddr>) {
    writeln!(OUT, "Ask {relay}: it passes each query on to tidegate and prints a line about it here.");
    writeln!(OUT, "  tidegate itself listens on {}", demo.tidegate);
    writeln!(OUT, "  in front of the inbound addresses {} and {}", demo.inbound[0].url, demo.inbound[1].url);
    writeln!(OUT, "  and the site's DNS {}", demo.site.url);
    if let Some(admin) = admin {
        writeln!(OUT, "  status page http://{admin}/  metrics http://{admin}/metrics");
    }
    writeln!(OUT, "\nTry, in another terminal:");
    for (server, name, what) in [
        (relay, "s3.eu-west-1.amazonaws.com", "private, from the inbound endpoint"),
        (relay, "ec2.eu-west-1.amazonaws.com", "private, behind a vpce alias"),
        (relay, "intranet.corp.example", "from the site's DNS"),
        (relay, "files.corp.example", "an alias of the site's into AWS: private all the same"),
        (relay, "iam.amazonaws.com", "no endpoint: refused, with the reason"),
        (demo.public.address, "s3.eu-west-1.amazonaws.com", "what a public DNS says instead"),
    ] {
        writeln!(OUT, "  dig @{} -p {} {name:<27} # {what}", server.ip(), server.port());
    }
    let program = std::env::args().next().unwrap_or_else(|| "tidegate".to_owned());
    writeln!(OUT, "or, without dig:\n  {program} query s3.eu-west-1.amazonaws.com @{relay}");
    writeln!(OUT, "\nKeys, each with Enter:");
    writeln!(OUT, "  1 or 2  cuts or mends that inbound address");
    writeln!(OUT, "  s       cuts or mends the site's DNS");
    writeln!(OUT, "  p       the VPC answers with public addresses, as without private DNS; again: with private ones");
    writeln!(OUT, "  ?       says how all is");
    writeln!(OUT, "  q       ends; so does Ctrl-C\n");
}

/// Prints tidegate's log lines about changes of state between the lines about queries: warnings, and servers that are up
/// again.
fn log_changes() {
    let filter = EnvFilter::new("off,tidegate=warn,tidegate::upstream::server=info");
    let lines = tracing_subscriber::fmt().with_env_filter(filter);
    // No other logger is set in this process.
    drop(lines.with_writer(|| Lines).with_ansi(false).with_target(false).without_time().try_init());
}

/// Writes log lines to standard output.
struct Lines;

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        OUT.write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
