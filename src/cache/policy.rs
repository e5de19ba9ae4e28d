//! What may be stored, and for how long. Pure functions: no clock, no cache.
//!
//! | answer | lifetime | because |
//! | --- | --- | --- |
//! | NOERROR with records for the query, YXDOMAIN | the lowest TTL of any record | RFC 1035 7.4, RFC 2181 5.2: no record outlives its TTL, and the answer goes out whole |
//! | NXDOMAIN or NODATA with SOA | min(SOA's TTL, its MINIMUM, TTLs of a CNAME chain) | RFC 2308 5; RFC 8020 takes no part: an entry answers its own name alone |
//! | the same without SOA | `no_soa_ttl`, and no longer than a CNAME chain's TTLs | RFC 2308 5 would not store it; the VPC resolver's own cached answers come so, and would be asked for again and again |
//! | a TTL of 0 | not stored, whatever `min_ttl` says | RFC 1035 3.2.1: for this transaction alone |
//! | truncated, SERVFAIL, REFUSED and all others | not stored | RFC 2181 9, RFC 2308 7: [`super::failures`] remembers failures, apart (RFC 9520) |
//!
//! Then the operator's limits, the later the stronger: `min_ttl` raises, `max_ttl` lowers (RFC 2181 8 allows any cap),
//! and `negative_ttl`, the rule's own, lowers negative answers (RFC 2308 5: one to three hours is sensible, less where
//! names are created often).
//!
//! The records' TTLs get the same limits, stored or not ([`Clamp`]), so that a client never keeps one longer than we
//! do. A TTL of 0 stays, and exempts no other record from the limits. Those of a negative answer go no higher than its
//! lifetime: an SOA keeps its own, longer TTL otherwise, and clients would keep the answer by it.
//!
//! An answer joined from parts gets the shortest lifetime left in any of them. The limits were applied when the parts came
//! in, and are not applied again from the start ([`Lifetime::joined`]).

use crate::wire::{ResponseKind, Ttl};

/// Times in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// Kind of the response.
    pub kind: ResponseKind,
    /// The lowest TTL of its records in any section, OPT aside, and for a negative answer its SOA aside; none if there
    /// is no such record.
    pub lowest_ttl: Option<Ttl>,
    /// min(SOA's TTL, SOA's MINIMUM), where the authority section has an SOA.
    pub soa_ttl: Option<Ttl>,
}

/// The operator's limits, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TtlLimits {
    /// `min_ttl`.
    pub min_ttl: u32,
    /// `max_ttl`.
    pub max_ttl: u32,
    /// `negative_ttl`, of the rule or else of the cache.
    pub negative_ttl: u32,
    /// `no_soa_ttl`.
    pub no_soa_ttl: u32,
}

/// How long an answer stays valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// In seconds; 0 = not to be stored.
    pub seconds: u32,
    /// Range for the TTLs of its records.
    pub ttls: Clamp,
}

/// The range that TTLs are brought into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clamp {
    lowest: u32,
    highest: u32,
}

impl Clamp {
    /// The TTL to store and to give to clients. One of 0 is not raised.
    pub fn apply(self, ttl: Ttl) -> Ttl {
        let lowest = if ttl == Ttl::ZERO { 0 } else { self.lowest };
        Ttl::from_wire(ttl.seconds().max(lowest).min(self.highest))
    }
}

impl TtlLimits {
    /// The cap on answers of this kind.
    fn cap(&self, kind: ResponseKind) -> u32 {
        match kind {
            ResponseKind::NxDomain | ResponseKind::NoData => self.negative_ttl.min(self.max_ttl),
            _ => self.max_ttl,
        }
    }
}

impl Lifetime {
    /// Lifetime of an answer as it came from an upstream or a local zone.
    pub fn of(times: &Times, limits: &TtlLimits) -> Self {
        let lowest = times.lowest_ttl.map(Ttl::seconds);
        let is_negative = matches!(times.kind, ResponseKind::NxDomain | ResponseKind::NoData);
        let own = match times.kind {
            ResponseKind::Positive | ResponseKind::YxDomain => lowest.unwrap_or(0),
            ResponseKind::NxDomain | ResponseKind::NoData => {
                let negative = times.soa_ttl.map_or(limits.no_soa_ttl, Ttl::seconds);
                lowest.map_or(negative, |chain| chain.min(negative))
            }
            ResponseKind::Referral | ResponseKind::Failure | ResponseKind::Truncated => 0,
        };
        let cap = limits.cap(times.kind);
        let seconds = if own == 0 { 0 } else { own.max(limits.min_ttl).min(cap) };
        let highest = if is_negative { seconds } else { cap };
        Self { seconds, ttls: Clamp { lowest: limits.min_ttl.min(highest), highest } }
    }

