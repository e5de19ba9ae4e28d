//! Queries in flight by id: one table serves all ports of a link, another each of its connections.

use std::{num::NonZeroU64, rc::Rc, time::Duration};

use hashbrown::HashTable;
use rand::{Rng, rngs::StdRng};

use crate::{
    clock::Moment,
    config::Recursion,
    upstream::{
        race::{Arrival, EdnsUse, Leg, Outcome, Race, likeness},
        server::tally::MismatchReason,
        spec::LetterCase,
    },
    wire::{MessageId, Mismatch, Response, UpstreamQuery, header, header::HEADER},
};

/// Half of all ids, so that a random one is free at the second attempt on average.
const MOST: usize = 32_768;

/// Queries by id.
#[derive(Default)]
pub(super) struct InFlight(HashTable<Flight>);

/// A query on the wire.
pub(super) struct Flight {
    race: Rc<Race>,
    leg: Leg,
    edns: EdnsUse,
    sent_at: Moment,
    id: MessageId,
    /// Seed of the letter case, if mixed.
    case_seed: Option<NonZeroU64>,
    sender: u32,
}

/// Identifies a query in flight, also against an earlier one that had its id.
#[derive(Debug, Clone, Copy)]
pub(super) struct FlightKey {
    pub(super) id: u16,
    pub(super) sender: u32,
}

impl InFlight {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a query under a random free id; none if there are too many.
    pub(super) fn insert(&mut self, mut flight: Flight, case: LetterCase, random: &mut StdRng) -> Option<&Flight> {
        if self.0.len() >= MOST {
            return None;
        }
        flight.case_seed =
            (case == LetterCase::Mixed).then(|| NonZeroU64::new(random.next_u64()).unwrap_or(NonZeroU64::MIN));
        let id = self.free_id(random);
        flight.id = MessageId(id);
        Some(self.0.insert_unique(hash(id), flight, |flight| hash(flight.id())).into_mut())
    }

    fn get(&self, id: u16) -> Option<&Flight> {
        self.0.find(hash(id), |flight| flight.id() == id)
    }

    fn free_id(&self, random: &mut StdRng) -> u16 {
        loop {
            let bits = random.next_u32();
            let halves = [bits & 0xffff, bits >> 16].map(|half| u16::try_from(half).unwrap_or(0));
            if let Some(&id) = halves.iter().find(|id| self.get(**id).is_none()) {
                return id;
            }
        }
    }

    /// Takes the query that a message answers, together with the outcome for it. `sender` is the socket that received
    /// the message, if there are several.
    pub(super) fn take(&mut self, message: &[u8], sender: Option<u32>) -> Result<(Flight, Outcome), MismatchReason> {
        let id = header::id(message).map_err(|_| MismatchReason::Short)?;
        let flight = self.get(id.0).ok_or(MismatchReason::Id)?;
        if sender.is_some_and(|sender| sender != flight.sender) {
            return Err(MismatchReason::Socket);
        }
        let outcome = flight.read(message, id)?;
        let flight = self.take_id(id.0).ok_or(MismatchReason::Id)?;
        Ok((flight, outcome))
    }

    /// Reports to its query a message that matches except for letter case, which may be the server's doing or a
    /// forger's: answers, errors, and what was truncated. True if there is such a query.
    pub(super) fn note_changed_case(&self, message: &[u8], sender: u32, now: Moment) -> bool {
        let Ok(id) = header::id(message) else { return false };
        let mixed = |flight: &&Flight| flight.sender == sender && flight.case_seed.is_some();
        let Some(flight) = self.get(id.0).filter(mixed) else { return false };
        let response = Response::read(message, &flight.race.query, id, None);
        if let Ok(response) = &response {
            flight.deliver(Outcome::CaseChanged(likeness(response)), now);
        }
        response.is_ok()
    }

    /// The key of the query that has this id now.
    pub(super) fn key(&self, id: u16) -> Option<FlightKey> {
        self.get(id).map(|flight| FlightKey { id, sender: flight.sender })
    }

    /// Takes a query, unless it has expired and its id been reused.
    pub(super) fn take_key(&mut self, key: FlightKey) -> Option<Flight> {
        self.get(key.id).filter(|flight| flight.sender == key.sender)?;
        self.take_id(key.id)
    }

