//! What a server turned out not to manage, learned from its answers and forgotten again after a while.
//!
//! Policy:
//! - **EDNS**: a FORMERR for one name says nothing, since whoever owns a name can have it answered so. Once two names in a
//!   row were answered only without OPT, the server is asked without; with OPT again within a minute (RFC 6891 7).
//! - **Letter case**: a server whose answer came over TCP too, and with the letters of our query changed by datagram, is
//!   asked in small letters for an hour. A forged datagram alone changes nothing.
//! - **Kept connections**: a server that answered on a new connection what it left unanswered on a kept one gets one query
//!   a connection for ten minutes.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::{clock::Moment, wire::Name};

/// How long a server that cannot read EDNS is asked without.
const WITHOUT_EDNS: Duration = Duration::from_secs(50);
/// How long a server that changes the letter case is asked in small letters.
const SMALL_LETTERS: Duration = Duration::from_hours(1);
/// How long a server that answers one query a connection gets no more.
const ONE_EACH: Duration = Duration::from_mins(10);

/// What one server does not manage.
#[derive(Debug, Default)]
pub(crate) struct Quirks {
    without_edns_until: AtomicU64,
    /// The name that was last answered only without EDNS, hashed; 0 for none.
    unread_name: AtomicU64,
    small_letters_until: AtomicU64,
    one_each_until: AtomicU64,
}

impl Quirks {
    /// Whether queries carry EDNS.
    pub(crate) fn takes_edns(&self, now: Moment) -> bool {
        self.without_edns_until.load(Relaxed) <= now.micros()
    }

    /// It answered a query for `name` without EDNS that it could not read with it.
    pub(crate) fn answered_without_edns(&self, name: &Name, now: Moment) {
        let name = hash(name);
        let before = self.unread_name.swap(name, Relaxed);
        if before != 0 && before != name {
            self.without_edns_until.store((now + WITHOUT_EDNS).micros(), Relaxed);
            self.unread_name.store(0, Relaxed);
        }
    }

    /// It answered a query with EDNS.
    pub(crate) fn answered_with_edns(&self) {
        if self.unread_name.load(Relaxed) != 0 {
            self.unread_name.store(0, Relaxed);
        }
    }

    /// Whether it repeats the letter case of a query.
    pub(crate) fn keeps_case(&self, now: Moment) -> bool {
        self.small_letters_until.load(Relaxed) <= now.micros()
    }

    /// It changes the letter case. True where that was not known, so that it is logged once.
    pub(crate) fn changes_case(&self, now: Moment) -> bool {
        let until = (now + SMALL_LETTERS).micros();
        self.small_letters_until.swap(until, Relaxed) <= now.micros()
    }

    /// Whether a connection is good for one query only.
    pub(crate) fn answers_once(&self, now: Moment) -> bool {
        self.one_each_until.load(Relaxed) > now.micros()
    }

    /// It left a query unanswered on a connection that carried answers, and answered it on a new one.
    pub(crate) fn was_mute(&self, now: Moment) {
        self.one_each_until.store((now + ONE_EACH).micros(), Relaxed);
    }
}

/// A name as a number other than 0.
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
