//! What may be stored, and for how long. Pure functions: no clock, no cache.
//!
//! | answer | lifetime | because |
//! | --- | --- | --- |
//! | truncated | not stored | RFC 2181 9: what is missing is not known |
//! | NOERROR with records for the question | the lowest TTL of any record | RFC 1035 7.4, RFC 2181 5.2: no record outlives its TTL, and the answer goes out whole |
//! | NXDOMAIN or NODATA with SOA | min(SOA's TTL, its MINIMUM, TTLs of a CNAME chain) | RFC 2308 5; RFC 8020 takes no part: an entry answers its own name alone |
//! | the same without SOA | `no_soa_ttl`, and no longer than a CNAME chain's TTLs | RFC 2308 5 would not store it; the VPC resolver's own cached answers come so, and would be asked for again and again |
//! | a TTL of 0 | not stored, whatever `min_ttl` says | RFC 1035 3.2.1: for this transaction alone |
//! | SERVFAIL, REFUSED and all others | not stored | RFC 2308 7: [`super::failures`] remembers them, apart (RFC 9520) |
//!
//! Then the operator's limits, the later the stronger: `min_ttl` raises, `max_ttl` lowers (RFC 2181 8 allows any cap),
//! and `negative_ttl`, the rule's own, lowers what is negative (RFC 2308 5: one to three hours is sensible, less is
//! for who creates names).
//!
//! The records' TTLs are bent the same way before they are stored ([`Clamp`]), so that a client never holds one longer
//! than we do. Those of a negative answer go no higher than its lifetime: an SOA keeps its own, longer TTL otherwise, and
//! RFC 2308 3 wants the lower of the two on it.

use crate::wire::{Rcode, Ttl};

/// What an answer is, as far as its lifetime goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Its RCODE.
    pub rcode: Rcode,
    /// What it says about the question.
    pub kind: Kind,
    /// The lowest TTL of its records in any section, OPT aside, and for a negative answer its SOA aside; none if there
    /// is no such record.
    pub lowest_ttl: Option<Ttl>,
    /// min(SOA's TTL, SOA's MINIMUM), where the authority section has an SOA.
    pub soa_ttl: Option<Ttl>,
    /// Whether it is whole.
    pub extent: Extent,
}

/// What an answer says about its question (RFC 2308 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// There are records.
    Positive,
    /// There is no such name (at the end of a CNAME chain, if there is one).
    NxDomain,
    /// There is the name, without records of the type.
    NoData,
}

/// Whether an answer is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// It is.
    Whole,
    /// TC is set.
    Truncated,
}

/// The operator's limits, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// `min_ttl`.
    pub min_ttl: u32,
    /// `max_ttl`.
    pub max_ttl: u32,
    /// `negative_ttl`, of the rule or else of the cache.
    pub negative_ttl: u32,
    /// `no_soa_ttl`.
    pub no_soa_ttl: u32,
}

/// How long an answer may be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// Seconds, at least 1.
    pub seconds: u32,
    /// What its records' TTLs become.
    pub ttls: Clamp,
}

/// The range that TTLs are brought into before an answer is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clamp {
    lowest: u32,
    highest: u32,
}

impl Clamp {
    /// The TTL to store and to give to clients.
    pub fn apply(self, ttl: Ttl) -> Ttl {
        Ttl::from_wire(ttl.seconds().max(self.lowest).min(self.highest))
    }
}

