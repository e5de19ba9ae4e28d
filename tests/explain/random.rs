//! Random configurations and queries: the explanation given before is what then happens.
//!
//! The engine answers as it does in the daemon, over UDP from upstreams that follow a script; `explain` gets the same
//! script as its assumptions. Each query follows the ones before, so that the cache, failures, and stale answers after
//! a restart all take part.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt::Write as _,
    net::{IpAddr, SocketAddr, UdpSocket},
    rc::Rc,
    sync::{Arc, Mutex, OnceLock},
    thread,
};

use proptest::{
    prelude::*,
    sample::{Index, select},
    test_runner::{Config as Runs, TestRunner},
};
use tidegate::{
    cache::Cache,
    clock::{self, Moment},
    config::Plan,
    daemon,
    engine::{
        Action, ClientChannel, Context, Engine, Incoming,
        explain::{self, Asked, Premise, Supposed},
        resolve::resolve,
    },
    metrics::{self},
    upstream::{Group, UpstreamClient, WorkerNumber},
    wire::{
        Class, Ede, Edns, Flags, Header, MessageId, Name, Rcode, RecordType, Response, Transport, Ttl, UpstreamQuery,
        record::{Records, Section},
        text,
        writer::Writer,
    },
};
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

const DOMAINS: [&str; 6] = [".", "example", "a.example", "deep.a.example", "b.example", "amazonaws.com"];
const NAMES: [&str; 11] = [
    "a.example",
    "www.a.example",
    "deep.a.example",
    "x.deep.a.example",
    "b.example",
    "www.b.example",
    "sts.amazonaws.com",
    "s3.amazonaws.com",
    "www.org",
    "host.a.example",
    "www.local.example",
];
const NETWORKS: [&str; 4] = ["10.1.0.0/16", "10.1.1.0/24", "10.2.0.0/16", "fd00::/8"];
const CLIENTS: [&str; 5] = ["10.1.1.1", "10.1.2.1", "10.2.0.1", "fd00::1", "192.0.2.1"];
const ADDRESSES: [&str; 3] = ["10.20.1.1", "52.1.2.3", "172.16.0.1"];
const GROUPS: [&str; 3] = ["one", "two", "three"];
const TYPES: [RecordType; 10] = [
    RecordType::A,
    RecordType::A,
    RecordType::A,
    RecordType::A,
    RecordType::AAAA,
    RecordType::AAAA,
    RecordType::DS,
    RecordType::TXT,
    RecordType::ANY,
    RecordType::AXFR,
];

/// What a group says of a name.
#[derive(Debug, Clone)]
enum Said {
    Addresses(Vec<usize>),
    Alias(usize),
    /// The alias and an address for its target.
    Followed(usize, usize),
    NoData,
    NxDomain,
    Fails,
}

/// For each group and name.
type Script = BTreeMap<(usize, usize), Said>;

#[derive(Debug, Clone)]
struct Rule {
    domains: Vec<usize>,
    networks: Vec<usize>,
    group: usize,
    lines: String,
}

#[derive(Debug, Clone)]
struct Question {
    name: usize,
    qtype: RecordType,
    client: usize,
    transport: Transport,
    do_bit: bool,
}

#[derive(Clone)]
struct Case {
    text: String,
    script: Script,
    questions: Vec<Question>,
    /// What the groups say after a restart.
    later: Script,
    /// Seconds between.
    pause: u64,
    /// The group that is out of service by then.
    drained: Option<usize>,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.text)?;
        for (when, script) in [("first", &self.script), ("later", &self.later)] {
            for ((group, name), said) in script {
                writeln!(f, "{when}: {} says of {}: {said:?}", GROUPS[*group], NAMES[*name])?;
            }
        }
        self.questions.iter().try_for_each(|question| writeln!(f, "{question:?} ({})", NAMES[question.name]))?;
        writeln!(f, "{} s later; drained: {:?}", self.pause, self.drained.map(|group| GROUPS[group]))
    }
}

