//! Servers by name under 500 queries a second, in a network of their own behind a link: no query is lost, whatever happens
//! to the name, its addresses and the bootstrap server. Each test prints its figures.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tidegate::{
    clock::Moment,
    tls::Roots,
    upstream::{
        Alarm, Group, GroupLimits, GroupSpec, Identity, Marks, OwnAddresses, Policy, ServerRegistry, ServerSpec,
        TierMember, UpstreamClient,
        names::{ResolveError, WatchedName},
        resolution::{self, RefreshTiming},
    },
    wire::Transport,
};
use tokio::{
    sync::{Notify, watch},
    task::{JoinHandle, JoinSet},
    time::MissedTickBehavior,
};

use super::{NAME, OWNER, answer, named, watched};
use crate::{
    client, on_a_worker, query, spec,
    support::{
        PATIENCE,
        authority::{Authority, Validity},
        encrypted::Speaks,
        namespace::{self, Network, UpstreamAway},
        query::rtype,
        records::Reply,
        script::Script,
    },
    until,
};

const SERVERS: [&str; 3] = ["10.91.0.2", "10.91.0.3", "10.91.0.4"];
const BOOTSTRAP: &str = "10.91.0.53";
/// Queries a tick, and the time between two ticks: 500 queries a second, or as many as the machine manages.
const TICK: (usize, Duration) = (5, Duration::from_millis(10));
/// Time limit for an answer, generous for a busy machine; a query that has none by then is lost.
const DEADLINE: Duration = Duration::from_secs(30);
/// A thousandth of the daemon's timing, so that an hour takes 3.6 s.
const SCALED: RefreshTiming = RefreshTiming {
    floor: Duration::from_millis(30),
    ceiling: Duration::from_millis(3_600),
    again: Duration::from_millis(1),
};
const HOUR: Duration = Duration::from_millis(3_600);

/// The network behind the link, and the group that asks there.
struct Away {
    network: Network,
    bootstrap: UpstreamAway,
    ours: OwnAddresses,
    registry: ServerRegistry,
    changed: Arc<Notify>,
    spec: GroupSpec,
    groups: Vec<Arc<Group>>,
}

impl Away {
    fn new(member: impl FnOnce(&Network) -> TierMember) -> Self {
        let far: Vec<String> = SERVERS.iter().chain([&BOOTSTRAP]).map(|address| format!("{address}/24")).collect();
        let far: Vec<&str> = far.iter().map(String::as_str).collect();
        let network = Network::behind("site", &["10.91.0.1/24"], &far);
        let bootstrap = network.upstream(&format!("{BOOTSTRAP}:0"));
        let limits = GroupLimits { timeout: Duration::from_secs(2), hedge_budget: None, ..GroupLimits::default() };
        let spec = GroupSpec { policy: Policy::Spread, limits, ..spec(&[&[member(&network)]]) };
        let (ours, registry) = (OwnAddresses::default(), ServerRegistry::new(Arc::new(Alarm::new())));
        let away = Self { network, bootstrap, ours, registry, changed: Arc::default(), spec, groups: Vec::new() };
        away.bootstrap.on(OWNER, rtype::AAAA, Reply::nodata(0));
        away
    }

    fn is(&self, addresses: &[&str]) {
        self.bootstrap.on(OWNER, rtype::A, answer(addresses)).on(OWNER, rtype::AAAA, Reply::nodata(0));
    }

    /// Resolves the name on the current runtime until the returned sender is dropped.
    fn resolve(&self) -> watch::Sender<Vec<WatchedName>> {
        let names = vec![watched(self.bootstrap.address)];
        self.ours.names().keep(&names, Moment::now());
        let (sender, receiver) = watch::channel(names);
        tokio::task::spawn_local(resolution::run(self.ours.clone(), receiver, Arc::clone(&self.changed), SCALED));
        sender
    }

    fn addresses(&self) -> Vec<String> {
        let servers = self.groups.iter().flat_map(|group| group.servers());
        servers.map(|server| server.spec().address.ip().to_string()).collect()
    }

    /// Builds the group again until it has these addresses, and sends the load there.
    async fn until_rebuilt(&mut self, addresses: &[&str], load: Option<&Load>) {
        while self.addresses() != addresses {
            tokio::time::timeout(PATIENCE, self.changed.notified()).await.expect("a new list");
            let specs = std::slice::from_ref(&self.spec);
            self.groups = Group::build_all(specs, &self.groups, &self.ours, &self.registry, Moment::now());
        }
        if let Some(load) = load {
            *load.group.borrow_mut() = Arc::clone(&self.groups[0]);
        }
    }

