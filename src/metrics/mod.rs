//! Counters that workers own, and their Prometheus text.
//!
//! A worker writes to its own cells with plain loads and stores; reading `/metrics` adds them up and never slows it.

pub mod counter;
pub mod exposition;
pub mod histogram;
pub mod pulse;
pub mod registry;
pub mod rules;
pub mod samples;
pub mod worker;

mod process;

pub use exposition::{Exposition, Format};
pub use registry::Registry;
pub use rules::{GuardAction, RuleCounters, RuleRegistry};
pub use worker::{CacheUse, CountedReply, DropReason, QueryOutcome, ReplySource, WorkerCounters};
