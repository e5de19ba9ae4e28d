//! Expectations for a configuration: the cases that `tidegate test` checks it against.
//!
//! A file has a table `[[case]]` for each query, with what must hold. All problems in it are reported at once, as for a
//! configuration.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use super::{
    build,
    error::{Problem, Problems},
    file::{CaseSection, ExpectationsFile, Located, Text, Texts},
    plan::WrittenAt,
    source::{Source, written_at},
};
use crate::{
    system_error::SystemError,
    wire::{Name, Rcode, RecordType, Transport},
};

/// The cases of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectations {
    /// The configuration that they are for, unless another is given.
    pub config: Option<PathBuf>,
    /// The cases in the order of the file.
    pub cases: Vec<ExpectedCase>,
}

/// A query and its expectations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedCase {
    /// Where it is written.
    pub place: WrittenAt,
    /// The name.
    pub name: Name,
    /// The record type.
    pub qtype: RecordType,
    /// The client's address; none = this host.
    pub client: Option<IpAddr>,
    /// The transport of the query.
    pub transport: Transport,
    /// Whether the query sets the DO bit.
    pub dnssec: bool,
    /// The addresses that the upstream is assumed to answer with; empty = its answer is unknown.
    pub addresses: Vec<IpAddr>,
    /// The expectations.
    pub expected: Expected,
}

/// The expectations for a query; a field that is none is not checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expected {
    /// The rule for the name; empty = no rule.
    pub rule: Option<String>,
    /// The group that its queries go to; empty = no group.
    pub group: Option<String>,
    /// The rule whose `clients` the client is in; empty = none.
    pub view: Option<String>,
    /// The local zone that answers, or `local_hosts`; empty = none.
    pub zone: Option<String>,
    /// Whether the name is answered here.
    pub local: Option<bool>,
    /// What the guard does with the answer.
    pub guard: Option<ExpectedVerdict>,
    /// The response code.
    pub rcode: Option<Rcode>,
    /// The data of the answer's records of the query's type, in any order.
    pub records: Option<Vec<String>>,
    /// The extended error.
    pub ede: Option<u16>,
}

/// What a guard does with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedVerdict {
    /// It does nothing.
    Pass,
    /// It counts the answer and lets it through.
    Log,
    /// It removes addresses.
    Strip,
    /// It refuses the answer.
    Refuse,
}

impl Expectations {
    /// Reads the file at `path`.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        let name = path.display().to_string();
        match fs::read(path) {
            Ok(octets) => Self::parse(&name, octets),
            Err(error) => {
                let problem = Problem::without_place(format!("{name}: cannot be read: {}", SystemError(&error)));
                let help = "name a file of expectations: [[case]], and below it lines such as name = \"sts.eu-west-1.amazonaws.com\" and rule = \"aws\"";
                Err(Problems::new(Vec::new().into(), vec![problem.help(help)]))
            }
        }
    }

    /// Reads `text`; `name` stands in messages, and relative paths start from its directory.
    pub fn from_text(name: &str, text: &str) -> Result<Self, Problems> {
        Self::parse(name, text.into())
    }

    fn parse(name: &str, octets: Vec<u8>) -> Result<Self, Problems> {
        let (file, loaded) = ExpectationsFile::parse(name, octets);
        let mut reading = ExpectationsReader { sources: &loaded.sources, problems: loaded.problems };
        let cases: Vec<ExpectedCase> = file.cases.iter().filter_map(|case| reading.case(case)).collect();
        let mut problems = reading.problems;
        if problems.is_empty() && cases.is_empty() {
            let problem = Problem::without_place(format!("{name}: there is no case in it"));
            problems.push(problem.help("write [[case]], and below it a name and what must hold for it"));
        }
        if !problems.is_empty() {
            return Err(Problems::new(loaded.sources.into(), problems));
        }
        Ok(Self { config: file.config.and_then(|config| build::path(&loaded.sources, &config)), cases })
    }
}

struct ExpectationsReader<'a> {
    sources: &'a [Source],
    problems: Vec<Problem>,
}

