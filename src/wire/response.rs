//! An upstream's response, checked and rewritten.
//!
//! Policy:
//! - The id, QR and the question must be those of the query (RFC 5452 9.1); what differs is a [`Mismatch`], for which a
//!   caller keeps waiting.
//! - Every record must lie inside the message. What we relay is written by us and parses to the last octet (RFC
//!   9267). Octets behind the last record are ignored, as other resolvers do.
//! - A DNAME that comes without its CNAME is given one (RFC 6672 3.4). YXDOMAIN is an answer: a DNAME leads to a name
//!   that is too long (RFC 6672 2.2).
//! - Nothing in an answer speaks for another question (RFC 2181 5.4.1, "MaginotDNS"). Of the answer section the CNAME
//!   chain from QNAME is kept, in the chain's order, with the DNAMEs that made it, the data of QTYPE at its end, and
//!   their signatures. Of the authority section the SOA above the chain's end where there is no data, and the proof of
//!   that (NSEC, NSEC3). The additional section is dropped: an address in it would bypass the rule that covers its
//!   name.
//! - OPT, TSIG and SIG(0) belong to one hop and end here (RFC 6891 6.1.1, RFC 8945 5.5).
//! - The message is written anew with our own compression, QNAME in lower case, AA and TC clear, RA set.
//! - Only the response code and question of a truncated or failed response are kept, since its records must not be used
//!   (RFC 2181 9). So every response has a message that can be sent.

mod keep;
#[cfg(test)]
mod tests;

use smallvec::SmallVec;

use self::keep::{Chain, End, Kept, KeptRecords, Owner};
use super::{
    Class, Edns, Flags, Header, Malformed, MessageId, Name, NameBuf, Rcode, RecordType, RelayedEde, Ttl, UpstreamQuery,
    header::HEADER,
    name, read_u16, read_u32,
    record::{Record, Records, Section},
    writer::Writer,
};

/// The kind of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseKind {
    /// Data of QTYPE stands at the end of the chain.
    Positive,
    /// The name exists without such data (RFC 2308 2.2), or the chain is left open.
    NoData,
    /// The name does not exist (RFC 2308 2.1, RFC 8020).
    NxDomain,
    /// A referral from a server that was asked to resolve (RFC 9499, lame delegation).
    Referral,
    /// A DNAME leads from the name to one that is too long (RFC 6672 2.2).
    YxDomain,
    /// Any other response code.
    Failure,
    /// TC was set: ask again over a stream.
    Truncated,
}

/// Why a message is not the response to a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// Shorter than a header.
    #[error("it is shorter than a header")]
    Short,
    /// QR is clear, or the opcode is another.
    #[error("it is not a response to a query")]
    NotAResponse,
    /// Another id.
    #[error("it has another id")]
    Id,
    /// Another question, or the same in another letter case where ours was mixed.
    #[error("it has another question")]
    Question,
    /// Id and question are ours, the rest does not parse.
    #[error("it is malformed: {0}")]
    Malformed(#[from] Malformed),
}

/// A response whose id and question are those of its query.
#[derive(Debug, Clone)]
pub struct Response {
    message: Vec<u8>,
    ttl_offsets: SmallVec<[u16; 8]>,
    kind: ResponseKind,
    rcode: Rcode,
    edns: bool,
    ede: Option<RelayedEde>,
    least_ttl: Option<Ttl>,
    negative_ttl: Option<Ttl>,
    chain: Vec<Name>,
    is_endless: bool,
}

impl Response {
    /// Reads an upstream's response to `query`, which was sent with `id` and, with mixed case, `sent_section`.
    pub fn read(
        message: &[u8],
        query: &UpstreamQuery,
        id: MessageId,
        sent_section: Option<&[u8]>,
    ) -> Result<Self, Mismatch> {
        let header = Header::read(message).map_err(|_| Mismatch::Short)?;
        if !header.flags.has(Flags::QR) || header.flags.opcode().0 != 0 {
            return Err(Mismatch::NotAResponse);
        }
        if header.id != id {
            return Err(Mismatch::Id);
        }
        let records_at = match_question(message, &header, query, sent_section)?;
        Ok(Self::rewrite(message, &header, records_at, query, Authority::None)?)
    }

    /// Takes a message that this server wrote itself for `query`: of its own zones, spliced, or from the cache. AA
    /// stays.
    pub fn ours(message: &[u8], query: &UpstreamQuery) -> Result<Self, Malformed> {
        let header = Header::read(message)?;
        let records_at = HEADER + query.name.as_wire().len() + 4;
        Self::rewrite(message, &header, records_at, query, Authority::Kept)
    }

