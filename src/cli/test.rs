//! `tidegate test`: checks a configuration, or the running daemon, against expectations.
//!
//! Without a daemon, an engine in this process explains each case and sends no query. With `--live` the daemon explains
//! it, and if a case says what a client gets, the daemon also gets the query that a client would send.

mod junit;

use std::{
    fmt::Write as _,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use schemars::JsonSchema;
use serde::Serialize;

use super::{
    ask::{self, Answer},
    control, explain,
    output::{ERR, OUT, print_json},
};
use crate::{
    admin::status::Status,
    config::{Color, Expectations, Expected, ExpectedCase, ExpectedVerdict},
    engine::{
        Engine,
        explain::{
            Asked,
            document::{Explanation, GuardWord},
        },
    },
    system_error::SystemError,
    upstream::ServerSpec,
    wire::{Class, Transport, UpstreamQuery},
};

/// The default file of expectations.
const DEFAULT_FILE: &str = "/etc/tidegate/expectations.toml";
/// Time limit for a daemon's answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What to hold against what.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Files of expectations [default: /etc/tidegate/expectations.toml]
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The configuration, in place of the one that each file names [default: TIDEGATE_CONFIG, else
    /// /etc/tidegate/tidegate.toml]
    #[arg(long, value_name = "FILE", conflicts_with = "live")]
    config: Option<PathBuf>,
    /// Hold the running daemon against them
    #[arg(long)]
    live: bool,
    /// Where the daemon answers DNS over UDP and TCP [default: its first listener]
    #[arg(long, value_name = "ADDR[:PORT]", requires = "live", value_parser = dns_address)]
    server: Option<SocketAddr>,
    /// The daemon's `admin.socket`
    #[arg(long, value_name = "PATH", requires = "live")]
    socket: Option<PathBuf>,
    /// Where the daemon's `admin.http` is, to ask there and not over the control socket
    #[arg(long, value_name = "URL", requires = "live")]
    admin: Option<String>,
    /// Write the results to a file, as JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// An address, on port 53 unless it says another.
fn dns_address(text: &str) -> Result<SocketAddr, String> {
    let alone = text.parse().map(|address: IpAddr| SocketAddr::new(address, 53));
    alone.or_else(|_| text.parse()).map_err(|_| "write it as 127.0.0.1, 127.0.0.1:53 or [::1]:53".to_owned())
}

/// The results of all files, which is the document of `--json`.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(super) struct Results {
    /// Cases of which every expectation holds.
    passed: usize,
    /// The other cases.
    failed: usize,
    /// The results, in the order of files and lines.
    cases: Vec<CaseResult>,
}

/// The result of a case.
#[derive(Debug, Serialize, JsonSchema)]
struct CaseResult {
    /// The file of expectations.
    file: String,
    /// The line on which the case begins.
    line: usize,
    /// The name asked for.
    name: String,
    /// The record type asked for.
    #[serde(rename = "type")]
    qtype: String,
    /// The client's address.
    client: String,
    /// The expectations that failed; empty if all held.
    failures: Vec<String>,
    /// The outcome, in a sentence.
    outcome: String,
}

/// Why a case could not be tried.
#[derive(Debug, thiserror::Error)]
enum TestError {
    #[error("{0}; without --live the configuration itself is tested")]
    NoDaemon(#[source] control::DaemonError),
    #[error(transparent)]
    Explain(explain::ExplainError),
    #[error(transparent)]
    Daemon(#[from] control::DaemonError),
    #[error("the daemon at {0} gives no answer: {1}")]
    NoAnswer(SocketAddr, #[source] ask::AskError),
    #[error("it is not known where the daemon answers DNS; say --server ADDR:PORT")]
    NoListener,
}

impl From<explain::ExplainError> for TestError {
    fn from(error: explain::ExplainError) -> Self {
        match error {
            explain::ExplainError::Daemon(error) => Self::NoDaemon(error),
            error @ explain::ExplainError::NoExplanation(..) => Self::Explain(error),
        }
    }
}

/// Exit code 0 = everything holds, 1 = something does not, or no daemon was reached, 2 = a file cannot be used.
pub(super) fn run(options: &Options) -> i32 {
    let default = [PathBuf::from(DEFAULT_FILE)];
    let files = if options.files.is_empty() { &default[..] } else { &options.files[..] };
    // Problems in all files are reported before the first case is tried.
    let read: Vec<_> = files.iter().map(|file| read(file)).collect();
    let mut results = Results::default();
    for (file, expectations) in files.iter().zip(read.into_iter().collect::<Option<Vec<_>>>().unwrap_or_default()) {
        let Some(site) = Site::of(options, &expectations) else { return super::UNUSABLE };
        for case in &expectations.cases {
            match result(&site, file, case) {
                Ok(result) => results.add(result),
                Err(error) => {
                    writeln!(ERR, "tidegate: {error}");
                    return super::FAILED;
                }
            }
        }
    }
    if results.cases.is_empty() {
        return super::UNUSABLE;
    }
    report(options, &results)
}

fn read(file: &Path) -> Option<Expectations> {
    let color = if ERR.has_colour() { Color::Always } else { Color::Never };
    let read = Expectations::load(file);
    read.inspect_err(|problems| write!(ERR, "{}", problems.render(color))).ok()
}

fn report(options: &Options, results: &Results) -> i32 {
    if options.json {
        print_json(results);
    } else {
        write!(OUT, "{}", text(results));
    }
    if let Some(file) = &options.junit
        && let Err(error) = fs::write(file, junit::document(results))
    {
        writeln!(ERR, "tidegate: {} cannot be written: {}", file.display(), SystemError(&error));
        return super::FAILED;
    }
    if results.failed == 0 { super::OK } else { super::FAILED }
}

impl Results {
    fn add(&mut self, result: CaseResult) {
        match result.failures.is_empty() {
            true => self.passed += 1,
            false => self.failed += 1,
        }
        self.cases.push(result);
    }
}

fn text(results: &Results) -> String {
    let mut text = String::new();
    let failed = results.cases.iter().filter(|case| !case.failures.is_empty());
    for CaseResult { file, line, name, qtype, client, failures, outcome } in failed {
        writeln!(text, "{file}:{line}: {name} {qtype} from {client}").unwrap_or_default();
        failures.iter().for_each(|failure| writeln!(text, "  {failure}").unwrap_or_default());
        writeln!(text, "  what happens: {outcome}\n").unwrap_or_default();
    }
    let all = results.passed + results.failed;
    match results.failed {
        0 => writeln!(text, "all {all} expectations hold"),
        failed => writeln!(text, "{failed} of {all} expectations do not hold"),
    }
    .unwrap_or_default();
    text
}

/// What the expectations are checked against.
enum Site {
    Offline(Arc<Engine>),
    Live { daemon: control::Options, admin: Option<String>, server: Option<SocketAddr> },
}

impl Site {
    /// None, after a report, if the configuration cannot be used.
    fn of(options: &Options, expectations: &Expectations) -> Option<Self> {
        let variable = || super::variable("TIDEGATE_CONFIG").map(PathBuf::from);
        if options.live {
            let config = variable().or_else(|| expectations.config.clone());
            let daemon = control::Options { socket: options.socket.clone(), config, json: false };
            return Some(Self::Live { daemon, admin: options.admin.clone(), server: options.server });
        }
        let named = options.config.clone().or_else(|| expectations.config.clone());
        let file = named.or_else(variable).unwrap_or_else(|| super::serve::DEFAULT_FILE.into());
        explain::offline(&file).map(Self::Offline)
    }

    fn explain(&self, case: &ExpectedCase) -> Result<Explanation, TestError> {
        let asked = Asked {
            name: case.name.clone(),
            qtype: case.qtype,
            client: client(case),
            transport: case.transport,
            do_bit: case.dnssec,
        };
        match self {
            Self::Offline(engine) => Ok(explain::here(engine, &asked, &case.addresses)),
            Self::Live { daemon, admin, .. } => {
                Ok(explain::of_daemon(daemon, admin.as_deref(), &asked, &case.addresses)?)
            }
        }
    }

    /// Asks the daemon, if the case can be asked from this host and makes no assumptions.
    fn ask(&self, case: &ExpectedCase) -> Result<Option<Observed>, TestError> {
        let Self::Live { daemon, admin, server } = self else { return Ok(None) };
        let Expected { rcode, records, ede, .. } = &case.expected;
        let is_about_answer = rcode.is_some() || records.is_some() || ede.is_some();
        if !is_about_answer || case.client.is_some() || !case.addresses.is_empty() {
            return Ok(None);
        }
        let server = match server {
            Some(server) => *server,
            None => listener(daemon, admin.as_deref())?,
        };
        let transport = match case.transport {
            Transport::Udp => Transport::Udp,
            _ => Transport::Tcp,
        };
        let query = UpstreamQuery {
            name: case.name.clone(),
            qtype: case.qtype,
            qclass: Class::IN,
            do_bit: case.dnssec,
            cd: false,
        };
        let answer = ask::ask(&ServerSpec::plain(transport, server), &query, PATIENCE);
        answer.map(|answer| Some(Observed::of(&answer, case))).map_err(|error| TestError::NoAnswer(server, error))
    }
}

/// The daemon's first listener, on this host.
fn listener(daemon: &control::Options, admin: Option<&str>) -> Result<SocketAddr, TestError> {
    let (_, text) = daemon.get(admin, "/v1/status")?;
    let status: Status = serde_json::from_str(&text).map_err(|_| TestError::NoListener)?;
    let first = status.listen.iter().find_map(|text| text.parse::<SocketAddr>().ok());
    let mut address = first.ok_or(TestError::NoListener)?;
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    Ok(address)
}

fn client(case: &ExpectedCase) -> IpAddr {
    case.client.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

fn result(site: &Site, file: &Path, case: &ExpectedCase) -> Result<CaseResult, TestError> {
    let explanation = site.explain(case)?;
    let seen = site.ask(case)?.unwrap_or_else(|| Observed::told(&explanation, case));
    let mut failures = Vec::new();
    check_handling(&case.expected, &explanation, &mut failures);
    check_answer(&case.expected, &seen, &mut failures);
    Ok(CaseResult {
        file: file.display().to_string(),
        line: case.place.line,
        name: case.name.to_string(),
        qtype: case.qtype.to_string(),
        client: explanation.client.clone(),
        failures,
        outcome: explanation.outcome.words,
    })
}

/// What a client sees.
#[derive(Debug, Default)]
struct Observed {
    /// None if only an upstream could say.
    rcode: Option<String>,
    ede: Option<u16>,
    /// The data of records of the queried type.
    records: Vec<String>,
}

impl Observed {
    fn of(answer: &Answer, case: &ExpectedCase) -> Self {
        Self {
            rcode: Some(answer.rcode().to_string()),
            ede: answer.extended_errors().first().map(|(code, ..)| *code),
            records: answer.data(case.qtype),
        }
    }

    fn told(explanation: &Explanation, case: &ExpectedCase) -> Self {
        let outcome = &explanation.outcome;
        let qtype = case.qtype.to_string();
        let data = |line: &String| {
            let mut fields = line.splitn(5, '\t').skip(3);
            (fields.next() == Some(&*qtype)).then(|| fields.next().unwrap_or_default().to_owned())
        };
        Self {
            rcode: outcome.rcode.clone(),
            ede: outcome.ede.as_ref().map(|ede| ede.code),
            records: outcome.answer.iter().filter_map(data).collect(),
        }
    }
}

/// A name without its last dot, unless that is all of it.
fn without_end(text: &str) -> &str {
    text.strip_suffix('.').filter(|rest| !rest.is_empty()).unwrap_or(text)
}

/// Checks how the name is handled against the expectation.
fn check_handling(expected: &Expected, explanation: &Explanation, failures: &mut Vec<String>) {
    let step = explanation.steps.first();
    let text = |text: Option<&str>| without_end(text.unwrap_or_default()).to_owned();
    let rule = text(step.and_then(|step| step.rule.as_deref()));
    let group = text(step.and_then(|step| Some(step.groups.first()?.name.as_str())));
    let view = text(step.and_then(|step| step.view.as_deref()));
    let zone = text(step.and_then(|step| step.zone.as_deref()));
    let all = [
        ("rule", &expected.rule, rule),
        ("group", &expected.group, group),
        ("view", &expected.view, view),
        ("zone", &expected.zone, zone.clone()),
    ];
    for (what, wanted, is) in all {
        if let Some(wanted) = wanted
            && !without_end(wanted).eq_ignore_ascii_case(&is)
        {
            failures.push(format!("{what} is {}, and should be {}", named(&is), named(wanted)));
        }
    }
    if let Some(wanted) = expected.local
        && wanted == zone.is_empty()
    {
        failures.push(match wanted {
            true => "it is not answered here, and should be".to_owned(),
            false => format!("it is answered here, in {zone}, and should not be"),
        });
    }
    if let Some(wanted) = expected.guard {
        let verdicts = || explanation.steps.iter().filter_map(|step| step.guard.as_ref()?.verdict);
        let is = verdicts().max_by_key(|verdict| word(*verdict).0).unwrap_or(GuardWord::Pass);
        if word(is).1 != wanted {
            failures.push(format!("the guard says {:?}, and should say {wanted:?}", word(is).1).to_lowercase());
        }
    }
}

/// A verdict in the words of expectations, and its severity.
const fn word(verdict: GuardWord) -> (u8, ExpectedVerdict) {
    match verdict {
        GuardWord::Pass => (0, ExpectedVerdict::Pass),
        GuardWord::Log => (1, ExpectedVerdict::Log),
        GuardWord::Strip => (2, ExpectedVerdict::Strip),
        GuardWord::Refuse => (3, ExpectedVerdict::Refuse),
    }
}

fn named(text: &str) -> String {
    if text.is_empty() { "none".to_owned() } else { format!("\"{text}\"") }
}

/// Checks what a client sees against the expectation.
fn check_answer(expected: &Expected, seen: &Observed, failures: &mut Vec<String>) {
    let Expected { rcode, records, ede, .. } = expected;
    let Some(is) = &seen.rcode else {
        if rcode.is_some() || records.is_some() || ede.is_some() {
            let advice = "say what it answers (address = [\"…\"]), or ask the daemon: --live, in a case without client";
            failures.push(format!("only an upstream can tell the answer; {advice}"));
        }
        return;
    };
    if let Some(wanted) = rcode
        && wanted.to_string() != *is
    {
        failures.push(format!("the response code is {is}, and should be {wanted}"));
    }
    if let Some(wanted) = ede
        && seen.ede != Some(*wanted)
    {
        let is = seen.ede.map_or_else(|| "none".to_owned(), |code| code.to_string());
        failures.push(format!("the extended error is {is}, and should be {wanted}"));
    }
    if let Some(wanted) = records {
        let sorted = |all: &[String]| {
            let mut all: Vec<String> = all.iter().map(|data| data.to_ascii_lowercase()).collect();
            all.sort_unstable();
            all
        };
        let (wanted, is) = (sorted(wanted), sorted(&seen.records));
        if wanted != is {
            let list = |all: &[String]| if all.is_empty() { "none".to_owned() } else { all.join(", ") };
            failures.push(format!("the records are {}, and should be {}", list(&is), list(&wanted)));
        }
    }
}
