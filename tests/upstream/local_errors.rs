//! What this host lacks or forbids is never held against a server, over any transport: no descriptors, a route that
//! prohibits or is a black hole, a firewall of its own.

use std::{
    io::Write,
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use rstest::rstest;
use tidegate::{
    tls::Roots,
    upstream::{Alarm, Group, HealthState, Identity, OwnAddresses, ServerSpec, TierMember, health::ProbeError},
    wire::Transport,
};

use crate::{
    ask, client, is, on_a_worker, probe, server, spec,
    support::{
        authority::{Authority, Validity},
        encrypted::{Encrypted, Speaks},
        namespace::{self, Network, UpstreamAway, command},
        query::rtype,
        records::Reply,
    },
    until,
};

const NAME: &str = "dns.corp.example";

/// A server in another network, until it is dropped.
enum Server {
    Plain(UpstreamAway),
    Encrypted(Box<Encrypted>, Authority),
}

impl Server {
    fn start(network: &Network, transport: Transport) -> Self {
        let speaks = match transport {
            Transport::Udp | Transport::Tcp => {
                let server = network.upstream("10.91.0.1:0");
                server.on_type(rtype::A, Reply::a("10.0.0.1"));
                return Self::Plain(server);
            }
            Transport::Tls => Speaks::Tls,
            Transport::Https => Speaks::Https,
            Transport::Quic => Speaks::Quic,
        };
        let authority = Authority::new("the site's CA");
        let certificate = authority.issue(NAME, Validity::Now);
        Self::Encrypted(Box::new(network.encrypted("10.91.0.1:0", speaks, &certificate)), authority)
    }

    fn spec(&self, transport: Transport) -> ServerSpec {
        match self {
            Self::Plain(server) => ServerSpec::plain(transport, server.address),
            Self::Encrypted(server, authority) => {
                let roots = Roots::from_pem(authority.pem().as_bytes()).unwrap();
                ServerSpec::encrypted(transport, server.address, Identity { name: Some(NAME.to_owned()), roots })
            }
        }
    }
}

/// What this host does to its own queries.
#[derive(Debug, Clone, Copy)]
enum Obstacle {
    /// Every new descriptor is refused (EMFILE).
    Descriptors,
    /// The route to the server prohibits (EACCES).
    Route,
    /// The route to the server is a black hole (EINVAL).
    Blackhole,
    /// A firewall drops what leaves (EPERM).
    Firewall,
}

impl Obstacle {
    fn set_up(self, server: SocketAddr) {
        match self {
            Self::Descriptors => command(&["prlimit", "--pid", &std::process::id().to_string(), "--nofile=3:"]),
            Self::Route => command(&["ip", "route", "add", "prohibit", &format!("{}/32", server.ip())]),
            Self::Blackhole => command(&["ip", "route", "add", "blackhole", &format!("{}/32", server.ip())]),
            Self::Firewall => {
                command(&["nft", "add table ip own"]);
                command(&["nft", "add chain ip own out { type filter hook output priority 0; }"]);
                command(&["nft", &format!("add rule ip own out udp dport {} drop", server.port())]);
            }
        }
    }

    /// What ends it, waiting already: without descriptors nothing can be started.
    fn end(self, server: SocketAddr) -> End {
        let line = match self {
            Self::Descriptors => format!("prlimit --pid {} --nofile=512:", std::process::id()),
            Self::Route => format!("ip route del prohibit {}/32", server.ip()),
            Self::Blackhole => format!("ip route del blackhole {}/32", server.ip()),
            Self::Firewall => "nft delete table ip own".to_owned(),
        };
        let shell = Command::new("sh").args(["-ec", &format!("read go; {line}")]).stdin(Stdio::piped()).spawn();
        End(shell.unwrap())
    }
}

struct End(Child);

impl End {
    fn end(mut self) {
        drop(self.0.stdin.take().map(|mut stdin| stdin.write_all(b"go\n")));
        assert!(self.0.wait().unwrap().success());
    }
}

#[rstest]
#[case::descriptors_udp(Obstacle::Descriptors, Transport::Udp)]
#[case::descriptors_tcp(Obstacle::Descriptors, Transport::Tcp)]
#[case::descriptors_tls(Obstacle::Descriptors, Transport::Tls)]
#[case::descriptors_https(Obstacle::Descriptors, Transport::Https)]
#[case::descriptors_quic(Obstacle::Descriptors, Transport::Quic)]
#[case::route_udp(Obstacle::Route, Transport::Udp)]
#[case::route_tcp(Obstacle::Route, Transport::Tcp)]
#[case::route_tls(Obstacle::Route, Transport::Tls)]
#[case::route_https(Obstacle::Route, Transport::Https)]
#[case::route_quic(Obstacle::Route, Transport::Quic)]
#[case::firewall_udp(Obstacle::Firewall, Transport::Udp)]
#[case::firewall_quic(Obstacle::Firewall, Transport::Quic)]
#[case::blackhole_udp(Obstacle::Blackhole, Transport::Udp)]
#[case::blackhole_tcp(Obstacle::Blackhole, Transport::Tcp)]
#[case::blackhole_tls(Obstacle::Blackhole, Transport::Tls)]
#[case::blackhole_https(Obstacle::Blackhole, Transport::Https)]
#[case::blackhole_quic(Obstacle::Blackhole, Transport::Quic)]
fn local_errors_do_not_count_against_a_server(#[case] obstacle: Obstacle, #[case] transport: Transport) {
    let case = match (obstacle, transport) {
        (Obstacle::Descriptors, transport) => {
            format!("case_0{}_descriptors_{}", transport as usize + 1, transport.label())
        }
        (Obstacle::Route, transport) => format!("case_{:02}_route_{}", transport as usize + 6, transport.label()),
        (Obstacle::Blackhole, transport) => format!("case_{}_blackhole_{}", transport as usize + 13, transport.label()),
        (Obstacle::Firewall, Transport::Udp) => "case_11_firewall_udp".to_owned(),
        (Obstacle::Firewall, _) => "case_12_firewall_quic".to_owned(),
    };
    let test = format!("local_errors::local_errors_do_not_count_against_a_server::{case}");
    namespace::inside(&test, || {
        let network = Network::behind("direct", &["10.91.0.7/24"], &["10.91.0.1/24"]);
        let far = Server::start(&network, transport);
        let there = far.spec(transport);
        let address = there.address;
        // One failed probe would take it down.
        let mut spec = spec(&[&[TierMember::Server(there)]]);
        spec.health.fall = 1;
        let alarm = Arc::new(Alarm::new());
        let group = Arc::new(Group::build(&spec, &OwnAddresses::default(), &alarm));
        on_a_worker(async {
            ask(&client(), &group, "a.example").await.unwrap();
            let far = server(&group, 0);
            assert!(is(far, HealthState::Up));
            let end = obstacle.end(address);
            obstacle.set_up(address);
            let client = client();
            for at in 0..20 {
                let error = ask(&client, &group, &format!("n{at}.example")).await.unwrap_err();
                assert!(error.to_string().contains("this host could not send"), "{error}");
            }
            let probes = probe(&group, &alarm);
            until("a probe that could not leave", || far.last_probe_error() == Some(ProbeError::NotSent)).await;
            drop(probes);
            assert!(is(far, HealthState::Up), "{:?}", far.state());
            assert_eq!((far.transitions(HealthState::Suspect), far.transitions(HealthState::Down)), (0, 0));
            assert_eq!(far.has_no_path(), !matches!(obstacle, Obstacle::Descriptors));
            end.end();
            ask(&client, &group, "again.example").await.unwrap();
            assert!(far.is_usable());
        });
    });
}

/// Linux keeps the EPERM of a SYN to itself and sends it again. Datagrams do get it.
#[test]
fn a_firewall_of_ours_that_drops_connections_looks_like_a_silent_server() {
    namespace::inside("local_errors::a_firewall_of_ours_that_drops_connections_looks_like_a_silent_server", || {
        let network = Network::behind("direct", &["10.91.0.7/24"], &["10.91.0.1/24"]);
        let far = Server::start(&network, Transport::Tcp);
        let there = far.spec(Transport::Tcp);
        command(&["nft", "add table ip own"]);
        command(&["nft", "add chain ip own out { type filter hook output priority 0; }"]);
        command(&["nft", &format!("add rule ip own out tcp dport {} drop", there.address.port())]);
        let group =
            Arc::new(Group::build(&spec(&[&[TierMember::Server(there)]]), &OwnAddresses::default(), &Arc::default()));
        on_a_worker(async {
            let error = ask(&client(), &group, "a.example").await.unwrap_err();
            assert!(!error.to_string().contains("this host could not send"), "{error}");
            assert!(!server(&group, 0).has_no_path());
        });
    });
}