fn said(failing: u32) -> impl Strategy<Value = Said> {
    let place = 0..NAMES.len();
    prop_oneof![
        4 => prop::collection::vec(0..ADDRESSES.len(), 1..3).prop_map(Said::Addresses),
        4 => place.clone().prop_map(Said::Alias),
        2 => (place, 0..ADDRESSES.len()).prop_map(|(target, address)| Said::Followed(target, address)),
        1 => Just(Said::NoData),
        1 => Just(Said::NxDomain),
        failing => Just(Said::Fails),
    ]
}

fn script(failing: u32) -> impl Strategy<Value = Script> {
    let keys: Vec<_> = (0..GROUPS.len()).flat_map(|group| (0..NAMES.len()).map(move |name| (group, name))).collect();
    prop::collection::vec(said(failing), keys.len()).prop_map(move |all| keys.iter().copied().zip(all).collect())
}

fn rule() -> impl Strategy<Value = Rule> {
    let guard = select(vec!["", "log", "strip", "refuse"]);
    let when_down = select(vec!["stale", "stale", "fail", "upstream:three"]);
    let parts = (
        prop::collection::btree_set(0..DOMAINS.len(), 1..3),
        prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(0..NETWORKS.len(), 1..3)],
        0..GROUPS.len(),
        (guard, any::<bool>(), when_down),
        (prop::bool::weighted(0.2), prop::bool::weighted(0.2), prop::bool::weighted(0.2)),
    );
    parts.prop_map(|(domains, mut networks, group, (guard, except, when_down), (rebind, empty, stays))| {
        let group = if when_down == "upstream:three" { group % 2 } else { group };
        networks.sort_unstable();
        networks.dedup();
        let mut lines = format!("when_down = \"{when_down}\"\n");
        if !guard.is_empty() {
            writeln!(lines, "private = [\"10.20.0.0/16\"]\non_public = \"{guard}\"").unwrap();
        }
        if except && !guard.is_empty() {
            lines += "except = [\"www.a.example\", \"s3.amazonaws.com\"]\n";
        }
        for (is_so, line) in [
            (rebind && guard.is_empty(), "rebind = \"refuse\"\n"),
            (empty, "aaaa = \"empty\"\n"),
            (stays, "follow = false\n"),
        ] {
            lines += if is_so { line } else { "" };
        }
        Rule { domains: domains.into_iter().collect(), networks, group, lines }
    })
}

fn question() -> impl Strategy<Value = Question> {
    let transport = select(vec![Transport::Udp, Transport::Udp, Transport::Tcp]);
    (0..NAMES.len(), select(TYPES.to_vec()), 0..CLIENTS.len(), transport, prop::bool::weighted(0.2))
        .prop_map(|(name, qtype, client, transport, do_bit)| Question { name, qtype, client, transport, do_bit })
}

/// Two local zones and a hosts file, as far as they are wanted.
const LOCAL: [&str; 3] = [
    "[[local]]\nzone = \"local.example\"\nrecords = [\"@ A 10.20.9.9\", \"www CNAME www.a.example.\"]\n",
    "[[local]]\nzone = \"a.example\"\nrecords = [\"www CNAME sts.amazonaws.com.\", \"* A 52.9.9.9\", \"deep NS ns.elsewhere.\"]\n",
    "[local_hosts]\nfile = \"HOSTS\"\n",
];

fn case() -> impl Strategy<Value = Case> {
    let rules = prop::collection::vec(rule(), 1..6);
    let local = prop::collection::vec(prop::bool::weighted(0.4), LOCAL.len());
    let deny = select(vec!["[]", "[]", "[]", "[\"10.1.2.0/24\"]", "[\"192.0.2.0/24\"]"]);
    let questions = prop::collection::vec(question(), 4..24);
    let again = prop::collection::vec(any::<Index>(), 4);
    let pause = select(vec![10_u64, 400, 400, 1_000_000]);
    let pause = (pause, prop::option::of(0..GROUPS.len()));
    (rules, local, deny, script(1), script(8), questions, again, pause).prop_map(
        |(rules, local, deny, script, later, mut questions, again, (pause, drained))| {
            let repeated: Vec<_> = again.iter().map(|index| index.get(&questions).clone()).collect();
            questions.extend(repeated);
            Case { text: text_of(&rules, &local, deny), script, questions, later, pause, drained }
        },
    )
}