    /// Lifetime of an answer joined from a chain, with its lowest TTL, and a tail that stays valid for `rest` seconds. The
    /// limits were applied to both before.
    pub fn joined(kind: ResponseKind, chain: Option<Ttl>, rest: u32, limits: &TtlLimits) -> Self {
        let seconds = chain.map_or(rest, |chain| chain.seconds().min(rest)).min(limits.cap(kind));
        let highest =
            if matches!(kind, ResponseKind::NxDomain | ResponseKind::NoData) { seconds } else { limits.max_ttl };
        Self { seconds, ttls: Clamp { lowest: 0, highest } }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const LIMITS: TtlLimits = TtlLimits { min_ttl: 0, max_ttl: 86_400, negative_ttl: 900, no_soa_ttl: 15 };
    const FLOOR: TtlLimits = TtlLimits { min_ttl: 60, ..LIMITS };
    const NO_NEGATIVES: TtlLimits = TtlLimits { negative_ttl: 0, ..LIMITS };
    const LOW_CEILING: TtlLimits = TtlLimits { max_ttl: 600, ..LIMITS };

    fn times(kind: ResponseKind, lowest: Option<u32>, soa: Option<u32>) -> Times {
        let ttl = |ttl: Option<u32>| ttl.map(Ttl::from_wire);
        Times { kind, lowest_ttl: ttl(lowest), soa_ttl: ttl(soa) }
    }

    #[rstest]
    #[case::positive_lives_as_long_as_its_shortest_record(ResponseKind::Positive, Some(300), None, LIMITS, Some(300))]
    #[case::positive_is_capped(ResponseKind::Positive, Some(604_800), None, LIMITS, Some(86_400))]
    #[case::positive_is_raised(ResponseKind::Positive, Some(5), None, FLOOR, Some(60))]
    #[case::positive_knows_no_negative_cap(ResponseKind::Positive, Some(3600), None, NO_NEGATIVES, Some(3600))]
    #[case::positive_without_records_is_not_stored(ResponseKind::Positive, None, None, LIMITS, None)]
    #[case::zero_is_not_stored(ResponseKind::Positive, Some(0), None, LIMITS, None)]
    #[case::zero_is_not_raised(ResponseKind::Positive, Some(0), None, FLOOR, None)]
    #[case::a_ttl_with_the_highest_bit_is_capped(ResponseKind::Positive, Some(0x8000_0001), None, LIMITS, Some(86_400))]
    #[case::yxdomain_lives_as_long_as_its_dname(ResponseKind::YxDomain, Some(300), None, NO_NEGATIVES, Some(300))]
    #[case::yxdomain_without_records_is_not_stored(ResponseKind::YxDomain, None, None, LIMITS, None)]
    #[case::a_failure_is_not_stored(ResponseKind::Failure, Some(300), Some(300), LIMITS, None)]
    #[case::a_referral_is_not_stored(ResponseKind::Referral, Some(300), Some(300), LIMITS, None)]
    #[case::a_truncated_answer_is_not_stored(ResponseKind::Truncated, Some(300), Some(300), LIMITS, None)]
    #[case::nxdomain_lives_by_its_soa(ResponseKind::NxDomain, None, Some(120), LIMITS, Some(120))]
    #[case::nxdomain_is_capped(ResponseKind::NxDomain, None, Some(10_800), LIMITS, Some(900))]
    #[case::nxdomain_lives_no_longer_than_any_answer(
        ResponseKind::NxDomain,
        None,
        Some(10_800),
        LOW_CEILING,
        Some(600)
    )]
    #[case::nodata_is_capped(ResponseKind::NoData, None, Some(10_800), LIMITS, Some(900))]
    #[case::negative_lives_no_longer_than_its_chain(ResponseKind::NxDomain, Some(30), Some(120), LIMITS, Some(30))]
    #[case::negative_is_raised(ResponseKind::NoData, None, Some(5), FLOOR, Some(60))]
    #[case::negative_with_zero_is_not_stored(ResponseKind::NoData, None, Some(0), LIMITS, None)]
    #[case::negative_without_soa_is_short(ResponseKind::NoData, None, None, LIMITS, Some(15))]
    #[case::negative_without_soa_heeds_its_chain(ResponseKind::NoData, Some(5), None, LIMITS, Some(5))]
    #[case::negatives_switched_off(ResponseKind::NxDomain, None, Some(120), NO_NEGATIVES, None)]
    fn lifetime_follows_the_table(
        #[case] kind: ResponseKind,
        #[case] lowest: Option<u32>,
        #[case] soa: Option<u32>,
        #[case] limits: TtlLimits,
        #[case] expected: Option<u32>,
    ) {
        assert_eq!(Lifetime::of(&times(kind, lowest, soa), &limits).seconds, expected.unwrap_or(0));
    }

    #[test]
    fn records_ttls_are_bent_as_the_lifetime_is() {
        let ttl = Ttl::from_wire;
        let positive = Lifetime::of(&times(ResponseKind::Positive, Some(5), None), &FLOOR);
        for (before, after) in [(0, 0), (5, 60), (300, 300), (604_800, 86_400)] {
            assert_eq!(positive.ttls.apply(ttl(before)), ttl(after));
        }
        // The SOA of a negative answer goes out with the time the answer is good for.
        let negative = Lifetime::of(&times(ResponseKind::NxDomain, None, Some(120)), &LIMITS);
        assert_eq!(negative.ttls.apply(ttl(3600)), ttl(120));
        let capped = Lifetime::of(&times(ResponseKind::NoData, None, Some(30)), &TtlLimits { min_ttl: 1000, ..LIMITS });
        assert_eq!((capped.seconds, capped.ttls.apply(ttl(30))), (900, ttl(900)));
        // The limits hold for an answer that is not stored, too.
        let beside_zero = Lifetime::of(&times(ResponseKind::Positive, Some(0), None), &FLOOR);
        assert_eq!((beside_zero.ttls.apply(ttl(604_800)), beside_zero.ttls.apply(ttl(0))), (ttl(86_400), ttl(0)));
        let negatives_off = Lifetime::of(&times(ResponseKind::NxDomain, None, Some(120)), &NO_NEGATIVES);
        assert_eq!(negatives_off.ttls.apply(ttl(120)), ttl(0));
    }

    #[test]
    fn a_joined_answer_inherits_what_is_left_of_its_parts() {
        let ttl = |seconds| Some(Ttl::from_wire(seconds));
        for (kind, chain, rest, limits, expected) in [
            (ResponseKind::Positive, ttl(300), 7, FLOOR, 7),
            (ResponseKind::Positive, ttl(5), 300, FLOOR, 5),
            (ResponseKind::Positive, None, 7, FLOOR, 7),
            (ResponseKind::Positive, ttl(300), 0, FLOOR, 0),
            (ResponseKind::NoData, ttl(300), 3, LIMITS, 3),
            (ResponseKind::NoData, ttl(300), 300, NO_NEGATIVES, 0),
            (ResponseKind::NxDomain, ttl(0), 300, FLOOR, 0),
        ] {
            let lifetime = Lifetime::joined(kind, chain, rest, &limits);
            assert_eq!(lifetime.seconds, expected, "{kind:?} {chain:?} {rest}");
        }
        let negative = Lifetime::joined(ResponseKind::NoData, ttl(300), 3, &LIMITS);
        assert_eq!(negative.ttls.apply(Ttl::from_wire(300)), Ttl::from_wire(3), "clients keep it no longer");
    }

    proptest::proptest! {
        #[test]
        fn no_record_outlives_its_entry_nor_the_entry_a_record(
            ttls in proptest::collection::vec(1_u32..2_000_000, 1..6),
            min_ttl in 0_u32..1000, max_ttl in 1_u32..1_000_000,
        ) {
            let limits = TtlLimits { min_ttl, max_ttl, ..LIMITS };
            let lowest = ttls.iter().min().copied();
            let lifetime = Lifetime::of(&times(ResponseKind::Positive, lowest, None), &limits);
            let bent = ttls.iter().map(|&ttl| lifetime.ttls.apply(Ttl::from_wire(ttl)).seconds()).min();
            proptest::prop_assert_eq!(bent, Some(lifetime.seconds));
        }
    }
}