    /// Takes the query with this id.
    pub(super) fn take_id(&mut self, id: u16) -> Option<Flight> {
        self.0.find_entry(hash(id), |flight| flight.id() == id).ok().map(|entry| entry.remove().0)
    }

    /// Takes the queries sent from one socket.
    pub(super) fn take_of(&mut self, sender: u32) -> Vec<Flight> {
        self.0.extract_if(|flight| flight.sender == sender).collect()
    }

    /// Takes the queries that were sent at least `timeout` ago; nobody may be waiting for them any more.
    pub(super) fn expire(&mut self, timeout: Duration, now: Moment) -> Vec<Flight> {
        let is_over = |flight: &mut Flight| now >= flight.race.deadline.max(flight.sent_at + timeout);
        self.0.extract_if(is_over).collect()
    }

    /// Whether a query was sent after `at` and has waited for this long.
    pub(super) fn has_waited(&self, timeout: Duration, at: Moment, now: Moment) -> bool {
        self.0.iter().any(|flight| flight.sent_at > at && now.since(flight.sent_at) >= timeout)
    }

    /// Whether the table has a query of this race.
    pub(super) fn has(&self, race: &Rc<Race>) -> bool {
        self.0.iter().any(|flight| Rc::ptr_eq(&flight.race, race))
    }

    /// Takes all queries.
    pub(super) fn drain(&mut self) -> Vec<Flight> {
        self.0.drain().collect()
    }
}