fn text_of(rules: &[Rule], local: &[bool], deny: &str) -> String {
    let world = World::get();
    let mut text = format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nallow = [\"10.0.0.0/8\", \"fd00::/8\", \"192.0.2.0/24\"]\ndeny = {deny}\ndeadline = \"30s\"\n\
         [cache]\nstale_after = \"20s\"\nfailure_ttl = \"5m\"\nno_soa_ttl = \"5m\"\nprefetch = false\n"
    );
    for (group, address) in GROUPS.iter().zip(&world.servers) {
        writeln!(text, "[upstream.{group}]\nservers = [\"{address}\"]\nattempts = 1\nhedge = false\ntimeout = \"10s\"")
            .unwrap();
    }
    let mut taken: Vec<(usize, String)> = Vec::new();
    for (at, rule) in rules.iter().enumerate() {
        let networks: Vec<&str> = rule.networks.iter().map(|&network| NETWORKS[network]).collect();
        // No domain twice for one network.
        let keys = |domain: usize| match networks[..] {
            [] => vec![(domain, String::new())],
            _ => networks.iter().map(|network| (domain, (*network).to_owned())).collect(),
        };
        let free: Vec<usize> = rule
            .domains
            .iter()
            .copied()
            .filter(|&domain| keys(domain).iter().all(|key| !taken.contains(key)))
            .collect();
        if free.is_empty() {
            continue;
        }
        free.iter().for_each(|&domain| taken.extend(keys(domain)));
        let zones: Vec<&str> = free.iter().map(|&domain| DOMAINS[domain]).collect();
        writeln!(text, "[[forward]]\nname = \"rule{at}\"\nzones = {zones:?}\nto = \"{}\"", GROUPS[rule.group]).unwrap();
        if !networks.is_empty() {
            writeln!(text, "clients = {networks:?}").unwrap();
        }
        text += &rule.lines;
    }
    // A rule and a zone for everybody may not have one domain.
    let is_taken = |domain: &str| taken.iter().any(|(place, network)| DOMAINS[*place] == domain && network.is_empty());
    for (zone, _) in LOCAL.iter().zip(local).filter(|(_, wanted)| **wanted) {
        if !(zone.contains("\"a.example\"") && is_taken("a.example")) {
            text += &zone.replace("HOSTS", &world.hosts.path().join("hosts").display().to_string());
        }
    }
    text
}

/// The message that a group answers a query with.
fn reply(script: &Script, group: usize, query: &UpstreamQuery) -> Vec<u8> {
    let mut writer = Writer::new(query.name.as_wire(), query.qtype, query.qclass, 512);
    let name = |place: usize| NAMES[place].parse::<Name>().unwrap();
    let mut add = |owner: &Name, rtype: RecordType, rdata: &[u8]| {
        writer.plain(Section::Answer, owner.as_wire(), rtype, Class::IN, Ttl::from_wire(300), rdata).unwrap();
    };
    let mut add_address = |owner: &Name, address: usize| {
        let IpAddr::V4(address) = ADDRESSES[address].parse().unwrap() else { return };
        match query.qtype {
            RecordType::A => add(owner, RecordType::A, &address.octets()),
            RecordType::AAAA => add(owner, RecordType::AAAA, &address.to_ipv6_mapped().octets()),
            _ => {}
        }
    };
    let place = NAMES.iter().position(|text| text.parse::<Name>().unwrap() == query.name);
    let mut rcode = Rcode::NOERROR;
    match place.and_then(|place| script.get(&(group, place))) {
        Some(Said::Addresses(all)) => all.iter().for_each(|&address| add_address(&query.name, address)),
        Some(Said::Alias(target)) => add(&query.name, RecordType::CNAME, name(*target).as_wire()),
        Some(Said::Followed(target, address)) => {
            add_address(&name(*target), *address);
            add(&query.name, RecordType::CNAME, name(*target).as_wire());
        }
        Some(Said::NoData) => {}
        Some(Said::NxDomain) | None => rcode = Rcode::NXDOMAIN,
        Some(Said::Fails) => rcode = Rcode::SERVFAIL,
    }
    writer.finish(Header { id: MessageId(0), flags: Flags(Flags::QR | Flags::RA | rcode.0), counts: [0; 4] })
}

