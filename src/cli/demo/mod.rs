//! `tidegate demo`: the whole job on one machine, with nothing to configure.
//!
//! Two simulated Route 53 inbound addresses and a corporate DNS server on loopback, tidegate in front of them, and
//! either a person with keys and `dig`, or a script that plays every scene and asserts it.

mod scenes;
mod simulated;

use std::{
    io::{self, BufRead},
    net::{Ipv4Addr, SocketAddr},
    thread,
};

use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

use self::simulated::{Names, Simulated};
use super::output::{ERR, OUT};
use crate::{config::Plan, daemon::Daemon};

/// How to play.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Plays every scene, asserts each, and ends
    #[arg(long)]
    script: bool,
}

/// The life of the simulated records in seconds: short, so that a person sees them expire.
const TTL: u32 = 3;
/// Services with an interface endpoint.
const SERVICES: [&str; 14] = [
    "s3",
    "ec2",
    "sts",
    "ssm",
    "ssmmessages",
    "ec2messages",
    "kms",
    "secretsmanager",
    "logs",
    "monitoring",
    "sqs",
    "sns",
    "lambda",
    "dynamodb",
];
/// What a name without an endpoint resolves to (an address of RFC 5737).
const PUBLIC: &str = "203.0.113.80";

/// Everything the demonstration runs.
struct Stage {
    tidegate: SocketAddr,
    inbound: [Simulated; 2],
    corporate: Simulated,
}

impl Stage {
    /// Queries that the simulated inbound addresses have seen, but for probes.
    fn asked(&self) -> u64 {
        self.inbound.iter().map(Simulated::questions).sum::<u64>() + self.corporate.questions()
    }
}

pub(super) fn run(options: &Options) -> i32 {
    let (stage, daemon) = match set_up() {
        Ok(ready) => ready,
        Err(error) => {
            writeln!(ERR, "tidegate: the demonstration cannot start: {error}");
            return super::FAILED;
        }
    };
    let code = if options.script { play(&stage) } else { show(&stage, daemon.admin_address()) };
    daemon.stop();
    stage.inbound.iter().chain([&stage.corporate]).for_each(Simulated::end);
    code
}

fn set_up() -> Result<(Stage, Daemon), Box<dyn std::error::Error>> {
    let inbound_names = inbound_names();
    let one = Simulated::start(Ipv4Addr::new(127, 20, 1, 10), inbound_names.clone())?;
    let two = Simulated::start(Ipv4Addr::new(127, 20, 2, 10), inbound_names)?;
    let corporate_names = Names::parse(
        &[
            "intranet.corp.example 10.1.5.10",
            "wiki.corp.example 10.1.5.11",
            "files.corp.example -> s3.eu-west-1.amazonaws.com",
            "s3.eu-west-1.amazonaws.com 203.0.113.80",
            "www.example.org 203.0.113.7",
        ],
        TTL,
    );
    let corporate = Simulated::start(Ipv4Addr::new(127, 1, 1, 53), corporate_names)?;
    let text = configuration(&one, &two, &corporate);
    let plan =
        Plan::from_text("demo.toml", &text).map_err(|problems| problems.lines().collect::<Vec<_>>().join("\n"))?;
    let daemon = Daemon::start(&plan.boot, plan.live)?;
    let tidegate = *daemon.addresses().first().ok_or("it listens nowhere")?;
    Ok((Stage { tidegate, inbound: [one, two], corporate }, daemon))
}

