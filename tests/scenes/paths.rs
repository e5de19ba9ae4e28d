//! The path to a server changes under load: another source address, another link, a link that flaps, an interface that is
//! made anew. The server is not at fault, and no query fails, whatever carries the queries, and whether or not the kernel
//! tells of its changes.

use std::{
    collections::BTreeSet,
    fs, thread,
    time::{Duration, Instant},
};

use hickory_proto::op::ResponseCode;
use rstest::rstest;
use tempfile::TempDir;

use crate::{
    cut::{Asked, load_from},
    support::{
        authority::{Authority, Validity},
        config::Config,
        encrypted::{Encrypted, Speaks},
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
/// The name in the certificates of both.
const NAME: &str = "dns.corp.example";
/// Clients, each of whom asks fifty queries a second.
const CLIENTS: usize = 10;
/// How long after the new path works every query is answered, and how late at the most.
const SETTLED: Duration = Duration::from_secs(1);
const LATE: Duration = Duration::from_secs(1);
/// How long a link is down that flaps.
const DOWN: Duration = Duration::from_millis(500);

/// What happens to the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

/// Whether the kernel tells of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Netlink {
    Heard,
    /// There are no sockets of that family, as where a unit restricts them.
    Denied,
}

/// What carries the queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carrier {
    Udp,
    Tcp,
    Encrypted(Speaks),
}

/// A server in another network, until it is dropped.
enum Server {
    Plain(UpstreamAway),
    Encrypted(#[expect(dead_code, reason = "dropped in the end")] Encrypted),
}

/// A server that two links lead to, of which the first is used, and optionally another behind the second link.
struct Site {
    network: Network,
    servers: Vec<Server>,
    _authority: TempDir,
    tidegate: Tidegate,
}

impl Site {
    fn start(carrier: Carrier, keys: &str, ways: Ways, netlink: Netlink) -> Self {
        let network = two_links();
        let addresses = if ways == Ways::One { &[SERVER][..] } else { &[SERVER, OTHER] };
        let (authority, folder) = (Authority::new("the site's CA"), tempfile::tempdir().expect("a folder"));
        let ca = folder.path().join("ca.pem");
        fs::write(&ca, authority.pem()).expect("the folder is writable");
        let start = |address: &&str| match carrier {
            Carrier::Udp | Carrier::Tcp => {
                let server = network.upstream(&format!("{address}:0"));
                server.on_type(rtype::A, Reply::a("10.0.0.1"));
                let scheme = if carrier == Carrier::Udp { "" } else { "tcp://" };
                (format!("{scheme}{}", server.address), Server::Plain(server))
            }
            Carrier::Encrypted(speaks) => {
                let certificate = authority.issue(NAME, Validity::Now);
                let server = network.encrypted(&format!("{address}:0"), speaks, &certificate);
                let url = format!("{}://{}#{NAME}", format!("{speaks:?}").to_lowercase(), server.address);
                (url, Server::Encrypted(server))
            }
        };
        let (urls, servers): (Vec<String>, Vec<Server>) = addresses.iter().map(start).unzip();
        let keys = if let Carrier::Encrypted(_) = carrier { format!("{keys}\nca = {ca:?}") } else { keys.to_owned() };
        let config = Config::new().servers("vpc", &urls, &keys).forward("everything", &["."], "vpc", "");
        let tidegate = match netlink {
            Netlink::Heard => Tidegate::start(&config),
            Netlink::Denied => namespace::without_netlink(|| Tidegate::start(&config)),
        };
        if netlink == Netlink::Denied {
            tidegate.await_logged("WARN", "changes of the network are not heard");
        }
        let all = if ways == Ways::One { 1.0 } else { 2.0 };
        tidegate.await_metric("tidegate_upstream_transitions_total", &[("to", "up")], all);
        Self { network, servers, _authority: folder, tidegate }
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
                thread::sleep(DOWN);
                command(&["ip", "link", "set", "direct", "up"]);
                command(&["ip", "route", "replace", SERVER, "via", "10.91.0.1", "dev", "direct"]);
            }
            Change::Interface => {
                command(&["ip", "link", "del", "direct"]);
                let route = format!("route replace {SERVER} via 10.91.0.1 dev direct");
                self.network.join_again("direct", "10.91.0.7/24", "10.91.0.1/24", &route);
            }
        }
    }

    /// How often the log says these things of a path: that it changed, that it was gone for a moment, that queries cannot
    /// leave, and that they leave again.
    fn said(&self) -> [usize; 4] {
        let lines = |level, text: &str| self.tidegate.logged(level, text).len();
        let path = "the path to upstream";
        let about = self.tidegate.logged("INFO", path);
        let [changed, gone] = [" changed: queries leave from ", " was gone for "]
            .map(|text| about.iter().filter(|line| line.contains(text)).count());
        [changed, gone, lines("WARN", "cannot leave this host"), lines("INFO", "leave this host again")]
    }
}

