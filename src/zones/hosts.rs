//! hosts(5): addresses and their names, forward and reverse.
//!
//! A name that stands in the file is answered here for every type, and it alone (see the room's page). The reverse
//! name of an address is PTR to the first name of each of its lines. The unspecified addresses, which lists of blocked
//! names are full of, have no reverse.
//!
//! Files are merged by scripts, and one odd line must not take the others out of service: a line with a mistake is left
//! out, and one warning counts them and shows the first.

use std::{hash::Hasher as _, net::IpAddr, path::Path};

use hashbrown::HashMap;
use xxhash_rust::xxh3::Xxh3Default;

use super::{
    LocalAnswer, LocalDomain, LocalQuestion, Outcome, Scope, SkippedLines,
    error::{Place, ZoneError, ZoneErrorKind},
    message::Draft,
    special,
    watch::{self, Watch},
    zone::{Node, RrSet},
};
use crate::wire::{Flags, Name, Rcode, RecordType, record::Section};

/// How long answers from a hosts file live, in seconds: the file changes without notice to anyone but us.
pub const HOSTS_TTL: u32 = 60;

/// The names of a hosts file.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    names: HashMap<Box<[u8]>, Host>,
}

#[derive(Debug)]
struct Host {
    name: Name,
    node: Node,
    fingerprint: u64,
}

impl Hosts {
    /// Reads a file. A line with a mistake is left out as a whole.
    pub(super) fn read(path: &Path, files: &mut Watch) -> Result<(Self, Option<SkippedLines>), ZoneError> {
        let mut hosts = Self::default();
        let mut skipped: Option<SkippedLines> = None;
        let wrong = |line, kind, record: &[u8]| {
            let record = String::from_utf8_lossy(record).trim().to_owned();
            ZoneError { place: Place { file: path.to_owned(), line }, kind, record }
        };
        let text = files.read(path).map_err(|error| wrong(0, ZoneErrorKind::Read(error), b""))?;
        for (line, text) in (1..).zip(watch::plain(&text).split(|&octet| octet == b'\n')) {
            let written = text.split(|&octet| octet == b'#').next().unwrap_or_default();
            if let Err(kind) = hosts.line(written) {
                match &mut skipped {
                    Some(skipped) => skipped.count += 1,
                    None => skipped = Some(SkippedLines { count: 1, first: wrong(line, kind, written) }),
                }
            }
        }
        for host in hosts.names.values_mut() {
            host.node.sort();
            let mut hasher = Xxh3Default::new();
            host.node.hash(host.name.as_wire(), &mut hasher);
            host.fingerprint = hasher.finish();
        }
        Ok((hosts, skipped))
    }

    fn line(&mut self, line: &[u8]) -> Result<(), ZoneErrorKind> {
        let text = String::from_utf8_lossy(line);
        let mut words = text.split_ascii_whitespace();
        let Some(address) = words.next() else { return Ok(()) };
        let address = address.parse::<IpAddr>().map_err(|_| match address.split_once('%') {
            Some((bare, _)) if bare.parse::<IpAddr>().is_ok() => ZoneErrorKind::Scoped(address.to_owned()),
            _ => ZoneErrorKind::Address(address.to_owned()),
        })?;
        let name = |word: &str| word.parse().map_err(|source| ZoneErrorKind::Name { text: word.to_owned(), source });
        let names: Vec<Name> = words.map(name).collect::<Result<_, _>>()?;
        let first = names.first().ok_or(ZoneErrorKind::NoHost)?;
        if !address.is_unspecified() {
            let reverse = reverse(address);
            self.node(&reverse).add(RecordType::PTR, HOSTS_TTL, first.as_wire().into());
        }
        names.iter().for_each(|name| self.add_address(name, address));
        Ok(())
    }

    fn add_address(&mut self, name: &Name, address: IpAddr) {
        let node = self.node(name);
        match address {
            IpAddr::V4(address) => node.add(RecordType::A, HOSTS_TTL, address.octets().into()),
            IpAddr::V6(address) => node.add(RecordType::AAAA, HOSTS_TTL, address.octets().into()),
        }
    }

    fn node(&mut self, name: &Name) -> &mut Node {
        let host = || Host { name: name.clone(), node: Node::default(), fingerprint: 0 };
        &mut self.names.entry(name.as_wire().into()).or_insert_with(host).node
    }

    /// Whether a name stands in the file, or is the reverse of an address that does.
    pub(super) fn holds(&self, name: &[u8]) -> bool {
        self.names.contains_key(name)
    }

    /// The names.
    pub(super) fn domains(&self) -> impl Iterator<Item = LocalDomain<'_>> {
        let hosts = self.names.values();
        hosts.map(|host| LocalDomain { name: &host.name, scope: Scope::Name, fingerprint: host.fingerprint })
    }

    /// Answers for a name that stands in the file.
    pub(super) fn answer(&self, question: &LocalQuestion<'_>) -> Option<LocalAnswer> {
        let Host { name, node, .. } = self.names.get(question.name.as_wire())?;
        let mut draft = Draft::new(question);
        draft.flag(Flags::AA);
        let is_any = question.qtype == RecordType::ANY;
        let mut sets = node.sets().iter().filter(|set| is_any || set.rtype == question.qtype).peekable();
        if sets.peek().is_none() {
            // The name itself stands in as the zone: nothing above it is ours.
            let numbers = [1, 3600, 1200, 604_800, HOSTS_TTL];
            let soa = special::soa(name, special::NOBODY, numbers);
            let soa = RrSet { rtype: RecordType::SOA, ttl: HOSTS_TTL, rdata: vec![soa] };
            draft.set(Section::Authority, name.as_wire(), &soa, HOSTS_TTL);
        }
        for set in sets {
            draft.set(Section::Answer, name.as_wire(), set, set.ttl);
        }
        let rcode = Rcode::NOERROR;
        Some(LocalAnswer { message: draft.finish(rcode), rcode, outcome: Outcome::Done, aliases: 0 })
    }
}

/// The name below in-addr.arpa or ip6.arpa (RFC 1035 3.5, RFC 3596 2.5).
fn reverse(address: IpAddr) -> Name {
    let text = match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(address) => {
            let octets = address.octets();
            let nibbles = octets.iter().rev().map(|octet| format!("{:x}.{:x}", octet & 0xf, octet >> 4));
            nibbles.collect::<Vec<_>>().join(".") + ".ip6.arpa"
        }
    };
    text.parse().expect("digits and dots make a name")
}
