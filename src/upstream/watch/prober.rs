//! Probes the health of servers: one task on the control thread's runtime, with a client and sockets of its own.
//!
//! Policy: a healthy server is probed when it has had no good answer and no probe for `interval`, so a busy one is
//! never probed (except with `expect`, where only a probe shows that answers are private). A suspect or down server is
//! probed every `interval_down`, and at once when a doubt arises. Intervals are jittered by a fifth, so that instances
//! do not probe in step; servers of one instance are probed in step where that is possible, since one wake-up of an idle
//! host is cheaper than many. A probe sends up to three datagrams within the group's time-out, so one lost packet is not a
//! failed probe. Probes are neither hedged nor held to `max_qps`.
//!
//! The default probe was not chosen by the operator, and servers that drop or refuse it may answer everything else. So
//! any answer to it is good, unless traffic got only errors, for different names. If the probe got no answer, or
//! traffic confirms its error, a query that was recently answered in traffic decides. The outcome of a configured probe
//! always stands.

use std::{cell::RefCell, ops::RangeInclusive, rc::Rc, sync::Arc, time::Duration};

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
/// How often groups that use a backup tier are checked, so that a better one is used again even without a query.
const LOOK: Duration = Duration::from_millis(500);
/// How often other groups are checked, unless a probe is due or an alarm raised before.
const LONGEST_LOOK: Duration = Duration::from_secs(5);
/// The random part of an interval after which a probe is due. It may be sent earlier by [`EARLY`] of the interval, so the
/// interval is jittered by a fifth.
const JITTER: RangeInclusive<f64> = 0.9..=1.2;
/// The part of an interval by which a probe may be early, if another probe is due.
const EARLY: f64 = 0.1;
/// The most servers that are probed in step.
const IN_STEP: usize = 32;

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
    // Each is asked: that brings its tier up to date.
    let uses_backup = groups.iter().filter(|group| group.tier(now) > 0).count() > 0;
    let (due, next) = take_due(&mut schedules.borrow_mut(), groups, now);
    for (group, place, id) in due {
        let asking = ask(Rc::clone(client), Arc::clone(group), place);
        let (schedules, done) = (Rc::clone(schedules), Rc::clone(done));
        tokio::task::spawn_local(async move {
            asking.await;
            if let Some(schedule) = schedules.borrow_mut().get_mut(&id) {
                schedule.is_asking = false;
            }
            done.notify_one();
        });
    }
    next.min(if uses_backup { LOOK } else { LONGEST_LOOK })
}

/// A server to probe: its group, its tier and place there, its id.
type DueServer<'a> = (&'a Arc<Group>, (u8, u8), u64);

/// Begins the probes that are due, and returns their servers with the time until the next probe is due.
fn take_due<'a>(all: &mut Schedules, groups: &'a Targets, now: Moment) -> (Vec<DueServer<'a>>, Duration) {
    if all.len() > groups.iter().map(|group| group.servers().count()).sum() {
        all.retain(|id, _| groups.iter().any(|group| group.servers().any(|server| server.id() == *id)));
    }
    let is_due = |server: &Server, spec: &HealthSpec| {
        all.get(&server.id()).is_none_or(|schedule| !schedule.is_asking && schedule.due(server, spec).at <= now)
    };
    let is_any_due = groups.iter().any(|group| group.servers().any(|server| is_due(server, group.health())));
    let (mut taken, mut next, mut jitter) = (Vec::new(), Duration::MAX, draw_jitter());
    for group in groups {
        for (place, server) in group.places() {
            let schedule = all.entry(server.id()).or_insert_with(Schedule::new);
            if schedule.is_asking {
                continue;
            }
            let due = schedule.due(server, group.health());
            let early = if is_any_due { due.early } else { Duration::ZERO };
            if due.at > now + early {
                next = next.min(due.at.since(now).max(Duration::from_millis(1)));
                continue;
            }
            schedule.begin(server, jitter, now);
            taken.push((group, place, server.id()));
            if taken.len().is_multiple_of(IN_STEP) {
                jitter = draw_jitter();
            }
        }
    }
    (taken, next)
}

