//! Other servers: groups, selection, exchanges and health.

pub mod budget;
pub mod failure;
pub mod group;
pub mod health;
pub mod rtt;
mod select;
pub mod server;
pub mod spec;
pub mod system;
pub mod tally;

pub use failure::{Failure, Reasons, Standing};
pub use group::Group;
pub use health::State;
pub use server::{Alarm, Server};
pub use spec::{Entry, GroupSpec, HealthSpec, LetterCase, Limits, Policy, ServerSpec, Transport, Via};
pub use system::Ours;
