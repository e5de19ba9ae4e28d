//! The path to a server changes under load: another source address, another link, a link that flaps, an interface that is
//! made anew. The server is not at fault, and no query fails.

use std::{thread, time::Duration};

use hickory_proto::op::ResponseCode;
use rstest::rstest;

use crate::{
    cut::load,
    support::{
        config::Config,
        namespace::{self, Network, UpstreamAway, command},
        now,
        query::rtype,
        records::Reply,
        tidegate::Tidegate,
    },
};

/// The server's own address, which is on no link: routes lead there.
const SERVER: &str = "10.99.0.2";
/// How long after the new path works every query is answered, and how late at the most.
const SETTLED: Duration = Duration::from_secs(1);
const LATE: Duration = Duration::from_secs(1);

/// What happens to the path.
#[derive(Debug, Clone, Copy)]
enum Change {
    /// The host gets another address in place of the one queries leave from, as when a lease or a tunnel is renewed.
    Source,
    /// The route moves to the other link; the old address stays, and what comes from it there is dropped.
    Route,
    /// The link goes down and comes up again.
    Flap,
    /// The interface is removed and made again, with another index.
    Interface,
}

/// A server that two links lead to, of which the first is used.
struct Site {
    network: Network,
    _server: UpstreamAway,
    tidegate: Tidegate,
}

impl Site {
    fn start(scheme: &str, keys: &str) -> Self {
        let network = Network::behind("direct", &["10.91.0.7/24"], &["10.91.0.1/24"]);
        command(&["ip", "link", "add", "vpn", "type", "veth", "peer", "name", "far2", "netns", "behind-direct"]);
        command(&["ip", "address", "add", "10.92.0.7/24", "dev", "vpn"]);
        command(&["ip", "link", "set", "vpn", "up"]);
        for words in [
            &["ip", "address", "add", "10.92.0.1/24", "dev", "far2"][..],
            &["ip", "link", "set", "far2", "up"],
            &["ip", "address", "add", "10.99.0.2/32", "dev", "lo"],
            // Strict reverse path: from another link than the one that leads back, nothing is taken.
            &["sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1", "net.ipv4.conf.far2.rp_filter=1"],
        ] {
            network.command(words);
        }
        // Else the last words of an old connection ask for the neighbour in the name of the old address, and get no answer.
        command(&["sysctl", "-qw", "net.ipv4.conf.all.arp_announce=2"]);
        command(&["ip", "route", "add", SERVER, "via", "10.91.0.1", "dev", "direct"]);
        let server = network.upstream(&format!("{SERVER}:0"));
        server.on_type(rtype::A, Reply::a("10.0.0.1"));
        let address = format!("{scheme}{}", server.address);
        let config = Config::new().servers("vpc", &[address], keys).forward("everything", &["."], "vpc", "");
        let tidegate = Tidegate::start(&config);
        tidegate.await_metric("tidegate_upstream_healthy", &[("group", "vpc")], 1.0);
        Self { network, _server: server, tidegate }
    }

    fn apply(&self, change: Change) {
        match change {
            Change::Source => {
                command(&["ip", "address", "add", "10.91.0.8/24", "dev", "direct"]);
                command(&["ip", "address", "del", "10.91.0.7/24", "dev", "direct"]);
                command(&["ip", "address", "replace", "10.91.0.8/24", "dev", "direct"]);
                command(&["ip", "route", "replace", SERVER, "via", "10.91.0.1", "dev", "direct"]);
            }
            Change::Route => command(&["ip", "route", "replace", SERVER, "via", "10.92.0.1", "dev", "vpn"]),
            Change::Flap => {
                command(&["ip", "link", "set", "direct", "down"]);
                command(&["ip", "link", "set", "direct", "up"]);
                command(&["ip", "route", "replace", SERVER, "via", "10.91.0.1", "dev", "direct"]);
            }
            Change::Interface => {
                command(&["ip", "link", "del", "direct"]);
                command(&[
                    "ip",
                    "link",
                    "add",
                    "direct",
                    "type",
                    "veth",
                    "peer",
                    "name",
                    "far",
                    "netns",
                    "behind-direct",
                ]);
                command(&["ip", "address", "add", "10.91.0.7/24", "dev", "direct"]);
                self.network.command(&["ip", "address", "add", "10.91.0.1/24", "dev", "far"]);
                self.network.command(&["ip", "link", "set", "far", "up"]);
                command(&["ip", "link", "set", "direct", "up"]);
                command(&["ip", "route", "replace", SERVER, "via", "10.91.0.1", "dev", "direct"]);
            }
        }
    }
}

#[rstest]
#[case::source("udp://", Change::Source, "")]
#[case::route("udp://", Change::Route, "")]
#[case::flap("udp://", Change::Flap, "")]
#[case::interface("udp://", Change::Interface, "device = \"direct\"")]
#[case::source_over_tcp("tcp://", Change::Source, "")]
#[case::route_over_tcp("tcp://", Change::Route, "")]
fn a_path_that_changes_fails_no_query(#[case] scheme: &str, #[case] change: Change, #[case] keys: &str) {
    let (number, name) = match (change, scheme) {
        (Change::Source, "udp://") => (1, "source"),
        (Change::Route, "udp://") => (2, "route"),
        (Change::Flap, _) => (3, "flap"),
        (Change::Interface, _) => (4, "interface"),
        (Change::Source, _) => (5, "source_over_tcp"),
        (Change::Route, _) => (6, "route_over_tcp"),
    };
    namespace::inside(&format!("paths::a_path_that_changes_fails_no_query::case_{number}_{name}"), || {
        let site = Site::start(scheme, keys);
        let mut mended = now();
        let asked = load(&site.tidegate, || {
            thread::sleep(Duration::from_secs(1));
            site.apply(change);
            mended = now();
            thread::sleep(Duration::from_secs(3));
        });
        let late = asked.iter().filter(|one| one.start > mended + SETTLED);
        let (answered, failed): (Vec<_>, Vec<_>) = late.partition(|one| one.rcode == ResponseCode::NoError);
        let slowest = answered.iter().map(|one| one.took).max().expect("some are answered once the path works");
        assert!(
            failed.is_empty() && slowest < LATE,
            "{} failed, {} answered, slowest {slowest:?}",
            failed.len(),
            answered.len()
        );
        if matches!(change, Change::Source | Change::Route) {
            assert_eq!(site.tidegate.logged("INFO", "the path to upstream").len(), 1);
        }
        assert!(site.tidegate.metric("tidegate_network_changes_total", &[]) >= 1.0);
    });
}
