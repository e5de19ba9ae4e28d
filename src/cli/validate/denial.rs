//! Proofs that something does not exist: NSEC (RFC 4034 4, RFC 4035 5.4) and NSEC3 (RFC 5155 8).

use hickory_proto::{
    dnssec::rdata::{DNSSECRData, NSEC, NSEC3},
    op::Message,
    rr::{Name, RData, RecordType},
};

use super::signature::{RecordSet, TrustedZone, Unsigned};

/// Hash iterations that are followed; a validator refuses more (RFC 9276 3.2).
const MOST_ITERATIONS: u16 = 500;

/// The signed NSEC and NSEC3 records of a response.
pub(super) struct Denial<'a> {
    zone: &'a Name,
    nsec: Vec<(&'a Name, &'a NSEC)>,
    nsec3: Vec<(&'a Name, &'a NSEC3)>,
}

/// What is proven of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Proven {
    /// It exists, and these types with it.
    Types(Vec<RecordType>),
    /// It exists, and only names below it have records.
    Empty,
    /// It does not exist; whether a wildcard answers for it is another matter.
    Absent,
    /// It lies in a stretch of names whose unsigned delegations are not listed (opt-out, RFC 5155 6).
    OptedOut,
}

/// A name's relation to an NSEC3 record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    Matches,
    Covers,
}

impl<'a> Denial<'a> {
    /// Those of the authority section that the zone's keys vouch for.
    pub(super) fn read(message: &'a Message, zone: &'a TrustedZone, now: u32) -> Result<Self, Unsigned> {
        let mut denial = Self { zone: &zone.name, nsec: Vec::new(), nsec3: Vec::new() };
        for record in &message.authorities {
            let rtype = record.record_type();
            if !matches!(rtype, RecordType::NSEC | RecordType::NSEC3) {
                continue;
            }
            let Some(set) = RecordSet::find(&message.authorities, &record.name, rtype) else { continue };
            let signed = set.verify(zone, now)?;
            // A wildcard's own NSEC is no proof for the names that it stands for (RFC 4035 5.4).
            if signed.labels < record.name.num_labels() {
                continue;
            }
            match &record.data {
                RData::DNSSEC(DNSSECRData::NSEC(nsec)) => denial.nsec.push((&record.name, nsec)),
                RData::DNSSEC(DNSSECRData::NSEC3(nsec3)) if nsec3.iterations() <= MOST_ITERATIONS => {
                    denial.nsec3.push((&record.name, nsec3));
                }
                _ => {}
            }
        }
        Ok(denial)
    }

    /// The records by name, for people.
    pub(super) fn words(&self) -> String {
        let nsec = self.nsec.iter().map(|(owner, _)| format!("NSEC of {owner}"));
        let nsec3 = self.nsec3.iter().map(|(owner, _)| format!("NSEC3 of {owner}"));
        let mut all: Vec<String> = nsec.chain(nsec3).collect();
        all.dedup();
        all.join(", ")
    }

    /// What the records prove of a name; none = nothing.
    pub(super) fn of(&self, name: &Name) -> Option<Proven> {
        if self.nsec.is_empty() { self.of_by_nsec3(name) } else { self.of_by_nsec(name) }
    }

    /// Whether it is proven that no wildcard gives `name` this type: there is none, or it has other types.
    pub(super) fn denies_wildcard(&self, name: &Name, qtype: RecordType) -> bool {
        let Some(encloser) = self.closest_encloser(name) else { return false };
        let Ok(wildcard) = encloser.prepend_label("*") else { return false };
        match self.of(&wildcard) {
            Some(Proven::Types(types)) => !types.contains(&qtype) && !types.contains(&RecordType::CNAME),
            Some(Proven::Absent | Proven::Empty | Proven::OptedOut) => true,
            None => false,
        }
    }

    /// Whether a name is proven not to exist by itself, whatever is known of the names above it.
    pub(super) fn covers(&self, name: &Name) -> bool {
        let by_nsec = self.nsec.iter().any(|(owner, nsec)| covers(owner, nsec.next_domain_name(), name));
        by_nsec || self.relation(name).is_some_and(|(of, _)| of == Relation::Covers)
    }

    /// The longest name above `name` that is proven to exist.
    fn closest_encloser(&self, name: &Name) -> Option<Name> {
        let mut above = ancestors(name).take_while(|above| self.zone.zone_of(above));
        if self.nsec.is_empty() {
            return above.find(|above| self.relation(above).is_some_and(|(of, _)| of == Relation::Matches));
        }
        // The name falls between owner and next name: the longest that it shares with one of them exists.
        let covering = self.nsec.iter().find(|(owner, nsec)| covers(owner, nsec.next_domain_name(), name))?;
        let (owner, next) = (covering.0, covering.1.next_domain_name());
        above.find(|above| above.zone_of(owner) || above.zone_of(next))
    }

