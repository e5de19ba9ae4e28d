//! A question's way without sockets: an engine with a full cache, and queries to hand it.
#![allow(dead_code, reason = "each bench uses its part")]

use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::Arc,
    thread,
};

use tidegate::{
    cache::{Cache, CacheKey, Integrity, New, Stamp},
    clock::Moment,
    config::Plan,
    daemon::build_zones,
    engine::{Action, ClientChannel, Engine, Incoming, snapshot::Snapshot},
    metrics::{self, RuleRegistry},
    upstream::{Group, GroupSpec, Loops, TierMember},
    wire::{Class, MessageId, Name, RecordType, Response, UpstreamQuery, record::Section, writer::Writer},
};

/// Guard, follow and access as a site has them.
const GUARDED: &str = r#"
[upstream.vpc]
servers = ["192.0.2.1"]
[[forward]]
zones = ["."]
to = "vpc"
private = ["10.0.0.0/8"]
on_public = "refuse"
"#;
/// The same without guard and follow.
const UNGUARDED: &str = r#"
[upstream.vpc]
servers = ["192.0.2.1"]
[[forward]]
zones = ["."]
to = "vpc"
follow = false
"#;
/// How many names a local zone has.
const LOCAL_NAMES: usize = 4_000;
/// The addresses of a name that has several, as an endpoint in each of three zones gives.
const ENDPOINTS: [[u8; 4]; 3] = [[10, 0, 0, 1], [10, 0, 1, 1], [10, 0, 2, 1]];

/// An engine and what a worker has.
pub(crate) struct Bench {
    pub(crate) engine: Arc<Engine>,
    pub(crate) counters: Arc<metrics::WorkerCounters>,
    snapshot: Arc<Snapshot>,
    client: IpAddr,
    now: Moment,
}

/// How a client asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Without EDNS.
    Plain,
    /// With an OPT record.
    Edns,
    /// With an OPT record, in mixed letter case.
    MixedCase,
}

impl Bench {
    /// An engine whose cache holds an address for each of these names, and that forwards nowhere.
    pub(crate) fn with_names(names: &[Name]) -> Self {
        Self::under(GUARDED, Vec::new()).holding(names, &ENDPOINTS[..1])
    }

    /// The same with several addresses for each name.
    pub(crate) fn with_endpoints(names: &[Name]) -> Self {
        Self::under(GUARDED, Vec::new()).holding(names, &ENDPOINTS)
    }

    /// An engine that answers the zone of [`names`] itself: a large one.
    pub(crate) fn with_zone() -> Self {
        let mut configuration = format!("{GUARDED}\n[[local]]\nzone = \"amazonaws.com\"\nrecords = [\n");
        names(LOCAL_NAMES)
            .iter()
            .for_each(|name| writeln!(configuration, "  \"{name} A 10.0.0.1\",").expect("a string"));
        Self::under(&(configuration + "]\n"), Vec::new())
    }

    /// The same without guard and follow.
    pub(crate) fn unguarded(names: &[Name]) -> Self {
        Self::under(UNGUARDED, Vec::new()).holding(names, &ENDPOINTS[..1])
    }

    /// An engine with an empty cache that forwards to these servers.
    pub(crate) fn forwarding(servers: Vec<TierMember>) -> Self {
        Self::under(GUARDED, servers)
    }

    fn under(configuration: &str, servers: Vec<TierMember>) -> Self {
        let plan = Plan::from_text("bench.toml", configuration).expect("the configuration is valid");
        let zones = Arc::new(build_zones(&plan.live, None).expect("its zones are valid"));
        let spec = GroupSpec {
            name: "vpc".to_owned(),
            tiers: vec![servers],
            policy: tidegate::upstream::Policy::Fastest,
            limits: tidegate::upstream::GroupLimits::default(),
            health: tidegate::upstream::HealthSpec::probing(Name::root(), RecordType::NS),
        };
        let group = Arc::new(Group::build(&spec, &tidegate::upstream::OwnAddresses::default(), &Arc::default()));
        let snapshot = Snapshot::build(&plan.live, 1, vec![group], zones, &RuleRegistry::new(1), &Loops::default());
        let engine = Engine::new(snapshot, Cache::new(256 << 20), Arc::default());
        let snapshot = engine.snapshot_owned();
        let client = IpAddr::from([127, 0, 0, 1]);
        let counters = Arc::new(metrics::WorkerCounters::new(0));
        Self { engine: Arc::new(engine), counters, snapshot, client, now: Moment::now() }
    }

