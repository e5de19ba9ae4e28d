//! The records of all servers by identity, so that they outlive renamed groups, reloads, changes of resolv.conf and an
//! absence of up to an hour.
//!
//! Policy:
//! - A server's identity is its address, port, transport, TLS name, HTTPS path, and its path out of this host (source,
//!   device, mark): its [`ServerKey`]. Other CAs or thresholds do not change it.
//! - There is one record for each group and server, since probes, thresholds and labels belong to the group. A group
//!   keeps its own record; else it takes one that no group uses any more (the group was renamed, or the server moved);
//!   else it gets a new record, copied from what another group knows.
//! - If a server is drained in a group, other paths (source, device, mark) to the same machine in that group are
//!   drained too.
//! - The record of a server that left is kept for an hour, and so are its metrics.
//!
//! All groups are built in one go, whatever changed the servers: the configuration, resolv.conf, or the addresses of a
//! name. A known server that is not among them has left.

use std::{
    sync::{Arc, Weak, atomic::Ordering::Relaxed},
    time::Duration,
};

use parking_lot::Mutex;

use crate::{
    clock::Moment,
    upstream::spec::{ServerKey, ServerSpec},
    wire::Transport,
};

use super::{Alarm, Server, ServerPolicy, record::ServerRecord};

/// How long the record of a server that left is kept.
const MEMORY: Duration = Duration::from_hours(1);

/// The records of all servers.
#[derive(Debug)]
pub struct ServerRegistry {
    alarm: Arc<Alarm>,
    known: Mutex<Vec<Known>>,
}

/// A server in a group.
#[derive(Debug)]
struct Known {
    key: ServerKey,
    group: Arc<str>,
    tier: usize,
    label: String,
    record: Arc<ServerRecord>,
    /// The server that writes the record, while it is in the group.
    server: Weak<Server>,
    probe_stands: bool,
    left_at: Option<Moment>,
}

/// A server that a group needs a record for.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) group: Arc<str>,
    pub(crate) tier: usize,
    pub(crate) spec: ServerSpec,
    pub(crate) rules: ServerPolicy,
}

/// A server that left less than an hour ago.
#[derive(Debug)]
pub struct FormerServer {
    /// The group it was in.
    pub group: Arc<str>,
    /// The tier it was in.
    pub tier: usize,
    /// Its name in that group.
    pub label: String,
    /// Its transport.
    pub transport: Transport,
    /// Its record.
    pub record: Arc<ServerRecord>,
}

impl ServerRegistry {
    /// A registry without servers. `alarm` wakes the prober.
    pub fn new(alarm: Arc<Alarm>) -> Self {
        Self { alarm, known: Mutex::default() }
    }

    /// Assigns a record to each server of all groups. Known servers that are not listed have left.
    pub(crate) fn assign(&self, wanted: Vec<Wanted>, now: Moment) -> Vec<Arc<Server>> {
        let mut known = self.known.lock();
        let mut before: Vec<Option<Known>> = known.drain(..).map(Some).collect();
        let mut taken: Vec<Option<Known>> =
            wanted.iter().map(|wanted| take(&mut before, wanted, Owner::Same)).collect();
        for (wanted, taken) in wanted.iter().zip(&mut taken) {
            if taken.is_none() {
                *taken = take(&mut before, wanted, Owner::Any);
            }
        }
        let left = before.into_iter().flatten().map(|known| Known { left_at: known.left_at.or(Some(now)), ..known });
        let left: Vec<Known> = left.collect();
        let mut servers: Vec<Arc<Server>> = Vec::with_capacity(wanted.len());
        for (at, wanted) in wanted.into_iter().enumerate() {
            let kept = taken[at].as_ref().map(|known| (known.server.upgrade(), Arc::clone(&known.record)));
            let server = match kept {
                Some((Some(server), _)) if *server.spec() == wanted.spec && *server.group() == *wanted.group => {
                    server.set_rules(wanted.rules.clone());
                    server
                }
                Some((_, record)) => self.make(&wanted, record),
                None => {
                    let others = || known.iter().chain(taken.iter().flatten());
                    let record = new_record(&wanted, others(), left.iter().chain(others()));
                    self.make(&wanted, Arc::new(record))
                }
            };
            taken[at] = None;
            known.push(Known {
                key: wanted.spec.key(),
                group: wanted.group,
                tier: wanted.tier,
                label: server.label().to_owned(),
                record: Arc::clone(server.record()),
                server: Arc::downgrade(&server),
                probe_stands: wanted.rules.health.probe_stands(),
                left_at: None,
            });
            servers.push(server);
        }
        known.extend(left);
        servers
    }

    fn make(&self, wanted: &Wanted, record: Arc<ServerRecord>) -> Arc<Server> {
        let Wanted { group, spec, rules, .. } = wanted;
        Arc::new(Server::new(Arc::clone(group), spec.clone(), rules.clone(), record, Arc::clone(&self.alarm)))
    }

