//! `tidegate query`: a small dig.

use std::{
    fmt::Display,
    net::{IpAddr, SocketAddr},
    panic::resume_unwind,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use schemars::JsonSchema;
use serde::Serialize;

use super::{
    ask::{self, Answer},
    output::{ERR, OUT, print_json},
    validate::{self, Anchors, Verdict},
};
use crate::{
    config::{FixedServer, reverse_zones},
    daemon, files,
    system_error::SystemError,
    tls::Roots,
    upstream::{Egress, ServerSpec},
    wire::{Class, Name, Rcode, RecordType, Transport, UpstreamQuery, record::Section},
};

/// Time to wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What to ask, and which server.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// A name and the types to ask for (by default A), or an address, which is asked for its PTR; the server, by default
    /// the one on this host, as [scheme://]address[:port][/path][#tls-name] with udp, tcp, tls, https or quic as scheme
    #[arg(required = true, num_args = 1.., value_name = "NAME")]
    words: Vec<String>,
    /// Ask for signatures (DO)
    #[arg(long)]
    dnssec: bool,
    /// Walk the chain of signatures from the trust anchor to the answer, and name the link that broke
    #[arg(long)]
    validate: bool,
    /// File of DNSKEY records to trust, as dig prints them [default: the root's keys of 2017 and 2024]
    #[arg(long, value_name = "FILE", requires = "validate")]
    anchor: Option<PathBuf>,
    /// PEM file of CA certificates for tls, https and quic [default: the system's]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// The document of `--json`: one response.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct QueryDocument {
    /// The name asked for.
    name: String,
    /// The record type asked for.
    #[serde(rename = "type")]
    qtype: String,
    /// Address and port of the server.
    server: String,
    /// The transport that the response came over: TCP after a truncated one over UDP.
    transport: &'static str,
    /// The response code.
    rcode: String,
    /// The flags that are set.
    flags: Vec<&'static str>,
    /// Records of the answer section, in presentation format (RFC 1035 5.1).
    answer: Vec<String>,
    /// Records of the authority section.
    authority: Vec<String>,
    /// Records of the additional section, without OPT.
    additional: Vec<String>,
    /// Extended DNS errors (RFC 8914).
    extended_errors: Vec<ExtendedErrorText>,
    /// Time until the response, in seconds.
    seconds: f64,
}

/// An extended DNS error.
#[derive(Debug, Serialize, JsonSchema)]
struct ExtendedErrorText {
    /// The info-code.
    code: u16,
    /// The info-code's meaning.
    meaning: &'static str,
    /// The extra text; empty if there is none.
    text: String,
}

/// The parsed words of the command line.
struct QueryPlan {
    queries: Vec<UpstreamQuery>,
    server: ServerSpec,
}

