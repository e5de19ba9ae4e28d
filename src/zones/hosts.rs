//! hosts(5): addresses and their names, forward and reverse.
//!
//! A name in the file is answered here for every type; names below it are not (see [`zones`](super)). An address's
//! reverse name has a PTR record for the first name of each of its lines. The unspecified addresses, which blocklists
//! use, have no reverse names.
//!
//! Scripts merge such files, and one bad line must not take the others out of service: bad lines are skipped, and one
//! warning counts them and shows the first.
//!
//! Lists of a million lines are common, so names are stored in one allocation (`Names`) and addresses in sorted
//! vectors, by name and by address. Reverse names are not stored but parsed from the query.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use xxhash_rust::xxh3::xxh3_64;

use super::{
    LocalAnswer, LocalOutcome, LocalQuery, SkippedLines,
    error::{RecordPlace, ZoneError, ZoneErrorKind},
    message::Draft,
    names::Names,
    special,
    watch::{self, FileWatch},
};
use crate::wire::{Flags, Name, Rcode, RecordType, name::Labels, record::Section};

/// The TTL of answers from a hosts file, in seconds. It is short because clients cannot know when the file changes.
pub const HOSTS_TTL: u32 = 60;

/// The names of a hosts file.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    /// In wire form.
    names: Names,
    v4: Addresses<Ipv4Addr>,
    v6: Addresses<Ipv6Addr>,
    fingerprint: u64,
}

/// The addresses of one family.
#[derive(Debug)]
struct Addresses<A> {
    /// Sorted by name.
    forward: Vec<(u32, A)>,
    /// The first names of lines, sorted by address.
    reverse: Vec<(A, u32)>,
}

impl<A> Default for Addresses<A> {
    fn default() -> Self {
        Self { forward: Vec::new(), reverse: Vec::new() }
    }
}

impl<A: Copy + Ord> Addresses<A> {
    fn of(&self, id: Option<u32>) -> &[(u32, A)] {
        let Some(id) = id else { return &[] };
        let rest = &self.forward[self.forward.partition_point(|&(of, _)| of < id)..];
        &rest[..rest.partition_point(|&(of, _)| of == id)]
    }

    fn names_of(&self, address: A) -> &[(A, u32)] {
        let rest = &self.reverse[self.reverse.partition_point(|&(of, _)| of < address)..];
        &rest[..rest.partition_point(|&(of, _)| of == address)]
    }

    fn sort(&mut self) {
        self.forward.sort_unstable();
        self.forward.dedup();
        self.forward.shrink_to_fit();
        self.reverse.sort_unstable();
        self.reverse.dedup();
        self.reverse.shrink_to_fit();
    }
}

/// The records of one name, as RDATA.
struct Host<'h> {
    v4: &'h [(u32, Ipv4Addr)],
    v6: &'h [(u32, Ipv6Addr)],
    names: Vec<&'h [u8]>,
}

impl Host<'_> {
    fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty() && self.names.is_empty()
    }
}

impl Hosts {
    /// Reads a file. A line with a mistake is left out as a whole.
    pub(super) fn read(path: &Path, files: &mut FileWatch) -> Result<(Self, Option<SkippedLines>), ZoneError> {
        let mut hosts = Self::default();
        let mut skipped: Option<SkippedLines> = None;
        let wrong = |line, kind, record: &[u8]| {
            let record = String::from_utf8_lossy(record).trim().to_owned();
            ZoneError { place: RecordPlace { file: path.to_owned(), line }, kind, record }
        };
        let text = files.read(path).map_err(|error| wrong(0, ZoneErrorKind::Read(error), b""))?;
        let mut names = Vec::new();
        let lines = (1..).zip(watch::plain(&text).split(|&octet| octet == b'\n'));
        // A bare CR ends a line too: as a blank, it would give the first address the names of the lines behind it.
        let lines = lines.flat_map(|(line, text)| text.split(|&octet| octet == b'\r').map(move |text| (line, text)));
        for (line, text) in lines {
            let written = text.split(|&octet| octet == b'#').next().unwrap_or_default();
            if let Err(kind) = hosts.line(written, &mut names) {
                match &mut skipped {
                    Some(skipped) => skipped.count += 1,
                    None => skipped = Some(SkippedLines { count: 1, first: wrong(line, kind, written) }),
                }
            }
        }
        drop(text);
        hosts.names.shrink();
        hosts.v4.sort();
        hosts.v6.sort();
        hosts.fingerprint = hosts.digest();
        Ok((hosts, skipped))
    }