    fn error(&self) -> Option<ResolveError> {
        self.ours.names().all().remove(0).1.error
    }
}

/// Sends queries at a steady rate, each for a name of its own, without waiting for answers.
struct Load {
    is_over: Rc<Cell<bool>>,
    group: Rc<RefCell<Arc<Group>>>,
    asked: Rc<Cell<usize>>,
    start: Moment,
    /// The time that each answer took; none for a lost query.
    task: JoinHandle<Vec<Option<Duration>>>,
}

impl Load {
    fn start(group: &Arc<Group>) -> Self {
        let (is_over, asked) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0)));
        let shared = Rc::new(RefCell::new(Arc::clone(group)));
        let task = tokio::task::spawn_local(Self::run(Rc::clone(&is_over), Rc::clone(&shared), Rc::clone(&asked)));
        Self { is_over, group: shared, asked, start: Moment::now(), task }
    }

    async fn run(
        is_over: Rc<Cell<bool>>,
        group: Rc<RefCell<Arc<Group>>>,
        asked: Rc<Cell<usize>>,
    ) -> Vec<Option<Duration>> {
        let (client, mut running) = (client(), JoinSet::new());
        let mut ticks = tokio::time::interval(TICK.1);
        // A machine that cannot keep up gets fewer queries, and no burst afterwards.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !is_over.get() {
            ticks.tick().await;
            for _ in 0..TICK.0 {
                asked.set(asked.get() + 1);
                let (client, group) = (Rc::clone(&client), Arc::clone(&group.borrow()));
                running.spawn_local(Self::ask(client, group, asked.get()));
            }
        }
        running.join_all().await
    }

    async fn ask(client: Rc<UpstreamClient>, group: Arc<Group>, number: usize) -> Option<Duration> {
        let (marks, query, now) = (Marks::default(), query(&format!("n{number}.example")), Moment::now());
        let answer = client.exchange(&group, &marks, &query, now, now + DEADLINE).await;
        answer.is_ok().then(|| Moment::now().since(now))
    }

    /// Waits for this many more queries.
    async fn more(&self, queries: usize) {
        let before = self.asked.get();
        until("more queries", || self.asked.get() >= before + queries).await;
    }

    #[expect(clippy::print_stdout, reason = "figures beside a failure, and for who asks with --nocapture")]
    async fn loses_nothing(self, test: &str) {
        self.is_over.set(true);
        let seconds = Moment::now().since(self.start).as_secs_f64();
        let mut answers = self.task.await.expect("the load ends");
        answers.sort_unstable();
        let (asked, lost) = (answers.len(), answers.iter().filter(|answer| answer.is_none()).count());
        let [median, slowest] = [asked / 2, asked - 1].map(|at| answers[at].unwrap_or_default());
        println!(
            "{test}: {asked} queries in {seconds:.1} s, {lost} lost; answered in {median:.1?}, at most {slowest:.1?}"
        );
        assert_eq!(lost, 0, "of {asked}");
    }
}

/// A server at each address, all at the first one's port.
fn servers(network: &Network) -> Vec<UpstreamAway> {
    let first = network.upstream(&format!("{}:0", SERVERS[0]));
    let port = first.address.port();
    let others = SERVERS[1..].iter().map(|address| network.upstream(&format!("{address}:{port}")));
    let all: Vec<UpstreamAway> = std::iter::once(first).chain(others).collect();
    all.iter().for_each(|server| _ = server.otherwise(Reply::a("10.0.0.1")));
    all
}

/// An address that nobody answers for, until this is dropped: a server stops by a message to its own address.
struct Gone(Network, String);

impl Gone {
    fn new(network: &Network, address: &str) -> Self {
        network.command(&["ip", "address", "del", address, "dev", "far"]);
        Self(network.clone(), address.to_owned())
    }
}

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.command(&["ip", "address", "add", &self.1, "dev", "far"]);
    }
}