pub(super) fn run(options: &Options) -> i32 {
    let QueryPlan { queries, server } = match read(options) {
        Ok(asked) => asked,
        Err(problem) => {
            writeln!(ERR, "tidegate: {problem}");
            return super::UNUSABLE;
        }
    };
    if options.validate {
        return validated(options, &queries, &server);
    }
    // All at once, as a stub resolver asks for A and AAAA; the worst result is the exit code.
    let answers: Vec<_> = thread::scope(|scope| {
        let asking = queries.iter().map(|query| scope.spawn(|| ask::ask(&server, query, TIMEOUT)));
        let asking: Vec<_> = asking.collect();
        asking.into_iter().map(|asking| asking.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    });
    let verdicts = queries.iter().zip(answers).enumerate().map(|(at, (query, answer))| match answer {
        Ok(answer) => {
            if options.json {
                print_json(&QueryDocument::new(query, &server, &answer));
            } else {
                write!(OUT, "{}{}", if at == 0 { "" } else { "\n" }, text(query, &server, &answer));
            }
            if matches!(answer.rcode(), Rcode::NOERROR | Rcode::NXDOMAIN) { super::OK } else { super::FAILED }
        }
        Err(error) => {
            writeln!(ERR, "tidegate: {} {}: {error}", query.name, query.qtype);
            super::UNUSABLE
        }
    });
    verdicts.fold(super::OK, i32::max)
}

/// Judges each answer, one after the other: they share most of their chain, but not what was asked for it.
fn validated(options: &Options, queries: &[UpstreamQuery], server: &ServerSpec) -> i32 {
    let anchors = match options.anchor.as_deref().map_or_else(|| Ok(Anchors::default()), Anchors::from_file) {
        Ok(anchors) => anchors,
        Err(problem) => {
            writeln!(ERR, "tidegate: {problem}");
            return super::UNUSABLE;
        }
    };
    let verdicts = queries.iter().enumerate().map(|(at, query)| {
        let validation = validate::validate(query, server, &anchors);
        match options.json {
            true => print_json(&validation),
            false => write!(OUT, "{}{}", if at == 0 { "" } else { "\n" }, validate::text(&validation)),
        }
        match validation.verdict {
            Verdict::Secure | Verdict::Insecure => super::OK,
            Verdict::Bogus => super::FAILED,
            Verdict::Indeterminate => super::UNUSABLE,
        }
    });
    verdicts.fold(super::OK, i32::max)
}

fn read(options: &Options) -> Result<QueryPlan, String> {
    let (mut name, mut types, mut server) = (None, Vec::new(), None);
    for word in &options.words {
        if let Some(text) = word.strip_prefix('@') {
            if server.is_some() {
                return Err(format!("\"{word}\" is a second server; one is asked"));
            }
            server = Some(read_server(text, options.ca.as_deref())?);
        } else if name.is_none() {
            name = Some(word);
        } else {
            let qtype = record_type(word)?;
            if !types.contains(&qtype) {
                types.push(qtype);
            }
        }
    }
    let word = name.ok_or_else(|| "there is no name to ask for".to_owned())?;
    let (name, default) = name_and_type(word, &types)?;
    if types.is_empty() {
        types.push(default);
    }
    let query =
        |qtype| UpstreamQuery { name: name.clone(), qtype, qclass: Class::IN, do_bit: options.dnssec, cd: false };
    let this_host = || ServerSpec::plain(Transport::Udp, SocketAddr::from(([127, 0, 0, 1], 53)));
    Ok(QueryPlan { queries: types.into_iter().map(query).collect(), server: server.unwrap_or_else(this_host) })
}

/// A record type by its mnemonic or as `TYPE65280`.
pub(super) fn record_type(word: &str) -> Result<RecordType, String> {
    word.parse().map_err(|_| format!("\"{word}\" is no record type"))
}

/// The name that a word means, and the type to ask for by default: of an address, its PTR, unless another type is named.
pub(super) fn name_and_type(word: &str, types: &[RecordType]) -> Result<(Name, RecordType), String> {
    let pointer = word.parse().ok().and_then(ptr_name).filter(|_| types.iter().all(|&qtype| qtype == RecordType::PTR));
    match pointer {
        Some(name) => Ok((name, RecordType::PTR)),
        None => {
            let name = word.parse::<Name>().map_err(|error| format!("\"{word}\" is no name: {error}"))?;
            Ok((name, RecordType::A))
        }
    }
}

/// The name that holds an address's PTR records.
fn ptr_name(address: IpAddr) -> Option<Name> {
    reverse_zones(address.into()).pop()
}

fn read_server(text: &str, ca: Option<&Path>) -> Result<ServerSpec, String> {
    let no_server = |problem: &dyn Display| format!("\"{text}\" is no server: {problem}; write @ADDRESS[:PORT]");
    let server: FixedServer = text.parse().map_err(|error| no_server(&error))?;
    let no_bundle = |path: &Path, problem: &dyn Display| format!("{} cannot be used: {problem}", path.display());
    let read = |path: &Path| {
        let pem = files::read(path).map_err(|error| no_bundle(path, &SystemError(&error)))?;
        Roots::from_pem(&pem).map_err(|error| no_bundle(path, &error))
    };
    let given = ca.map(read).transpose()?;
    let roots = || given.unwrap_or_else(Roots::of_system);
    Ok(daemon::server_spec(&server, Egress::default(), roots))
}

fn text(query: &UpstreamQuery, server: &ServerSpec, answer: &Answer) -> String {
    let mut text = format!("{} {}  {}\n", query.name, query.qtype, answer.rcode());
    for (title, section) in
        [("answer", Section::Answer), ("authority", Section::Authority), ("additional", Section::Additional)]
    {
        let lines = answer.lines(section);
        if !lines.is_empty() {
            text += &format!("\n{title}:\n");
        }
        for line in lines {
            text += &format!("  {line}\n");
        }
    }
    for (code, meaning, words) in answer.extended_errors() {
        let colon = if words.is_empty() { "" } else { ": " };
        text += &format!("\nreason {code} ({meaning}){colon}{}\n", printable(&words));
    }
    let milliseconds = answer.took.as_secs_f64() * 1000.0;
    let transport = answer.transport.label().to_ascii_uppercase();
    let flags = answer.flags().join(" ");
    text + &format!("\n{milliseconds:.2} ms from {} over {transport}; flags {flags}\n", server.address)
}

/// A server's text with control characters escaped, so that they cannot affect the terminal.
pub(super) fn printable(words: &str) -> String {
    words.chars().flat_map(|c| if c.is_control() { c.escape_debug().collect() } else { vec![c] }).collect()
}

impl QueryDocument {
    fn new(query: &UpstreamQuery, server: &ServerSpec, answer: &Answer) -> Self {
        let error = |(code, meaning, text)| ExtendedErrorText { code, meaning, text };
        Self {
            name: query.name.to_string(),
            qtype: query.qtype.to_string(),
            server: server.address.to_string(),
            transport: answer.transport.label(),
            rcode: answer.rcode().to_string(),
            flags: answer.flags(),
            answer: answer.lines(Section::Answer),
            authority: answer.lines(Section::Authority),
            additional: answer.lines(Section::Additional),
            extended_errors: answer.extended_errors().into_iter().map(error).collect(),
            seconds: answer.took.as_secs_f64(),
        }
    }
}