    fn line(&mut self, line: &[u8], names: &mut Vec<Name>) -> Result<(), ZoneErrorKind> {
        let text = String::from_utf8_lossy(line);
        let mut words = text.split_ascii_whitespace();
        let Some(address) = words.next() else { return Ok(()) };
        let address = address.parse::<IpAddr>().map_err(|_| match address.split_once('%') {
            Some((bare, _)) if bare.parse::<IpAddr>().is_ok() => ZoneErrorKind::Scoped(address.to_owned()),
            _ => ZoneErrorKind::Address(address.to_owned()),
        })?;
        // As the C library has it, an IPv4-mapped address is the IPv4 address.
        let address = address.to_canonical();
        // All are read before the first is taken: a line is left out as a whole.
        names.clear();
        for word in words {
            let name = word.parse().map_err(|source| ZoneErrorKind::Name { text: word.to_owned(), source })?;
            names.push(name);
        }
        if names.is_empty() {
            return Err(ZoneErrorKind::NoHost);
        }
        for (at, name) in names.iter().enumerate() {
            let id = self.names.intern(name.as_wire()).ok_or(ZoneErrorKind::TooLarge)?;
            let is_first = at == 0 && !address.is_unspecified();
            match address {
                IpAddr::V4(address) => {
                    self.v4.forward.push((id, address));
                    self.v4.reverse.extend(is_first.then_some((address, id)));
                }
                IpAddr::V6(address) => {
                    self.v6.forward.push((id, address));
                    self.v6.reverse.extend(is_first.then_some((address, id)));
                }
            }
        }
        Ok(())
    }

    /// The records of a name, forward or reverse. The order of lines does not matter.
    fn host(&self, name: &[u8]) -> Host<'_> {
        let id = self.names.find(name);
        let ids: Vec<u32> = match reversed(name) {
            Some(IpAddr::V4(address)) => self.v4.names_of(address).iter().map(|&(_, id)| id).collect(),
            Some(IpAddr::V6(address)) => self.v6.names_of(address).iter().map(|&(_, id)| id).collect(),
            None => Vec::new(),
        };
        let mut names: Vec<&[u8]> = ids.into_iter().map(|id| self.names.name(id)).collect();
        names.sort_unstable();
        Host { v4: self.v4.of(id), v6: self.v6.of(id), names }
    }

    /// Whether a name is in the file, or is the reverse name of an address that is.
    pub(super) fn holds(&self, name: &[u8]) -> bool {
        let is_reverse = || match reversed(name) {
            Some(IpAddr::V4(address)) => !self.v4.names_of(address).is_empty(),
            Some(IpAddr::V6(address)) => !self.v6.names_of(address).is_empty(),
            None => false,
        };
        self.names.find(name).is_some() || is_reverse()
    }

    /// A digest of the whole file.
    pub(super) const fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// A digest of the records of a name in the file.
    pub(super) fn print_of(&self, name: &[u8]) -> u64 {
        let host = self.host(name);
        let mut octets = name.to_vec();
        host.v4.iter().for_each(|(_, address)| octets.extend(address.octets()));
        octets.push(b'/');
        host.v6.iter().for_each(|(_, address)| octets.extend(address.octets()));
        octets.push(b'/');
        host.names.iter().for_each(|name| octets.extend_from_slice(name));
        xxh3_64(&octets)
    }

    /// The sum of the digests of all pairs of address and name, whatever their order.
    fn digest(&self) -> u64 {
        let mut octets = Vec::new();
        let mut of = |kind: u8, id: u32, address: &[u8]| {
            octets.clear();
            octets.push(kind);
            octets.extend_from_slice(address);
            octets.extend_from_slice(self.names.name(id));
            xxh3_64(&octets)
        };
        let mut sum = 0_u64;
        let mut take = |digest: u64| sum = sum.wrapping_add(digest);
        self.v4.forward.iter().for_each(|(id, address)| take(of(0, *id, &address.octets())));
        self.v6.forward.iter().for_each(|(id, address)| take(of(1, *id, &address.octets())));
        self.v4.reverse.iter().for_each(|(address, id)| take(of(2, *id, &address.octets())));
        self.v6.reverse.iter().for_each(|(address, id)| take(of(3, *id, &address.octets())));
        sum
    }

    /// The answer for a name in the file.
    pub(super) fn answer(&self, question: &LocalQuery<'_>) -> Option<LocalAnswer> {
        let (name, qtype) = (question.name.as_wire(), question.qtype);
        let host = self.host(name);
        if host.is_empty() {
            return None;
        }
        let mut draft = Draft::new(question);
        draft.flag(Flags::AA);
        let wants = |rtype| qtype == rtype || qtype == RecordType::ANY;
        let kind = |rtype| (rtype, HOSTS_TTL);
        let v4: Vec<[u8; 4]> = host.v4.iter().filter(|_| wants(RecordType::A)).map(|(_, ip)| ip.octets()).collect();
        let v6: Vec<[u8; 16]> = host.v6.iter().filter(|_| wants(RecordType::AAAA)).map(|(_, ip)| ip.octets()).collect();
        let names: Vec<&[u8]> = host.names.iter().copied().filter(|_| wants(RecordType::PTR)).collect();
        if v4.is_empty() && v6.is_empty() && names.is_empty() {
            // The SOA's owner is the name itself: we are not authoritative for anything above it.
            let numbers = [1, 3600, 1200, 604_800, HOSTS_TTL];
            let soa = special::soa(question.name, special::NOBODY, numbers);
            draft.records(Section::Authority, name, kind(RecordType::SOA), [&soa[..]]);
        }
        if !v4.is_empty() {
            draft.records(Section::Answer, name, kind(RecordType::A), v4.iter().map(|octets| &octets[..]));
        }
        if !names.is_empty() {
            draft.records(Section::Answer, name, kind(RecordType::PTR), names);
        }
        if !v6.is_empty() {
            draft.records(Section::Answer, name, kind(RecordType::AAAA), v6.iter().map(|octets| &octets[..]));
        }
        let rcode = Rcode::NOERROR;
        Some(LocalAnswer { message: draft.finish(rcode), rcode, outcome: LocalOutcome::Done, aliases: 0 })
    }
}

