//! Probes the health of servers: one task on the control thread's runtime, with a client and sockets of its own.
//!
//! Policy: a healthy server is probed when it has had no good answer and no probe for `interval`, so a busy one is
//! never probed (except with `expect`, where only a probe shows that answers are private). A suspect or down server is
//! probed every `interval_down`, and at once when a doubt arises. Intervals are jittered by a fifth, so that instances
//! do not probe in step. A probe sends up to three datagrams within the group's time-out, so one lost packet is not a
//! failed probe. Probes are neither hedged nor held to `max_qps`.
//!
//! The default probe was not chosen by the operator, and servers that drop or refuse it may answer everything else. So
//! any answer to it is good, unless traffic got only errors, for different names. If the probe got no answer, or
//! traffic confirms its error, a query that was recently answered in traffic decides. The outcome of a configured probe
//! always stands.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use hashbrown::HashMap;
use rand::RngExt;
use tokio::sync::{Notify, watch};

use crate::{
    clock::Moment,
    networks::Networks,
    upstream::{
        group::Group,
        link::UpstreamClient,
        server::{
            Alarm, Role, Server,
            health::{Event, HealthState, ProbeError},
        },
        spec::HealthSpec,
    },
    wire::{Response, UpstreamQuery, addresses::find_address},
};

/// The groups to probe; a reload sends new ones.
pub type Targets = Vec<Arc<Group>>;

/// The least time between two probes of a server, however many doubts arise.
const LEAST_SPACING: Duration = Duration::from_millis(100);
/// How often groups with several tiers are checked, so that a better tier is used again even without a query.
const LOOK: Duration = Duration::from_millis(500);
/// How often other groups are checked, unless a probe is due or an alarm raised before.
const LONGEST_LOOK: Duration = Duration::from_secs(5);

/// The state of a server's probes.
#[derive(Debug, Clone, Copy)]
struct Schedule {
    last: Option<Moment>,
    /// Random part of an interval to wait.
    jitter: f64,
    doubts_seen: u64,
    is_asking: bool,
}

type Schedules = HashMap<u64, Schedule>;

/// Probes `targets` until their sender is gone. Must run where local tasks can be spawned. The client opens at most its
/// share of the source ports.
pub async fn run(client: Rc<UpstreamClient>, mut targets: watch::Receiver<Targets>, alarm: Arc<Alarm>) {
    let schedules: Rc<RefCell<Schedules>> = Rc::default();
    let done = Rc::new(Notify::new());
    loop {
        let groups = targets.borrow_and_update().clone();
        let wait = look(&groups, &client, &schedules, &done);
        tokio::select! {
            changed = targets.changed() => if changed.is_err() {
                return;
            },
            () = alarm.notified() => {}
            () = done.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Starts the probes that are due and returns the time until the next one.
fn look(
    groups: &Targets,
    client: &Rc<UpstreamClient>,
    schedules: &Rc<RefCell<Schedules>>,
    done: &Rc<Notify>,
) -> Duration {
    let now = Moment::now();
    let has_tiers = groups.iter().any(|group| group.tiers().len() > 1);
    let mut wait = if has_tiers { LOOK } else { LONGEST_LOOK };
    schedules.borrow_mut().retain(|id, _| groups.iter().any(|group| group.servers().any(|s| s.id() == *id)));
    for group in groups {
        group.tier(now);
        for (place, server) in group.places() {
            let mut all = schedules.borrow_mut();
            let schedule = all.entry(server.id()).or_insert_with(Schedule::new);
            if schedule.is_asking {
                continue;
            }
            let due = schedule.due(server, group.health());
            if due > now {
                wait = wait.min(due.since(now).max(Duration::from_millis(1)));
                continue;
            }
            schedule.begin(server, now);
            let asking = ask(Rc::clone(client), Arc::clone(group), place);
            let (schedules, done, id) = (Rc::clone(schedules), Rc::clone(done), server.id());
            tokio::task::spawn_local(async move {
                asking.await;
                if let Some(schedule) = schedules.borrow_mut().get_mut(&id) {
                    schedule.is_asking = false;
                }
                done.notify_one();
            });
        }
    }
    wait
}

impl Schedule {
    const fn new() -> Self {
        Self { last: None, jitter: 1.0, doubts_seen: 0, is_asking: false }
    }

    fn begin(&mut self, server: &Server, now: Moment) {
        self.last = Some(now);
        self.jitter = rand::rng().random_range(0.8..=1.2);
        self.doubts_seen = server.doubts();
        self.is_asking = true;
    }

    fn due(&self, server: &Server, spec: &HealthSpec) -> Moment {
        let Some(last) = self.last else { return Moment::default() };
        if server.doubts() != self.doubts_seen {
            return last + LEAST_SPACING;
        }
        if server.state() != HealthState::Up || server.has_no_path() {
            return last + spec.interval_down.mul_f64(self.jitter);
        }
        let good = if spec.expect.is_empty() { server.liveness.last_good() } else { Moment::default() };
        last.max(good) + spec.interval.mul_f64(self.jitter)
    }
}

async fn ask(client: Rc<UpstreamClient>, group: Arc<Group>, place: (u8, u8)) {
    let (tier, at) = place;
    let server = &group.tiers()[usize::from(tier)][usize::from(at)];
    let verdict = probe(&client, &group, place, server).await;
    let event = match verdict {
        Ok(()) => Event::ProbePassed,
        Err(error) => Event::ProbeFailed(error),
    };
    server.observe(event, Moment::now());
}

async fn probe(
    client: &UpstreamClient,
    group: &Arc<Group>,
    place: (u8, u8),
    server: &Server,
) -> Result<(), ProbeError> {
    let spec = group.health();
    let send = async |query: &Arc<UpstreamQuery>| {
        let deadline = Moment::now() + group.limits().timeout;
        client.probe(group, place, query, Role::Probe, deadline).await
    };
    let answer = send(&Arc::new(spec.probe.clone())).await;
    if spec.probe_stands() {
        return judge(&answer?, spec);
    }
    let now = Moment::now();
    let error = match answer {
        Ok(_) => return Ok(()),
        Err(ProbeError::Rcode) if !server.liveness.fails_traffic(now) => return Ok(()),
        Err(error @ ProbeError::NotSent) => return Err(error),
        Err(error) => error,
    };
    let Some(known) = server.liveness.answered_lately(now) else { return Err(error) };
    match (send(&known).await, error) {
        (Ok(_), _) => Ok(()),
        // The server answered this query, but not the default probe.
        (Err(ProbeError::Rcode), ProbeError::Silent) if !server.liveness.fails_traffic(Moment::now()) => Ok(()),
        (Err(_), error) => Err(error),
    }
}

/// Checks a response: with `expect`, it must have addresses, all of them in those networks.
fn judge(response: &Response, spec: &HealthSpec) -> Result<(), ProbeError> {
    if spec.expect.is_empty() {
        return Ok(());
    }
    let expected = Networks::new(spec.expect.iter().map(|&network| (network, ())));
    let mut seen = 0;
    let foreign = find_address(response.message(), |address| {
        seen += 1;
        (!expected.contains(address)).then_some(address)
    });
    match foreign {
        Ok(None) if seen > 0 => Ok(()),
        Ok(_) => Err(ProbeError::Public),
        Err(_) => Err(ProbeError::Malformed),
    }
}
