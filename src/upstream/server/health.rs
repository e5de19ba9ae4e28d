//! Decides whether a server can be trusted with queries: up, suspect or down. Synchronous; the caller passes the time.
//!
//! Policy:
//! - **Suspect** is a doubt, not a verdict. SERVFAIL, REFUSED or garbage in traffic raises it, or a try that passed its
//!   limit with nothing else from the server since; so does one failed probe. A suspect server is asked after those
//!   that are up, and is probed at once.
//! - A slow name is no doubt: while the server answers other queries, a late answer says nothing about it. Neither does
//!   a broken name right after a good probe, so a thousand names that are SERVFAIL at their origin cost one probe a
//!   second and change nothing else.
//! - **Down** is a verdict, and a single sign is never enough for it. It takes `fall` failed probes in a row, a refusal
//!   by ICMP (or a reset, on TCP) and a second sign, a certificate that is not the server's, or silence for every query
//!   over a time-out.
//! - A refusal is not authenticated: anybody can send one ICMP message, and a server that restarts refuses for a
//!   moment. The first refusal is a doubt. A second refusal or an unanswered probe within `SECOND_SIGN`, with nothing
//!   good in between, is the verdict.
//! - A good probe clears a doubt at once; `rise` good probes in a row clear a verdict.
//! - A good answer in traffic clears both at once, unless a configured probe (`probe`, `expect`) failed: an answer to
//!   another query does not show that the server's answers are private.
//! - Any answer to a default probe counts as good, unless traffic confirms that the server only returns errors (see
//!   `watch::prober`): many servers refuse or drop ". NS" and answer everything else.
//! - Local send errors (no descriptors, memory or permission, an address that is gone) say nothing about the server.
//! - A new server starts as suspect, and its first probe goes out at once.
//! - `fail_back` counts from when a server of the better tier was last down, see [`Health::steady_since`].

use std::time::Duration;

use crate::{clock::Moment, upstream::spec::HealthSpec};

/// Within this time after a refusal, a second sign is a verdict.
const SECOND_SIGN: Duration = Duration::from_secs(2);

/// The health of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HealthState {
    /// It answers.
    Up,
    /// There is a doubt about it.
    Suspect,
    /// It does not answer, or its answers cannot be used.
    Down,
}

impl HealthState {
    /// Every state, in the order of its discriminants.
    pub const ALL: [Self; 3] = [Self::Up, Self::Suspect, Self::Down];

    /// The label of metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Suspect => "suspect",
            Self::Down => "down",
        }
    }
}

/// An observation about a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A good answer in traffic: data, NODATA or NXDOMAIN.
    Answered,
    /// An answer in traffic that another server should give better: SERVFAIL, REFUSED, garbage.
    Broken,
    /// A try in traffic passed its limit, and nothing came from the server since it was sent.
    Late,
    /// Nothing came for any query over a time-out.
    Silent,
    /// The far end says that nobody listens: ICMP port unreachable, a TCP reset.
    Refused,
    /// Its certificate is not what it should be.
    Untrusted,
    /// A probe was answered as it should be.
    ProbePassed,
    /// A probe failed.
    ProbeFailed(ProbeError),
}

impl Event {
    /// The event in words, for log lines and for the status of a server that is not up.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Answered | Self::ProbePassed => "it answers",
            Self::Broken => "it answered with an error",
            Self::Late => "an answer is late",
            Self::Silent => "no answer to any query",
            Self::Refused => "nobody listens there",
            Self::Untrusted => "it does not show that it is the right server",
            Self::ProbeFailed(error) => error.label(),
        }
    }
}

/// Why a probe failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeError {
    /// No answer.
    Silent,
    /// A network error on this side or an ICMP error from the far host.
    Network,
    /// SERVFAIL, REFUSED, or another code that carries no answer.
    Rcode,
    /// The response did not parse.
    Malformed,
    /// The answer is not private: an address outside `expect`, or no address at all.
    Public,
    /// The probe could not leave this host, which says nothing about the server.
    NotSent,
}

