//! The deadlines of one worker's queries, all on one timer of the runtime.
//!
//! Most queries are answered long before their deadline, so what counts is what a timer costs that is never due. To set
//! one that is the earliest of all, the runtime writes to a descriptor of its own, which is two more system calls. One
//! that stays set after its query has ended wakes a thread that sleeps. So:
//! - The timer is moved to an earlier deadline at once, to a later one when it is due, or when one query is alone.
//! - When the last query has ended the timer is taken out, which is no system call. It stays if the last time the next
//!   query came before it was due: then that query moves it on, for which the runtime does nothing yet.

use std::{
    cell::RefCell,
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use tokio::time::{Instant, Sleep, sleep_until};

use super::Race;
use crate::clock::Moment;

/// When each query has to act if nothing arrives for it.
#[derive(Default)]
pub(crate) struct Deadlines {
    /// In no order; each race knows its place.
    waiting: RefCell<Vec<(Moment, Rc<Race>)>>,
    timer: RefCell<SharedTimer>,
}

/// The timer. It is due no later than the earliest deadline.
#[derive(Default)]
struct SharedTimer {
    /// Made when it is first set, within the runtime.
    sleep: Option<Pin<Box<Sleep>>>,
    /// None if it is not set.
    due: Option<Moment>,
    /// When it was due as the last query ended, until the next one comes.
    left_at: Option<Moment>,
    /// Whether the last time that no query waited ended before the timer was due.
    is_busy: bool,
    /// The task that waits for it.
    keeper: Option<Waker>,
}

impl Deadlines {
    /// Sets the deadline of a race, which is woken then.
    pub(crate) fn set(&self, race: &Rc<Race>, deadline: Moment, now: Moment) {
        let mut waiting = self.waiting.borrow_mut();
        race.is_due.set(false);
        match race.place.get() {
            Some(place) => waiting[place].0 = deadline,
            None => {
                race.place.set(Some(waiting.len()));
                waiting.push((deadline, Rc::clone(race)));
            }
        }
        let is_alone = waiting.len() == 1;
        drop(waiting);
        let mut timer = self.timer.borrow_mut();
        if let Some(left_at) = timer.left_at.take() {
            timer.is_busy = now < left_at;
        }
        if is_alone || timer.due.is_none_or(|due| deadline < due) {
            timer.set(deadline, now);
        }
    }

    /// Forgets a race.
    pub(crate) fn remove(&self, race: &Race) {
        let Some(place) = race.place.take() else { return };
        let mut waiting = self.waiting.borrow_mut();
        waiting.swap_remove(place);
        match waiting.get(place) {
            Some((_, moved)) => moved.place.set(Some(place)),
            None if waiting.is_empty() => self.timer.borrow_mut().leave(),
            None => {}
        }
    }

    /// Wakes the races that are due, without end.
    pub(crate) async fn keep(&self) {
        poll_fn(|task| {
            let mut timer = self.timer.borrow_mut();
            timer.keeper = Some(task.waker().clone());
            while timer.poll(task).is_ready() {
                let now = Moment::now();
                timer.due = None;
                if let Some(next) = self.wake(now) {
                    timer.set(next, now);
                }
            }
            Poll::<()>::Pending
        })
        .await;
    }

    /// Wakes the races that are due and returns the earliest deadline of the others.
    fn wake(&self, now: Moment) -> Option<Moment> {
        let waiting = self.waiting.borrow();
        let is_due = |(deadline, _): &&(Moment, Rc<Race>)| *deadline <= now;
        waiting.iter().filter(is_due).for_each(|(_, race)| race.become_due());
        waiting.iter().filter(|entry| !is_due(entry)).map(|(deadline, _)| *deadline).min()
    }
}

impl SharedTimer {
    fn set(&mut self, deadline: Moment, now: Moment) {
        let at = Instant::now() + deadline.since(now);
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(at)));
        sleep.as_mut().reset(at);
        let is_later = self.due.replace(deadline).is_some_and(|due| due <= deadline);
        // The waker of a timer that is moved to a later time stays.
        if !is_later
            && let Some(keeper) = self.keeper.clone()
            && self.poll(&mut Context::from_waker(&keeper)).is_ready()
        {
            keeper.wake();
        }
    }

    /// Notes that nothing waits any more.
    fn leave(&mut self) {
        self.left_at = self.due;
        if !self.is_busy {
            // Only a timer that is dropped leaves those of the runtime.
            self.sleep = None;
            self.due = None;
        }
    }

    fn poll(&mut self, task: &mut Context<'_>) -> Poll<()> {
        match (self.due, self.sleep.as_mut()) {
            (Some(_), Some(sleep)) => sleep.as_mut().poll(task),
            _ => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use tokio::{
        runtime::{Builder, LocalOptions},
        time::timeout,
    };

    use super::*;
    use crate::{
        upstream::{
            Group, GroupLimits, GroupSpec, HealthSpec, OwnAddresses, Policy, ServerSpec, TierMember, server::Role,
        },
        wire::{Class, Name, RecordType, Transport, UpstreamQuery},
    };

    const MILLI: Duration = Duration::from_millis(1);
    const HOUR: Duration = Duration::from_hours(1);

    fn races<const N: usize>() -> [Rc<Race>; N] {
        let server = ServerSpec::plain(Transport::Udp, "192.0.2.1:53".parse().unwrap());
        let spec = GroupSpec {
            name: "vpc".into(),
            tiers: vec![vec![TierMember::Server(server)]],
            policy: Policy::Ordered,
            limits: GroupLimits::default(),
            health: HealthSpec::probing(Name::root(), RecordType::NS),
        };
        let group = Arc::new(Group::build(&spec, &OwnAddresses::default(), &Arc::default()));
        let name = "a.example".parse().unwrap();
        let query = UpstreamQuery { name, qtype: RecordType::A, qclass: Class::IN, do_bit: false, cd: false };
        let query = Arc::new(query);
        [(); N].map(|()| Race::new(&query, &group, Role::Traffic, Moment::default()))
    }

    /// Runs a test with deadlines that are kept.
    fn with_deadlines<const N: usize>(test: impl AsyncFnOnce(&Deadlines, [Rc<Race>; N])) {
        let runtime = Builder::new_current_thread().enable_time().build_local(LocalOptions::default()).unwrap();
        runtime.block_on(async {
            let deadlines = Rc::new(Deadlines::default());
            let kept = Rc::clone(&deadlines);
            tokio::task::spawn_local(async move { kept.keep().await });
            test(&deadlines, races()).await;
        });
    }

    async fn is_due(race: &Race) {
        let arrival = timeout(Duration::from_secs(20), poll_fn(|task| race.poll_next(task))).await;
        assert!(arrival.expect("it is woken").is_none(), "nothing arrived");
    }

    #[test]
    fn a_race_is_due_at_the_deadline_that_was_set_last() {
        with_deadlines(async |deadlines, [race, other]| {
            deadlines.set(&other, Moment::now() + HOUR, Moment::now());
            for (first, last) in [(HOUR, 10 * MILLI), (10 * MILLI, 30 * MILLI), (30 * MILLI, Duration::ZERO)] {
                let start = Moment::now();
                deadlines.set(&race, start + first, start);
                tokio::task::yield_now().await;
                deadlines.set(&race, start + last, start);
                is_due(&race).await;
                assert!(Moment::now() >= start + last);
            }
            assert!(!other.is_due.get());
        });
    }

    #[test]
    fn a_race_that_has_ended_leaves_the_others_their_deadlines() {
        with_deadlines(async |deadlines, [one, two, three]| {
            let start = Moment::now();
            for (race, deadline) in [(&one, 5 * MILLI), (&two, HOUR), (&three, 10 * MILLI)] {
                deadlines.set(race, start + deadline, start);
            }
            deadlines.remove(&one);
            is_due(&three).await;
            // The last one took the place of the one that has ended.
            deadlines.set(&three, start + HOUR, start);
            deadlines.set(&two, start + 15 * MILLI, start);
            is_due(&two).await;
            assert!(Moment::now() >= start + 15 * MILLI && !one.is_due.get() && !three.is_due.get());
        });
    }

    #[test]
    fn the_timer_stays_set_while_nothing_waits_only_if_the_next_query_comes_before_it() {
        with_deadlines(async |deadlines, [race]| {
            let ask = |at: Moment| {
                deadlines.set(&race, at + HOUR, at);
                deadlines.remove(&race);
                deadlines.timer.borrow().due
            };
            let start = Moment::now();
            assert_eq!(ask(start), None, "nothing is known of the next query");
            assert_eq!(ask(start + 2 * HOUR), None, "it came later");
            assert_eq!(ask(start + 2 * HOUR + MILLI), Some(start + 3 * HOUR + MILLI), "it came before");
            assert_eq!(ask(start + 2 * HOUR + 2 * MILLI), Some(start + 3 * HOUR + 2 * MILLI), "and moves the timer on");
            assert_eq!(ask(start + 5 * HOUR), None);
        });
    }
}
