//! What the configuration names as the path to a server goes away and comes back: a source address, a device, the
//! interface of a link-local server. The log says so once each time, and the server is not blamed.

use std::{
    thread,
    time::{Duration, Instant},
};

use hickory_proto::op::ResponseCode;
use rstest::rstest;

use crate::{
    cut::{Asked, load_from},
    paths::Netlink,
    support::{
        config::Config,
        namespace::{self, Network, UpstreamAway, command},
        now,
        query::rtype,
        records::Reply,
        tidegate::Tidegate,
    },
};

/// The source that is named, beside the host's first address.
const SOURCE: &str = "10.91.0.8";
/// How long after it is back every query is answered, and how late at the most.
const SETTLED: Duration = Duration::from_secs(1);
const LATE: Duration = Duration::from_secs(1);

/// What the configuration names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Named {
    /// The group's `source`.
    GroupSource,
    /// The `source` of one server.
    ServerSource,
    /// The same, with another server in a later tier.
    SourceOfFirstTier,
    /// The group's `device`.
    Device,
    /// The interface in a link-local address.
    Scope,
}

struct Site {
    named: Named,
    network: Network,
    server: UpstreamAway,
    /// Its name, as the configuration writes it and the metrics repeat it.
    label: String,
    _backup: Option<UpstreamAway>,
    tidegate: Tidegate,
}

impl Site {
    fn start(named: Named, netlink: Netlink) -> Self {
        let network = Network::behind("direct", &["10.91.0.7/24", "10.91.0.8/24"], &["10.91.0.1/24", "10.91.0.2/24"]);
        if named == Named::Scope {
            command(&["ip", "-6", "address", "flush", "dev", "direct"]);
            network.command(&["ip", "-6", "address", "flush", "dev", "far"]);
            add_link_local(&network);
        }
        let server = network.upstream(if named == Named::Scope { "[::]:0" } else { "10.91.0.1:0" });
        let backup = (named == Named::SourceOfFirstTier).then(|| network.upstream("10.91.0.2:0"));
        for server in [&server].into_iter().chain(&backup) {
            server.on_type(rtype::A, Reply::a("10.0.0.1"));
        }
        let (address, port) = (server.address, server.address.port());
        let by_source = format!("servers = [{{ server = \"{address}\", source = \"{SOURCE}\" }}]");
        let (keys, label) = match named {
            Named::GroupSource => (format!("servers = [\"{address}\"]\nsource = \"{SOURCE}\""), address.to_string()),
            Named::ServerSource => (by_source, format!("{address},source={SOURCE}")),
            Named::SourceOfFirstTier => {
                let backup = backup.as_ref().expect("it was started").address;
                (format!("{by_source}\nbackup = [[\"{backup}\"]]"), format!("{address},source={SOURCE}"))
            }
            Named::Device => (format!("servers = [\"{address}\"]\ndevice = \"direct\""), address.to_string()),
            Named::Scope => {
                let label = format!("[fe80::53%direct]:{port}");
                (format!("servers = [{label:?}]"), label)
            }
        };
        let config = Config::new().raw(&format!("[upstream.vpc]\n{keys}")).forward("everything", &["."], "vpc", "");
        let tidegate = match netlink {
            Netlink::Heard => Tidegate::start(&config),
            Netlink::Denied => namespace::without_netlink(|| Tidegate::start(&config)),
        };
        tidegate.await_metric("tidegate_upstream_transitions_total", &[("server", &label), ("to", "up")], 1.0);
        Self { named, network, server, label, _backup: backup, tidegate }
    }

    fn take_away(&self) {
        match self.named {
            Named::GroupSource | Named::ServerSource | Named::SourceOfFirstTier => {
                command(&["ip", "address", "del", "10.91.0.8/24", "dev", "direct"]);
            }
            Named::Device | Named::Scope => command(&["ip", "link", "del", "direct"]),
        }
    }

    fn give_back(&self) {
        match self.named {
            Named::GroupSource | Named::ServerSource | Named::SourceOfFirstTier => {
                command(&["ip", "address", "add", "10.91.0.8/24", "dev", "direct"]);
            }
            Named::Device => self.network.join_again("direct", "10.91.0.7/24", "10.91.0.1/24", ""),
            Named::Scope => self.network.join_again("direct", "fe80::7/64", "fe80::53/64", ""),
        }
    }
}

fn add_link_local(network: &Network) {
    network.command(&["ip", "address", "add", "fe80::53/64", "dev", "far", "nodad"]);
    command(&["ip", "address", "add", "fe80::7/64", "dev", "direct", "nodad"]);
}

#[rstest]
fn what_a_path_is_named_by_may_go_and_come(
    #[values(Named::GroupSource, Named::ServerSource, Named::SourceOfFirstTier, Named::Device, Named::Scope)]
    named: Named,
    #[values(Netlink::Heard, Netlink::Denied)] netlink: Netlink,
) {
    namespace::inside_own(|| {
        let site = Site::start(named, netlink);
        let mut back = now();
        let asked = load_from(4, &site.tidegate, || {
            thread::sleep(Duration::from_millis(500));
            site.take_away();
            site.tidegate.await_logged("WARN", "cannot leave this host");
            site.give_back();
            back = now();
            thread::sleep(Duration::from_secs(2));
        });
        let counts = |one: &&Asked| named == Named::SourceOfFirstTier || one.start > back + SETTLED;
        let counted: Vec<&Asked> = asked.iter().filter(counts).collect();
        let slowest = counted.iter().map(|one| one.took).max().expect("some are asked");
        let failed = counted.iter().filter(|one| one.rcode != ResponseCode::NoError).count();
        print_figures(&asked, back, slowest);
        assert!(failed == 0 && slowest < LATE, "{failed} of {} failed, slowest {slowest:?}", counted.len());
        let lines = |level, text: &str| site.tidegate.logged(level, text).len();
        site.tidegate.await_logged("INFO", "leave this host again");
        let said = [lines("WARN", "cannot leave this host"), lines("INFO", "leave this host again")];
        assert_eq!((said, lines("INFO", "the path to upstream")), ([1, 1], 0), "{:#?}", site.tidegate.log());
        let server = ("server", site.label.as_str());
        // Where changes of the network are not heard, neighbour discovery behind a new interface looks like silence.
        let blamed = if (named, netlink) == (Named::Scope, Netlink::Denied) { 1.0 } else { 0.0 };
        assert!(site.tidegate.metric("tidegate_upstream_transitions_total", &[server, ("to", "down")]) <= blamed);
        assert_eq!(site.tidegate.metric("tidegate_upstream_healthy", &[server]), 1.0);
        if matches!(named, Named::GroupSource | Named::ServerSource) {
            let seen = site.server.all_seen();
            assert!(seen.iter().all(|seen| seen.from.ip().to_string() == SOURCE));
        }
    });
}

#[expect(clippy::print_stdout, reason = "figures beside a failure, and for who asks with --nocapture")]
fn print_figures(asked: &[Asked], back: Instant, slowest: Duration) {
    let failed = asked.iter().filter(|one| one.rcode != ResponseCode::NoError);
    let (count, last) = (failed.clone().count(), failed.map(|one| one.start).max());
    let last = last.map(|last| last.saturating_duration_since(back));
    println!(
        "{} queries, {count} failed, the last {last:?} after it was back, slowest settled {slowest:?}",
        asked.len()
    );
}
