//! The rules by which a scripted upstream chooses the script for a query.

use super::{
    script::Script,
    upstream::{Seen, Transport},
};

/// Rules with their scripts; of those that match a query, the last one applies.
#[derive(Debug, Clone, Default)]
pub struct Rules(pub(super) Vec<Rule>);

impl Rules {
    /// One rule for everything.
    pub fn everything(script: impl Into<Script>) -> Self {
        Self::default().and(Match::default(), script)
    }

    /// Adds a rule.
    pub fn and(mut self, queries: Match, script: impl Into<Script>) -> Self {
        self.0.push(Rule { queries, script: script.into() });
        self
    }
}

/// One rule.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) queries: Match,
    pub(super) script: Script,
}

/// Matches queries that meet all the given conditions.
#[derive(Debug, Clone, Default)]
pub struct Match {
    name: Option<String>,
    below: Option<String>,
    begins: Option<String>,
    qtype: Option<u16>,
    transport: Option<Transport>,
    has_edns: Option<bool>,
}

impl Match {
    /// For this name.
    pub fn name(self, name: &str) -> Self {
        Self { name: Some(name.to_ascii_lowercase()), ..self }
    }

    /// For names below this one.
    pub fn below(self, domain: &str) -> Self {
        Self { below: Some(format!(".{}", domain.to_ascii_lowercase())), ..self }
    }

    /// For names with this prefix.
    pub fn begins(self, letters: &str) -> Self {
        Self { begins: Some(letters.to_ascii_lowercase()), ..self }
    }

    /// Of this type.
    pub fn qtype(self, qtype: u16) -> Self {
        Self { qtype: Some(qtype), ..self }
    }

    /// Over this transport.
    pub fn over(self, transport: Transport) -> Self {
        Self { transport: Some(transport), ..self }
    }

    /// With EDNS, or without.
    pub fn edns(self, has_edns: bool) -> Self {
        Self { has_edns: Some(has_edns), ..self }
    }

    pub(super) fn fits(&self, seen: &Seen) -> bool {
        let name = seen.name.to_ascii_lowercase();
        let is = |wanted: &Option<String>, fits: &dyn Fn(&str) -> bool| wanted.as_deref().is_none_or(fits);
        is(&self.name, &|wanted| name == wanted)
            && is(&self.below, &|wanted| name.ends_with(wanted))
            && is(&self.begins, &|wanted| name.starts_with(wanted))
            && self.qtype.is_none_or(|qtype| qtype == seen.qtype)
            && self.transport.is_none_or(|transport| transport == seen.transport)
            && self.has_edns.is_none_or(|has_edns| has_edns == (seen.bytes[10..12] != [0, 0]))
    }
}