    /// The servers that left less than an hour before the last call of [`Self::forget`].
    pub fn former(&self) -> Vec<FormerServer> {
        let known = self.known.lock();
        let former = known.iter().filter(|known| known.left_at.is_some()).map(|known| FormerServer {
            group: Arc::clone(&known.group),
            tier: known.tier,
            label: known.label.clone(),
            transport: known.key.transport,
            record: Arc::clone(&known.record),
        });
        former.collect()
    }

    /// Forgets the servers that left more than an hour ago.
    pub fn forget(&self, now: Moment) {
        self.known.lock().retain(|known| known.left_at.is_none_or(|left_at| now.since(left_at) < MEMORY));
    }
}

/// Whose record may be taken over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// Only a record of the same group.
    Same,
    /// A record of any group.
    Any,
}

/// Takes the server's record; of several, the one that was in use last.
fn take(known: &mut [Option<Known>], wanted: &Wanted, owner: Owner) -> Option<Known> {
    let key = wanted.spec.key();
    let is_it = |known: &&mut Option<Known>| {
        known.as_ref().is_some_and(|known| known.key == key && (owner == Owner::Any || known.group == wanted.group))
    };
    let last = |slot: &&mut Option<Known>| {
        let left_at = slot.as_ref().and_then(|known| known.left_at);
        (left_at.is_none(), left_at)
    };
    known.iter_mut().filter(is_it).max_by_key(last)?.take()
}