/// Two links to another network with both servers' addresses.
fn two_links() -> Network {
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
    network
}

const TLS: Carrier = Carrier::Encrypted(Speaks::Tls);
const HTTPS: Carrier = Carrier::Encrypted(Speaks::Https);
const QUIC: Carrier = Carrier::Encrypted(Speaks::Quic);
const DEVICE: &str = "device = \"direct\"";

/// With one path, no query fails later than a second after the new path works; with two, none fails at all.
#[rstest]
#[case::source(Carrier::Udp, Change::Source, "", Ways::One)]
#[case::route(Carrier::Udp, Change::Route, "", Ways::One)]
#[case::flap(Carrier::Udp, Change::Flap, "", Ways::One)]
#[case::interface(Carrier::Udp, Change::Interface, "", Ways::One)]
#[case::device(Carrier::Udp, Change::Interface, DEVICE, Ways::One)]
#[case::source_of_two(Carrier::Udp, Change::Source, "", Ways::Two)]
#[case::route_of_two(Carrier::Udp, Change::Route, "", Ways::Two)]
#[case::flap_of_two(Carrier::Udp, Change::Flap, "", Ways::Two)]
#[case::interface_of_two(Carrier::Udp, Change::Interface, "", Ways::Two)]
#[case::source_over_tcp(Carrier::Tcp, Change::Source, "", Ways::One)]
#[case::route_over_tcp(Carrier::Tcp, Change::Route, "", Ways::One)]
#[case::source_of_two_over_tcp(Carrier::Tcp, Change::Source, "", Ways::Two)]
#[case::route_of_two_over_tcp(Carrier::Tcp, Change::Route, "", Ways::Two)]
#[case::flap_of_two_over_tcp(Carrier::Tcp, Change::Flap, "", Ways::Two)]
#[case::interface_of_two_over_tcp(Carrier::Tcp, Change::Interface, "", Ways::Two)]
#[case::source_over_tls(TLS, Change::Source, "", Ways::One)]
#[case::source_of_two_over_tls(TLS, Change::Source, "", Ways::Two)]
#[case::route_of_two_over_tls(TLS, Change::Route, "", Ways::Two)]
#[case::flap_of_two_over_tls(TLS, Change::Flap, "", Ways::Two)]
#[case::interface_of_two_over_tls(TLS, Change::Interface, "", Ways::Two)]
#[case::route_over_https(HTTPS, Change::Route, "", Ways::One)]
#[case::source_of_two_over_https(HTTPS, Change::Source, "", Ways::Two)]
#[case::route_of_two_over_https(HTTPS, Change::Route, "", Ways::Two)]
#[case::flap_of_two_over_https(HTTPS, Change::Flap, "", Ways::Two)]
#[case::interface_of_two_over_https(HTTPS, Change::Interface, "", Ways::Two)]
#[case::route_over_quic(QUIC, Change::Route, "", Ways::One)]
#[case::device_over_quic(QUIC, Change::Interface, DEVICE, Ways::One)]
#[case::source_of_two_over_quic(QUIC, Change::Source, "", Ways::Two)]
#[case::route_of_two_over_quic(QUIC, Change::Route, "", Ways::Two)]
#[case::flap_of_two_over_quic(QUIC, Change::Flap, "", Ways::Two)]
#[case::interface_of_two_over_quic(QUIC, Change::Interface, "", Ways::Two)]
fn a_path_that_changes_fails_no_query(
    #[case] carrier: Carrier,
    #[case] change: Change,
    #[case] keys: &str,
    #[case] ways: Ways,
) {
    no_query_fails(carrier, change, keys, ways, Netlink::Heard);
}

/// Without word from the kernel, what the sockets show is enough.
#[rstest]
#[case::source(Carrier::Udp, Change::Source, "", Ways::One)]
#[case::route(Carrier::Udp, Change::Route, "", Ways::One)]
#[case::device(Carrier::Udp, Change::Interface, DEVICE, Ways::One)]
#[case::source_of_two(Carrier::Udp, Change::Source, "", Ways::Two)]
#[case::route_of_two(Carrier::Udp, Change::Route, "", Ways::Two)]
#[case::flap_of_two(Carrier::Udp, Change::Flap, "", Ways::Two)]
#[case::source_over_tcp(Carrier::Tcp, Change::Source, "", Ways::One)]
#[case::route_over_tcp(Carrier::Tcp, Change::Route, "", Ways::One)]
#[case::route_of_two_over_tcp(Carrier::Tcp, Change::Route, "", Ways::Two)]
#[case::route_over_tls(TLS, Change::Route, "", Ways::One)]
#[case::route_over_https(HTTPS, Change::Route, "", Ways::One)]
#[case::source_over_quic(QUIC, Change::Source, "", Ways::One)]
#[case::route_over_quic(QUIC, Change::Route, "", Ways::One)]
fn a_path_that_changes_unheard_fails_no_query(
    #[case] carrier: Carrier,
    #[case] change: Change,
    #[case] keys: &str,
    #[case] ways: Ways,
) {
    no_query_fails(carrier, change, keys, ways, Netlink::Denied);
}

