//! `tidegate query`: a small dig.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use serde_json::json;

use super::ask::{self, Answer, Carrier};
use crate::wire::{Class, Name, Rcode, RecordType, UpstreamQuery, record::Section};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// What to ask whom.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// NAME [TYPE] [@SERVER]: an address with or without port and scheme (udp:// or tcp://); by default the server on
    /// this host
    #[arg(required = true, num_args = 1..=3)]
    words: Vec<String>,
    /// Ask for signatures (DO)
    #[arg(long)]
    dnssec: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

struct Asked {
    query: UpstreamQuery,
    server: SocketAddr,
    carrier: Carrier,
}

pub(super) fn run(options: &Options) -> i32 {
    let asked = match read(options) {
        Ok(asked) => asked,
        Err(problem) => {
            eprintln!("tidegate: {problem}");
            return super::UNUSABLE;
        }
    };
    match ask::ask(asked.server, &asked.query, asked.carrier, PATIENCE) {
        Ok(answer) => {
            if options.json {
                print_json(&asked, &answer);
            } else {
                print(&asked, &answer);
            }
            if matches!(answer.rcode(), Rcode::NOERROR | Rcode::NXDOMAIN) { super::OK } else { super::FAILED }
        }
        Err(error) => {
            eprintln!("tidegate: {error}");
            super::UNUSABLE
        }
    }
}

fn read(options: &Options) -> Result<Asked, String> {
    let mut name = None;
    let mut qtype = RecordType::A;
    let mut server = (SocketAddr::from(([127, 0, 0, 1], 53)), Carrier::Udp);
    for word in &options.words {
        if let Some(text) = word.strip_prefix('@') {
            server = read_server(text).ok_or_else(|| format!("\"{text}\" is no server: write @ADDRESS[:PORT]"))?;
        } else if name.is_none() {
            name = Some(word.parse::<Name>().map_err(|error| format!("\"{word}\" is no name: {error}"))?);
        } else {
            qtype = word.parse().map_err(|_| format!("\"{word}\" is no record type"))?;
        }
    }
    let name = name.ok_or_else(|| "there is no name to ask for".to_owned())?;
    let query = UpstreamQuery { name, qtype, qclass: Class::IN, do_bit: options.dnssec, cd: false };
    Ok(Asked { query, server: server.0, carrier: server.1 })
}

fn read_server(text: &str) -> Option<(SocketAddr, Carrier)> {
    let (carrier, text) = match text.split_once("://") {
        Some(("udp", rest)) => (Carrier::Udp, rest),
        Some(("tcp", rest)) => (Carrier::Tcp, rest),
        Some(_) => return None,
        None => (Carrier::Udp, text),
    };
    let address = text.parse::<SocketAddr>().ok().or_else(|| Some((text.parse::<IpAddr>().ok()?, 53).into()))?;
    Some((address, carrier))
}

fn print(asked: &Asked, answer: &Answer) {
    println!("{} {}  {}", asked.query.name, asked.query.qtype, answer.rcode());
    for (title, section) in
        [("answer", Section::Answer), ("authority", Section::Authority), ("additional", Section::Additional)]
    {
        let lines = answer.lines(section);
        if !lines.is_empty() {
            println!("\n{title}:");
        }
        for line in lines {
            println!("  {line}");
        }
    }
    for (code, meaning, text) in answer.extended_errors() {
        let colon = if text.is_empty() { "" } else { ": " };
        println!("\nreason {code} ({meaning}){colon}{text}");
    }
    let carrier = if answer.carrier == Carrier::Udp { "UDP" } else { "TCP" };
    println!("\n{} from {} over {carrier}; flags {}", milliseconds(answer), asked.server, answer.flags().join(" "));
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
        "server": asked.server.to_string(),
        "rcode": answer.rcode().to_string(),
        "flags": answer.flags(),
        "answer": answer.lines(Section::Answer),
        "authority": answer.lines(Section::Authority),
        "additional": answer.lines(Section::Additional),
        "extended_errors": errors,
        "seconds": answer.took.as_secs_f64(),
    });
    println!("{document}");
}