/// Upstreams that follow the script of the case that runs.
struct World {
    servers: Vec<SocketAddr>,
    script: Arc<Mutex<Script>>,
    hosts: tempfile::TempDir,
}

impl World {
    fn get() -> &'static Self {
        static WORLD: OnceLock<World> = OnceLock::new();
        WORLD.get_or_init(Self::start)
    }

    fn start() -> Self {
        let script = Arc::<Mutex<Script>>::default();
        let servers = (0..GROUPS.len()).map(|group| serve(group, Arc::clone(&script))).collect();
        let hosts = tempfile::tempdir().unwrap();
        std::fs::write(hosts.path().join("hosts"), "10.20.7.7 host.a.example\n").unwrap();
        Self { servers, script, hosts }
    }
}

fn serve(group: usize, script: Arc<Mutex<Script>>) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 1232];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            let message = &buffer[..length];
            let Ok(question) = tidegate::wire::Question::read(message) else { continue };
            let Ok(name) = Name::from_wire(question.name()) else { continue };
            let do_bit = question.do_bit();
            let query = UpstreamQuery { name, qtype: question.qtype, qclass: question.qclass, do_bit, cd: false };
            let mut answer = reply(&script.lock().unwrap(), group, &query);
            answer[..2].copy_from_slice(&message[..2]);
            // Ignore a client that went away.
            socket.send_to(&answer, client).ok();
        }
    });
    address
}

/// An engine, and what a worker has.
struct Site {
    context: Context,
    runtime: LocalRuntime,
}

impl Site {
    fn new(plan: &Plan) -> Self {
        let engine = daemon::offline_engine(plan, Cache::new(1 << 20)).unwrap();
        let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
        let client = runtime.block_on(async { Rc::new(UpstreamClient::new(WorkerNumber::ALONE)) });
        let context = Context::new(engine, client, Arc::new(metrics::WorkerCounters::new(0)));
        Self { context, runtime }
    }

    fn engine(&self) -> &Engine {
        &self.context.engine
    }

    /// The reply to a query, as a worker makes it.
    fn ask(&self, asked: &Asked) -> Vec<u8> {
        let query = UpstreamQuery {
            name: asked.name.clone(),
            qtype: asked.qtype,
            qclass: Class::IN,
            do_bit: asked.do_bit,
            cd: false,
        };
        let mut message = [0; UpstreamQuery::MAX];
        let length = query.write(MessageId(7), Some(1232), None, &mut message).unwrap();
        let channel = ClientChannel { transport: asked.transport, keepalive: None };
        let incoming =
            Incoming { message: &message[..length], client: asked.client, carrier: channel, now: Moment::now() };
        let mut reply = vec![0; 65_535];
        let snapshot = self.engine().snapshot_owned();
        let length = match self.engine().handle(&snapshot, &self.context.counters, &incoming, &mut reply) {
            Action::Reply(length) | Action::ReplyAndRefresh(length, _) => length,
            Action::Drop => 0,
            Action::Resolve(query) => {
                let resolved = self.runtime.block_on(resolve(&self.context, &query));
                resolved.write(&self.context, &query, &mut reply)
            }
        };
        reply.truncate(length);
        reply
    }
}

/// What a client sees, in words: response code, extended error, records without their TTLs.
fn seen(message: &[u8]) -> (String, Option<(u16, String)>, Vec<String>) {
    let header = Header::read(message).expect("a reply");
    let records: Vec<_> = Records::of(message).unwrap().map(Result::unwrap).collect();
    let opt = records.iter().find(|record| record.rtype == RecordType::OPT);
    let edns = opt.map(|record| Edns::read(message, record).unwrap());
    let ede = edns.and_then(|edns| {
        let (_, value) = edns.options().find(|(code, _)| *code == Ede::OPTION)?;
        Some((u16::from_be_bytes([value[0], value[1]]), String::from_utf8_lossy(&value[2..]).into_owned()))
    });
    let rcode = Rcode(header.flags.rcode().0 | edns.map_or(0, |edns| u16::from(edns.extended_rcode) << 4));
    let answer = records.iter().filter(|record| record.section == Section::Answer);
    let answer = answer.map(|record| without_ttl(&text::line(message, record)));
    (rcode.to_string(), ede, sorted(answer))
}

