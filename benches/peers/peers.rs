//! tidegate beside other DNS servers, on one machine, over loopback. `benches/peers/run` starts it.
//!
//! | verb | is |
//! | --- | --- |
//! | `run` | the contest: starts each server on one core, asks from another, prints tables |
//! | `watched` | what a scrape, `top`, the status page and explain cost a server at full load |
//! | `load` | the load generator alone, against any server |
//! | `upstream` | a server that answers everything, faster than those who ask it |
//! | `reflect`, `relay` | what the system calls alone cost, without DNS: the floor for a hit and for a miss |
//!
//! What is compared is CPU time a query, as the scheduler counts it for every thread of a server. Rounds of all servers
//! are interleaved, since a machine's mood lasts longer than a round; medians of one run compare, and nothing else.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

mod contest;
mod load;
mod load_tcp;
mod mix;
mod process;
mod query;
mod reflect;
mod relay;
mod servers;
mod simulate;
mod table;
mod upstream;
mod watched;

use std::{error::Error, net::SocketAddr, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};

/// An outcome with any error: this is a program, not a library.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[derive(Parser)]
#[command(about = "tidegate beside other DNS servers")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// The contest.
    Run(contest::Settings),
    /// What those who look on cost.
    Watched(watched::Settings),
    /// The load generator alone: prints one line of figures.
    Load(LoadArguments),
    /// Answers every question with an address.
    Upstream {
        /// Where to listen.
        #[arg(long, default_value = "127.0.0.1:5399")]
        listen: SocketAddr,
    },
    /// Sends every datagram back with a record of zeros behind it.
    Reflect {
        /// Where to listen.
        #[arg(long, default_value = "127.0.0.1:5300")]
        listen: SocketAddr,
    },
    /// Passes every datagram on, and what comes back to who asked.
    Relay {
        /// Where to listen.
        #[arg(long, default_value = "127.0.0.1:5300")]
        listen: SocketAddr,
        /// Where to pass datagrams on to.
        #[arg(long, default_value = "127.0.0.1:5399")]
        upstream: SocketAddr,
    },
}

#[derive(clap::Args)]
struct LoadArguments {
    /// The server.
    #[arg(long, default_value = "127.0.0.1:5300")]
    server: SocketAddr,
    /// Which names: popular (Zipf over 10,000), new, mixed (one in ten new), even (over 500,000), skew09, skew10 (Zipf over
    /// 1,000,000), flood (skew10, every second one new).
    #[arg(long, default_value = "popular")]
    names: mix::Names,
    /// How long.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Questions in flight.
    #[arg(long, default_value_t = load::WINDOW)]
    window: usize,
    /// Questions a second, instead of as many as are answered.
    #[arg(long)]
    rate: Option<u32>,
    /// Over TCP, on 20 connections.
    #[arg(long, conflicts_with = "rate")]
    tcp: bool,
    /// Ask every name once before.
    #[arg(long)]
    warm: bool,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().verb {
        Verb::Run(settings) => contest::run(&settings),
        Verb::Watched(settings) => watched::run(&settings),
        Verb::Load(arguments) => load_alone(&arguments),
        Verb::Upstream { listen } => upstream::run(listen),
        Verb::Reflect { listen } => reflect::run(listen),
        Verb::Relay { listen, upstream } => relay::run(listen, upstream),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn load_alone(arguments: &LoadArguments) -> Result<()> {
    if arguments.warm {
        load::warm(arguments.server, arguments.names)?;
    }
    let mut mix = mix::Mix::new(arguments.names);
    let time = Duration::from_secs_f64(arguments.seconds);
    let plan = match arguments.rate {
        Some(rate) => load::Plan::Paced { rate },
        None => load::Plan::Closed { window: arguments.window },
    };
    let outcome = if arguments.tcp {
        load_tcp::run(arguments.server, &mut mix, time, &mut |_| {})?
    } else {
        load::run(arguments.server, &mut mix, plan, time, &mut |_| {})?
    };
    println!("{outcome}");
    Ok(())
}
