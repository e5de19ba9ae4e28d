//! Why a query to a group got no answer, so that the caller knows what to do next.

use std::{fmt, sync::Arc};

use crate::wire::{Rcode, RelayedEde};

use super::tally::QueryResult;

/// Why an exchange returned no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// No server gave an answer.
    #[error("no server answered: {0}")]
    AllFailed(Reasons),
    /// Too many queries already wait on the group, so this one was not sent.
    #[error("too many queries wait on this group")]
    Overload,
    /// Every server that could be asked is over its `max_qps`, so the query was not sent.
    #[error("every server is over its budget")]
    Budget,
}

impl ExchangeError {
    /// Whether a server responded, if only with an error.
    pub const fn has_rcode(&self) -> bool {
        matches!(self, Self::AllFailed(reasons) if reasons.rcode.is_some())
    }
}

/// Whether any server of the group could be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// Servers were asked.
    Asked,
    /// Every server is down, and the limit on trial queries is reached.
    AllDown,
    /// The group has no servers, or all of them are drained.
    NoServers,
    /// Queries to every server that could be asked come back here (see `loops`).
    Loops,
}

/// How the tries of one query ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reasons {
    /// Whether any server could be asked.
    pub availability: Availability,
    /// The last response code that carried no answer.
    pub rcode: Option<Rcode>,
    /// The last extended error that came with such a code, with the name of its server.
    pub ede: Option<Arc<RelayedEde>>,
    /// Number of tries by result, in the order of [`QueryResult::ALL`].
    pub tries: [u8; QueryResult::ALL.len()],
    /// Whether a try could not leave this host.
    pub could_not_send: bool,
    /// Whether every server was down when the query began.
    pub was_trial: bool,
}

impl Reasons {
    pub(crate) const fn new(availability: Availability) -> Self {
        let tries = [0; QueryResult::ALL.len()];
        Self { availability, rcode: None, ede: None, tries, could_not_send: false, was_trial: false }
    }

    pub(crate) fn count(&mut self, result: QueryResult) {
        let count = &mut self.tries[result as usize];
        *count = count.saturating_add(1);
    }

    /// How many tries had this result.
    pub const fn of(&self, result: QueryResult) -> u8 {
        self.tries[result as usize]
    }
}

impl fmt::Display for Reasons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.availability {
            Availability::AllDown => return f.write_str("every server is down"),
            Availability::Loops => return f.write_str("every server leads back here"),
            Availability::NoServers => return f.write_str("there is no server to ask"),
            Availability::Asked => {}
        }
        let mut separator = "";
        for (result, &count) in QueryResult::ALL.iter().zip(&self.tries) {
            if count > 0 {
                write!(f, "{separator}{count} {}", result.label())?;
                separator = ", ";
            }
        }
        if let Some(rcode) = self.rcode {
            write!(f, " (last {rcode})")?;
        }
        if self.could_not_send { f.write_str("; this host could not send") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_how_its_tries_ended() {
        let mut reasons = Reasons::new(Availability::Asked);
        reasons.count(QueryResult::Timeout);
        reasons.count(QueryResult::Timeout);
        reasons.count(QueryResult::Servfail);
        reasons.rcode = Some(Rcode::SERVFAIL);
        let text = ExchangeError::AllFailed(reasons).to_string();
        assert_eq!(text, "no server answered: 1 servfail, 2 timeout (last SERVFAIL)");
        let text = ExchangeError::AllFailed(Reasons::new(Availability::AllDown)).to_string();
        assert_eq!(text, "no server answered: every server is down");
    }
}