    fn rewrite(
        message: &[u8],
        header: &Header,
        records_at: usize,
        query: &UpstreamQuery,
        authority: Authority,
    ) -> Result<Self, Malformed> {
        if header.flags.has(Flags::TC) {
            return Ok(Self::without_answer(ResponseKind::Truncated, header.flags.rcode(), true, query));
        }
        let body = Body::read(message, header, records_at, query.qclass)?;
        let rcode = Rcode(header.flags.rcode().0 | body.extended_rcode << 4);
        if !matches!(rcode, Rcode::NOERROR | Rcode::NXDOMAIN | Rcode::YXDOMAIN) {
            let ede = body.ede(message);
            return Ok(Self { ede, ..Self::without_answer(ResponseKind::Failure, rcode, body.has_edns(), query) });
        }
        let chain = Chain::read(message, &body.records, query)?;
        let rcode = if chain.end == End::TooLong { Rcode::YXDOMAIN } else { rcode };
        let mut kept = chain.keep(message, &body.records)?;
        let kind = match kind(message, &body, &chain, &kept, rcode)? {
            ResponseKind::Referral if !header.flags.has(Flags::AA) && authority == Authority::None => {
                return Ok(Self::without_answer(ResponseKind::Referral, rcode, body.has_edns(), query));
            }
            ResponseKind::Referral => ResponseKind::NoData,
            kind => kind,
        };
        let mut response = Self::empty(kind, rcode, body.has_edns());
        response.is_endless = chain.end == End::Never;
        if matches!(kind, ResponseKind::NoData | ResponseKind::NxDomain) {
            response.negative_ttl = negative_ttl(message, &body, chain.last())?;
        }
        match authority {
            Authority::None => keep_proof(message, &body.records, &chain, kind, &mut kept)?,
            Authority::Kept => {
                let others = body.records.iter().filter(|record| record.section != Section::Answer);
                kept.extend(others.map(|record| Kept { owner: Owner::Apart, record: *record }));
            }
        }
        response.write(message, header, &kept, &chain, query, authority)?;
        response.chain = chain.targets;
        Ok(response)
    }

    /// Code and question alone.
    fn without_answer(kind: ResponseKind, rcode: Rcode, edns: bool, query: &UpstreamQuery) -> Self {
        let writer = Writer::new(query.name.as_wire(), query.qtype, query.qclass, 0);
        let flags = Flags(Flags::QR | Flags::RA | rcode.0 & 0x0f);
        let message = writer.finish(Header { id: MessageId(0), flags, counts: [0; 4] });
        Self { message, ..Self::empty(kind, rcode, edns) }
    }

    fn empty(kind: ResponseKind, rcode: Rcode, edns: bool) -> Self {
        Self {
            message: Vec::new(),
            ttl_offsets: SmallVec::new(),
            kind,
            rcode,
            edns,
            ede: None,
            least_ttl: None,
            negative_ttl: None,
            chain: Vec::new(),
            is_endless: false,
        }
    }

    fn write(
        &mut self,
        message: &[u8],
        header: &Header,
        kept: &[Kept],
        chain: &Chain<'_>,
        query: &UpstreamQuery,
        authority: Authority,
    ) -> Result<(), Malformed> {
        let mut writer = Writer::new(query.name.as_wire(), query.qtype, query.qclass, message.len());
        let mut least: Option<Ttl> = None;
        self.ttl_offsets.reserve_exact(kept.len());
        let mut before = Owner::At(0);
        for Kept { owner, record } in kept {
            let ttl_at = match *owner {
                Owner::At(_) if *owner == before => writer.copy_at_last_owner(message, record)?,
                Owner::Made(place) => {
                    let target = chain.made(place).ok_or(Malformed::Counts)?.as_wire();
                    let (owner, ttl) = (chain.name(place).as_wire(), record.ttl());
                    writer.plain(Section::Answer, owner, RecordType::CNAME, record.class, ttl, target)?
                }
                Owner::At(place) => writer.copy(message, record, chain.name(place).as_wire())?,
                Owner::Above(_) | Owner::Apart => {
                    let mut name = NameBuf::new();
                    name.expand(message, record.owner_at)?;
                    writer.copy(message, record, name.as_wire())?
                }
            };
            before = *owner;
            self.ttl_offsets.push(u16::try_from(ttl_at).map_err(|_| Malformed::TooLong)?);
            // A negative answer's SOA has its own say on how long it lives.
            if self.kind == ResponseKind::Positive || record.rtype != RecordType::SOA {
                let ttl = record.ttl();
                least = Some(least.map_or(ttl, |least| least.min(ttl)));
            }
        }
        self.least_ttl = least;
        let repeated = match authority {
            Authority::None => Flags::AD,
            Authority::Kept => Flags::AA | Flags::AD,
        };
        let flags = Flags::QR | Flags::RA | (header.flags.0 & repeated) | self.rcode.0 & 0x0f;
        self.message = writer.finish(Header { id: MessageId(0), flags: Flags(flags), counts: [0; 4] });
        Ok(())
    }

