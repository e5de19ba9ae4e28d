//! Servers that are given by name: their addresses come, go and stay while queries flow.

mod load;

use std::{
    cell::Cell,
    net::{IpAddr, SocketAddr},
    process::Output,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tidegate::{
    clock::Moment,
    tls::{HandshakeError, Roots},
    upstream::{
        Alarm, ConnectError, Egress, Group, GroupSpec, Identity, OwnAddresses, ServerRegistry, ServerSpec, TierMember,
        UpstreamClient,
        names::{NameList, ResolveError, WatchedName},
        resolution::{self, RefreshTiming},
    },
    wire::Transport,
};
use tokio::sync::{Notify, watch};

use crate::{
    ask, client, on_a_worker, spec,
    support::{
        authority::{Authority, Validity},
        config::Config,
        encrypted::{Encrypted, Manner, Speaks},
        eventually,
        query::{Query, rtype},
        records::{Record, Reply},
        tidegate::{Tidegate, run},
        upstream::Upstream,
    },
    until,
};

const NAME: &str = "dc.corp.example";
/// As it stands in messages.
const OWNER: &str = "dc.corp.example.";
const ADDRESSES: [&str; 4] = ["127.0.7.1", "127.0.7.2", "127.0.7.3", "127.0.7.4"];

/// Bootstrap servers, and the upstream servers that the name may stand for: all at one port, each at an address of its own.
struct Site {
    bootstrap: Upstream,
    servers: Vec<Upstream>,
    ours: OwnAddresses,
    registry: ServerRegistry,
    changed: Arc<Notify>,
    groups: Vec<Arc<Group>>,
    spec: GroupSpec,
}

/// Groups and names that readiness waits for.
fn awaited(site: &Site) -> Vec<(String, String)> {
    let servers: Vec<IpAddr> =
        site.groups.iter().flat_map(|group| group.servers()).map(|server| server.spec().address.ip()).collect();
    site.ours.names().awaited(Moment::now(), |_, addresses| servers.iter().any(|server| addresses.contains(server)))
}

fn answer(addresses: &[&str]) -> Reply {
    Reply::of(addresses.iter().map(|address| Record::a(OWNER, 0, address)))
}

fn named(port: u16) -> TierMember {
    let server = ServerSpec::plain(Transport::Udp, SocketAddr::from(([0, 0, 0, 0], port)));
    TierMember::Named { name: NAME.to_owned(), server }
}

fn watched(bootstrap: SocketAddr) -> WatchedName {
    WatchedName {
        group: "vpc".to_owned(),
        name: NAME.to_owned(),
        bootstrap: vec![bootstrap],
        via: Egress::default(),
        patience: Duration::from_secs(30),
    }
}

/// TTLs in hundredths.
const QUICK: RefreshTiming = RefreshTiming {
    floor: Duration::from_millis(20),
    ceiling: Duration::from_millis(40),
    again: Duration::from_millis(10),
};

impl Site {
    fn start() -> Self {
        let bootstrap = Upstream::start();
        bootstrap.on(OWNER, rtype::AAAA, Reply::nodata(0));
        let first = Upstream::start_at((ip(ADDRESSES[0]), 0).into());
        let port = first.address.port();
        let mut servers = vec![first];
        servers.extend(ADDRESSES[1..].iter().map(|address| Upstream::start_at((ip(address), port).into())));
        for server in &servers {
            server.otherwise(Reply::a("10.0.0.1"));
        }
        Self {
            bootstrap,
            servers,
            ours: OwnAddresses::default(),
            registry: ServerRegistry::new(Arc::new(Alarm::new())),
            changed: Arc::default(),
            groups: Vec::new(),
            spec: spec(&[&[named(port)]]),
        }
    }

    fn is(&self, addresses: &[&str]) {
        self.bootstrap.on(OWNER, rtype::A, answer(addresses));
    }

    fn rebuild(&mut self) {
        let specs = std::slice::from_ref(&self.spec);
        self.groups = Group::build_all(specs, &self.groups, &self.ours, &self.registry, Moment::now());
    }

    /// Resolves on the current runtime until what is returned is dropped.
    fn resolve(&self) -> watch::Sender<Vec<WatchedName>> {
        let names = vec![watched(self.bootstrap.address)];
        self.ours.names().keep(&names, Moment::now());
        let (sender, receiver) = watch::channel(names);
        tokio::task::spawn_local(resolution::run(self.ours.clone(), receiver, Arc::clone(&self.changed), QUICK));
        sender
    }

    async fn until_rebuilt(&mut self, addresses: &[&str]) {
        while self.addresses() != addresses {
            tokio::time::timeout(crate::support::PATIENCE, self.changed.notified()).await.expect("a new list");
            self.rebuild();
        }
    }

    fn group(&self) -> &Arc<Group> {
        &self.groups[0]
    }

    fn addresses(&self) -> Vec<String> {
        let servers = self.groups.iter().flat_map(|group| group.servers());
        servers.map(|server| server.spec().address.ip().to_string()).collect()
    }

    fn list(&self) -> NameList {
        self.ours.names().all().remove(0).1
    }

    /// Waits until the name has been asked for twice more, and what came of the first is known.
    async fn until_asked_again(&self) {
        let before = self.bootstrap.count_type(rtype::A);
        until("asked again", || self.bootstrap.count_type(rtype::A) >= before + 2).await;
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Asks one query after another, until told to stop; how many were asked, and how many were lost.
struct Load {
    is_over: Rc<Cell<bool>>,
    group: Rc<std::cell::RefCell<Arc<Group>>>,
    task: tokio::task::JoinHandle<(usize, usize)>,
}

impl Load {
    fn start(client: Rc<UpstreamClient>, group: &Arc<Group>) -> Self {
        let is_over = Rc::new(Cell::new(false));
        let shared = Rc::new(std::cell::RefCell::new(Arc::clone(group)));
        let (over, group) = (Rc::clone(&is_over), Rc::clone(&shared));
        let task = tokio::task::spawn_local(async move {
            let (mut asked, mut lost) = (0, 0);
            while !over.get() {
                let now = Arc::clone(&group.borrow());
                asked += 1;
                lost += usize::from(ask(&client, &now, &format!("n{asked}.example")).await.is_err());
            }
            (asked, lost)
        });
        Self { is_over, group: shared, task }
    }

    fn goes_to(&self, group: &Arc<Group>) {
        *self.group.borrow_mut() = Arc::clone(group);
    }

    async fn end(self) -> (usize, usize) {
        self.is_over.set(true);
        self.task.await.unwrap()
    }
}

#[test]
fn addresses_change_under_load_without_a_loss_and_those_that_stay_keep_what_is_known() {
    let mut site = Site::start();
    site.is(&ADDRESSES[..2]);
    on_a_worker(async {
        site.rebuild();
        assert!(site.addresses().is_empty());
        let _names = site.resolve();
        assert_eq!(awaited(&site).len(), 1);
        until("the first list", || !site.ours.names().addresses("vpc", NAME).is_empty()).await;
        assert_eq!(awaited(&site).len(), 1, "no server is made of it yet");
        site.until_rebuilt(&ADDRESSES[..2]).await;
        assert!(awaited(&site).is_empty());
        let kept = Arc::clone(site.group().servers().nth(1).unwrap());
        kept.drain();
        let load = Load::start(client(), site.group());
        for round in 0..10 {
            let last = if round % 2 == 0 { 4 } else { 3 };
            site.is(&ADDRESSES[1..last]);
            site.until_rebuilt(&ADDRESSES[1..last]).await;
            load.goes_to(site.group());
            assert!(Arc::ptr_eq(site.group().servers().next().unwrap(), &kept) && kept.is_drained());
            let before = site.servers[2].all_seen().len();
            until("the new servers are asked", || site.servers[2].all_seen().len() > before + 5).await;
        }
        let (asked, lost) = load.end().await;
        assert!(asked >= 50, "{asked}");
        assert_eq!(lost, 0, "of {asked}");
        assert_eq!(site.servers[1].all_seen().len(), 0, "it is drained all the time");
    });
}

#[test]
fn the_last_list_stays_while_the_bootstrap_server_is_dead() {
    let mut site = Site::start();
    site.is(&ADDRESSES[..1]);
    on_a_worker(async {
        let _names = site.resolve();
        site.until_rebuilt(&ADDRESSES[..1]).await;
        let load = Load::start(client(), site.group());
        for dead in [Reply::servfail(), Reply::refused()] {
            site.bootstrap.otherwise(dead.clone()).on(OWNER, rtype::A, dead.clone()).on(OWNER, rtype::AAAA, dead);
            until("an error", || site.list().error == Some(ResolveError::Rcode)).await;
            site.until_asked_again().await;
            site.rebuild();
            assert_eq!(site.addresses(), ADDRESSES[..1]);
        }
        // Nobody listens: an error at once.
        site.bootstrap.stop();
        until("another error", || site.list().error == Some(ResolveError::NoAnswer)).await;
        site.rebuild();
        assert_eq!(site.addresses(), ADDRESSES[..1]);
        load.goes_to(site.group());
        let before = site.servers[0].all_seen().len();
        until("served on", || site.servers[0].all_seen().len() > before + 20).await;
        assert_eq!(load.end().await.1, 0);
        site.bootstrap.start_again();
        site.bootstrap.on(OWNER, rtype::AAAA, Reply::nodata(0));
        site.is(&ADDRESSES[..2]);
        site.until_rebuilt(&ADDRESSES[..2]).await;
        assert_eq!(site.list().error, None);
    });
}

#[test]
fn a_name_that_turns_nxdomain_keeps_its_last_list_and_says_so() {
    let mut site = Site::start();
    site.is(&ADDRESSES[..2]);
    on_a_worker(async {
        let _names = site.resolve();
        site.until_rebuilt(&ADDRESSES[..2]).await;
        site.bootstrap.on(OWNER, rtype::A, Reply::nxdomain(0)).on(OWNER, rtype::AAAA, Reply::nxdomain(0));
        until("an error", || site.list().error == Some(ResolveError::NoName)).await;
        let resolved = site.list().resolved;
        site.until_asked_again().await;
        assert_eq!(site.list().resolved, resolved, "its age goes on");
        site.rebuild();
        assert_eq!(site.addresses(), ADDRESSES[..2]);
        site.bootstrap.on(OWNER, rtype::A, Reply::nodata(0)).on(OWNER, rtype::AAAA, Reply::nodata(0));
        until("another error", || site.list().error == Some(ResolveError::NoAddress)).await;
        assert_eq!(site.list().addresses.len(), 2);
    });
}

#[test]
fn one_of_three_addresses_gone_is_one_server_less() {
    let mut site = Site::start();
    site.is(&ADDRESSES[..3]);
    on_a_worker(async {
        let _names = site.resolve();
        site.until_rebuilt(&ADDRESSES[..3]).await;
        site.servers[1].stop();
        let load = Load::start(client(), site.group());
        site.is(&[ADDRESSES[0], ADDRESSES[2]]);
        site.until_rebuilt(&[ADDRESSES[0], ADDRESSES[2]]).await;
        load.goes_to(site.group());
        let before = site.servers[0].all_seen().len();
        until("served on", || site.servers[0].all_seen().len() > before + 20).await;
        assert_eq!(load.end().await.1, 0);
    });
}

#[test]
fn a_name_with_more_addresses_than_a_group_can_have_gives_the_first_sixteen() {
    let mut site = Site::start();
    let all: Vec<String> = (1..=20).map(|last| format!("127.0.8.{last}")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    site.is(&all);
    on_a_worker(async {
        let _names = site.resolve();
        site.until_rebuilt(&all[..16]).await;
        assert_eq!(site.list().addresses.len(), 20, "the list has them all");
        // Addresses that leave make room for those that had none.
        site.is(&all[10..]);
        site.until_rebuilt(&all[10..]).await;
    });
}

#[test]
fn one_failed_family_keeps_its_addresses() {
    let mut site = Site::start();
    site.is(&ADDRESSES[..1]);
    site.bootstrap.on(OWNER, rtype::AAAA, Reply::of([Record::aaaa(OWNER, 0, "::1")]));
    on_a_worker(async {
        let _names = site.resolve();
        site.until_rebuilt(&[ADDRESSES[0], "::1"]).await;
        site.bootstrap.on(OWNER, rtype::A, Reply::servfail());
        site.until_asked_again().await;
        site.bootstrap.on(
            OWNER,
            rtype::AAAA,
            Reply::of([Record::aaaa(OWNER, 0, "::1"), Record::aaaa(OWNER, 0, "::1")]),
        );
        site.until_asked_again().await;
        site.rebuild();
        assert_eq!(site.addresses(), [ADDRESSES[0], "::1"]);
    });
}

#[test]
fn ipv6_addresses_without_a_route_are_left_out() {
    let site = Site::start();
    site.is(&ADDRESSES[..1]);
    let aaaa = || Reply::of([Record::aaaa(OWNER, 0, "::1"), Record::aaaa(OWNER, 0, "fe80::1")]);
    site.bootstrap.on(OWNER, rtype::AAAA, aaaa());
    on_a_worker(async {
        let resolved = resolution::resolve(&watched(site.bootstrap.address), &site.ours).await.unwrap();
        assert_eq!(resolved.addresses, [ip(ADDRESSES[0]), ip("::1")], "fe80::1 without a scope has no link");
        let via = Egress { source: Some(ip("127.0.0.9")), ..Egress::default() };
        let name = WatchedName { via, ..watched(site.bootstrap.address) };
        let resolved = resolution::resolve(&name, &site.ours).await.unwrap();
        assert_eq!(resolved.addresses, [ip(ADDRESSES[0])], "no IPv6 from an IPv4 source");
        let from = site.bootstrap.all_seen().last().unwrap().from;
        assert_eq!(from.ip(), ip("127.0.0.9"), "bootstrap queries leave by the group's source");
    });
}

#[test]
fn the_ttl_is_the_shortest_on_the_way_and_the_full_name_is_asked_alone() {
    let site = Site::start();
    let reply = Reply::of([Record::cname(OWNER, 40, "nlb.example."), Record::a("nlb.example.", 90, ADDRESSES[0])]);
    site.bootstrap.on(OWNER, rtype::A, reply.clone());
    on_a_worker(async {
        let resolved = resolution::resolve(&watched(site.bootstrap.address), &site.ours).await.unwrap();
        assert_eq!((resolved.addresses, resolved.ttl), (vec![ip(ADDRESSES[0])], Duration::from_secs(40)));
        // Truncated over UDP: TCP has it all.
        site.bootstrap.on(OWNER, rtype::A, reply.truncated());
        let own = OwnAddresses::new([site.bootstrap.address]);
        assert_eq!(resolution::resolve(&watched(site.bootstrap.address), &own).await, Err(ResolveError::OurOwn));
    });
    let names: Vec<String> = site.bootstrap.all_seen().into_iter().map(|seen| seen.name.to_lowercase()).collect();
    assert!(names.iter().all(|name| *name == format!("{NAME}.")), "{names:?}");
}

#[test]
fn the_certificate_is_checked_for_the_name() {
    let authority = Authority::new("the site's CA");
    for certified in [NAME, "other.example"] {
        let other = HandshakeError::OtherName { wanted: NAME.to_owned(), presented: vec![certified.to_owned()] };
        let error = (certified != NAME).then_some(ConnectError::Handshake(other));
        let server = Encrypted::start(Speaks::Tls, &authority.issue(certified, Validity::Now), Manner::Answers);
        let mut site = Site::start();
        site.is(&["127.0.0.1"]);
        let identity =
            Identity { name: Some(NAME.to_owned()), roots: Roots::from_pem(authority.pem().as_bytes()).unwrap() };
        let at = SocketAddr::from(([0, 0, 0, 0], server.address.port()));
        let member = ServerSpec::encrypted(Transport::Tls, at, identity);
        site.spec = spec(&[&[TierMember::Named { name: NAME.to_owned(), server: member }]]);
        on_a_worker(async {
            let _names = site.resolve();
            site.until_rebuilt(&["127.0.0.1"]).await;
            let answer = ask(&client(), site.group(), "a.example").await;
            assert_eq!(answer.is_ok(), error.is_none(), "{certified}");
        });
        let asked = site.group().servers().next().unwrap();
        assert_eq!(asked.connect_error(), error);
        assert_eq!(asked.label(), format!("tls://{}#{NAME}", server.address));
        if certified != NAME {
            assert_eq!(server.queries(), 0);
            continue;
        }
        assert_eq!(server.greetings().first().and_then(|greeting| greeting.name.clone()).as_deref(), Some(NAME));
    }
}

fn config(bootstrap: &Upstream, port: u16) -> Config {
    let lines = format!("bootstrap = [\"{}\"]\ntimeout = \"30s\"", bootstrap.address);
    Config::new().servers("dc", &[format!("{NAME}:{port}")], &lines).forward("all", &["."], "dc", "")
}

fn check(config: &Config, arguments: &[&str]) -> Output {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), config.text()).unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    run(&[&["check", path.as_str()], arguments].concat())
}

#[test]
fn the_daemon_serves_by_name_and_tells_of_it() {
    let bootstrap = Upstream::start();
    let server = Upstream::answering("10.0.0.7");
    let (host, port) = (server.address.ip().to_string(), server.address.port());
    bootstrap.on(OWNER, rtype::A, Reply::of([Record::a(OWNER, 300, &host)])).on(OWNER, rtype::AAAA, Reply::nodata(0));
    let config = config(&bootstrap, port);
    // It is ready once the name is resolved and its server has answered.
    let tidegate = Tidegate::start(&config);
    eventually("readiness", || tidegate.get("/readyz").0 == 200);
    assert_eq!(tidegate.client().ask(&Query::a("www.example.")).address_texts(), ["10.0.0.7"]);
    let labels = [("group", "dc"), ("name", NAME)];
    assert_eq!(tidegate.metric("tidegate_upstream_name_addresses", &labels), 1.0);
    assert!(tidegate.has_metric("tidegate_upstream_name_age_seconds", &labels));
    let (_, upstreams) = tidegate.get("/api/v1/upstreams");
    let document: serde_json::Value = serde_json::from_str(&upstreams).unwrap();
    let name = &document["groups"][0]["names"][0];
    assert_eq!((&name["name"], &name["addresses"][0]), (&NAME.into(), &host.clone().into()), "{upstreams}");
    let next = name["next"].as_f64().unwrap();
    assert!(next <= 300.0 && next > 0.0, "{next}");

    let told = String::from_utf8(check(&config, &[]).stdout).unwrap();
    assert!(told.contains(&format!("upstream \"dc\": {NAME} is resolved while tidegate runs")), "{told}");
    let told = String::from_utf8(check(&config, &["--resolve"]).stdout).unwrap();
    assert!(told.contains(&format!("upstream \"dc\": {NAME} is {host} (TTL 300 s)")), "{told}");
    bootstrap.otherwise(Reply::nxdomain(0)).on(OWNER, rtype::A, Reply::nxdomain(0)).on(
        OWNER,
        rtype::AAAA,
        Reply::nxdomain(0),
    );
    let output = check(&config, &["--resolve"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("the name does not exist (NXDOMAIN)"), "{told}");
    assert_eq!(output.status.code(), Some(0), "the file is right");
}

#[test]
fn readiness_waits_for_the_first_list_and_not_for_ever() {
    let bootstrap = Upstream::start();
    bootstrap.otherwise(crate::support::script::Script::silence());
    let dead = bootstrap.address;
    let lines = |timeout: &str| format!("bootstrap = [\"{dead}\"]\ntimeout = \"{timeout}\"");
    let config = |timeout: &str| {
        Config::new().servers("dc", &[NAME.to_owned()], &lines(timeout)).forward("all", &["."], "dc", "")
    };
    let tidegate = Tidegate::start(&config("20ms"));
    eventually("readiness", || !tidegate.get("/readyz").1.contains("no address yet"));
    tidegate.await_logged("WARN", "dc.corp.example of upstream dc cannot be resolved: no bootstrap server answers");
    assert!(tidegate.get("/api/v1/status").1.contains("no address yet: no bootstrap server answers"));
}