impl Schedule {
    const fn new() -> Self {
        Self { last: None, jitter: 1.0, doubts_seen: 0, is_asking: false }
    }

    fn begin(&mut self, server: &Server, jitter: f64, now: Moment) {
        *self = Self { last: Some(now), jitter, doubts_seen: server.doubts(), is_asking: true };
    }

    fn due(&self, server: &Server, spec: &HealthSpec) -> Due {
        let Some(last) = self.last else { return Due::exactly(Moment::default()) };
        if server.doubts() != self.doubts_seen {
            return Due::exactly(last + LEAST_SPACING);
        }
        if server.state() != HealthState::Up || server.has_no_path() {
            return Due::about(last, spec.interval_down, self.jitter);
        }
        let good = if spec.expect.is_empty() { server.liveness.last_good() } else { Moment::default() };
        Due::about(last.max(good), spec.interval, self.jitter)
    }
}

/// When a probe is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Due {
    at: Moment,
    /// How much earlier it may be sent with another one.
    early: Duration,
}

impl Due {
    const fn exactly(at: Moment) -> Self {
        Self { at, early: Duration::ZERO }
    }

    fn about(last: Moment, interval: Duration, jitter: f64) -> Self {
        Self { at: last + interval.mul_f64(jitter), early: interval.mul_f64(EARLY) }
    }
}

fn draw_jitter() -> f64 {
    rand::rng().random_range(JITTER)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        upstream::{GroupLimits, GroupSpec, OwnAddresses, Policy, ServerSpec, TierMember},
        wire::{Name, RecordType, Transport},
    };

    #[test]
    fn servers_that_are_due_about_the_same_time_are_probed_in_step() {
        let server = |port: u16| TierMember::Server(ServerSpec::plain(Transport::Udp, ([127, 0, 0, 1], port).into()));
        let spec = GroupSpec {
            name: "vpc".into(),
            tiers: vec![(1..=3).map(server).collect()],
            policy: Policy::Ordered,
            limits: GroupLimits::default(),
            health: HealthSpec::probing(Name::root(), RecordType::NS),
        };
        let groups = vec![Arc::new(Group::build(&spec, &OwnAddresses::default(), &Arc::default()))];
        let ids: Vec<u64> = groups[0].servers().map(|server| server.id()).collect();
        // Nothing was heard from them yet.
        let (mut all, interval) = (Schedules::new(), spec.health.interval_down);
        let taken = |all: &mut Schedules, now| -> Vec<u64> {
            let (due, _) = take_due(all, &groups, now);
            all.values_mut().for_each(|schedule| schedule.is_asking = false);
            due.into_iter().map(|(_, _, id)| id).collect()
        };
        let start = Moment::now();
        assert_eq!(taken(&mut all, start), ids, "nothing is known of them");
        assert!(taken(&mut all, start + interval.mul_f64(0.7)).is_empty());
        let (due, next) = take_due(&mut all, &groups, start + interval.mul_f64(0.7));
        assert!(due.is_empty() && next >= interval.mul_f64(0.19) && next <= interval.mul_f64(0.51), "{next:?}");
        let all_due = start + interval.mul_f64(0.7) + next;
        assert_eq!(taken(&mut all.clone(), all_due), ids, "one wake-up for all");
        // Traffic has put two of them out of step.
        for (id, part) in [(ids[1], 0.05), (ids[2], 0.2)] {
            let schedule = all.get_mut(&id).unwrap();
            schedule.last = Some(start + interval.mul_f64(part));
        }
        assert_eq!(taken(&mut all.clone(), all_due), ids[..2], "one is a little early, one would be too early");
        assert!(taken(&mut all, all_due - interval.mul_f64(0.01)).is_empty(), "none is early alone");
    }
}
