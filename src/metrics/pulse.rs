//! Whether a worker's loop turns, found out without waking a worker that has nothing to do.
//!
//! A worker that sleeps until something arrives is well: the kernel wakes it. One that runs is asked for a sign of life,
//! which its loop gives when it comes round to it. What counts is how long a worker has left that unanswered.

use std::{
    future::poll_fn,
    sync::atomic::{
        AtomicBool, AtomicU64,
        Ordering::{AcqRel, Relaxed},
    },
    task::{Poll, Waker},
    time::Duration,
};

use parking_lot::Mutex;

use crate::clock::Moment;

/// One worker's pulse: the worker says when it sleeps and answers, any other thread asks.
#[derive(Debug, Default)]
pub struct Pulse {
    is_asleep: AtomicBool,
    /// When a sign of life was asked for that has not been given, in microseconds; 0 for none.
    asked_at: AtomicU64,
    /// The worker's loop, while it waits to be asked.
    waiting: Mutex<Option<Waker>>,
}

impl Pulse {
    /// Notes that the worker has nothing to do and waits for the kernel.
    pub fn falls_asleep(&self) {
        self.is_asleep.store(true, Relaxed);
    }

    /// Notes that the worker goes on.
    pub fn wakes_up(&self) {
        self.is_asleep.store(false, Relaxed);
    }

    /// Waits until a sign of life is asked for, and gives it. The worker's loop awaits this again and again.
    pub async fn answer(&self) {
        poll_fn(|task| {
            *self.waiting.lock() = Some(task.waker().clone());
            // After the waker stands there, so that whoever asks from now on finds it.
            if self.asked_at.swap(0, AcqRel) == 0 { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }

    /// How long the worker has not turned, as far as that is known; asks it where nothing is. Whoever wants to find a
    /// worker that hangs must call this again.
    pub fn silence(&self, now: Moment) -> Duration {
        if self.is_asleep.load(Relaxed) {
            return Duration::ZERO;
        }
        match self.asked_at.compare_exchange(0, now.micros(), AcqRel, Relaxed) {
            Ok(_) => {
                if let Some(waker) = self.waiting.lock().take() {
                    waker.wake();
                }
                Duration::ZERO
            }
            Err(asked_at) => now.since(Moment::from_micros(asked_at)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::Future, pin::pin, task::Context};

    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::at(Duration::from_secs(1000 + seconds))
    }

    #[test]
    fn the_silence_of_a_worker_begins_when_it_is_asked_and_ends_with_its_answer() {
        let pulse = Pulse::default();
        let mut task = Context::from_waker(Waker::noop());
        assert_eq!(pulse.silence(at(0)), Duration::ZERO, "nobody asked before");
        assert_eq!(pulse.silence(at(3)), Duration::from_secs(3));
        assert!(pin!(pulse.answer()).poll(&mut task).is_ready(), "it was asked");
        assert_eq!(pulse.silence(at(9)), Duration::ZERO, "it has answered, and is asked again");
        assert_eq!(pulse.silence(at(10)), Duration::from_secs(1));
    }

    #[test]
    fn a_worker_that_sleeps_is_well_and_is_not_woken() {
        let pulse = Pulse::default();
        let mut task = Context::from_waker(Waker::noop());
        pulse.falls_asleep();
        assert_eq!((pulse.silence(at(0)), pulse.silence(at(100))), (Duration::ZERO, Duration::ZERO));
        assert!(pin!(pulse.answer()).poll(&mut task).is_pending(), "it was asked");
        pulse.wakes_up();
        assert_eq!((pulse.silence(at(100)), pulse.silence(at(103))), (Duration::ZERO, Duration::from_secs(3)));
    }
}