fn inbound_names() -> Names {
    let mut lines = vec![
        "ec2.eu-west-1.amazonaws.com -> vpce-0a1b2c3d.ec2.eu-west-1.vpce.amazonaws.com".to_owned(),
        "vpce-0a1b2c3d.ec2.eu-west-1.vpce.amazonaws.com 10.20.1.30 10.20.2.30".to_owned(),
        // Without an interface endpoint the VPC's resolver answers as the public DNS does.
        format!("iam.amazonaws.com {PUBLIC}"),
        format!("s3.amazonaws.com {PUBLIC}"),
        format!("support.us-east-1.amazonaws.com {PUBLIC}"),
    ];
    for (at, service) in SERVICES.iter().enumerate().filter(|(_, service)| **service != "ec2") {
        lines.push(format!("{service}.eu-west-1.amazonaws.com 10.20.1.{} 10.20.2.{}", 21 + at, 21 + at));
    }
    for prefix in ["bucket", "fresh", "never"] {
        lines.extend((0..200).map(|number| format!("{prefix}-{number}.s3.eu-west-1.amazonaws.com 10.20.1.21")));
    }
    Names::parse(&lines.iter().map(String::as_str).collect::<Vec<_>>(), TTL)
}

fn configuration(one: &Simulated, two: &Simulated, corporate: &Simulated) -> String {
    format!(
        r#"[server]
listen = ["127.0.0.1:0"]
workers = 1
[admin]
http = "127.0.0.1:0"
socket = ""
[upstream.vpc]
servers = ["{}", "{}"]
[upstream.site]
servers = ["{}"]
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
        one.address, two.address, corporate.address
    )
}

fn play(stage: &Stage) -> i32 {
    let mut broken = 0;
    for (number, (title, scene)) in scenes::SCENES.iter().enumerate() {
        match scene(stage) {
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

fn show(stage: &Stage, admin: Option<SocketAddr>) -> i32 {
    let (ip, port) = (stage.tidegate.ip(), stage.tidegate.port());
    writeln!(OUT, "tidegate listens on {}", stage.tidegate);
    writeln!(OUT, "  in front of the inbound addresses {} and {}", stage.inbound[0].address, stage.inbound[1].address);
    writeln!(OUT, "  and the corporate server {}", stage.corporate.address);
    if let Some(admin) = admin {
        writeln!(OUT, "  status page http://{admin}/  metrics http://{admin}/metrics");
    }
    writeln!(OUT, "\nTry, in another terminal:");
    for (name, what) in [
        ("s3.eu-west-1.amazonaws.com", "private, from the inbound endpoint"),
        ("ec2.eu-west-1.amazonaws.com", "private, behind a vpce alias"),
        ("intranet.corp.example", "from the corporate server"),
        ("files.corp.example", "a corporate alias into AWS: private all the same"),
        ("iam.amazonaws.com", "no endpoint: refused, with the reason"),
    ] {
        writeln!(OUT, "  dig @{ip} -p {port} {name:<32} # {what}");
    }
    writeln!(OUT, "  cargo run --release -- query s3.eu-west-1.amazonaws.com @{}", stage.tidegate);
    writeln!(OUT, "\nKeys, each with Enter: 1 or 2 cuts or mends that inbound address, q ends; so does Ctrl-C.");
    if OUT.is_closed() {
        return super::OK;
    }
    match until_the_end(stage) {
        Ok(()) => super::OK,
        Err(error) => {
            writeln!(ERR, "tidegate: the demonstration ends: {error}");
            super::FAILED
        }
    }
}

/// Waits for the key that ends it, for Ctrl-C or for SIGTERM.
fn until_the_end(stage: &Stage) -> io::Result<()> {
    let (end, ended) = oneshot::channel();
    let inbound = stage.inbound.clone();
    // It sleeps in a read; the end of the process is its end.
    thread::Builder::new().name("keys".to_owned()).spawn(move || keys(&inbound, end))?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            // Without keys (no terminal) only a signal ends it.
            Ok(()) = ended => {}
        }
        Ok(())
    })
}

fn keys(inbound: &[Simulated; 2], end: oneshot::Sender<()>) {
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { return };
        let server = match line.trim() {
            "1" => &inbound[0],
            "2" => &inbound[1],
            "q" => {
                end.send(()).ok();
                return;
            }
            _ => continue,
        };
        let word = if server.is_cut() { "mended" } else { "cut" };
        if server.is_cut() {
            server.mend()
        } else {
            server.cut()
        }
        writeln!(OUT, "{} is {word}", server.address);
        if OUT.is_closed() {
            end.send(()).ok();
            return;
        }
    }
}