impl ProbeError {
    /// The error in words, for a log line.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Silent => "no answer",
            Self::Network => "it cannot be reached, or nobody listens there",
            Self::Rcode => "it answers with an error",
            Self::Malformed => "its answers do not parse",
            Self::Public => "it answers, but not privately",
            Self::NotSent => "this host cannot send to it",
        }
    }
}

/// A change of health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The state before.
    pub from: HealthState,
    /// The state now.
    pub to: HealthState,
    /// The event that caused the change.
    pub because: Event,
}

/// The state machine of one server's health.
///
/// Invariants: `failed` counts probes since the last good one, `passed` good ones since the last doubt. While the server
/// is up, there is neither a failed probe nor a refusal to forget, so a good answer changes nothing.
#[derive(Debug, Clone)]
pub struct Health {
    state: HealthState,
    failed: u32,
    passed: u32,
    vouched_at: Option<Moment>,
    /// When the server last refused; none once something good came after it.
    refused_at: Option<Moment>,
    steady_since: Moment,
}

impl Health {
    /// The health of a server that has not been asked yet.
    pub fn new() -> Self {
        Self {
            state: HealthState::Suspect,
            failed: 0,
            passed: 0,
            vouched_at: None,
            refused_at: None,
            steady_since: Moment::default(),
        }
    }

    /// The current state.
    pub const fn state(&self) -> HealthState {
        self.state
    }

    /// When the server was last down; the origin of time if it never was.
    pub const fn steady_since(&self) -> Moment {
        self.steady_since
    }

    /// Applies an event and returns the change of state, if there is one.
    pub fn on(&mut self, event: Event, now: Moment, spec: &HealthSpec) -> Option<Change> {
        let from = self.state;
        if matches!(event, Event::Answered | Event::ProbePassed) {
            self.refused_at = None;
        }
        self.state = match event {
            Event::Answered if !spec.expect.is_empty() => from,
            // Traffic cannot clear what configured probes found.
            Event::Answered if self.failed > 0 && spec.probe_stands() => from,
            Event::Answered => {
                self.passed = self.passed.saturating_add(1);
                self.failed = 0;
                HealthState::Up
            }
            Event::ProbePassed => {
                self.vouched_at = Some(now);
                self.vouch(spec)
            }
            Event::Broken if self.is_vouched_for(now, spec) => from,
            Event::Broken | Event::Late => {
                self.passed = 0;
                from.max(HealthState::Suspect)
            }
            Event::Silent | Event::Untrusted => {
                self.passed = 0;
                HealthState::Down
            }
            Event::Refused => {
                self.passed = 0;
                let is_second = self.has_refused(now);
                self.refused_at = Some(now);
                if is_second { HealthState::Down } else { from.max(HealthState::Suspect) }
            }
            Event::ProbeFailed(ProbeError::NotSent) => from,
            Event::ProbeFailed(error) => {
                self.passed = 0;
                self.vouched_at = None;
                self.failed = self.failed.saturating_add(1);
                // A probe that was refused has already been seen as a refusal.
                let is_second = error != ProbeError::Network && self.has_refused(now);
                if is_second || self.failed >= spec.fall { HealthState::Down } else { from.max(HealthState::Suspect) }
            }
        };
        if from == HealthState::Down && self.state != HealthState::Down {
            self.steady_since = now;
        }
        (self.state != from).then_some(Change { from, to: self.state, because: event })
    }

    fn vouch(&mut self, spec: &HealthSpec) -> HealthState {
        self.passed = self.passed.saturating_add(1);
        if self.state == HealthState::Down && self.passed < spec.rise {
            return HealthState::Down;
        }
        self.failed = 0;
        HealthState::Up
    }

    fn has_refused(&self, now: Moment) -> bool {
        self.refused_at.is_some_and(|at| now.since(at) <= SECOND_SIGN)
    }