/// Runs `scene` under load, with three servers, in namespaces of the test's own.
fn scene(test: &str, scene: impl AsyncFnOnce(&mut Away, &[UpstreamAway], &Load)) {
    namespace::inside(&format!("names::load::{test}"), || {
        let mut upstreams = Vec::new();
        let mut away = Away::new(|network| {
            upstreams = servers(network);
            named(upstreams[0].address.port())
        });
        on_a_worker(async {
            away.is(&SERVERS);
            let _names = away.resolve();
            away.until_rebuilt(&SERVERS, None).await;
            let load = Load::start(&away.groups[0]);
            load.more(100).await;
            scene(&mut away, &upstreams, &load).await;
            load.more(100).await;
            load.loses_nothing(test).await;
        });
    });
}

#[test]
fn addresses_come_and_go() {
    scene("addresses_come_and_go", async |away, _, load| {
        for round in 0..6 {
            let kept = if round % 2 == 0 { &SERVERS[1..] } else { &SERVERS[..2] };
            away.is(kept);
            away.until_rebuilt(kept, Some(load)).await;
            load.more(250).await;
        }
    });
}

#[test]
fn an_hour_without_a_bootstrap_server() {
    scene("an_hour_without_a_bootstrap_server", async |away, _, load| {
        for (dead, error) in
            [(Script::from(Reply::servfail()), ResolveError::Rcode), (Script::silence(), ResolveError::NoAnswer)]
        {
            away.bootstrap.otherwise(dead);
            until("the error is said", || away.error() == Some(error)).await;
            let begin = Moment::now();
            while Moment::now().since(begin) < HOUR {
                load.more(50).await;
            }
        }
        assert_eq!(away.ours.names().all()[0].1.addresses.len(), SERVERS.len(), "the last list stays");
        away.is(&SERVERS[..2]);
        away.until_rebuilt(&SERVERS[..2], Some(load)).await;
    });
}

#[test]
fn one_of_three_addresses_is_gone_from_the_network_and_then_from_the_name() {
    scene("one_of_three_addresses_is_gone_from_the_network_and_then_from_the_name", async |away, upstreams, load| {
        let _gone = Gone::new(&away.network, &format!("{}/24", SERVERS[1]));
        load.more(500).await;
        let kept = [SERVERS[0], SERVERS[2]];
        away.is(&kept);
        away.until_rebuilt(&kept, Some(load)).await;
        let before = upstreams[2].all_seen().len();
        load.more(100).await;
        until("the others are asked", || upstreams[2].all_seen().len() > before).await;
    });
}

#[test]
fn a_name_that_turns_nxdomain() {
    scene("a_name_that_turns_nxdomain", async |away, _, load| {
        away.bootstrap.on(OWNER, rtype::A, Reply::nxdomain(0)).on(OWNER, rtype::AAAA, Reply::nxdomain(0));
        until("the error is said", || away.error() == Some(ResolveError::NoName)).await;
        load.more(500).await;
        assert_eq!(away.ours.names().all()[0].1.addresses.len(), SERVERS.len(), "the last good list stays");
    });
}

#[test]
fn of_two_addresses_the_one_without_the_name_s_certificate_gets_nothing() {
    let test = "of_two_addresses_the_one_without_the_name_s_certificate_gets_nothing";
    namespace::inside(&format!("names::load::{test}"), || {
        let authority = Authority::new("the site's CA");
        let issue = |name| authority.issue(name, Validity::Now);
        let mut peers = Vec::new();
        let mut away = Away::new(|network| {
            let right = network.encrypted(&format!("{}:0", SERVERS[0]), Speaks::Tls, &issue(NAME));
            let port = right.address.port();
            let wrong = network.encrypted(&format!("{}:{port}", SERVERS[1]), Speaks::Tls, &issue("other.example"));
            peers.extend([right, wrong]);
            let roots = Roots::from_pem(authority.pem().as_bytes()).expect("a certificate");
            let identity = Identity { name: Some(NAME.to_owned()), roots };
            let at = SocketAddr::from(([0, 0, 0, 0], port));
            TierMember::Named { name: NAME.to_owned(), server: ServerSpec::encrypted(Transport::Tls, at, identity) }
        });
        on_a_worker(async {
            away.is(&SERVERS[..2]);
            let _names = away.resolve();
            away.until_rebuilt(&SERVERS[..2], None).await;
            let load = Load::start(&away.groups[0]);
            for _ in 0..4 {
                load.more(250).await;
            }
            load.loses_nothing(test).await;
        });
        assert!(peers[0].queries() >= 1_000, "{}", peers[0].queries());
        assert_eq!(peers[1].queries(), 0);
    });
}
