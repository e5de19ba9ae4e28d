//! Why there is no answer, as the client is told.

use std::borrow::Cow;

use crate::wire::{EdeCode, Rcode};

/// How many CNAMEs are followed, and how often a chain may go from one rule or zone to another.
pub const MAX_STEPS: usize = 8;

/// What is said of an answer that the guard took addresses from, when nobody knows any more which.
pub const STRIPPED: &str = "addresses that are not private were left out";

/// A response code with its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The response code.
    pub rcode: Rcode,
    /// The reason's code.
    pub code: EdeCode,
    /// The reason in words.
    pub text: Cow<'static, str>,
}

impl Failure {
    /// SERVFAIL for a reason.
    pub fn servfail(code: EdeCode, text: impl Into<Cow<'static, str>>) -> Self {
        Self { rcode: Rcode::SERVFAIL, code, text: text.into() }
    }

    /// What the guard left of an answer that was kept.
    pub const fn stripped() -> Self {
        Self { rcode: Rcode::NOERROR, code: EdeCode::Blocked, text: Cow::Borrowed(STRIPPED) }
    }

    /// An answer that was judged by other rules each time it came.
    pub const fn overtaken() -> Self {
        let text = Cow::Borrowed("the configuration changes faster than answers come");
        Self { rcode: Rcode::SERVFAIL, code: EdeCode::Other, text }
    }

    /// A chain that nobody will find an end of.
    pub const fn endless() -> Self {
        let text = Cow::Borrowed("the CNAME chain is a loop, or longer than 8");
        Self { rcode: Rcode::SERVFAIL, code: EdeCode::Other, text }
    }
}