    fn is_vouched_for(&self, now: Moment, spec: &HealthSpec) -> bool {
        self.state == HealthState::Up && self.vouched_at.is_some_and(|at| now.since(at) < spec.interval_down)
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use rstest::rstest;

    use super::{Event::*, *};
    use crate::{
        upstream::spec::ProbeOrigin,
        wire::{Name, RecordType},
    };

    const FAILED: Event = ProbeFailed(ProbeError::Silent);
    const NOT_SENT: Event = ProbeFailed(ProbeError::NotSent);

    fn spec() -> HealthSpec {
        HealthSpec { origin: ProbeOrigin::Default, ..configured() }
    }

    fn configured() -> HealthSpec {
        HealthSpec::probing(Name::root(), RecordType::NS)
    }

    fn after(events: &[Event]) -> Health {
        after_by(events, &spec())
    }

    fn after_by(events: &[Event], spec: &HealthSpec) -> Health {
        let mut health = Health::new();
        let mut now = Moment::now();
        for &event in events {
            health.on(event, now, spec);
            now = now + Duration::from_secs(2);
        }
        health
    }

    #[rstest]
    #[case::not_yet_vouched_for(&[], HealthState::Suspect)]
    #[case::one_good_probe(&[ProbePassed], HealthState::Up)]
    #[case::one_good_answer(&[Answered], HealthState::Up)]
    #[case::servfail_is_a_doubt(&[ProbePassed, Broken], HealthState::Suspect)]
    #[case::late_is_a_doubt(&[ProbePassed, Late], HealthState::Suspect)]
    #[case::doubts_never_add_up(&[ProbePassed, Broken, Broken, Late, Late, Broken, Late, Broken], HealthState::Suspect)]
    #[case::a_good_probe_clears_a_doubt(&[ProbePassed, Late, ProbePassed], HealthState::Up)]
    #[case::traffic_clears_a_doubt(&[ProbePassed, Late, Answered], HealthState::Up)]
    #[case::two_failed_probes(&[ProbePassed, FAILED, FAILED], HealthState::Suspect)]
    #[case::three_failed_probes(&[ProbePassed, FAILED, FAILED, FAILED], HealthState::Down)]
    #[case::not_in_a_row(&[ProbePassed, FAILED, FAILED, ProbePassed, FAILED, FAILED], HealthState::Suspect)]
    #[case::traffic_breaks_the_row(&[ProbePassed, FAILED, FAILED, Answered, FAILED, FAILED], HealthState::Suspect)]
    #[case::one_refusal_is_a_doubt(&[ProbePassed, Refused], HealthState::Suspect)]
    #[case::two_refusals(&[ProbePassed, Refused, Refused], HealthState::Down)]
    #[case::a_refusal_and_a_probe_without_answer(&[ProbePassed, Refused, FAILED], HealthState::Down)]
    #[case::a_probe_that_was_refused_is_one_sign(&[ProbePassed, Refused, ProbeFailed(ProbeError::Network)], HealthState::Suspect)]
    #[case::an_answer_between_refusals(&[ProbePassed, Refused, Answered, Refused], HealthState::Suspect)]
    #[case::a_good_probe_between_refusals(&[ProbePassed, Refused, ProbePassed, Refused], HealthState::Suspect)]
    #[case::refusals_far_apart(&[ProbePassed, Refused, Late, Refused], HealthState::Suspect)]
    #[case::silent_at_once(&[ProbePassed, Silent], HealthState::Down)]
    #[case::one_good_does_not_raise(&[Silent, ProbePassed], HealthState::Down)]
    #[case::two_good_raise(&[Silent, ProbePassed, ProbePassed], HealthState::Up)]
    #[case::one_answer_in_traffic_ends_an_outage(&[FAILED, FAILED, FAILED, Answered], HealthState::Up)]
    #[case::good_ones_in_a_row(&[Silent, ProbePassed, FAILED, ProbePassed], HealthState::Down)]
    #[case::a_doubt_breaks_the_rise(&[Silent, ProbePassed, Late, ProbePassed], HealthState::Down)]
    #[case::probes_that_could_not_leave(&[ProbePassed, NOT_SENT, NOT_SENT, NOT_SENT], HealthState::Up)]
    #[case::a_doubt_does_not_raise(&[Silent, Broken, Late], HealthState::Down)]
    fn events_lead_to(#[case] events: &[Event], #[case] state: HealthState) {
        assert_eq!(after(events).state(), state);
    }

    #[rstest]
    #[case::traffic_does_not_break_the_row(&[ProbePassed, FAILED, FAILED, Answered, FAILED], HealthState::Down)]
    #[case::traffic_does_not_end_their_verdict(&[FAILED, FAILED, FAILED, Answered, Answered], HealthState::Down)]
    #[case::probes_end_their_verdict(&[FAILED, FAILED, FAILED, ProbePassed, ProbePassed], HealthState::Up)]
    #[case::traffic_ends_a_verdict_of_traffic(&[ProbePassed, Silent, Answered], HealthState::Up)]
    #[case::traffic_clears_a_doubt_of_traffic(&[ProbePassed, Late, Answered], HealthState::Up)]
    fn a_configured_probe_stands(#[case] events: &[Event], #[case] state: HealthState) {
        assert_eq!(after_by(events, &configured()).state(), state);
    }

    #[test]
    fn broken_names_right_behind_a_good_probe_change_nothing() {
        let mut health = after(&[]);
        let now = Moment::now();
        health.on(ProbePassed, now, &spec());
        for ms in 0..999 {
            assert_eq!(health.on(Broken, now + Duration::from_millis(ms), &spec()), None);
        }
        let change = health.on(Broken, now + Duration::from_secs(1), &spec());
        assert_eq!(change.map(|c| c.to), Some(HealthState::Suspect));
    }

    #[test]
    fn a_good_probe_does_not_excuse_silence() {
        let mut health = after(&[]);
        let now = Moment::now();
        health.on(ProbePassed, now, &spec());
        assert_eq!(health.on(Late, now, &spec()).map(|c| c.to), Some(HealthState::Suspect));
    }

    #[test]
    fn with_expect_only_probes_vouch() {
        let private = HealthSpec { expect: vec!["10.0.0.0/8".parse().unwrap()], ..spec() };
        let mut health = Health::new();
        let now = Moment::now();
        health.on(Answered, now, &private);
        assert_eq!(health.state(), HealthState::Suspect);
        for _ in 0..3 {
            health.on(ProbeFailed(ProbeError::Public), now, &private);
            health.on(Answered, now, &private);
        }
        assert_eq!(health.state(), HealthState::Down);
    }

    #[test]
    fn states_and_what_led_to_them_are_told_apart_in_words() {
        assert_eq!(HealthState::ALL.map(HealthState::label), ["up", "suspect", "down"]);
        let errors = [
            ProbeError::Silent,
            ProbeError::Network,
            ProbeError::Rcode,
            ProbeError::Malformed,
            ProbeError::Public,
            ProbeError::NotSent,
        ];
        let events = [Answered, Broken, Late, Silent, Refused, Untrusted].into_iter().chain(errors.map(ProbeFailed));
        let words: BTreeSet<&str> = events.map(Event::words).collect();
        assert_eq!(words.len(), 12, "{words:?}");
    }

    proptest::proptest! {
        #[test]
        fn while_a_server_is_up_a_good_answer_changes_nothing(
            events in proptest::collection::vec(
                proptest::sample::select(vec![
                    Answered, Broken, Late, Silent, Refused, Untrusted, ProbePassed, FAILED, NOT_SENT,
                ]),
                0..20,
            ),
            is_configured in proptest::prelude::any::<bool>(),
        ) {
            let health = after_by(&events, &if is_configured { configured() } else { spec() });
            if health.state() == HealthState::Up {
                proptest::prop_assert_eq!((health.failed, health.refused_at), (0, None));
            }
        }
    }

    #[test]
    fn steadiness_counts_from_leaving_down() {
        let mut health = after(&[ProbePassed]);
        assert_eq!(health.steady_since(), Moment::default());
        let now = Moment::now();
        health.on(Silent, now, &spec());
        health.on(ProbePassed, now, &spec());
        let risen = now + Duration::from_secs(3);
        health.on(ProbePassed, risen, &spec());
        assert_eq!(health.steady_since(), risen);
        health.on(Late, risen + Duration::from_secs(9), &spec());
        health.on(ProbePassed, risen + Duration::from_secs(10), &spec());
        assert_eq!(health.steady_since(), risen);
    }
}