fn without_ttl(line: &str) -> String {
    let fields: Vec<&str> = line.split('\t').collect();
    [&fields[..1], &fields[2..]].concat().join(" ")
}

fn sorted(lines: impl Iterator<Item = String>) -> Vec<String> {
    let mut lines: Vec<String> = lines.collect();
    lines.sort_unstable();
    lines
}

/// How many queries ended how.
type Tally = RefCell<BTreeMap<String, usize>>;

/// Explains each query, asks it, and compares.
fn compare(site: &Site, script: &Script, questions: &[Question], tally: &Tally) -> Result<(), TestCaseError> {
    script.clone_into(&mut World::get().script.lock().unwrap());
    let suppose = |group: &Group, query: &UpstreamQuery| {
        let place = GROUPS.iter().position(|name| *name == group.name()).unwrap();
        let message = reply(script, place, query);
        Supposed::Answer(Box::new(Response::read(&message, query, MessageId(0), None).unwrap()))
    };
    for question in questions {
        let asked = Asked {
            name: NAMES[question.name].parse().unwrap(),
            qtype: question.qtype,
            client: CLIENTS[question.client].parse().unwrap(),
            transport: question.transport,
            do_bit: question.do_bit,
        };
        let explanation = explain::explain(site.engine(), &asked, &Premise::Script(&suppose), Moment::now());
        let outcome = explanation.outcome.clone();
        let cut = |ede: explain::document::ExtendedError| {
            let text = &ede.text[..ede.text.floor_char_boundary(Ede::MAX_TEXT)];
            (ede.code, text.to_owned())
        };
        let told = (
            outcome.rcode.clone().unwrap_or_default(),
            outcome.ede.map(cut),
            sorted(outcome.answer.iter().map(|line| without_ttl(line))),
        );
        *tally.borrow_mut().entry(outcome.source).or_default() += 1;
        let happened = seen(&site.ask(&asked));
        prop_assert_eq!(told, happened, "told (left) and happened (right): {:?}\n{:#?}", asked, explanation);
    }
    Ok(())
}

fn holds(case: &Case, tally: &Tally) -> Result<(), TestCaseError> {
    let plan = match Plan::from_text("random.toml", &case.text) {
        Ok(plan) => plan,
        Err(problems) => return Err(TestCaseError::fail(format!("{problems}\n{}", case.text))),
    };
    let site = Site::new(&plan);
    compare(&site, &case.script, &case.questions, tally)?;
    let (saved, _) = site.engine().save(Vec::new(), Moment::now(), clock::wall().as_secs()).unwrap();
    // After a restart, older by the pause, under the same configuration.
    let site = Site::new(&plan);
    site.engine().restore(&saved[..], Moment::now(), clock::wall().as_secs() + case.pause).unwrap();
    if let Some(drained) = case.drained {
        let snapshot = site.engine().snapshot_owned();
        let group = snapshot.groups.iter().find(|group| group.name() == GROUPS[drained]).unwrap();
        group.servers().for_each(|server| server.drain());
    }
    // Every other query now inverts its request for signatures.
    let mut questions = case.questions.clone();
    questions.iter_mut().step_by(2).for_each(|question| question.do_bit = !question.do_bit);
    compare(&site, &case.later, &questions, tally)
}

fn run(cases: u32) {
    let runs = Runs { cases, failure_persistence: None, max_shrink_iters: 2000, ..Runs::default() };
    let tally = Tally::default();
    if let Err(error) = TestRunner::new(runs).run(&case(), |case| holds(&case, &tally)) {
        panic!("{error}");
    }
    // Every possible end of a query occurred.
    for source in ["cache", "stale", "upstream", "local", "refused", "error"] {
        assert!(tally.borrow().get(source).is_some_and(|count| *count > 10), "{source}: {tally:?}");
    }
}

#[test]
fn explanations_match_what_the_engine_does() {
    run(120);
}

/// Many more cases, for changes of decisions: `TIDEGATE_EXPLAIN_CASES` says how many.
#[test]
#[ignore = "takes minutes"]
fn explanations_match_what_the_engine_does_many_times() {
    run(std::env::var("TIDEGATE_EXPLAIN_CASES").map_or(10_000, |cases| cases.parse().unwrap()));
}
