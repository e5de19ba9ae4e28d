//! `tidegate explain`: how the running daemon, or a configuration, would handle a query, and why.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    control,
    output::{ERR, OUT, print_json},
    query,
};
use crate::{
    cache::Cache,
    clock::Moment,
    config::{Color, Plan},
    daemon,
    engine::{
        Engine,
        explain::{self, Asked, Premise, document::Explanation},
    },
    wire::{RecordType, Transport},
};

/// What to explain, and where to ask.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The name, or an address, of which its PTR is meant
    name: String,
    /// The record type [default: A, of an address PTR, with IPv6 addresses AAAA]
    #[arg(value_name = "TYPE", value_parser = query::record_type)]
    qtype: Option<RecordType>,
    /// The client that asks
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    client: IpAddr,
    /// How the query comes: udp, tcp, tls, https or quic
    #[arg(long, value_name = "TRANSPORT", default_value = "udp", value_parser = transport)]
    transport: Transport,
    /// The client asks for signatures (DO)
    #[arg(long)]
    dnssec: bool,
    /// Addresses to assume in the upstream's answer, to see what the guard would do
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    address: Vec<IpAddr>,
    /// Explain what this configuration would do, without any daemon
    #[arg(long, value_name = "FILE", conflicts_with_all = ["socket", "admin"])]
    config: Option<PathBuf>,
    /// The daemon's `admin.socket` [env: TIDEGATE_SOCKET]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Where the daemon's `admin.http` is, to ask there and not over the control socket; without one that answers,
    /// TIDEGATE_ADMIN says where
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// The record type that holds the first of the addresses.
fn type_of(addresses: &[IpAddr]) -> Option<RecordType> {
    addresses.first().map(|address| if address.is_ipv4() { RecordType::A } else { RecordType::AAAA })
}

/// A transport by its label.
pub(super) fn transport(text: &str) -> Result<Transport, String> {
    let found = Transport::ALL.into_iter().find(|transport| transport.label() == text);
    found.ok_or_else(|| format!("it is one of {}", Transport::ALL.map(Transport::label).join(", ")))
}

/// Why a query could not be explained.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExplainError {
    #[error("{0}; to explain a configuration without a daemon, say --config FILE")]
    Daemon(#[from] control::DaemonError),
    #[error("the daemon answered with {0}, and no explanation{1}")]
    NoExplanation(u16, String),
}

pub(super) fn run(options: &Options) -> i32 {
    let (name, default) = match query::name_and_type(&options.name, options.qtype.as_slice()) {
        Ok(found) => found,
        Err(error) => {
            writeln!(ERR, "tidegate: {error}");
            return super::UNUSABLE;
        }
    };
    let qtype = options.qtype.unwrap_or_else(|| type_of(&options.address).unwrap_or(default));
    if !options.address.is_empty() && !options.address.iter().any(|address| type_of(&[*address]) == Some(qtype)) {
        let given = options.address.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        writeln!(ERR, "tidegate: --address {given} is in no answer to {qtype}; ask for A with IPv4, AAAA with IPv6");
        return super::UNUSABLE;
    }
    let asked = Asked { name, qtype, client: options.client, transport: options.transport, do_bit: options.dnssec };
    let explanation = match &options.config {
        Some(file) => {
            let Some(engine) = offline(file) else { return super::UNUSABLE };
            here(&engine, &asked, &options.address)
        }
        None => {
            let config = super::variable("TIDEGATE_CONFIG").map(PathBuf::from);
            let daemon = control::Options { socket: options.socket.clone(), config, json: options.json };
            match of_daemon(&daemon, options.admin.as_deref(), &asked, &options.address) {
                Ok(explanation) => explanation,
                Err(error) => {
                    writeln!(ERR, "tidegate: {error}");
                    return super::FAILED;
                }
            }
        }
    };
    if options.json {
        print_json(&explanation);
    } else {
        write!(OUT, "{}", explain::text::text(&explanation));
    }
    super::OK
}

/// An engine with the configuration in a file; prints the problems if there are any.
pub(super) fn offline(file: &Path) -> Option<Arc<Engine>> {
    let color = if ERR.has_colour() { Color::Always } else { Color::Never };
    let plan = match Plan::load(file) {
        Ok(plan) => plan,
        Err(problems) => {
            write!(ERR, "{}", problems.render(color));
            return None;
        }
    };
    match daemon::offline_engine(&plan, Cache::new(0)) {
        Ok(engine) => {
            engine.snapshot().zones.errors().iter().for_each(|error| writeln!(ERR, "error: {error}"));
            Some(engine)
        }
        Err(errors) => {
            errors.iter().for_each(|error| writeln!(ERR, "error: {error}"));
            None
        }
    }
}

/// Explains a query with an engine in this process, assuming that its upstreams answer with these addresses, if any.
pub(super) fn here(engine: &Engine, asked: &Asked, addresses: &[IpAddr]) -> Explanation {
    explain::explain(engine, asked, &Premise::of(addresses), Moment::now())
}

/// Asks the running daemon to explain a query.
pub(super) fn of_daemon(
    daemon: &control::Options,
    admin: Option<&str>,
    asked: &Asked,
    addresses: &[IpAddr],
) -> Result<Explanation, ExplainError> {
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let path = format!(
        "/v1/explain?name={}&type={}&client={}&transport={}&dnssec={}&address={}",
        escaped(&asked.name.to_string()),
        asked.qtype,
        escaped(&asked.client.to_string()),
        asked.transport.label(),
        asked.do_bit,
        escaped(&addresses.join(",")),
    );
    let (code, body) = daemon.get(admin, &path)?;
    match serde_json::from_str(&body) {
        Ok(explanation) if code == 200 => Ok(explanation),
        _ if code == 404 => Err(ExplainError::NoExplanation(code, ": it is older than this program".to_owned())),
        _ => Err(ExplainError::NoExplanation(code, format!(": {}", body.trim()))),
    }
}

/// A value in a URL's query (RFC 3986 2.1): everything except letters, digits and `-._~,` is percent-encoded.
fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut escaped, octet| {
        match octet {
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'.' | b'_' | b'~' | b',' => escaped.push(octet.into()),
            _ => write!(escaped, "%{octet:02X}").unwrap_or_default(),
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_a_url_are_escaped() {
        assert_eq!(escaped("a\\.b.example."), "a%5C.b.example.");
        assert_eq!(escaped("fe80::1&x=%"), "fe80%3A%3A1%26x%3D%25");
    }
}
