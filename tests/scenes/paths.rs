//! The path to a server changes under load: another source address, another link, a link that flaps, an interface that is
//! made anew. The server is not at fault, and no query fails.

use std::{
    thread,
    time::{Duration, Instant},
};

use hickory_proto::op::ResponseCode;
use rstest::rstest;

use crate::{
    cut::{Asked, load_from},
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
/// Another server, over the other link.
const OTHER: &str = "10.99.0.3";
/// Clients, each of whom asks fifty queries a second.
const CLIENTS: usize = 10;
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

/// How many paths there are to an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ways {
    /// One server over the link that changes.
    One,
    /// Another server over the other link too.
    Two,
}

/// A server that two links lead to, of which the first is used, and optionally another behind the second link.
struct Site {
    network: Network,
    _servers: Vec<UpstreamAway>,
    tidegate: Tidegate,
}

impl Site {
    fn start(scheme: &str, keys: &str, ways: Ways) -> Self {
        let network = Network::behind("direct", &["10.91.0.7/24"], &["10.91.0.1/24"]);
        command(&["ip", "link", "add", "vpn", "type", "veth", "peer", "name", "far2", "netns", "behind-direct"]);
        command(&["ip", "address", "add", "10.92.0.7/24", "dev", "vpn"]);
        command(&["ip", "link", "set", "vpn", "up"]);
        for words in [
            &["ip", "address", "add", "10.92.0.1/24", "dev", "far2"][..],
            &["ip", "link", "set", "far2", "up"],
            &["ip", "address", "add", "10.99.0.2/32", "dev", "lo"],
            &["ip", "address", "add", "10.99.0.3/32", "dev", "lo"],
            // Strict reverse path: from another link than the one that leads back, nothing is taken.
            &["sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1", "net.ipv4.conf.far2.rp_filter=1"],
        ] {
            network.command(words);
        }
        // Else the last words of an old connection ask for the neighbour in the name of the old address, and get no answer.
        command(&["sysctl", "-qw", "net.ipv4.conf.all.arp_announce=2"]);
        command(&["ip", "route", "add", SERVER, "via", "10.91.0.1", "dev", "direct"]);
        command(&["ip", "route", "add", OTHER, "via", "10.92.0.1", "dev", "vpn"]);
        let addresses = if ways == Ways::One { &[SERVER][..] } else { &[SERVER, OTHER] };
        let servers: Vec<UpstreamAway> =
            addresses.iter().map(|address| network.upstream(&format!("{address}:0"))).collect();
        servers.iter().for_each(|server| _ = server.on_type(rtype::A, Reply::a("10.0.0.1")));
        let urls: Vec<String> = servers.iter().map(|server| format!("{scheme}{}", server.address)).collect();
        let config = Config::new().servers("vpc", &urls, keys).forward("everything", &["."], "vpc", "");
        let tidegate = Tidegate::start(&config);
        for url in &urls {
            let up = [("server", url.strip_prefix("udp://").unwrap_or(url)), ("to", "up")];
            tidegate.await_metric("tidegate_upstream_transitions_total", &up, 1.0);
        }
        Self { network, _servers: servers, tidegate }
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

/// With one path, no query fails later than a second after the new path works; with two, none fails at all.
#[rstest]
#[case::source("udp://", Change::Source, "", Ways::One)]
#[case::route("udp://", Change::Route, "", Ways::One)]
#[case::flap("udp://", Change::Flap, "", Ways::One)]
#[case::interface("udp://", Change::Interface, "device = \"direct\"", Ways::One)]
#[case::source_over_tcp("tcp://", Change::Source, "", Ways::One)]
#[case::route_over_tcp("tcp://", Change::Route, "", Ways::One)]
#[case::source_of_two("udp://", Change::Source, "", Ways::Two)]
#[case::route_of_two("udp://", Change::Route, "", Ways::Two)]
#[case::flap_of_two("udp://", Change::Flap, "", Ways::Two)]
#[case::interface_of_two("udp://", Change::Interface, "", Ways::Two)]
#[case::source_of_two_over_tcp("tcp://", Change::Source, "", Ways::Two)]
#[case::route_of_two_over_tcp("tcp://", Change::Route, "", Ways::Two)]
fn a_path_that_changes_fails_no_query(
    #[case] scheme: &str,
    #[case] change: Change,
    #[case] keys: &str,
    #[case] ways: Ways,
) {
    let (number, name) = match (change, scheme) {
        (Change::Source, "udp://") => (1, "source"),
        (Change::Route, "udp://") => (2, "route"),
        (Change::Flap, _) => (3, "flap"),
        (Change::Interface, _) => (4, "interface"),
        (Change::Source, _) => (5, "source_over_tcp"),
        (Change::Route, _) => (6, "route_over_tcp"),
    };
    let case = match ways {
        Ways::One => format!("case_{number:02}_{name}"),
        Ways::Two if number > 4 => format!("case_{:02}_{}", number + 6, name.replace("_over", "_of_two_over")),
        Ways::Two => format!("case_{:02}_{name}_of_two", number + 6),
    };
    namespace::inside(&format!("paths::a_path_that_changes_fails_no_query::{case}"), || {
        let site = Site::start(scheme, keys, ways);
        let (mut changed, mut mended) = (now(), now());
        let asked = load_from(CLIENTS, &site.tidegate, || {
            thread::sleep(Duration::from_secs(1));
            changed = now();
            site.apply(change);
            mended = now();
            thread::sleep(Duration::from_secs(3));
        });
        let counts = |one: &&Asked| ways == Ways::Two || one.start > mended + SETTLED;
        let (answered, failed): (Vec<_>, Vec<_>) =
            asked.iter().filter(counts).partition(|one| one.rcode == ResponseCode::NoError);
        let settled = answered.iter().filter(|one| one.start > mended + SETTLED);
        let slowest = settled.map(|one| one.took).max().expect("some are answered once the path works");
        print_figures(&asked, changed, mended, slowest);
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

#[expect(clippy::print_stdout, reason = "figures beside a failure, and for who asks with --nocapture")]
fn print_figures(asked: &[Asked], changed: Instant, mended: Instant, slowest: Duration) {
    let failed: Vec<Instant> =
        asked.iter().filter(|one| one.rcode != ResponseCode::NoError).map(|one| one.start).collect();
    let last_failed = failed.iter().max().map(|last| last.saturating_duration_since(mended));
    println!(
        "{} queries, change took {:?}, {} failed, the last {last_failed:?} after it, slowest settled {slowest:?}",
        asked.len(),
        mended.duration_since(changed),
        failed.len()
    );
}
