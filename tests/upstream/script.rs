//! Scripted upstreams in the terms of these tests: a server behaves the same for everybody until it is told otherwise.

use std::{
    collections::HashSet,
    net::{Ipv4Addr, SocketAddr},
    sync::Mutex,
    time::Duration,
};

use crate::support::{
    records::{Fault, Record, Reply},
    rules::{Match, Rules},
    script::Script as Steps,
    upstream::{Transport, Upstream},
};

/// A server's response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Says {
    Address(Ipv4Addr),
    Rcode(u8),
    NxDomain,
    Referral,
    /// Id and question are right, but the rest does not parse.
    Malformed,
    Garbage,
    WrongId,
    WrongQuestion,
    NotAResponse,
    Truncated,
    /// FORMERR with only the header for queries with EDNS; an address otherwise.
    NoEdns(Ipv4Addr),
    /// This code with question and OPT for queries with EDNS; an address otherwise.
    Echo(u8, Ipv4Addr),
    /// An address, with the question in lower case.
    Lowered(Ipv4Addr),
    Nothing,
}

/// A server's behaviour over TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tcp {
    Says(Says),
    /// Accepts the connection, and sends nothing.
    Dead,
    /// One octet of the answer at a time.
    Drip(Duration),
    /// Closes the connection after each answer.
    OneEach(Ipv4Addr),
    /// Answers one query per connection, and leaves the connection open.
    Mute(Ipv4Addr),
}

/// Exceptions for some names over UDP. Lost queries are left unanswered over TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UdpException {
    Loses,
    /// Another response.
    Says(Says),
    Delays(Duration),
}

/// A server and the queries it saw.
pub(crate) struct Script {
    pub(crate) address: SocketAddr,
    server: Upstream,
    told: Mutex<Told>,
}

/// The server's behaviour.
#[derive(Debug, Clone)]
struct Told {
    udp: Says,
    tcp: Tcp,
    delay: Duration,
    /// Names with this prefix get SERVFAIL, whatever else is set.
    broken: Option<&'static str>,
    /// Exceptions over UDP for names with a prefix.
    exceptions: Vec<(&'static str, UdpException)>,
    /// UDP answers go to the source of the previous query.
    to_previous: bool,
}

pub(crate) const ONE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub(crate) const TWO: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

impl Script {
    pub(crate) fn new(udp: Says) -> Self {
        Self::with_tcp(udp, Tcp::Says(udp))
    }

    pub(crate) fn with_tcp(udp: Says, tcp: Tcp) -> Self {
        let told = Told { udp, tcp, delay: Duration::ZERO, broken: None, exceptions: Vec::new(), to_previous: false };
        Self::of(Upstream::start(), told)
    }

    /// A server at its own address, which has its own budget.
    pub(crate) fn at(ip: &str, udp: Says) -> Self {
        let tcp = Tcp::Says(udp);
        let told = Told { udp, tcp, delay: Duration::ZERO, broken: None, exceptions: Vec::new(), to_previous: false };
        Self::of(Upstream::start_at(format!("{ip}:0").parse().unwrap()), told)
    }

    fn of(server: Upstream, told: Told) -> Self {
        server.play(told.rules());
        Self { address: server.address, server, told: Mutex::new(told) }
    }

    pub(crate) fn say(&self, udp: Says) {
        self.tell(|told| told.udp = udp);
    }

    pub(crate) fn say_tcp(&self, tcp: Tcp) {
        self.tell(|told| told.tcp = tcp);
    }

    /// Delays answers over UDP by this much.
    pub(crate) fn delay(&self, delay: Duration) {
        self.tell(|told| told.delay = delay);
    }

    /// Loses this percentage of UDP queries at random.
    pub(crate) fn lose(&self, percent: u32) {
        self.server.lose(percent);
    }

    /// Makes names with this prefix SERVFAIL at their origin.
    pub(crate) fn break_names(&self, prefix: &'static str) {
        self.tell(|told| told.broken = Some(prefix));
    }

    /// Makes an exception over UDP for names with this prefix.
    pub(crate) fn except_names(&self, prefix: &'static str, exception: UdpException) {
        self.tell(|told| told.exceptions.push((prefix, exception)));
    }

    /// Queries that [`UdpException::Loses`] lost.
    pub(crate) fn lost(&self) -> usize {
        self.server.lost()
    }

    pub(crate) fn answer_to_the_last(&self, is_on: bool) {
        self.tell(|told| told.to_previous = is_on);
    }

    /// Queries received, over UDP and TCP.
    pub(crate) fn queries(&self) -> usize {
        self.server.all_seen().len()
    }

