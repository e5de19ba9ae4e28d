//! What may be kept, and how long.
//!
//! Policy:
//! - An answer is kept as long as the least TTL of its records (RFC 2181 5.2, RFC 1035 7.3), between `min_ttl` and
//!   `max_ttl`. A TTL of zero is not kept (RFC 1035 3.2.1), unless `min_ttl` raises it.
//! - A negative answer is kept as long as its SOA says, the lesser of TTL and MINIMUM (RFC 2308 5), at most
//!   `negative_ttl`; one without an SOA, as the VPC's resolver gives from its own cache, `no_soa_ttl`.
//! - Only positive answers, NXDOMAIN and NODATA are answers; SERVFAIL and its like never come here (RFC 9520 is for
//!   them), nor does anything truncated.

use crate::wire::Ttl;

/// What an answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// There is data.
    Positive,
    /// There is none, or no such name.
    Negative,
}

/// What counts of an answer.
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    /// What it says.
    pub kind: Kind,
    /// The least TTL of its records.
    pub least_ttl: Ttl,
    /// What its SOA says of a negative answer; none without one.
    pub negative_ttl: Option<Ttl>,
}

/// The bounds, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Nothing is kept shorter.
    pub min_ttl: u32,
    /// Nothing is kept longer.
    pub max_ttl: u32,
    /// No negative answer is kept longer.
    pub negative_ttl: u32,
    /// Negative answers without an SOA are kept this long.
    pub no_soa_ttl: u32,
}

/// How an answer is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// How long it is fresh, in seconds.
    pub lifetime: u32,
    /// Its records' TTLs are raised to this.
    pub least_ttl: Ttl,
    /// And lowered to this.
    pub most_ttl: Ttl,
}

/// How the answer is kept; none if it is not.
pub fn judge(answer: &Answer, limits: &Limits) -> Option<Kept> {
    let clamp = |ttl: u32| ttl.max(limits.min_ttl).min(limits.max_ttl);
    let lifetime = match (answer.kind, answer.negative_ttl) {
        (Kind::Positive, _) => clamp(answer.least_ttl.seconds()),
        (Kind::Negative, Some(ttl)) => clamp(ttl.seconds()).min(limits.negative_ttl),
        (Kind::Negative, None) => limits.no_soa_ttl.min(limits.negative_ttl).min(limits.max_ttl),
    };
    let least_ttl = Ttl::from_wire(limits.min_ttl);
    // What a client keeps must not outlive what we keep.
    let most_ttl = match answer.kind {
        Kind::Positive => Ttl::from_wire(limits.max_ttl),
        Kind::Negative => Ttl::from_wire(lifetime),
    };
    (lifetime > 0).then_some(Kept { lifetime, least_ttl, most_ttl })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { min_ttl: 0, max_ttl: 86_400, negative_ttl: 900, no_soa_ttl: 15 };

    #[test]
    fn lifetimes_follow_the_records_within_the_bounds() {
        let raised = Limits { min_ttl: 60, ..LIMITS };
        for (name, kind, least, soa, limits, lifetime) in [
            ("as it says", Kind::Positive, 300, None, LIMITS, Some(300)),
            ("zero is not kept", Kind::Positive, 0, None, LIMITS, None),
            ("zero, raised", Kind::Positive, 0, None, raised, Some(60)),
            ("a week, lowered", Kind::Positive, 604_800, None, LIMITS, Some(86_400)),
            ("negative by its SOA", Kind::Negative, 300, Some(120), LIMITS, Some(120)),
            ("negative, capped", Kind::Negative, 3600, Some(3600), LIMITS, Some(900)),
            ("negative without SOA", Kind::Negative, 0, None, LIMITS, Some(15)),
            ("negative with zero", Kind::Negative, 300, Some(0), LIMITS, None),
        ] {
            let answer = Answer { kind, least_ttl: Ttl::from_wire(least), negative_ttl: soa.map(Ttl::from_wire) };
            assert_eq!(judge(&answer, &limits).map(|kept| kept.lifetime), lifetime, "{name}");
        }
    }
}
