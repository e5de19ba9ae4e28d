//! `reload`, `drain`, `undrain`, `flush`, `log`: orders to the running daemon over its control socket.

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    client,
    output::{ERR, OUT, print_json},
    query::printable,
};
use crate::{
    admin::control::{FlushOrder, LogOrder, OrderReport, ServerOrder},
    config,
    system_error::SystemError,
    wire::{Name, name::NameError},
};

/// The environment variable for `--socket` of `serve`, by which other verbs find the daemon.
pub(super) const SOCKET_VARIABLE: &str = "TIDEGATE_SOCKET";

/// The path of the order to reload.
const RELOAD: &str = "/v1/reload";

/// Where the daemon is, and how to speak.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The daemon's `admin.socket` [env: TIDEGATE_SOCKET]
    #[arg(long, value_name = "PATH")]
    pub(super) socket: Option<PathBuf>,
    /// The daemon's configuration, which names the socket unless --socket does [default:
    /// /etc/tidegate/tidegate.toml]
    #[arg(long, env = "TIDEGATE_CONFIG", value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// A server to drain or not.
#[derive(Debug, clap::Args)]
pub(super) struct ServerArgument {
    /// The server as in the configuration or `tidegate status`; or an address, with or without a port, for all servers
    /// there; or "system", for all from resolv.conf; GROUP/SERVER for one group only
    server: String,
    #[command(flatten)]
    options: Options,
}

/// What to forget.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub(super) struct FlushArguments {
    /// A name, with all its types; or an address, of which its PTR is meant
    #[arg(group = "what", value_parser = name)]
    name: Option<Name>,
    /// A name and all below it; or a network, of which its reverse zone is meant
    #[arg(long, group = "what", value_name = "ZONE", value_parser = domain)]
    zone: Option<Name>,
    /// Everything
    #[arg(long, group = "what")]
    all: bool,
    #[command(flatten)]
    options: Options,
}

/// What to log.
#[derive(Debug, clap::Args)]
pub(super) struct Log {
    /// off, error, warn, info, debug or trace; or by module, such as "tidegate::upstream=debug", the rest as in the
    /// configuration
    level: String,
    #[command(flatten)]
    options: Options,
}

/// The document of `--json`: the daemon's report.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct OrderDocument {
    /// Whether the order was carried out; otherwise nothing was changed.
    done: bool,
    #[serde(flatten)]
    report: OrderReport,
}

/// A name for `flush`. A wildcard or a network would be a name that nobody asks for.
fn name(text: &str) -> Result<Name, String> {
    if let Some(domain) = config::behind_wildcards(text) {
        return Err(format!("a name is one name: for all below {domain} write --zone {domain}"));
    }
    if text.contains('/') && text.parse::<IpNet>().is_ok() {
        return Err(format!("a name is one name: for a network write --zone {text}"));
    }
    let reverse = text.parse().ok().and_then(|address: IpAddr| config::reverse_zones(address.into()).pop());
    reverse.map_or_else(|| text.parse().map_err(|error: NameError| error.to_string()), Ok)
}

/// A zone for `flush`; with a wildcard it would be a name that nothing is below.
fn domain(text: &str) -> Result<Name, String> {
    if let Some(domain) = config::behind_wildcards(text) {
        return Err(format!("a zone covers all names below it as it is: write {domain}"));
    }
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let Ok(network) = network else { return text.parse().map_err(|error: NameError| error.to_string()) };
    match &config::reverse_zones(network)[..] {
        [zone] => Ok(zone.clone()),
        zones => {
            let list: Vec<String> = zones.iter().map(ToString::to_string).collect();
            Err(format!("this network has several reverse zones, write one of them: {}", list.join(" ")))
        }
    }
}

pub(super) fn reload(options: &Options) -> i32 {
    #[derive(Serialize)]
    struct ReloadOrder {}
    send_order(options, RELOAD, &ReloadOrder {})
}

pub(super) fn drain(server: &ServerArgument) -> i32 {
    send_order(&server.options, "/v1/drain", &ServerOrder { server: server.server.clone() })
}

pub(super) fn undrain(server: &ServerArgument) -> i32 {
    send_order(&server.options, "/v1/undrain", &ServerOrder { server: server.server.clone() })
}

pub(super) fn flush(flush: &FlushArguments) -> i32 {
    let what = match (&flush.name, &flush.zone) {
        (Some(name), _) => FlushOrder::Name(name.to_string()),
        (None, Some(zone)) => FlushOrder::Zone(zone.to_string()),
        (None, None) => FlushOrder::All(flush.all),
    };
    send_order(&flush.options, "/v1/flush", &what)
}

pub(super) fn log(log: &Log) -> i32 {
    send_order(&log.options, "/v1/log", &LogOrder { level: log.level.clone() })
}