impl ExpectationsReader<'_> {
    fn case(&mut self, located: &Located<CaseSection>) -> Option<ExpectedCase> {
        let case = &located.value;
        let addresses = self.addresses(case.address.as_ref());
        let by_address = match addresses.first() {
            Some(IpAddr::V6(_)) => RecordType::AAAA,
            _ => RecordType::A,
        };
        let read = ExpectedCase {
            place: written_at(self.sources, &located.place),
            name: self.name(located)?,
            qtype: self.parsed(case.qtype.as_ref(), "record type").unwrap_or(by_address),
            client: self.parsed(case.client.as_ref(), "address"),
            transport: self.transport(case.transport.as_ref()),
            dnssec: case.dnssec(),
            addresses,
            expected: self.expected(case),
        };
        let given = |text: &str| Problem::at(&located.place, text);
        if read.expected == Expected::default() {
            let help = "say what must hold: rule, group, view, zone, local, guard, rcode, records or ede";
            self.problems.push(given("this case expects nothing").help(help));
        }
        if let Some(guard) = &case.guard
            && case.address.is_none()
        {
            let problem = Problem::at(&guard.place, "the guard has no answer to judge");
            self.problems.push(problem.help("say what the upstream is taken to answer: address = [\"52.218.1.1\"]"));
        }
        Some(read)
    }

    fn name(&mut self, located: &Located<CaseSection>) -> Option<Name> {
        let Some(text) = &located.value.name else {
            self.problems.push(Problem::at(&located.place, "this case has no name").help("name = \"www.example\""));
            return None;
        };
        match text.value.parse() {
            Ok(name) => Some(name),
            Err(error) => {
                self.problems.push(Problem::at(&text.place, format!("\"{}\" is no name: {error}", text.value)));
                None
            }
        }
    }

    fn expected(&mut self, case: &CaseSection) -> Expected {
        let text = |text: &Option<Text>| text.as_ref().map(|text| text.value.clone());
        Expected {
            rule: text(&case.rule),
            group: text(&case.group),
            view: text(&case.view),
            zone: text(&case.zone),
            local: case.local.as_ref().map(|local| local.value),
            guard: case.guard.as_ref().map(|guard| guard.value),
            rcode: self.parsed(case.rcode.as_ref(), "response code"),
            records: case.records.as_ref().map(|all| all.value.iter().map(|text| text.value.clone()).collect()),
            ede: case.ede.as_ref().and_then(|ede| u16::try_from(ede.value).ok()),
        }
    }

    fn addresses(&mut self, texts: Option<&Texts>) -> Vec<IpAddr> {
        let texts = texts.map(|texts| texts.value.as_slice()).unwrap_or_default();
        texts.iter().filter_map(|text| self.parsed(Some(text), "address")).collect()
    }

    fn transport(&mut self, text: Option<&Text>) -> Transport {
        let Some(text) = text else { return Transport::Udp };
        let found = Transport::ALL.into_iter().find(|transport| transport.label() == text.value);
        found.unwrap_or_else(|| {
            let all = Transport::ALL.map(Transport::label).join(", ");
            let message = format!("\"{}\" is no transport; there are {all}", text.value);
            self.problems.push(Problem::at(&text.place, message));
            Transport::Udp
        })
    }

    /// Parses a text; a wrong one is reported as a problem.
    fn parsed<T: FromStr>(&mut self, text: Option<&Text>, kind: &str) -> Option<T> {
        let text = text?;
        let value = text.value.parse().ok();
        if value.is_none() {
            self.problems.push(Problem::at(&text.place, format!("\"{}\" is no {kind}", text.value)));
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_read_with_its_defaults() {
        let text = "config = \"site.toml\"\n\n[[case]]\nname = \"WWW.Example\"\naddress = [\"fd00::1\"]\nguard = \"refuse\"\n\
                    [[case]]\nname = \"a.\"\ntype = \"TXT\"\nclient = \"10.1.1.1\"\nlocal = false\nrcode = \"refused\"\n";
        let read = Expectations::from_text("/etc/e.toml", text).unwrap();
        assert_eq!(read.config.as_deref(), Some(Path::new("/etc/site.toml")));
        let [one, two] = &read.cases[..] else { panic!("{read:?}") };
        assert_eq!((one.place.line, one.name.to_string().as_str(), one.qtype), (3, "www.example.", RecordType::AAAA));
        assert_eq!(
            (one.client, one.transport, one.expected.guard),
            (None, Transport::Udp, Some(ExpectedVerdict::Refuse))
        );
        assert_eq!((two.place.line, two.qtype, two.client), (7, RecordType::TXT, "10.1.1.1".parse().ok()));
        assert_eq!((two.expected.local, two.expected.rcode), (Some(false), Some(Rcode::REFUSED)));
    }

    #[test]
    fn every_mistake_is_told_at_once_with_its_line() {
        let text = "conf = \"x\"\n[[case]]\nname = \"a..b\"\nlocal = 1\n[[case]]\nrule = \"aws\"\n[[case]]\nname = \"a\"\n\
                    [[case]]\nname = \"b\"\ntype = \"B\"\nclient = \"here\"\nguard = \"refused\"\nrcode = \"NO\"\ntransport = \"sctp\"\n";
        let problems = Expectations::from_text("e.toml", text).unwrap_err();
        let lines: Vec<String> = problems.lines().collect();
        for expected in [
            "e.toml:1:1: the file has no key \"conf\"",
            "e.toml:3:8: \"a..b\" is no name",
            "e.toml:4:9: case.local must be true or false",
            "e.toml:5:1: this case has no name",
            "e.toml:7:1: this case expects nothing",
            "e.toml:11:8: \"B\" is no record type",
            "e.toml:12:10: \"here\" is no address",
            "e.toml:13:9: guard cannot be \"refused\"; did you mean \"refuse\"?",
            "e.toml:13:9: the guard has no answer to judge",
            "e.toml:14:9: \"NO\" is no response code",
            "e.toml:15:13: \"sctp\" is no transport",
        ] {
            assert!(lines.iter().any(|line| line.starts_with(expected)), "{expected}: {lines:#?}");
        }
        assert_eq!(lines.len(), 11, "{lines:#?}");
        let empty = Expectations::from_text("e.toml", "").unwrap_err();
        assert!(empty.lines().any(|line| line.contains("no case")));
    }
}