    fn of_by_nsec(&self, name: &Name) -> Option<Proven> {
        if let Some((_, nsec)) = self.nsec.iter().find(|(owner, _)| *owner == name) {
            return Some(Proven::Types(nsec.type_bit_maps().collect()));
        }
        let (owner, nsec) = self.nsec.iter().find(|(owner, nsec)| covers(owner, nsec.next_domain_name(), name))?;
        // What lies below a delegation or a DNAME is not this zone's to deny (RFC 6840 4.1).
        if owner.zone_of(name) && nsec.is_ancestor_delegation() {
            return None;
        }
        Some(if name.zone_of(nsec.next_domain_name()) { Proven::Empty } else { Proven::Absent })
    }

    /// The closest encloser proof of RFC 5155 8.3.
    fn of_by_nsec3(&self, name: &Name) -> Option<Proven> {
        if let Some((Relation::Matches, nsec3)) = self.relation(name) {
            let types: Vec<RecordType> = nsec3.type_bit_maps().collect();
            return Some(if types.is_empty() { Proven::Empty } else { Proven::Types(types) });
        }
        let encloser = self.closest_encloser(name)?;
        let next_closer = name.trim_to(encloser.iter().count() + 1);
        match self.relation(&next_closer)? {
            (Relation::Covers, nsec3) if nsec3.opt_out() => Some(Proven::OptedOut),
            (Relation::Covers, _) => Some(Proven::Absent),
            (Relation::Matches, _) => None,
        }
    }

    fn relation(&self, name: &Name) -> Option<(Relation, &'a NSEC3)> {
        let mut covering = None;
        for (owner, nsec3) in &self.nsec3 {
            let hash = nsec3.hash_algorithm().hash(nsec3.salt(), name, nsec3.iterations()).ok()?;
            let hash = hash.as_ref();
            let own = base32_hex(owner.iter().next()?)?;
            let next = nsec3.next_hashed_owner_name();
            if own == hash {
                return Some((Relation::Matches, nsec3));
            }
            let is_last = own.as_slice() >= next;
            let is_between = own.as_slice() < hash && hash < next;
            if is_between || is_last && (own.as_slice() < hash || hash < next) {
                covering = Some((Relation::Covers, *nsec3));
            }
        }
        covering
    }
}

/// `name` itself is not among them.
fn ancestors(name: &Name) -> impl Iterator<Item = Name> + use<> {
    let labels = name.iter().count();
    let name = name.clone();
    (0..labels).rev().map(move |labels| name.trim_to(labels))
}

/// Whether `name` sorts between `owner` and `next`, which is the zone's apex after the last name (RFC 4034 4.1.1).
fn covers(owner: &Name, next: &Name, name: &Name) -> bool {
    if owner < next { owner < name && name < next } else { owner < name || name < next }
}

/// The octets of a base32 label with the extended hex alphabet (RFC 4648 7), as NSEC3 owners have.
fn base32_hex(label: &[u8]) -> Option<Vec<u8>> {
    let (mut octets, mut bits, mut count) = (Vec::with_capacity(20), 0_u32, 0_u8);
    for letter in label {
        bits = bits << 5 | char::from(*letter).to_digit(32)?;
        count += 5;
        if count >= 8 {
            count -= 8;
            octets.push(u8::try_from(bits >> count & 0xff).ok()?);
        }
    }
    Some(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    #[test]
    fn a_stretch_of_names_ends_with_the_apex() {
        assert!(covers(&name("a.example."), &name("d.example."), &name("b.example.")));
        assert!(!covers(&name("a.example."), &name("d.example."), &name("a.example.")));
        assert!(!covers(&name("a.example."), &name("d.example."), &name("e.example.")));
        assert!(covers(&name("x.example."), &name("example."), &name("z.example.")));
        assert!(!covers(&name("x.example."), &name("example."), &name("b.example.")));
    }

    #[test]
    fn labels_of_nsec3_are_read_in_the_extended_hex_alphabet() {
        // RFC 4648 10.
        assert_eq!(base32_hex(b"cpnmuoj1").unwrap(), b"fooba");
        assert_eq!(base32_hex(b"CPNMUOJ1").unwrap(), b"fooba");
        assert_eq!(base32_hex(b"wxyz"), None);
    }
}
