//! Errors of resolution, and the reasons that clients are told (RFC 8914).

use std::{borrow::Cow, sync::Arc};

use super::snapshot::RuleId;
use crate::wire::{Ede, EdeCode, Rcode, RelayedEde};

/// How many times a CNAME chain may change to another rule or zone.
pub const MAX_TURNS: usize = 8;

/// The text for a cached answer that the guard removed addresses from: which ones is no longer known.
pub const STRIPPED: &str = "addresses that are not private were left out";

const ENDLESS: &str = "the CNAME chain is a loop or too long";

/// An extended error that is sent with a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// The info-code.
    pub code: EdeCode,
    /// The reason in words.
    pub text: Cow<'static, str>,
    /// The reason that an upstream gave, passed on beside ours.
    pub relayed: Option<Arc<RelayedEde>>,
}

impl Reason {
    /// A code with its text.
    pub fn new(code: EdeCode, text: impl Into<Cow<'static, str>>) -> Self {
        Self { code, text: text.into(), relayed: None }
    }

    /// The same, with what an upstream said.
    pub fn with_relayed(self, relayed: Option<Arc<RelayedEde>>) -> Self {
        Self { relayed, ..self }
    }

    /// The reason for a cached answer that the guard removed addresses from.
    pub const fn stripped() -> Self {
        Self { code: EdeCode::Blocked, text: Cow::Borrowed(STRIPPED), relayed: None }
    }

    /// The EDNS options.
    pub fn ede(&self) -> Ede<'_> {
        Ede { code: self.code, text: &self.text, relayed: self.relayed.as_deref() }
    }
}

/// A query that ends without an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolveError {
    /// The response code.
    pub rcode: Rcode,
    /// The reason for it.
    pub reason: Reason,
    /// The rule whose guard refused the answer.
    pub refused_by: Option<RuleId>,
}

impl ResolveError {
    /// SERVFAIL for a reason.
    pub fn servfail(code: EdeCode, text: impl Into<Cow<'static, str>>) -> Self {
        Self { rcode: Rcode::SERVFAIL, reason: Reason::new(code, text), refused_by: None }
    }

    /// The same, with what an upstream said.
    pub fn with_relayed(self, relayed: Option<Arc<RelayedEde>>) -> Self {
        Self { reason: self.reason.with_relayed(relayed), ..self }
    }

    /// REFUSED: nothing in the configuration covers the name.
    pub fn not_covered(text: &'static str) -> Self {
        Self { rcode: Rcode::REFUSED, reason: Reason::new(EdeCode::NotAuthoritative, text), refused_by: None }
    }

    /// The configuration changed each time before the answer came.
    pub fn overtaken() -> Self {
        Self::servfail(EdeCode::Other, "the configuration changes faster than answers come")
    }

    /// The CNAME chain has no end.
    pub fn endless() -> Self {
        Self::servfail(EdeCode::Other, ENDLESS)
    }

    /// Whether no server answered, so that an older answer is better than none.
    pub fn is_outage(&self) -> bool {
        self.rcode == Rcode::SERVFAIL && !self.is_final()
    }

    /// Whether asking again cannot give another result.
    pub fn is_final(&self) -> bool {
        self.reason.code == EdeCode::Blocked || self.reason.text == ENDLESS
    }
}

impl From<crate::wire::Malformed> for ResolveError {
    fn from(error: crate::wire::Malformed) -> Self {
        Self::servfail(EdeCode::Other, error.to_string())
    }
}
