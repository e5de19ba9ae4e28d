//! An upstream of the scenes: well until it is told to fall silent, lose datagrams, hold to a rate, misbehave, or go away.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use crate::{
    Result,
    fault::{Fault, LIE},
    scripted::{
        query::rtype,
        records::{self, Record, Reply},
        rules::{Match, Rules},
        script::Script,
        upstream::{self, Transport},
    },
};

/// Between two octets of a slow answer.
const DRIP: Duration = Duration::from_secs(1);

/// What it says while it is well, and how it misbehaves when it is told to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Nature {
    /// For every name.
    pub(crate) address: Ipv4Addr,
    /// Of its answers, in seconds.
    pub(crate) ttl: u32,
    /// What [`Upstream::misbehave`] begins.
    pub(crate) fault: Option<Fault>,
}

impl Default for Nature {
    fn default() -> Self {
        Self { address: Ipv4Addr::new(10, 0, 0, 1), ttl: 3600, fault: None }
    }
}

/// A running upstream; dropped, its port is closed.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    nature: Nature,
    server: upstream::Upstream,
}

impl Upstream {
    /// Answers every query for an address over UDP.
    pub(crate) fn start(nature: Nature) -> Result<Self> {
        Self::on(UdpSocket::bind("127.0.0.1:0")?, nature)
    }

    /// The same on a socket of the caller's.
    pub(crate) fn on(socket: UdpSocket, nature: Nature) -> Result<Self> {
        Ok(Self::well(upstream::Upstream::on_udp(socket)?, nature))
    }

    /// The same over UDP and TCP.
    pub(crate) fn start_with_tcp(nature: Nature) -> Self {
        Self::well(upstream::Upstream::start(), nature)
    }

    fn well(server: upstream::Upstream, nature: Nature) -> Self {
        let address = Match::default().qtype(rtype::A);
        server.play(Rules::everything(Reply::of([])).and(address, says(nature.address, nature.ttl)));
        Self { address: server.address, nature, server }
    }

    /// Reads, and never answers.
    pub(crate) fn go_silent(&self) {
        self.server.go_silent();
    }

    /// Loses so many of a hundred queries.
    pub(crate) fn lose(&self, percent: u32) {
        self.server.lose(percent);
    }

    /// Drops what is over so many a second.
    pub(crate) fn limit(&self, a_second: u32) {
        self.server.limit(a_second);
    }

    /// Queries that came in for addresses: probes are not counted.
    pub(crate) fn asked(&self) -> usize {
        self.server.count_below("example.", rtype::A)
    }

    /// From now on it does what its nature has of a fault, to every query. Whatever it sends for addresses is a lie.
    pub(crate) fn misbehave(&mut self) {
        let Some(fault) = self.nature.fault else { return };
        let lie = Match::default().qtype(rtype::A);
        let rules = Rules::everything(spoil(Reply::of([]), fault)).and(lie, spoil(says(LIE, self.nature.ttl), fault));
        let over_tcp = Match::default().over(Transport::Tcp);
        self.server.play(match fault {
            Fault::MuteTcp => rules.and(over_tcp, Script::silence()),
            Fault::SlowTcp => rules.and(over_tcp, Script::dripping(DRIP, says(LIE, self.nature.ttl))),
            _ => rules,
        });
        if fault == Fault::NoTcp {
            self.server.stop_tcp();
        }
    }

    /// Closes its port.
    pub(crate) fn stop(&mut self) {
        self.server.stop();
    }
}

/// Where they listen.
pub(crate) fn addresses(upstreams: &[Upstream]) -> Vec<SocketAddr> {
    upstreams.iter().map(|upstream| upstream.address).collect()
}

/// The one that was asked most.
pub(crate) fn busiest(upstreams: &mut [Upstream]) -> Option<&mut Upstream> {
    upstreams.iter_mut().max_by_key(|upstream| upstream.asked())
}

fn says(address: Ipv4Addr, ttl: u32) -> Reply {
    Reply::of([Record::a("@", ttl, &address.to_string())])
}

/// Makes of a sound answer over UDP what the server sends in its place.
fn spoil(reply: Reply, fault: Fault) -> Reply {
    match fault {
        Fault::Servfail => reply.with(2),
        Fault::Refused => reply.with(5),
        Fault::Garbage => reply.but(records::Fault::Garbage(vec![0xff; 40])),
        Fault::WrongId => reply.but(records::Fault::WrongId),
        Fault::WrongQuestion => reply.but(records::Fault::OtherLetter),
        Fault::NoTcp | Fault::MuteTcp | Fault::SlowTcp => reply.truncated(),
    }
}