/// How long `answer` may be stored, if at all.
pub fn lifetime(answer: &Answer, limits: &Limits) -> Option<Lifetime> {
    let expected = match answer.kind {
        Kind::Positive | Kind::NoData => Rcode::NOERROR,
        Kind::NxDomain => Rcode::NXDOMAIN,
    };
    if answer.extent == Extent::Truncated || answer.rcode != expected {
        return None;
    }
    let lowest = answer.lowest_ttl.map(Ttl::seconds);
    let own = match answer.kind {
        Kind::Positive => lowest?,
        Kind::NxDomain | Kind::NoData => {
            let negative = answer.soa_ttl.map_or(limits.no_soa_ttl, Ttl::seconds);
            lowest.map_or(negative, |chain| chain.min(negative))
        }
    };
    let cap = match answer.kind {
        Kind::Positive => limits.max_ttl,
        Kind::NxDomain | Kind::NoData => limits.max_ttl.min(limits.negative_ttl),
    };
    let seconds = own.max(limits.min_ttl).min(cap);
    if own == 0 || seconds == 0 {
        return None;
    }
    let highest = if answer.kind == Kind::Positive { cap } else { seconds };
    Some(Lifetime { seconds, ttls: Clamp { lowest: limits.min_ttl.min(highest), highest } })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const LIMITS: Limits = Limits { min_ttl: 0, max_ttl: 86_400, negative_ttl: 900, no_soa_ttl: 15 };
    const FLOOR: Limits = Limits { min_ttl: 60, ..LIMITS };
    const NO_NEGATIVES: Limits = Limits { negative_ttl: 0, ..LIMITS };

    fn answer(kind: Kind, lowest: Option<u32>, soa: Option<u32>) -> Answer {
        let rcode = if kind == Kind::NxDomain { Rcode::NXDOMAIN } else { Rcode::NOERROR };
        let ttl = |ttl: Option<u32>| ttl.map(Ttl::from_wire);
        Answer { rcode, kind, lowest_ttl: ttl(lowest), soa_ttl: ttl(soa), extent: Extent::Whole }
    }

    #[rstest]
    #[case::positive_lives_as_long_as_its_shortest_record(Kind::Positive, Some(300), None, LIMITS, Some(300))]
    #[case::positive_is_capped(Kind::Positive, Some(604_800), None, LIMITS, Some(86_400))]
    #[case::positive_is_raised(Kind::Positive, Some(5), None, FLOOR, Some(60))]
    #[case::positive_knows_no_negative_cap(Kind::Positive, Some(3600), None, NO_NEGATIVES, Some(3600))]
    #[case::positive_without_records_is_not_stored(Kind::Positive, None, None, LIMITS, None)]
    #[case::zero_is_not_stored(Kind::Positive, Some(0), None, LIMITS, None)]
    #[case::zero_is_not_raised(Kind::Positive, Some(0), None, FLOOR, None)]
    #[case::a_ttl_with_the_highest_bit_is_zero(Kind::Positive, Some(0x8000_0001), None, LIMITS, None)]
    #[case::nxdomain_lives_by_its_soa(Kind::NxDomain, None, Some(120), LIMITS, Some(120))]
    #[case::nxdomain_is_capped(Kind::NxDomain, None, Some(10_800), LIMITS, Some(900))]
    #[case::nodata_is_capped(Kind::NoData, None, Some(10_800), LIMITS, Some(900))]
    #[case::negative_lives_no_longer_than_its_chain(Kind::NxDomain, Some(30), Some(120), LIMITS, Some(30))]
    #[case::negative_is_raised(Kind::NoData, None, Some(5), FLOOR, Some(60))]
    #[case::negative_with_zero_is_not_stored(Kind::NoData, None, Some(0), LIMITS, None)]
    #[case::negative_without_soa_is_short(Kind::NoData, None, None, LIMITS, Some(15))]
    #[case::negative_without_soa_heeds_its_chain(Kind::NoData, Some(5), None, LIMITS, Some(5))]
    #[case::negatives_switched_off(Kind::NxDomain, None, Some(120), NO_NEGATIVES, None)]
    fn lifetime_follows_the_table(
        #[case] kind: Kind,
        #[case] lowest: Option<u32>,
        #[case] soa: Option<u32>,
        #[case] limits: Limits,
        #[case] expected: Option<u32>,
    ) {
        let lifetime = lifetime(&answer(kind, lowest, soa), &limits);
        assert_eq!(lifetime.map(|lifetime| lifetime.seconds), expected);
    }

    #[test]
    fn truncated_answers_and_failures_are_never_stored() {
        let good = answer(Kind::Positive, Some(300), None);
        assert!(lifetime(&good, &LIMITS).is_some());
        assert_eq!(lifetime(&Answer { extent: Extent::Truncated, ..good }, &LIMITS), None);
        for rcode in [Rcode::SERVFAIL, Rcode::REFUSED, Rcode::FORMERR, Rcode::NOTIMP, Rcode::YXDOMAIN, Rcode(3000)] {
            for kind in [Kind::Positive, Kind::NxDomain, Kind::NoData] {
                let failed = Answer { rcode, kind, ..answer(kind, Some(300), Some(300)) };
                assert_eq!(lifetime(&failed, &LIMITS), None, "{rcode} {kind:?}");
            }
        }
    }

    #[test]
    fn records_ttls_are_bent_as_the_lifetime_is() {
        let ttl = Ttl::from_wire;
        let positive = lifetime(&answer(Kind::Positive, Some(5), None), &FLOOR).unwrap();
        for (before, after) in [(5, 60), (300, 300), (604_800, 86_400)] {
            assert_eq!(positive.ttls.apply(ttl(before)), ttl(after));
        }
        // The SOA of a negative answer goes out with the time the answer is good for.
        let negative = lifetime(&answer(Kind::NxDomain, None, Some(120)), &LIMITS).unwrap();
        assert_eq!(negative.ttls.apply(ttl(3600)), ttl(120));
        let capped = lifetime(&answer(Kind::NoData, None, Some(30)), &Limits { min_ttl: 1000, ..LIMITS }).unwrap();
        assert_eq!((capped.seconds, capped.ttls.apply(ttl(30))), (900, ttl(900)));
    }

    proptest::proptest! {
        #[test]
        fn no_record_outlives_its_entry_nor_the_entry_a_record(
            ttls in proptest::collection::vec(1_u32..2_000_000, 1..6),
            min_ttl in 0_u32..1000, max_ttl in 1_u32..1_000_000,
        ) {
            let limits = Limits { min_ttl, max_ttl, ..LIMITS };
            let lowest = ttls.iter().min().copied();
            let lifetime = lifetime(&answer(Kind::Positive, lowest, None), &limits).unwrap();
            let bent = ttls.iter().map(|&ttl| lifetime.ttls.apply(Ttl::from_wire(ttl)).seconds()).min();
            proptest::prop_assert_eq!(bent, Some(lifetime.seconds));
        }
    }
}
