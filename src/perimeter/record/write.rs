//! Appends to the record. Every write ends synced, or leaves the file as it was.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    net::IpAddr,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;

use super::{
    EVERY, Line, NameLine, PREFIX, RuleLine, SUFFIX,
    read::{day_of, files},
};
use crate::{
    config::{Live, OnPublic, RulePlan, is_aws_name},
    perimeter::{Exposure, NameVerdict, Report, Seen},
    wire::Name,
};

/// The most octets of a day's file. Names beyond it are left out, and counted.
const MOST_OCTETS: u64 = 64 << 20;

/// What the file says about a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Written {
    answers: [u64; NameVerdict::ALL.len()],
    clients: u32,
    verdict: NameVerdict,
    outcome: Option<Exposure>,
    address: Option<IpAddr>,
}

/// The configuration in force, in the form of lines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct InForce {
    hash: String,
    rules: Vec<RuleLine>,
    networks: HashMap<String, Vec<IpNet>>,
}

/// Keeps the record in a folder.
#[derive(Debug)]
pub struct Recorder {
    folder: PathBuf,
    keep: Duration,
    version: String,
    in_force: InForce,
    /// The day and configuration that were last written to the open file.
    told: Option<(u64, String)>,
    has_started: bool,
    written: HashMap<Name, Written>,
    left_out: u64,
}

impl Recorder {
    /// For files in `folder`, which are deleted once they are older than `keep`.
    pub fn new(folder: &Path, keep: Duration, version: &str) -> Self {
        Self {
            folder: folder.to_owned(),
            keep,
            version: version.to_owned(),
            in_force: InForce::default(),
            told: None,
            has_started: false,
            written: HashMap::new(),
            left_out: 0,
        }
    }