    /// Its kind.
    pub const fn kind(&self) -> ResponseKind {
        self.kind
    }

    /// The response code, with EDNS's upper bits.
    pub const fn rcode(&self) -> Rcode {
        self.rcode
    }

    /// Whether it has data of QTYPE.
    pub fn is_positive(&self) -> bool {
        self.kind == ResponseKind::Positive
    }

    /// Whether it was truncated, so that the query must be sent again over a stream.
    pub fn truncated(&self) -> bool {
        self.kind == ResponseKind::Truncated
    }

    /// Whether it came with an OPT record.
    pub const fn has_edns(&self) -> bool {
        self.edns
    }

    /// The extended error of a failure.
    pub const fn ede(&self) -> Option<&RelayedEde> {
        self.ede.as_ref()
    }

    /// Whether it may be given to a client as the answer.
    pub const fn is_answer(&self) -> bool {
        matches!(
            self.kind,
            ResponseKind::Positive | ResponseKind::NoData | ResponseKind::NxDomain | ResponseKind::YxDomain
        )
    }

    /// The message as we wrote it: id 0, QNAME in lower case, no OPT.
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// Where in the message each record's TTL stands.
    pub fn ttl_offsets(&self) -> &[u16] {
        &self.ttl_offsets
    }

    /// The least TTL of all records, a negative answer's SOA aside; none where there is no such record.
    pub const fn least_ttl(&self) -> Option<Ttl> {
        self.least_ttl
    }

    /// For a negative answer, the lesser of its SOA's TTL and MINIMUM (RFC 2308 5); none without an SOA.
    pub const fn negative_ttl(&self) -> Option<Ttl> {
        self.negative_ttl
    }

    /// The CNAME targets from QNAME on, in order.
    pub fn chain(&self) -> &[Name] {
        &self.chain
    }

    /// Whether the chain ends at a target that the response says nothing about, not even NODATA.
    pub fn is_open(&self) -> bool {
        self.kind == ResponseKind::NoData && self.negative_ttl.is_none() && !self.chain.is_empty() && !self.is_endless
    }

    /// Whether the chain is a loop or too long, so that no data can be at its end.
    pub const fn is_endless(&self) -> bool {
        self.is_endless
    }

    /// Lowers every TTL by the age that an HTTP cache reports (RFC 8484 5.1); none below zero.
    pub fn age(&mut self, seconds: u32) {
        let aged = |ttl: Ttl| Ttl::from_wire(ttl.seconds().saturating_sub(seconds));
        self.map_ttls(aged);
        self.negative_ttl = self.negative_ttl.map(aged);
    }

    /// Changes every TTL.
    pub fn map_ttls(&mut self, change: impl Fn(Ttl) -> Ttl) {
        for &at in &self.ttl_offsets {
            let at = usize::from(at);
            if let Some(field) = self.message.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<4>) {
                *field = change(Ttl::from_wire(u32::from_be_bytes(*field))).seconds().to_be_bytes();
            }
        }
        self.least_ttl = self.least_ttl.map(change);
    }
}

/// Whether we are authoritative for the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Authority {
    None,
    Kept,
}

/// Compares the question section and gives where the records begin. A failure may come without one (RFC 1035 4.1.1
/// leaves FORMERR open).
fn match_question(
    message: &[u8],
    header: &Header,
    query: &UpstreamQuery,
    sent_section: Option<&[u8]>,
) -> Result<usize, Mismatch> {
    let rcode = header.flags.rcode();
    match header.counts[0] {
        0 if !matches!(rcode, Rcode::NOERROR | Rcode::NXDOMAIN | Rcode::YXDOMAIN) => return Ok(HEADER),
        1 => {}
        _ => return Err(Mismatch::Question),
    }
    let wire = query.name.as_wire();
    let end = HEADER + wire.len() + 4;
    let section = message.get(HEADER..end).ok_or(Mismatch::Question)?;
    let (name, fixed) = section.split_at(wire.len());
    let same_name = match sent_section {
        Some(sent) => sent.get(..wire.len()) == Some(name),
        None => name.eq_ignore_ascii_case(wire),
    };
    let [t0, t1] = query.qtype.0.to_be_bytes();
    let [c0, c1] = query.qclass.0.to_be_bytes();
    if same_name && fixed == [t0, t1, c0, c1] { Ok(end) } else { Err(Mismatch::Question) }
}