fn no_query_fails(carrier: Carrier, change: Change, keys: &str, ways: Ways, netlink: Netlink) {
    namespace::inside_own(|| {
        let site = Site::start(carrier, keys, ways, netlink);
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
        let said = site.said();
        print_figures(&asked, changed, mended, slowest, said);
        assert!(
            failed.is_empty() && slowest < LATE,
            "{} failed, {} answered, slowest {slowest:?}",
            failed.len(),
            answered.len()
        );
        let expected: &[[usize; 4]] = match change {
            Change::Source | Change::Route => &[[1, 0, 0, 0]],
            Change::Interface if keys == DEVICE && carrier == Carrier::Udp => &[[0, 0, 1, 1]],
            // A connection may have nothing to send while the device is gone, and is moved to the new one.
            Change::Interface if keys == DEVICE => &[[0, 0, 1, 1], [1, 0, 0, 0]],
            Change::Flap | Change::Interface if carrier == Carrier::Udp => &[[0, 1, 0, 0]],
            // A connection may outlive a short break.
            Change::Flap | Change::Interface => &[[0, 1, 0, 0], [0, 0, 0, 0]],
        };
        assert!(expected.contains(&said), "{said:?} instead of {expected:?}: {:#?}", site.tidegate.log());
        assert_eq!(site.tidegate.metric("tidegate_upstream_transitions_total", &[("to", "down")]), 0.0);
        let is_heard = site.tidegate.metric("tidegate_network_changes_total", &[]) >= 1.0;
        assert_eq!(is_heard, netlink == Netlink::Heard);
    });
}

/// A firewall on the way drops what comes by the ports it knew, as after a restart without its table of flows. Probes, which
/// have ports of their own, pass.
#[test]
fn ports_that_a_firewall_forgot_are_given_up_while_their_queries_wait() {
    namespace::inside_own(|| {
        let site = Site::start(Carrier::Udp, "source_ports = 8\nhedge = false", Ways::One, Netlink::Heard);
        let [Server::Plain(server)] = &site.servers[..] else { panic!("one server") };
        load_from(4, &site.tidegate, || thread::sleep(Duration::from_secs(2)));
        let seen = server.all_seen();
        // Not those of probes, also of the ones for loops.
        let of_clients = seen.iter().filter(|seen| seen.name.starts_with('n') && seen.name.ends_with(".example."));
        let ports = of_clients.map(|seen| seen.from.port().to_string());
        let ports: Vec<String> = ports.collect::<BTreeSet<_>>().into_iter().collect();
        let forget = format!("udp sport {{ {} }} drop", ports.join(", "));
        site.network.command(&[
            "nft",
            &format!("table inet flows {{ chain in {{ type filter hook input priority 0; {forget}; }}; }}"),
        ]);
        let asked = load_from(CLIENTS, &site.tidegate, || thread::sleep(Duration::from_secs(2)));
        let slowest = asked.iter().map(|one| one.took).max().expect("some are asked");
        let failed = asked.iter().filter(|one| one.rcode != ResponseCode::NoError).count();
        assert!(failed == 0 && slowest < Duration::from_secs(2), "{failed} of {} failed, {slowest:?}", asked.len());
        assert_eq!(site.said(), [0; 4], "the path is the same");
    });
}

#[expect(clippy::print_stdout, reason = "figures beside a failure, and for who asks with --nocapture")]
fn print_figures(asked: &[Asked], changed: Instant, mended: Instant, slowest: Duration, said: [usize; 4]) {
    let failed: Vec<Instant> =
        asked.iter().filter(|one| one.rcode != ResponseCode::NoError).map(|one| one.start).collect();
    let last_failed = failed.iter().max().map(|last| last.saturating_duration_since(mended));
    println!(
        "{} queries, change took {:?}, {} failed, the last {last_failed:?} after it, slowest settled {slowest:?}, said {said:?}",
        asked.len(),
        mended.duration_since(changed),
        failed.len()
    );
}
