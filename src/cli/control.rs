//! `reload`, `drain`, `undrain`, `flush`, `log`: orders to the running daemon over its control socket.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::page;
use crate::config::Plan;

/// Where the daemon is, and how to speak.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The daemon's `admin.socket`
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    socket: Option<PathBuf>,
    /// The daemon's configuration, which names the socket
    #[arg(long, env = "TIDEGATE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// A server to drain or not.
#[derive(Debug, clap::Args)]
pub(super) struct Server {
    /// The server as the configuration has it, or its address; GROUP/SERVER where groups share one
    server: String,
    #[command(flatten)]
    options: Options,
}

/// What to forget.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub(super) struct Flush {
    /// A name, whatever the type
    #[arg(group = "what")]
    name: Option<String>,
    /// A name and all below it
    #[arg(long, group = "what", value_name = "NAME")]
    zone: Option<String>,
    /// Everything
    #[arg(long, group = "what")]
    all: bool,
    #[command(flatten)]
    options: Options,
}

/// What to log.
#[derive(Debug, clap::Args)]
pub(super) struct Log {
    /// error, warn, info, debug or trace; or directives such as "info,tidegate::upstream=debug"
    level: String,
    #[command(flatten)]
    options: Options,
}

pub(super) fn reload(options: &Options) -> i32 {
    order(options, "/v1/reload", &json!({}))
}

pub(super) fn drain(server: &Server) -> i32 {
    order(&server.options, "/v1/drain", &json!({ "server": server.server }))
}

pub(super) fn undrain(server: &Server) -> i32 {
    order(&server.options, "/v1/undrain", &json!({ "server": server.server }))
}

pub(super) fn flush(flush: &Flush) -> i32 {
    let what = match (&flush.name, &flush.zone) {
        (Some(name), _) => json!({ "name": name }),
        (None, Some(zone)) => json!({ "zone": zone }),
        (None, None) => json!({ "all": flush.all }),
    };
    order(&flush.options, "/v1/flush", &what)
}

pub(super) fn log(log: &Log) -> i32 {
    order(&log.options, "/v1/log", &json!({ "level": log.level }))
}

/// Gives an order and prints its verdict: 0 done, 1 no daemon, 2 refused.
fn order(options: &Options, path: &str, body: &Value) -> i32 {
    let socket = match options.socket() {
        Ok(socket) => socket,
        Err(message) => {
            eprintln!("tidegate: {message}");
            return super::UNUSABLE;
        }
    };
    let (status, answer) = match page::order(&socket, path, &body.to_string()) {
        Ok(answered) => answered,
        Err(error) => {
            eprintln!("tidegate: {error}");
            return super::FAILED;
        }
    };
    let lines = serde_json::from_str::<Value>(&answer).unwrap_or_default();
    let lines: Vec<&str> = lines["lines"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let is_done = status == 200;
    if options.json {
        println!("{}", json!({ "done": is_done, "lines": lines }));
    } else if is_done {
        lines.iter().for_each(|line| println!("{line}"));
    } else {
        lines.iter().for_each(|line| eprintln!("{line}"));
    }
    match status {
        200 => super::OK,
        503 => super::FAILED,
        _ => super::UNUSABLE,
    }
}

impl Options {
    /// The socket that was named, or that the configuration names, or the default.
    fn socket(&self) -> Result<PathBuf, String> {
        match (&self.socket, &self.config) {
            (Some(socket), _) => Ok(socket.clone()),
            (None, Some(file)) => named_by(file),
            (None, None) => Ok(crate::config::CONTROL_SOCKET.into()),
        }
    }
}

fn named_by(file: &Path) -> Result<PathBuf, String> {
    let plan = Plan::load(file).map_err(|problems| problems.lines().collect::<Vec<_>>().join("\n"))?;
    plan.boot.admin_socket.ok_or_else(|| format!("{}: admin.socket is off", file.display()))
}
