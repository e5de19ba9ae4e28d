//! What clients feel when upstreams fail: tidegate beside other servers, scene by scene, on loopback.
//!
//! ```text
//! cargo run --release --example scenes                          # every scene, about four minutes
//! cargo run --release --example scenes -- --scenes silent,stale --servers tidegate,unbound
//! ```
//!
//! Prints a Markdown table for each scene and ends by itself. Servers that are not installed are left out.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it reports to who started it")]

#[path = "../peers/process.rs"]
#[allow(dead_code, reason = "the contest uses more of it")]
mod process;

mod client;
mod play;
mod server;
mod upstream;

use clap::{Parser, ValueEnum};

/// Whatever goes wrong ends the run with its message.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What clients feel when upstreams fail
#[derive(Debug, Parser)]
struct Arguments {
    /// Which scenes
    #[arg(long, value_delimiter = ',', default_value = "silent,refused,mute,loss,rate")]
    scenes: Vec<Scene>,
    /// Which servers, where the scene is for others too
    #[arg(long, value_delimiter = ',', default_value = "tidegate,unbound,dnsdist,dnsmasq")]
    servers: Vec<server::Kind>,
    /// How often each is played
    #[arg(long, default_value_t = 1)]
    rounds: usize,
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
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    for scene in &arguments.scenes {
        println!("### {}\n\n{}", play::title(*scene), play::head(*scene));
        for _ in 0..arguments.rounds {
            for row in play::rows(*scene, &arguments.servers)? {
                println!("{row}");
            }
        }
        println!();
    }
    Ok(())
}