    /// Queries over UDP whose name begins with "probe", with all that [`UdpException::Loses`] lost.
    pub(crate) fn probes(&self) -> usize {
        self.server.all_seen().iter().filter(|seen| seen.name.starts_with("probe")).count() + self.lost()
    }

    pub(crate) fn connections(&self) -> usize {
        self.server.connections()
    }

    /// Source and id of each UDP query.
    pub(crate) fn seen(&self) -> Vec<(SocketAddr, u16)> {
        let seen = self.server.all_seen();
        seen.iter().filter(|seen| seen.transport == Transport::Udp).map(|seen| (seen.from, seen.id)).collect()
    }

    pub(crate) fn ports(&self) -> HashSet<u16> {
        self.seen().iter().map(|(from, _)| from.port()).collect()
    }

    fn tell(&self, change: impl FnOnce(&mut Told)) {
        let mut told = self.told.lock().unwrap();
        change(&mut told);
        self.server.play(told.rules());
    }
}

impl Told {
    fn rules(&self) -> Rules {
        let (udp, tcp) = (Match::default().over(Transport::Udp), Match::default().over(Transport::Tcp));
        let mut rules = Rules::everything(Steps::silence()).and(udp.clone(), self.over_udp(self.udp, self.delay));
        if let Says::NoEdns(address) | Says::Echo(_, address) = self.udp {
            rules = rules.and(udp.clone().edns(false), self.over_udp(Says::Address(address), self.delay));
        }
        rules = match self.tcp {
            Tcp::Says(Says::NoEdns(address)) => rules
                .and(tcp.clone(), steps(Says::NoEdns(address)))
                .and(tcp.clone().edns(false), steps(Says::Address(address))),
            Tcp::Says(says) => rules.and(tcp.clone(), steps(says)),
            Tcp::Dead => rules,
            Tcp::Drip(pause) => rules.and(tcp.clone(), Steps::dripping(pause, address(ONE))),
            Tcp::Mute(one) => rules.and(tcp.clone(), Steps::alone(address(one))),
            Tcp::OneEach(one) => rules.and(tcp.clone(), Steps::last(address(one))),
        };
        if let Some(prefix) = self.broken {
            let broken = self.over_udp(Says::Rcode(2), self.delay);
            rules = rules.and(udp.clone().begins(prefix), broken).and(tcp.clone().begins(prefix), Reply::servfail());
        }
        for (prefix, exception) in self.exceptions.iter().rev() {
            let there = udp.clone().begins(prefix);
            rules = match exception {
                UdpException::Loses => {
                    rules.and(there, Steps::lost()).and(tcp.clone().begins(prefix), Steps::silence())
                }
                UdpException::Says(says @ Says::Echo(_, address)) => rules
                    .and(there.clone(), self.over_udp(*says, self.delay))
                    .and(there.edns(false), self.over_udp(Says::Address(*address), self.delay)),
                UdpException::Says(says) => rules.and(there, self.over_udp(*says, self.delay)),
                UdpException::Delays(delay) => rules.and(there, self.over_udp(self.udp, *delay)),
            };
        }
        rules
    }

    fn over_udp(&self, says: Says, delay: Duration) -> Steps {
        let steps = match reply(says) {
            Some(reply) if self.to_previous => Steps::to_previous(reply),
            Some(reply) => reply.into(),
            None => return Steps::silence(),
        };
        if delay.is_zero() { steps } else { steps.after(delay) }
    }
}

fn steps(says: Says) -> Steps {
    reply(says).map_or_else(Steps::silence, Steps::from)
}

fn address(address: Ipv4Addr) -> Reply {
    Reply::of([Record::a("@", 60, &address.to_string())])
}

fn reply(says: Says) -> Option<Reply> {
    Some(match says {
        Says::Nothing => return None,
        Says::Address(one) => address(one),
        Says::Echo(rcode, _) => Reply::rcode(rcode.into()),
        Says::NoEdns(_) => Reply::rcode(1).but(Fault::HeaderAlone),
        Says::Lowered(one) => address(one).but(Fault::Lowered),
        Says::Rcode(rcode) => Reply::rcode(rcode.into()),
        Says::NxDomain => Reply::rcode(3),
        Says::Referral => Reply::of([]).authority(Record::raw("@", 2, 60, vec![0xc0, 12])),
        Says::Malformed => Reply::of([]).but(Fault::Malformed),
        Says::Garbage => Reply::of([]).but(Fault::Noise(vec![0x5a; 40])),
        Says::WrongId => address(TWO).but(Fault::WrongId),
        Says::WrongQuestion => address(TWO).but(Fault::OtherLetter),
        Says::NotAResponse => Reply::of([]).but(Fault::NotAResponse),
        Says::Truncated => Reply::of([]).truncated(),
    })
}