/// The address of a wire name in lower case below in-addr.arpa or ip6.arpa (RFC 1035 3.5, RFC 3596 2.5).
fn reversed(name: &[u8]) -> Option<IpAddr> {
    if let Some(labels) = name.strip_suffix(b"\x07in-addr\x04arpa\0") {
        let mut octets = [0_u8; 4];
        let mut labels = Labels::of(labels);
        for octet in octets.iter_mut().rev() {
            let label = labels.next()?;
            let is_plain =
                label.len() <= 3 && label.iter().all(u8::is_ascii_digit) && (label[0] != b'0' || label.len() == 1);
            *octet = std::str::from_utf8(label).ok()?.parse().ok().filter(|_| is_plain)?;
        }
        return labels.next().is_none().then(|| octets.into());
    }
    let labels = name.strip_suffix(b"\x03ip6\x04arpa\0")?;
    let mut bits = 0_u128;
    let mut count = 0;
    for label in Labels::of(labels) {
        let [digit] = label else { return None };
        let nibble = char::from(*digit).to_digit(16)?;
        bits = bits >> 4 | u128::from(nibble) << 124;
        count += 1;
    }
    (count == 32).then(|| IpAddr::V6(Ipv6Addr::from_bits(bits)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_line_end_ends_a_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "10.0.0.1 a # one\r10.0.0.2 b\r\n10.0.0.3 c\n").unwrap();
        let (hosts, skipped) = Hosts::read(file.path(), &mut FileWatch::default()).unwrap();
        assert!(skipped.is_none(), "{skipped:?}");
        for (name, address) in [("a", [10, 0, 0, 1]), ("b", [10, 0, 0, 2]), ("c", [10, 0, 0, 3])] {
            let name: Name = name.parse().unwrap();
            let addresses: Vec<Ipv4Addr> = hosts.host(name.as_wire()).v4.iter().map(|(_, address)| *address).collect();
            assert_eq!(addresses, [Ipv4Addr::from(address)], "{name}");
        }
    }

    #[test]
    fn reverse_names_are_read_as_they_are_written() {
        for (name, address) in [
            ("4.3.2.10.in-addr.arpa", Some("10.2.3.4")),
            ("0.0.0.0.in-addr.arpa", Some("0.0.0.0")),
            ("255.255.255.255.in-addr.arpa", Some("255.255.255.255")),
            ("1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.0.d.f.ip6.arpa", Some("fd02::1")),
            ("4.3.2.010.in-addr.arpa", None),
            ("3.2.10.in-addr.arpa", None),
            ("5.4.3.2.10.in-addr.arpa", None),
            ("256.3.2.10.in-addr.arpa", None),
            ("+4.3.2.10.in-addr.arpa", None),
            ("0.d.f.ip6.arpa", None),
            ("arpa", None),
        ] {
            let name: Name = name.parse().unwrap();
            assert_eq!(reversed(name.as_wire()), address.map(|text| text.parse().unwrap()), "{name}");
        }
    }
}