/// Makes the record of a server that its group has not had. `others` holds the records in use, `before` those of
/// servers that left.
fn new_record<'k>(
    wanted: &Wanted,
    others: impl Iterator<Item = &'k Known>,
    before: impl Iterator<Item = &'k Known>,
) -> ServerRecord {
    let key = wanted.spec.key();
    let others: Vec<&Known> = others.filter(|other| other.key == key).collect();
    if let Some(other) = others.first() {
        let is_health_shared = !other.probe_stands && !wanted.rules.health.probe_stands();
        let record = other.record.for_another_group(is_health_shared);
        record.is_drained.store(others.iter().all(|other| other.record.is_drained()), Relaxed);
        return record;
    }
    let is_same_machine = |other: &&Known| other.group == wanted.group && other.key.is_same_machine(&key);
    let record = ServerRecord::default();
    let mut same = before.filter(is_same_machine).peekable();
    if same.peek().is_some() && same.all(|other| other.record.is_drained()) {
        record.is_drained.store(true, Relaxed);
    }
    record
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        tls::Roots,
        upstream::{
            server::{
                Role,
                health::{Event, HealthState},
                tally::{QueryResult, Stripe},
            },
            spec::{Egress, HealthSpec, Identity, ProbeOrigin},
        },
        wire::{Name, RecordType},
    };

    fn default_rules() -> ServerPolicy {
        let probing = HealthSpec::probing(Name::root(), RecordType::NS);
        let health = HealthSpec { origin: ProbeOrigin::Default, ..probing };
        ServerPolicy { health, timeout: Duration::from_secs(1), max_qps: None }
    }

    fn wanted(group: &str, address: &str) -> Wanted {
        let spec = ServerSpec::plain(Transport::Udp, address.parse().unwrap());
        Wanted { group: group.into(), tier: 0, spec, rules: default_rules() }
    }

    fn registry() -> ServerRegistry {
        ServerRegistry::new(Arc::default())
    }

    fn one(registry: &ServerRegistry, wanted: Wanted, now: Moment) -> Arc<Server> {
        registry.assign(vec![wanted], now).remove(0)
    }

    /// Sets every kind of state in a server's record.
    fn use_it(server: &Server, now: Moment) {
        server.observe(Event::ProbePassed, now);
        server.sample(Duration::from_millis(7));
        server.tally.ended(Stripe::of(0), Transport::Udp, QueryResult::Ok);
        server.drain();
    }

    fn is_the_one_used(server: &Server) -> bool {
        server.state() == HealthState::Up
            && server.rtt().is_some()
            && server.tally.queries(Transport::Udp, QueryResult::Ok) == 1
            && server.is_drained()
    }

    const ONE: &str = "192.0.2.1:53";
    const TWO: &str = "192.0.2.2:53";

    #[test]
    fn a_reload_keeps_the_server_itself() {
        let (registry, now) = (registry(), Moment::now());
        let before = one(&registry, wanted("vpc", ONE), now);
        let mut again = wanted("vpc", ONE);
        again.rules.health.fall = 9;
        let after = one(&registry, again, now);
        assert!(Arc::ptr_eq(&before, &after));
        assert_eq!(after.rules().health.fall, 9);
    }

    #[test]
    fn a_renamed_group_keeps_what_is_known_of_its_servers() {
        let (registry, now) = (registry(), Moment::now());
        let [old, other] = registry.assign(vec![wanted("vpc", ONE), wanted("other", ONE)], now).try_into().unwrap();
        use_it(&old, now);
        let servers = registry.assign(vec![wanted("aws", ONE), wanted("other", ONE)], now);
        assert!(is_the_one_used(&servers[0]) && servers[0].group() == "aws");
        assert!(Arc::ptr_eq(&servers[1], &other), "a group that is still there keeps its own");
        assert!(registry.former().is_empty());
    }

    #[test]
    fn a_server_that_moves_to_another_group_stays_known() {
        let (registry, now) = (registry(), Moment::now());
        let servers = registry.assign(vec![wanted("vpc", ONE), wanted("site", TWO)], now);
        use_it(&servers[0], now);
        let servers = registry.assign(vec![wanted("vpc", TWO), wanted("site", ONE)], now);
        assert!(is_the_one_used(&servers[1]) && !is_the_one_used(&servers[0]));
    }

    #[test]
    fn other_cas_make_no_other_server() {
        let (registry, now) = (registry(), Moment::now());
        let with = |roots| {
            let identity = Identity { name: Some("dns.example".to_owned()), roots };
            let spec = ServerSpec::encrypted(Transport::Tls, "192.0.2.1:853".parse().unwrap(), identity);
            Wanted { spec, ..wanted("vpc", ONE) }
        };
        let before = one(&registry, with(Roots::of_system()), now);
        use_it(&before, now);
        let other = rcgen::generate_simple_self_signed(["ca.example".to_owned()]).unwrap().cert.pem();
        let after = one(&registry, with(Roots::from_pem(other.as_bytes()).unwrap()), now);
        assert!(!Arc::ptr_eq(&before, &after), "connections are opened with the new CAs");
        assert!(is_the_one_used(&after));
    }

    #[test]
    fn an_absence_of_an_hour_changes_nothing_and_a_longer_one_everything() {
        let (registry, start) = (registry(), Moment::now());
        let hour = Duration::from_hours(1);
        let server = one(&registry, wanted("vpc", ONE), start);
        use_it(&server, start);
        drop(server);
        assert!(registry.assign(Vec::new(), start).is_empty());
        registry.forget(start + hour / 2);
        // Other reloads in the meantime do not restart the hour.
        one(&registry, wanted("vpc", TWO), start + hour / 2);
        let former = registry.former();
        assert_eq!(former.iter().map(|former| &*former.label).collect::<Vec<_>>(), ["192.0.2.1"]);
        assert!(former[0].record.is_drained());
        registry.forget(start + hour - Duration::from_secs(1));
        let back = one(&registry, wanted("renamed", ONE), start + hour);
        assert!(is_the_one_used(&back));
        drop(back);
        registry.assign(Vec::new(), start + hour);
        registry.forget(start + hour * 2 - Duration::from_secs(1));
        assert!(registry.former().iter().any(|former| former.label == "192.0.2.1"));
        registry.forget(start + hour * 2);
        assert!(registry.former().is_empty());
        assert!(!is_the_one_used(&one(&registry, wanted("vpc", ONE), start + hour * 2)));
    }

    #[test]
    fn another_group_begins_with_what_is_known_and_counts_for_itself() {
        let (registry, now) = (registry(), Moment::now());
        let first = one(&registry, wanted("vpc", ONE), now);
        use_it(&first, now);
        for _ in 0..20 {
            first.late(now, now + Duration::from_secs(2), Role::Traffic);
        }
        first.late(now, now + Duration::from_secs(2), Role::Probe);
        assert_eq!(first.state(), HealthState::Down);
        let mut chosen = wanted("chosen", ONE);
        chosen.rules.health.origin = ProbeOrigin::Configured;
        let servers = registry.assign(vec![wanted("vpc", ONE), wanted("other", ONE), chosen], now);
        for server in &servers[1..] {
            assert!(server.is_drained() && server.rtt().is_some());
            assert_eq!(server.tally.queries(Transport::Udp, QueryResult::Ok), 0);
        }
        assert_eq!(servers[1].state(), HealthState::Down);
        assert_eq!(servers[2].state(), HealthState::Suspect, "its own probe decides");
        servers[0].undrain();
        let all = ["vpc", "other", "chosen", "new"].map(|group| wanted(group, ONE));
        let servers = registry.assign(all.into(), now);
        let drained: Vec<bool> = servers.iter().map(|server| server.is_drained()).collect();
        assert_eq!(drained, [false, true, true, false], "drained in some groups, so not in a new one");
    }

    #[test]
    fn another_path_to_a_drained_machine_is_drained_unless_a_path_is_in_service() {
        let (registry, now) = (registry(), Moment::now());
        let by = |mark| Wanted {
            spec: ServerSpec { via: Egress { mark, ..Egress::default() }, ..wanted("vpc", ONE).spec },
            ..wanted("vpc", ONE)
        };
        one(&registry, by(1), now).drain();
        let servers = registry.assign(vec![by(2)], now);
        assert!(servers[0].is_drained(), "a change of mark does not put a machine back into service");
        assert_eq!(servers[0].rtt(), None);
        servers[0].undrain();
        assert!(!registry.assign(vec![by(2), by(3)], now)[1].is_drained());
    }
}
