//! How those orders from the control socket are carried out that need no configuration.

use std::sync::Arc;

use super::Daemon;
use crate::{admin::control::Flush, upstream::Server};

/// Whether a server gets questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duty {
    /// It does.
    On,
    /// It does not.
    Off,
}

impl Daemon {
    /// Takes servers off duty, or puts them on again: all that `name` fits. Lines for people, of what was done or why
    /// nothing was.
    pub fn set_duty(&self, name: &str, duty: Duty) -> Result<Vec<String>, Vec<String>> {
        let snapshot = self.engine.snapshot_owned();
        let all: Vec<&Arc<Server>> = snapshot.groups.iter().flat_map(|group| group.servers()).collect();
        let fitting: Vec<_> = all.iter().filter(|server| fits(server, name)).collect();
        if fitting.is_empty() {
            let known = all.iter().map(|server| format!("{}/{}", server.group(), server.label()));
            let known = known.collect::<Vec<_>>().join(", ");
            return Err(vec![format!("there is no server {name}; there are {known}")]);
        }
        let carry_out = |server: &&&Arc<Server>| {
            let (was_off, name) = (server.is_drained(), format!("{}/{}", server.group(), server.label()));
            match duty {
                Duty::Off => server.drain(),
                Duty::On => server.undrain(),
            }
            match (was_off, duty) {
                (false, Duty::Off) => format!("{name} gets no more questions"),
                (true, Duty::On) => format!("{name} gets questions again"),
                (true, Duty::Off) => format!("{name} gets none already"),
                (false, Duty::On) => format!("{name} gets questions already"),
            }
        };
        Ok(fitting.iter().map(carry_out).collect())
    }

    /// Forgets answers and failures; gives how many answers there were.
    pub fn flush(&self, what: &Flush) -> usize {
        let cache = &self.engine.cache;
        // A failure is remembered for seconds, and gone with any flush.
        self.engine.failures.clear();
        match what {
            Flush::Name(name) => cache.remove_name(name.as_wire()),
            Flush::Zone(name) => cache.remove_domain(name.as_wire()),
            Flush::All => {
                let entries = cache.stats().entries;
                cache.clear();
                entries
            }
        }
    }
}

/// As the configuration has it, by its address with or without port, or by its group and either.
fn fits(server: &Server, name: &str) -> bool {
    let is_called = |name: &str| {
        let address = server.spec().address;
        name == server.label() || name == address.to_string() || name.parse() == Ok(address.ip())
    };
    is_called(name) || name.split_once('/').is_some_and(|(group, name)| group == server.group() && is_called(name))
}