    /// Makes the folder, where it is missing.
    pub fn make_folder(folder: &Path) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o750).create(folder)
    }

    /// Sets the configuration in force.
    pub fn configure(&mut self, hash: &str, live: &Live) {
        if self.in_force.hash == hash {
            return;
        }
        let rule = |rule: &RulePlan| RuleLine {
            rule: rule.name.to_string(),
            aws: rule.zones.iter().any(is_aws_name),
            on_public: rule.guard.as_ref().map(|guard| word(guard.on_public).to_owned()),
            networks: rule.guard.iter().flat_map(|guard| &guard.networks).map(ToString::to_string).collect(),
        };
        let networks = |rule: &RulePlan| {
            (rule.name.to_string(), rule.guard.iter().flat_map(|guard| guard.networks.clone()).collect())
        };
        self.in_force = InForce {
            hash: hash.to_owned(),
            rules: live.rules.iter().map(rule).collect(),
            networks: live.rules.iter().map(networks).collect(),
        };
    }

    /// Appends what is new in the report. Where that fails the file is as it was, and the next call writes it.
    pub fn append(&mut self, report: &Report, wall: u64) -> io::Result<()> {
        self.write(report, wall, None)
    }

    /// Appends what is new, and that the daemon ends in order.
    pub fn stop(&mut self, report: &Report, wall: u64) -> io::Result<()> {
        self.write(report, wall, Some(Line::Stop { at: wall }))
    }

    fn write(&mut self, report: &Report, wall: u64, last: Option<Line>) -> io::Result<()> {
        Self::make_folder(&self.folder)?;
        let day = wall / 86_400;
        let path = self.folder.join(format!("{PREFIX}{}{SUFFIX}", day_of(wall)));
        let is_new = !path.exists();
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(&path)?;
        let length = file.seek(SeekFrom::End(0))?;
        let mut text = Vec::new();
        // A crash may have left half a line behind.
        if length > 0 && !ends_a_line(&mut file)? {
            text.push(b'\n');
        }
        if !self.has_started {
            push(&mut text, &Line::Start { at: wall, version: self.version.clone() });
        }
        let told = (day, self.in_force.hash.clone());
        if self.told.as_ref() != Some(&told) || !self.has_started {
            let InForce { hash, rules, .. } = self.in_force.clone();
            push(&mut text, &Line::Configuration { at: wall, hash, rules });
        }
        let (mut names, mut left_out) = (Vec::new(), self.left_out);
        for seen in &report.names {
            let now = Written::of(seen);
            if self.written.get(&seen.name) == Some(&now) {
                continue;
            }
            let before = self.written.get(&seen.name).map_or([0; 4], |written| written.answers);
            let line = Line::Name(self.name_line(seen, before, wall));
            let room = MOST_OCTETS.saturating_sub(length + u64::try_from(text.len()).unwrap_or(u64::MAX));
            match room {
                0 => left_out += 1,
                _ => push(&mut text, &line),
            }
            names.push((seen.name.clone(), now));
        }
        push(&mut text, &Line::Minute { at: wall, given_up: report.given_up, left_out });
        last.iter().for_each(|last| push(&mut text, last));
        if let Err(error) = file.write_all(&text).and_then(|()| file.sync_data()) {
            // Half a line would be taken for damage.
            drop(file.set_len(length));
            return Err(error);
        }
        if is_new {
            File::open(&self.folder)?.sync_all()?;
            self.delete_old(wall);
        }
        (self.told, self.has_started, self.left_out) = (Some(told), true, left_out);
        self.written.extend(names);
        // What the table has given up is forgotten here too.
        if self.written.len() > 2 * super::super::MAX_NAMES {
            let names: std::collections::HashSet<&Name> = report.names.iter().map(|seen| &seen.name).collect();
            self.written.retain(|name, _| names.contains(name));
        }
        Ok(())
    }

    fn name_line(&self, seen: &Seen, before: [u64; 4], wall: u64) -> NameLine {
        let mut answers = seen.answers;
        // A name that was given up and came back counts from zero.
        answers.iter_mut().zip(before).for_each(|(now, before)| *now = now.checked_sub(before).unwrap_or(*now));
        NameLine {
            at: wall,
            name: seen.name.to_string(),
            verdict: seen.verdict.label().to_owned(),
            outcome: seen.outcome.map(|outcome| outcome.label().to_owned()),
            address: seen.address,
            network: seen.address.and_then(|address| self.network(&seen.rule, address)),
            rule: seen.rule.to_string(),
            configuration: self.in_force.hash.clone(),
            answers,
            clients: seen.clients,
        }
    }

    fn network(&self, rule: &str, address: IpAddr) -> Option<String> {
        let networks = self.in_force.networks.get(rule).map_or(&[][..], Vec::as_slice);
        if let Some(network) = networks.iter().find(|network| network.contains(&address)) {
            return Some(network.to_string());
        }
        let length = if address.is_ipv4() { 24 } else { 48 };
        Some(IpNet::new(address, length).ok()?.trunc().to_string())
    }

    /// Deletes files of days that ended more than `keep` ago. A deletion that fails is tried again the next day.
    fn delete_old(&self, wall: u64) {
        let first = day_of(wall.saturating_sub(self.keep.as_secs()));
        for (day, path) in files(&self.folder).unwrap_or_default() {
            if day < first {
                drop(fs::remove_file(path));
            }
        }
    }

    /// How long until the next line is due.
    pub const fn interval() -> Duration {
        Duration::from_secs(EVERY)
    }
}

impl Written {
    const fn of(seen: &Seen) -> Self {
        let Seen { answers, clients, verdict, outcome, address, .. } = seen;
        Self { answers: *answers, clients: *clients, verdict: *verdict, outcome: *outcome, address: *address }
    }
}

const fn word(on_public: OnPublic) -> &'static str {
    match on_public {
        OnPublic::Log => "log",
        OnPublic::Strip => "strip",
        OnPublic::Refuse => "refuse",
    }
}

fn push(text: &mut Vec<u8>, line: &Line) {
    // Lines are plain data, which always becomes JSON.
    if let Ok(json) = serde_json::to_vec(line) {
        text.extend_from_slice(&json);
        text.push(b'\n');
    }
}

fn ends_a_line(file: &mut File) -> io::Result<bool> {
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}
