//! What clients feel when upstreams fail: tidegate beside other servers, scene by scene, on loopback or in networks of
//! its own.
//!
//! ```text
//! cargo build --release                                         # tidegate itself
//! cargo run --release --example scenes                          # every scene, about eight minutes
//! cargo run --release --example scenes -- --scenes silent,mute --servers tidegate,unbound
//! ```
//!
//! Prints a Markdown table for each scene and ends by itself. Servers that are not installed are left out, and so is
//! `ways` without root: its networks are namespaces, which nothing outside can see and which end with it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it reports to who started it")]

#[path = "../peers/process.rs"]
#[allow(dead_code, reason = "the contest uses more of it")]
mod process;

mod bad;
mod client;
mod fault;
mod figures;
mod networks;
mod play;
#[allow(dead_code, unreachable_pub, reason = "the tests use more of it")]
mod scripted;
mod server;
mod upstream;
mod ways;

use clap::{Parser, ValueEnum};

/// Whatever goes wrong ends the run with its message.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What clients feel when upstreams fail
#[derive(Debug, Parser)]
struct Arguments {
    /// Which scenes
    #[arg(long, value_delimiter = ',', default_value = "silent,refused,mute,loss,rate,ways,bad")]
    scenes: Vec<Scene>,
    /// Which servers, where the scene is for others too
    #[arg(long, value_delimiter = ',', default_value = "tidegate,unbound,dnsdist,dnsmasq")]
    servers: Vec<server::Kind>,
    /// How often each is played
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Inside namespaces of its own
    #[arg(long, hide = true)]
    inside: bool,
}

/// A scene.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scene {
    /// The busiest of three servers goes silent
    Silent,
    /// Every server is gone, names warm, TTLs over: the host says that nobody listens
    Refused,
    /// The same, and nothing comes back at all
    Mute,
    /// 5 % of datagrams are lost, hedging on and off
    Loss,
    /// Two servers that drop what is over their rate, asked 1.9 times that
    Rate,
    /// Two tiers in two networks, and the way to the first is cut
    Ways,
    /// One of two servers misbehaves
    Bad,
}

fn main() -> Result<()> {
    let mut arguments = Arguments::parse();
    if !server::Kind::Tidegate.is_installed() {
        return Err("tidegate itself is built by: cargo build --release".into());
    }
    arguments.servers.retain(|kind| kind.is_installed());
    for scene in &arguments.scenes {
        match scene {
            Scene::Ways if !arguments.inside => play_inside(*scene, &arguments)?,
            scene => play(*scene, &arguments)?,
        }
    }
    Ok(())
}

fn play(scene: Scene, arguments: &Arguments) -> Result<()> {
    println!("### {}\n\n{}", play::title(scene), play::head(scene, &arguments.servers));
    for _ in 0..arguments.rounds {
        for row in play::rows(scene, &arguments.servers)? {
            println!("{row}");
        }
    }
    println!();
    Ok(())
}

/// In namespaces of its own, if they can be made.
fn play_inside(scene: Scene, arguments: &Arguments) -> Result<()> {
    if !networks::are_possible() {
        println!("### {}\n\nLeft out: it takes root, iproute2 and nftables.\n", play::title(scene));
        return Ok(());
    }
    let servers: Vec<&str> = arguments.servers.iter().map(|kind| kind.name()).collect();
    let (servers, rounds) = (servers.join(","), arguments.rounds.to_string());
    let words = ["--inside", "--scenes", "ways", "--servers", &servers, "--rounds", &rounds];
    networks::run_inside(&words.map(str::to_owned))
}
