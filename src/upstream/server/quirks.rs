//! What a server turned out not to support, learned from its answers and forgotten again after a while.
//!
//! Policy:
//! - **EDNS**: a FORMERR for one name says nothing, since the owner of a name can cause it. Once two names in a row
//!   were answered only without OPT, queries go out without OPT, and with OPT again within a minute (RFC 6891 7).
//! - **Letter case**: if an answer arrived over TCP and the same answer came by datagram with other letter case than
//!   our query, queries to the server are in lower case for an hour. A forged datagram alone changes nothing.
//! - **Kept connections**: a server that left a query unanswered on a kept connection and answered it on a new one gets
//!   one query per connection for ten minutes.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::{clock::Moment, wire::Name};

/// How long queries go without EDNS to a server that cannot read it.
const WITHOUT_EDNS: Duration = Duration::from_secs(50);
/// How long queries are in lower case to a server that changes the letter case.
const SMALL_LETTERS: Duration = Duration::from_hours(1);
/// How long a server that answers one query per connection gets no more than one.
const ONE_EACH: Duration = Duration::from_mins(10);

/// The quirks of one server.
#[derive(Debug, Default)]
pub(crate) struct Quirks {
    without_edns_until: AtomicU64,
    /// Hash of the name that was last answered only without EDNS; 0 for none.
    unread_name: AtomicU64,
    small_letters_until: AtomicU64,
    /// Until when the log does not say again that a change of letter case cannot be confirmed.
    unproven_case_until: AtomicU64,
    one_each_until: AtomicU64,
}

impl Quirks {
    /// Whether queries should carry EDNS.
    pub(crate) fn takes_edns(&self, now: Moment) -> bool {
        self.without_edns_until.load(Relaxed) <= now.micros()
    }

    /// Notes that the server answered `name` without EDNS after it could not read the query with it.
    pub(crate) fn answered_without_edns(&self, name: &Name, now: Moment) {
        let name = hash(name);
        let before = self.unread_name.swap(name, Relaxed);
        if before != 0 && before != name {
            self.without_edns_until.store((now + WITHOUT_EDNS).micros(), Relaxed);
            self.unread_name.store(0, Relaxed);
        }
    }

    /// Notes that the server answered a query with EDNS.
    pub(crate) fn answered_with_edns(&self) {
        if self.unread_name.load(Relaxed) != 0 {
            self.unread_name.store(0, Relaxed);
        }
    }

    /// Whether the server repeats the letter case of a query.
    pub(crate) fn keeps_case(&self, now: Moment) -> bool {
        self.small_letters_until.load(Relaxed) <= now.micros()
    }

    /// Notes that the server changes the letter case. True the first time, so that it is logged once.
    pub(crate) fn changes_case(&self, now: Moment) -> bool {
        let until = (now + SMALL_LETTERS).micros();
        self.small_letters_until.swap(until, Relaxed) <= now.micros()
    }

    /// Notes that answers come in another letter case and not over TCP. True once an hour.
    pub(crate) fn case_is_unproven(&self, now: Moment) -> bool {
        let is_due = self.unproven_case_until.load(Relaxed) <= now.micros();
        is_due && self.unproven_case_until.swap((now + SMALL_LETTERS).micros(), Relaxed) <= now.micros()
    }

    /// Whether the server answers only one query per connection.
    pub(crate) fn answers_once(&self, now: Moment) -> bool {
        self.one_each_until.load(Relaxed) > now.micros()
    }

    /// Notes that the server left a query unanswered on a connection that had carried answers, and answered it on a new
    /// one.
    pub(crate) fn was_mute(&self, now: Moment) {
        self.one_each_until.store((now + ONE_EACH).micros(), Relaxed);
    }
}

/// Hash of a name, never 0.
pub(super) fn hash(name: &Name) -> u64 {
    use std::hash::BuildHasher;
    foldhash::fast::FixedState::default().hash_one(name.as_wire()) | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn two_names_in_a_row_must_agree_before_edns_is_left_out() {
        let (quirks, now) = (Quirks::default(), Moment::now());
        for _ in 0..10 {
            quirks.answered_without_edns(&name("odd.example"), now);
        }
        assert!(quirks.takes_edns(now), "one name proves nothing, however often");
        quirks.answered_with_edns();
        quirks.answered_without_edns(&name("other.example"), now);
        assert!(quirks.takes_edns(now), "it read EDNS in between");
        quirks.answered_without_edns(&name("odd.example"), now);
        assert!(!quirks.takes_edns(now));
        assert!(quirks.takes_edns(now + Duration::from_secs(60)), "it is tried again within a minute");
    }

    #[test]
    fn a_change_of_letter_case_is_news_once_an_hour() {
        let (quirks, now) = (Quirks::default(), Moment::now());
        assert!(quirks.keeps_case(now));
        assert!(quirks.changes_case(now));
        assert!(!quirks.changes_case(now + Duration::from_secs(1)));
        assert!(!quirks.keeps_case(now + Duration::from_mins(30)));
        assert!(quirks.keeps_case(now + Duration::from_mins(61)));
    }
}