/// Ids are random; the table wants their bits at both ends.
const fn hash(id: u16) -> u64 {
    (id as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Flight {
    /// A query that gets its id when it is added to the table. `sender` is the socket that sends it, or its serial
    /// number on a connection.
    pub(super) fn new(race: &Rc<Race>, leg: Leg, edns: EdnsUse, sender: u32, now: Moment) -> Self {
        Self { race: Rc::clone(race), leg, edns, sent_at: now, id: MessageId(0), case_seed: None, sender }
    }

    pub(super) fn race(&self) -> &Race {
        &self.race
    }

    /// The parts needed to send the query again.
    pub(super) const fn parts(&self) -> (&Rc<Race>, Leg, EdnsUse) {
        (&self.race, self.leg, self.edns)
    }

    pub(super) const fn id(&self) -> u16 {
        self.id.0
    }

    pub(super) const fn sender(&self) -> u32 {
        self.sender
    }

    pub(super) const fn sent_at(&self) -> Moment {
        self.sent_at
    }

    /// Sets the start of the RTT to `at` if the query was queued earlier, before the connection was open.
    pub(super) fn sent_no_sooner_than(&mut self, at: Moment) {
        self.sent_at = self.sent_at.max(at);
    }

    pub(super) fn has_edns(&self) -> bool {
        self.edns == EdnsUse::With
    }

    /// Writes the message; none where `buffer` is too short.
    pub(super) fn write(&self, buffer: &mut [u8]) -> Option<usize> {
        let limits = self.race.group.limits();
        let payload = self.has_edns().then_some(limits.udp_payload);
        let length = self.race.query.write(self.id, payload, self.case_seed.map(NonZeroU64::get), buffer);
        if limits.recursion == Recursion::NotDesired {
            UpstreamQuery::clear_rd(buffer);
        }
        length
    }

    /// Reads a message that arrived for this query; `id` is its id on the wire.
    pub(super) fn read(&self, message: &[u8], id: MessageId) -> Result<Outcome, MismatchReason> {
        let query = &self.race.query;
        let response = match self.case_seed {
            None => Response::read(message, query, id, None),
            Some(seed) => {
                let mut sent = [0; UpstreamQuery::MAX];
                let end = query.write(id, None, Some(seed.get()), &mut sent).unwrap_or(HEADER);
                Response::read(message, query, id, Some(&sent[HEADER..end]))
            }
        };
        match response {
            Ok(response) => Ok(Outcome::of(response, self.edns, self.race.group.limits().recursion)),
            Err(Mismatch::Malformed(_)) => Ok(Outcome::of_malformed(message, self.edns)),
            Err(Mismatch::Short) => Err(MismatchReason::Short),
            Err(Mismatch::NotAResponse) => Err(MismatchReason::NotAResponse),
            Err(Mismatch::Id) => Err(MismatchReason::Id),
            Err(Mismatch::Question) => Err(MismatchReason::Question),
        }
    }

    pub(super) fn deliver(&self, outcome: Outcome, now: Moment) {
        self.race.deliver(Arrival { leg: self.leg, outcome, rtt: now.since(self.sent_at), at: now });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        upstream::{
            Group, GroupLimits, GroupSpec, HealthSpec, OwnAddresses, Policy, ServerSpec, TierMember, server::Role,
        },
        wire::{Class, Name, Rcode, RecordType, Transport},
    };

    fn race() -> Rc<Race> {
        let server = ServerSpec::plain(Transport::Udp, "192.0.2.1:53".parse().unwrap());
        let spec = GroupSpec {
            name: "vpc".into(),
            tiers: vec![vec![TierMember::Server(server)]],
            policy: Policy::Ordered,
            limits: GroupLimits::default(),
            health: HealthSpec::probing(Name::root(), RecordType::NS),
        };
        let group = Arc::new(Group::build(&spec, &OwnAddresses::default(), &Arc::default()));
        let query = UpstreamQuery {
            name: "a.example".parse().unwrap(),
            qtype: RecordType::A,
            qclass: Class::IN,
            do_bit: false,
            cd: false,
        };
        Race::new(&Arc::new(query), &group, Role::Traffic, Moment::default())
    }

    #[test]
    fn a_query_is_taken_once_by_its_id_its_socket_or_its_time() {
        let (mut random, race, start): (StdRng, _, _) = (rand::make_rng(), race(), Moment::now());
        let mut in_flight = InFlight::default();
        let mut add = |in_flight: &mut InFlight, sender, now| {
            let flight = Flight::new(&race, Leg { slot: 0, number: 1 }, EdnsUse::With, sender, now);
            in_flight.insert(flight, LetterCase::Mixed, &mut random).unwrap().id()
        };
        let ids = [1, 1, 2, 3].map(|sender| add(&mut in_flight, sender, start));
        let late = add(&mut in_flight, 3, start + Duration::from_secs(1));
        let mut answer = [0; UpstreamQuery::MAX];
        let asked = in_flight.get(ids[2]).unwrap();
        let length = asked.write(&mut answer).unwrap();
        // An empty answer: QR is set, the OPT record cut off.
        let end = length - 11;
        (answer[2], answer[11]) = (answer[2] | 0x80, 0);
        assert!(matches!(in_flight.take(&answer[..end], Some(1)), Err(MismatchReason::Socket)));
        assert!(in_flight.take(&answer[..end], Some(2)).is_ok());
        assert!(matches!(in_flight.take(&answer[..end], Some(2)), Err(MismatchReason::Id)));
        assert!(matches!(in_flight.take(&answer[..1], None), Err(MismatchReason::Short)));
        assert_eq!(in_flight.take_of(1).len(), 2);
        assert!(in_flight.take_key(FlightKey { id: ids[3], sender: 9 }).is_none());
        let expired = in_flight.expire(Duration::from_secs(1), start + Duration::from_millis(1500));
        assert_eq!(expired.iter().map(Flight::id).collect::<Vec<_>>(), [ids[3]]);
        assert!(in_flight.take_id(late).is_some() && in_flight.is_empty());
    }

    #[test]
    fn formerr_that_claims_records_it_lacks_is_asked_again_without_edns() {
        let (mut random, race, now): (StdRng, _, _) = (rand::make_rng(), race(), Moment::now());
        let mut in_flight = InFlight::default();
        let flight = Flight::new(&race, Leg { slot: 0, number: 1 }, EdnsUse::With, 1, now);
        let mut answer = [0; UpstreamQuery::MAX];
        let flight = in_flight.insert(flight, LetterCase::Lower, &mut random).unwrap();
        let length = flight.write(&mut answer).unwrap();
        (answer[2], answer[3]) = (0x80, 1);
        let taken = in_flight.take(&answer[..length - 11], Some(1));
        assert!(matches!(taken, Ok((_, Outcome::WithoutEdns(Rcode::FORMERR)))));
    }
}
