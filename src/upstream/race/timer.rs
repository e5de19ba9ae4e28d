//! The timers of one worker's queries, used again.
//!
//! Most queries are answered long before their timer is due. A timer that is dropped then, and another one for the next
//! query, cost more than they seem: the runtime takes a lock for each, and where the new timer is the earliest of all it
//! writes to a descriptor of its own to wake itself, which is two system calls more for each query at light load. The
//! timer of a query that has ended therefore stays set, and the next query moves it to a later time, for which the
//! runtime does nothing until the earlier one has come. A timer that nobody uses wakes its last task once, for nothing;
//! those of probes, which are rare, are dropped.

use std::{
    cell::RefCell,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::time::{Instant, Sleep, sleep_until};

use crate::upstream::server::Role;

/// Timers kept for the next queries; each wakes a task once more.
const MOST_IDLE: usize = 64;

/// The timers of queries that have ended.
#[derive(Default)]
pub(crate) struct Timers(RefCell<Vec<Pin<Box<Sleep>>>>);

/// The timer of a query; a client's is given back on drop.
pub(crate) struct Timer<'a> {
    idle: Option<&'a Timers>,
    /// Always there until the drop.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timers {
    /// A timer that is due at `at`.
    pub(crate) fn take(&self, role: Role, at: Instant) -> Timer<'_> {
        let idle = (role == Role::Traffic).then_some(self);
        let sleep = match idle.and_then(|idle| idle.0.borrow_mut().pop()) {
            Some(mut sleep) => {
                sleep.as_mut().reset(at);
                sleep
            }
            None => Box::pin(sleep_until(at)),
        };
        Timer { idle, sleep: Some(sleep) }
    }
}

impl Timer<'_> {
    /// Sets it to another time.
    pub(crate) fn set(&mut self, at: Instant) {
        if let Some(sleep) = self.sleep.as_mut().filter(|sleep| sleep.deadline() != at) {
            sleep.as_mut().reset(at);
        }
    }

    /// Ready when it is due; wakes the task then.
    pub(super) fn poll(&mut self, task: &mut Context<'_>) -> Poll<()> {
        self.sleep.as_mut().map_or(Poll::Ready(()), |sleep| sleep.as_mut().poll(task))
    }
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        let Some(Timers(idle)) = self.idle else { return };
        let mut idle = idle.borrow_mut();
        if idle.len() < MOST_IDLE {
            idle.extend(self.sleep.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use super::*;

    #[test]
    fn a_timer_that_is_used_again_is_due_at_its_new_time() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (timers, start) = (Timers::default(), Instant::now());
            let after = |millis| start + Duration::from_millis(millis);
            // Given back while it is set to an hour, to less, and when it was due.
            let hour = after(3_600_000);
            for (abandoned, due) in [(hour, after(10)), (after(20), hour), (after(30), after(40))] {
                let mut timer = timers.take(Role::Traffic, abandoned);
                poll_fn(|task| Poll::Ready(timer.poll(task).is_ready())).await;
                drop(timer);
                let mut timer = timers.take(Role::Traffic, due);
                if due == hour {
                    timer.set(after(30));
                }
                poll_fn(|task| timer.poll(task)).await;
                assert!(Instant::now() >= due.min(after(30)));
                drop(timer);
                assert_eq!(timers.0.borrow().len(), 1, "the same timer each time");
            }
        });
    }
}