/// The records of the question's class, all of them known to stand inside the message.
struct Body {
    /// Most answers have no more than this.
    records: SmallVec<[Record; 4]>,
    opt: Option<Record>,
    extended_rcode: u16,
}

impl Body {
    fn read(message: &[u8], header: &Header, at: usize, class: Class) -> Result<Self, Malformed> {
        let walk = Records::new(message, header, at);
        // Every record takes eleven octets at the least, whatever the counts claim.
        let counted: usize = header.counts[1..].iter().map(|&count| usize::from(count)).sum();
        let records = SmallVec::with_capacity(counted.min(message.len() / 11));
        let mut body = Self { records, opt: None, extended_rcode: 0 };
        for record in walk {
            let record = record?;
            match record.rtype {
                RecordType::OPT if body.opt.is_some() || record.section != Section::Additional => {
                    return Err(Malformed::Opt);
                }
                RecordType::OPT => {
                    body.extended_rcode = u16::from(Edns::read(message, &record)?.extended_rcode);
                    body.opt = Some(record);
                }
                RecordType::TSIG | RecordType::TKEY => {}
                RecordType::SIG if read_u16(message, record.rdata_at) == Ok(0) => {}
                _ if record.class == class => body.records.push(record),
                _ => {}
            }
        }
        Ok(body)
    }

    const fn has_edns(&self) -> bool {
        self.opt.is_some()
    }

    fn ede(&self, message: &[u8]) -> Option<RelayedEde> {
        RelayedEde::read(&Edns::read(message, self.opt.as_ref()?).ok()?)
    }

    /// The authority record of this type at `name` or above it.
    fn authority(&self, message: &[u8], rtype: RecordType, name: &Name) -> Result<Option<&Record>, Malformed> {
        for record in self.records.iter().filter(|r| r.section == Section::Authority && r.rtype == rtype) {
            if stands_above(message, record, name)? {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }
}

/// Puts the authority records that belong to this answer behind its answer records.
fn keep_proof(
    message: &[u8],
    records: &[Record],
    chain: &Chain<'_>,
    kind: ResponseKind,
    kept: &mut KeptRecords,
) -> Result<(), Malformed> {
    for record in records.iter().filter(|record| record.section == Section::Authority) {
        let stays = match keep::subject(message, record)? {
            RecordType::NSEC | RecordType::NSEC3 => true,
            RecordType::SOA => kind != ResponseKind::Positive && stands_above(message, record, chain.last())?,
            _ => false,
        };
        if stays {
            kept.push(Kept { owner: Owner::Apart, record: *record });
        }
    }
    Ok(())
}

fn stands_above(message: &[u8], record: &Record, name: &Name) -> Result<bool, Malformed> {
    let mut owner = NameBuf::new();
    owner.expand(message, record.owner_at)?;
    owner.make_lowercase();
    Ok(name::is_within(name.as_wire(), owner.as_wire()))
}

fn kind(
    message: &[u8],
    body: &Body,
    chain: &Chain<'_>,
    answers: &[Kept],
    rcode: Rcode,
) -> Result<ResponseKind, Malformed> {
    if rcode == Rcode::NXDOMAIN {
        return Ok(ResponseKind::NxDomain);
    }
    if rcode == Rcode::YXDOMAIN {
        return Ok(ResponseKind::YxDomain);
    }
    if answers.iter().any(|kept| chain.is_data(kept)) {
        return Ok(ResponseKind::Positive);
    }
    let has = |rtype| body.authority(message, rtype, chain.last()).map(|record| record.is_some());
    let is_referral = answers.is_empty() && has(RecordType::NS)? && !has(RecordType::SOA)?;
    Ok(if is_referral { ResponseKind::Referral } else { ResponseKind::NoData })
}

/// The lesser of the TTL and the MINIMUM of the SOA in the authority section (RFC 2308 5). The SOA of a zone that does
/// not hold `name` says nothing about it.
fn negative_ttl(message: &[u8], body: &Body, name: &Name) -> Result<Option<Ttl>, Malformed> {
    let Some(soa) = body.authority(message, RecordType::SOA, name)? else { return Ok(None) };
    let minimum_at = soa.rdata_end.checked_sub(4).filter(|&at| at >= soa.rdata_at).ok_or(Malformed::Rdata)?;
    Ok(Some(soa.ttl().min(Ttl::from_wire(read_u32(message, minimum_at)?))))
}