/// Sends an order and prints the result: 0 done, 1 no daemon, 2 refused.
fn send_order(options: &Options, path: &str, order: &impl Serialize) -> i32 {
    let body = match serde_json::to_string(order) {
        Ok(body) => body,
        Err(error) => {
            writeln!(ERR, "tidegate: {error}");
            return super::FAILED;
        }
    };
    let socket = match options.socket() {
        Ok(socket) => socket,
        Err(error) => {
            writeln!(ERR, "tidegate: {error}");
            return super::FAILED;
        }
    };
    let (status, answer) = match client::post_over_socket(&socket, path, &body) {
        Ok(answered) => answered,
        Err(error) => {
            writeln!(ERR, "tidegate: {error}");
            return super::FAILED;
        }
    };
    let code = match status {
        200 => super::OK,
        503 => super::FAILED,
        _ => super::UNUSABLE,
    };
    // As `ExecReload=` of the unit: the daemon has logged each problem into the same journal.
    let is_logged = path == RELOAD && code == super::UNUSABLE && ERR.is_journal();
    if options.json || !is_logged {
        show(options, status, &answer);
    }
    code
}

/// Prints the daemon's reply to an order.
pub(super) fn show(options: &Options, status: u16, answer: &str) {
    let done = status == 200;
    let report = report(status, answer);
    if options.json {
        print_json(&OrderDocument { done, report });
    } else {
        report.lines.iter().for_each(|line| if done { writeln!(OUT, "{line}") } else { writeln!(ERR, "{line}") });
    }
}

/// The daemon's report on an order, or what it sent in the place of one.
pub(super) fn report(status: u16, answer: &str) -> OrderReport {
    serde_json::from_str(answer).unwrap_or_else(|_| {
        let line = format!("the daemon answered with status {status}, and no report: {}", printable(answer.trim()));
        OrderReport::new(vec![line])
    })
}

/// Why the control socket is unknown.
#[derive(Debug, thiserror::Error)]
pub(super) enum SocketError {
    #[error("{} cannot be read: {}; say --socket PATH", file.display(), SystemError(error))]
    Unreadable {
        file: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error("{}: `socket` in [admin] is off", .0.display())]
    Off(PathBuf),
    #[error("{SOCKET_VARIABLE} is off, and with it the daemon's control socket; if there is one, say --socket PATH")]
    VariableOff,
}

/// Why the daemon could not be asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum DaemonError {
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error(transparent)]
    Page(#[from] client::ClientError),
}

impl Options {
    /// Fetches status and body of the daemon's page at `path`: over HTTP at `admin` if given, else over its control
    /// socket, else at the address in the configuration.
    pub(super) fn get(&self, admin: Option<&str>, path: &str) -> Result<(u16, String), DaemonError> {
        if let Some(admin) = admin {
            let admin = client::admin(Some(admin), None)?;
            return Ok(client::get(&admin, &of_http(path))?);
        }
        let over_socket = self.socket().map_err(DaemonError::from);
        let over_socket = over_socket.and_then(|socket| Ok(client::get_over_socket(&socket, path)?));
        // A sidecar usually has no control socket, but it has pages.
        over_socket.or_else(|error| {
            let admin = self.admin().ok_or(error)?;
            Ok(client::get(&admin, &of_http(path))?)
        })
    }

    /// The address of the daemon's pages; none if `--socket` says where to ask.
    pub(super) fn admin(&self) -> Option<String> {
        if self.socket.is_some() { None } else { client::admin(None, self.config.as_deref()).ok() }
    }

    /// The socket given on the command line, or in the configuration, or the default.
    pub(super) fn socket(&self) -> Result<PathBuf, SocketError> {
        if let Some(socket) = &self.socket {
            return Ok(socket.clone());
        }
        match super::variable(SOCKET_VARIABLE) {
            Some(off) if off == "off" => return Err(SocketError::VariableOff),
            Some(socket) => return Ok(socket.into()),
            None => {}
        }
        let file = self.config.as_deref().unwrap_or_else(|| Path::new(super::serve::DEFAULT_FILE));
        match config::control_socket(file) {
            Ok(socket) => socket.ok_or_else(|| SocketError::Off(file.to_owned())),
            // A sidecar has no file, and somebody who may open the socket may not be able to read the file.
            Err(_) if self.config.is_none() => Ok(config::CONTROL_SOCKET.into()),
            Err(error) => Err(SocketError::Unreadable { file: file.to_owned(), error }),
        }
    }
}

/// The path over HTTP of a page at `path` on the control socket.
fn of_http(path: &str) -> String {
    if path.starts_with("/v1/") { format!("/api{path}") } else { path.to_owned() }
}
