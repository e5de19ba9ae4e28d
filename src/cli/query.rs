//! `tidegate query`: a small dig.

use std::{
    fmt::Display,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::json;

use super::{
    ask::{self, Answer},
    output::{ERR, OUT},
};
use crate::{
    config::FixedServer,
    daemon,
    tls::Roots,
    upstream::{ServerSpec, Transport, Via},
    wire::{Class, Name, Rcode, RecordType, UpstreamQuery, record::Section},
};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// What to ask whom.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// NAME [TYPE] [@SERVER]: [scheme://]address[:port][/path][#tls-name], with udp, tcp, tls, https or quic as scheme;
    /// by default the server on this host
    #[arg(required = true, num_args = 1..=3)]
    words: Vec<String>,
    /// Ask for signatures (DO)
    #[arg(long)]
    dnssec: bool,
    /// PEM file of CA certificates for tls, https and quic [default: the system's]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

struct Asked {
    query: UpstreamQuery,
    server: ServerSpec,
}

pub(super) fn run(options: &Options) -> i32 {
    let asked = match read(options) {
        Ok(asked) => asked,
        Err(problem) => {
            writeln!(ERR, "tidegate: {problem}");
            return super::UNUSABLE;
        }
    };
    match ask::ask(&asked.server, &asked.query, PATIENCE) {
        Ok(answer) => {
            if options.json {
                print_json(&asked, &answer);
            } else {
                print(&asked, &answer);
            }
            if matches!(answer.rcode(), Rcode::NOERROR | Rcode::NXDOMAIN) { super::OK } else { super::FAILED }
        }
        Err(error) => {
            writeln!(ERR, "tidegate: {error}");
            super::UNUSABLE
        }
    }
}

fn read(options: &Options) -> Result<Asked, String> {
    let mut name = None;
    let mut qtype = RecordType::A;
    let mut server = ServerSpec::plain(Transport::Udp, SocketAddr::from(([127, 0, 0, 1], 53)));
    for word in &options.words {
        if let Some(text) = word.strip_prefix('@') {
            server = read_server(text, options.ca.as_deref())?;
        } else if name.is_none() {
            name = Some(word.parse::<Name>().map_err(|error| format!("\"{word}\" is no name: {error}"))?);
        } else {
            qtype = word.parse().map_err(|_| format!("\"{word}\" is no record type"))?;
        }
    }
    let name = name.ok_or_else(|| "there is no name to ask for".to_owned())?;
    let query = UpstreamQuery { name, qtype, qclass: Class::IN, do_bit: options.dnssec, cd: false };
    Ok(Asked { query, server })
}

fn read_server(text: &str, ca: Option<&Path>) -> Result<ServerSpec, String> {
    let no_server = |problem: &dyn Display| format!("\"{text}\" is no server: {problem}; write @ADDRESS[:PORT]");
    let server: FixedServer = text.parse().map_err(|error| no_server(&error))?;
    let no_bundle = |path: &Path, problem: &dyn Display| format!("{} cannot be used: {problem}", path.display());
    let read = |path: &Path| {
        let pem = fs::read(path).map_err(|error| no_bundle(path, &error))?;
        Roots::from_pem(&pem).map_err(|error| no_bundle(path, &error))
    };
    let given = ca.map(read).transpose()?;
    let roots = || given.unwrap_or_else(Roots::of_system);
    daemon::server_spec(&server, Via::default(), roots).ok_or_else(|| no_server(&"its interface does not exist"))
}

fn print(asked: &Asked, answer: &Answer) {
    writeln!(OUT, "{} {}  {}", asked.query.name, asked.query.qtype, answer.rcode());
    for (title, section) in
        [("answer", Section::Answer), ("authority", Section::Authority), ("additional", Section::Additional)]
    {
        let lines = answer.lines(section);
        if !lines.is_empty() {
            writeln!(OUT, "\n{title}:");
        }
        for line in lines {
            writeln!(OUT, "  {line}");
        }
    }
    for (code, meaning, text) in answer.extended_errors() {
        let colon = if text.is_empty() { "" } else { ": " };
        writeln!(OUT, "\nreason {code} ({meaning}){colon}{text}");
    }
    let (took, server) = (milliseconds(answer), asked.server.address);
    let carrier = answer.carrier.label().to_ascii_uppercase();
    writeln!(OUT, "\n{took} from {server} over {carrier}; flags {}", answer.flags().join(" "));
}

fn milliseconds(answer: &Answer) -> String {
    format!("{:.2} ms", answer.took.as_secs_f64() * 1000.0)
}

fn print_json(asked: &Asked, answer: &Answer) {
    let errors: Vec<_> = answer
        .extended_errors()
        .into_iter()
        .map(|(code, meaning, text)| json!({ "code": code, "meaning": meaning, "text": text }))
        .collect();
    let document = json!({
        "name": asked.query.name.to_string(),
        "type": asked.query.qtype.to_string(),
        "server": asked.server.address.to_string(),
        "transport": answer.carrier.label(),
        "rcode": answer.rcode().to_string(),
        "flags": answer.flags(),
        "answer": answer.lines(Section::Answer),
        "authority": answer.lines(Section::Authority),
        "additional": answer.lines(Section::Additional),
        "extended_errors": errors,
        "seconds": answer.took.as_secs_f64(),
    });
    writeln!(OUT, "{document}");
}
