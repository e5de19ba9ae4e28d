//! The record of the perimeter: daily files that an auditor can read long after the daemon has forgotten.
//!
//! `perimeter-2026-11-29.jsonl`, a JSON object a line, times in seconds since 1970. Each line reports what happened
//! since the previous line of its kind:
//!
//! - `start`, `stop`: the daemon began and ended in order;
//! - `configuration`: which rules were in force from here on, with their guards, in each file and after each change;
//! - `name`: a name that was asked for upstream, with its verdict, the address and network behind it, answers since the
//!   last line about it, and the rule and configuration that decided;
//! - `minute`: the daemon is still recording. Two of them that are far apart, with no `stop` and `start` between, show
//!   a gap in the record.
//!
//! Lines are appended once a minute and synced; kill -9 and a power cut lose at most the last minute. A full disk only
//! delays lines: counts stay in memory, within the bounds of the table of names, and are written when there is room.
//! Clients are counted since the start of the daemon, never named.

mod read;
mod write;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub use self::{
    read::{Gap, History, NameHistory, Unguarded, day_of, read},
    write::Recorder,
};

/// Seconds between two lines of the kind `minute`.
pub const EVERY: u64 = 60;
/// The prefix and suffix of a file's name.
const PREFIX: &str = "perimeter-";
const SUFFIX: &str = ".jsonl";

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Line {
    /// The daemon began.
    Start {
        /// When.
        at: u64,
        /// The program's version.
        version: String,
    },
    /// The daemon ended in order.
    Stop {
        /// When.
        at: u64,
    },
    /// The rules in force from here on.
    Configuration {
        /// When it was first seen.
        at: u64,
        /// The configuration's hash.
        hash: String,
        /// Its rules.
        rules: Vec<RuleLine>,
    },
    /// A name that was asked for.
    Name(NameLine),
    /// The daemon is still recording.
    Minute {
        /// When.
        at: u64,
        /// Names that were given up to bound memory, since the daemon's start.
        given_up: u64,
        /// Names left out of this day's file, which is full.
        left_out: u64,
    },
}

/// A rule and its guard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleLine {
    /// Its name.
    pub rule: String,
    /// Whether AWS names go there.
    pub aws: bool,
    /// What happens to other addresses; null = there is no guard.
    pub on_public: Option<String>,
    /// Where addresses must lie.
    pub networks: Vec<String>,
}

/// What was seen of a name since the last line about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameLine {
    /// When it was written.
    pub at: u64,
    /// The name.
    pub name: String,
    /// The verdict on its last answers.
    pub verdict: String,
    /// What the guard did with public addresses.
    pub outcome: Option<String>,
    /// The address that decided the verdict.
    pub address: Option<IpAddr>,
    /// The rule's network that holds it, else its /24 or /48.
    pub network: Option<String>,
    /// The rule that brought the last answer.
    pub rule: String,
    /// The hash of the configuration in force.
    pub configuration: String,
    /// Answers since the last line: absent, private, out of reach, public.
    pub answers: [u64; 4],
    /// About how many clients asked since the daemon's start.
    pub clients: u32,
}

impl Line {
    /// When it was written.
    pub const fn at(&self) -> u64 {
        match self {
            Self::Start { at, .. } | Self::Stop { at } | Self::Configuration { at, .. } | Self::Minute { at, .. } => {
                *at
            }
            Self::Name(line) => line.at,
        }
    }
}