    fn holding(self, names: &[Name], addresses: &[[u8; 4]]) -> Self {
        names.iter().for_each(|name| self.store(name, addresses));
        self
    }

    fn store(&self, name: &Name, addresses: &[[u8; 4]]) {
        let query = upstream_query(name);
        let mut writer = Writer::new(name.as_wire(), query.qtype, query.qclass, 128);
        let ttl = tidegate::wire::Ttl::from_wire(3600);
        for address in addresses {
            writer.plain(Section::Answer, name.as_wire(), RecordType::A, Class::IN, ttl, address).expect("it fits");
        }
        let header = tidegate::wire::Header {
            id: MessageId(0),
            flags: tidegate::wire::Flags(tidegate::wire::Flags::QR),
            counts: [0; 4],
        };
        let response = Response::ours(&writer.finish(header), &query).expect("it is well formed");
        let found = self.snapshot.table.find(name.as_wire(), self.client).expect("a rule covers it");
        let stamp: Stamp = self.snapshot.stamp(response.message(), self.client, found, 0).expect("views agree");
        let key = CacheKey {
            name: name.as_wire(),
            qtype: query.qtype,
            qclass: query.qclass,
            do_bit: false,
            cd: false,
            view: 0,
        };
        let new = New {
            message: response.message(),
            ttl_offsets: response.ttl_offsets(),
            lifetime: 3600,
            now: self.now.seconds(),
            stamp,
            integrity: Integrity::Whole,
        };
        self.engine.cache.insert(&key, key.hash(), new, |_| false);
    }

    /// Hands the engine a query, as a worker does.
    pub(crate) fn handle(&self, message: &[u8], reply: &mut [u8]) -> Action {
        let incoming = Incoming { message, client: self.client, carrier: ClientChannel::DATAGRAM, now: self.now };
        self.engine.handle(&self.snapshot, &self.counters, &incoming, reply)
    }
}

fn upstream_query(name: &Name) -> UpstreamQuery {
    UpstreamQuery { name: name.clone(), qtype: RecordType::A, qclass: Class::IN, do_bit: false, cd: false }
}

/// Names of the length that AWS service names have.
pub(crate) fn names(count: usize) -> Vec<Name> {
    let name = |number: usize| format!("host-{number}.service.eu-west-1.amazonaws.com").parse().expect("it is a name");
    (0..count).map(name).collect()
}

/// A client's query for the name's address.
pub(crate) fn query(name: &Name, manner: Manner) -> Vec<u8> {
    let mut out = [0; UpstreamQuery::MAX];
    let payload = (manner != Manner::Plain).then_some(1232);
    let case = (manner == Manner::MixedCase).then_some(0x5a5a_1234_abcd_ef01);
    let length = upstream_query(name).write(MessageId(0x1234), payload, case, &mut out).expect("it fits");
    out[..length].to_vec()
}

/// A server that answers every query with an address, on a thread that ends with the process.
pub(crate) fn answer_all() -> SocketAddr {
    const RECORD: [u8; 16] = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0x0e, 0x10, 0, 4, 10, 0, 0, 1];
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port on loopback");
    let address = socket.local_addr().expect("it is bound");
    thread::spawn(move || {
        let mut buffer = [0; 1232];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            let Some(question) = buffer[..length].get(12..) else { continue };
            // The question ends four octets behind the root label; the OPT record that follows is left out.
            let Some(end) = question.iter().position(|&octet| octet == 0).map(|root| 12 + root + 5) else { continue };
            buffer[2] |= 0x80;
            buffer[6..12].copy_from_slice(&[0, 1, 0, 0, 0, 0]);
            buffer[end..end + RECORD.len()].copy_from_slice(&RECORD);
            // Who went away is no news.
            socket.send_to(&buffer[..end + RECORD.len()], client).ok();
        }
    });
    address
}
