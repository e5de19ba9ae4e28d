//! An upstream's answer, checked and written anew.
//!
//! Policy:
//! - The id, QR and the question must be those of the query (RFC 5452 9.1); what differs is a [`Mismatch`], for which a
//!   caller keeps waiting.
//! - What does not parse to its last octet is never relayed (RFC 9267).
//! - Of the answer section only the CNAME chain from QNAME and what stands at its names is kept, in the chain's order:
//!   nothing in an answer speaks for another question (RFC 2181 5.4.1, "MaginotDNS").
//! - OPT, TSIG and SIG(0) belong to one hop and end here (RFC 6891 6.1.1, RFC 8945 5.5).
//! - The message is written anew with our own compression, QNAME in lower case, AA and TC clear, RA set.
//! - A truncated or failed response has no body: nobody may use it as an answer (RFC 2181 9).

use super::{
    Edns, Flags, Header, Malformed, MessageId, Name, NameBuf, Rcode, RecordType, Ttl, UpstreamQuery,
    header::HEADER,
    name, read_u16, read_u32,
    record::{Record, Records, Section},
    writer::Writer,
};

/// A chain of CNAMEs is followed this far inside one response. A longer one is left open at its end.
const MAX_CHAIN: usize = 16;

/// What a response says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Data of QTYPE stands at the end of the chain.
    Positive,
    /// The name exists without such data (RFC 2308 2.2), or the chain is left open.
    NoData,
    /// The name does not exist (RFC 2308 2.1, RFC 8020).
    NxDomain,
    /// Other servers are named, from one who was asked to resolve: it does not (RFC 9499, lame delegation).
    Referral,
    /// Any other response code.
    Failure,
    /// TC was set: ask again over a stream.
    Truncated,
}

/// Why a message is no response to the query.
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
    ttl_offsets: Vec<u16>,
    kind: Kind,
    rcode: Rcode,
    edns: bool,
    least_ttl: Ttl,
    negative_ttl: Option<Ttl>,
    chain: Vec<Name>,
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

    /// Takes a message that this server wrote itself for `query`: of its own zones, spliced, or from the cache. AA stays.
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
            return Ok(Self::without_body(Kind::Truncated, header.flags.rcode(), true));
        }
        let body = Body::read(message, header, records_at)?;
        let rcode = Rcode(header.flags.rcode().0 | body.extended_rcode << 4);
        if rcode != Rcode::NOERROR && rcode != Rcode::NXDOMAIN {
            return Ok(Self::without_body(Kind::Failure, rcode, body.edns));
        }
        let chain = Chain::read(message, &body.records, query)?;
        let kind = kind(&body, &chain, rcode, query.qtype);
        let is_lame = !header.flags.has(Flags::AA) && matches!(authority, Authority::None);
        if kind == Kind::Referral && is_lame {
            return Ok(Self::without_body(Kind::Referral, rcode, body.edns));
        }
        let kind = if kind == Kind::Referral { Kind::NoData } else { kind };
        let negative_ttl = if kind == Kind::Positive { None } else { negative_ttl(message, &body.records)? };
        let mut rewritten = Self { rcode, negative_ttl, edns: body.edns, ..Self::without_body(kind, rcode, body.edns) };
        rewritten.write(message, header, &body, &chain, query, authority)?;
        rewritten.chain = chain.names.iter().skip(1).map(NameBuf::to_name).collect();
        Ok(rewritten)
    }

    const fn without_body(kind: Kind, rcode: Rcode, edns: bool) -> Self {
        Self {
            message: Vec::new(),
            ttl_offsets: Vec::new(),
            kind,
            rcode,
            edns,
            least_ttl: Ttl::ZERO,
            negative_ttl: None,
            chain: Vec::new(),
        }
    }

    fn write(
        &mut self,
        message: &[u8],
        header: &Header,
        body: &Body,
        chain: &Chain,
        query: &UpstreamQuery,
        authority: Authority,
    ) -> Result<(), Malformed> {
        let mut writer = Writer::new(query.name.as_wire(), query.qtype, query.qclass, message.len());
        let mut least = u32::MAX;
        let mut owner = NameBuf::new();
        let answers = chain.answers.iter().map(|(_, record)| record);
        let others = body.records.iter().filter(|record| record.section != Section::Answer);
        for record in answers.chain(others.filter(|record| record.class == query.qclass)) {
            owner.expand(message, record.owner_at)?;
            let ttl_at = writer.record(message, record, &owner)?;
            self.ttl_offsets.push(u16::try_from(ttl_at).map_err(|_| Malformed::TooLong)?);
            least = least.min(record.ttl().seconds());
        }
        self.least_ttl = if self.ttl_offsets.is_empty() { Ttl::ZERO } else { Ttl::from_wire(least) };
        let kept = match authority {
            Authority::None => Flags::AD,
            Authority::Kept => Flags::AA | Flags::AD,
        };
        let flags = Flags::QR | Flags::RA | (header.flags.0 & kept) | self.rcode.0 & 0x0f;
        self.message = writer.finish(Header { id: MessageId(0), flags: Flags(flags), counts: [0; 4] });
        Ok(())
    }

    /// What it says.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The response code, with EDNS's upper bits.
    pub const fn rcode(&self) -> Rcode {
        self.rcode
    }

    /// Whether it must be asked for again over a stream.
    pub fn truncated(&self) -> bool {
        self.kind == Kind::Truncated
    }

    /// Whether it came with an OPT record.
    pub const fn has_edns(&self) -> bool {
        self.edns
    }

    /// Whether it may be given to a client as the answer.
    pub const fn is_answer(&self) -> bool {
        matches!(self.kind, Kind::Positive | Kind::NoData | Kind::NxDomain)
    }

    /// The message as we wrote it: id 0, QNAME in lower case, no OPT. Empty where there is no answer.
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// Where in the message each record's TTL stands.
    pub fn ttl_offsets(&self) -> &[u16] {
        &self.ttl_offsets
    }

    /// The least TTL of all records; zero where there is no record.
    pub const fn least_ttl(&self) -> Ttl {
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

    /// Whether there is data.
    pub fn is_positive(&self) -> bool {
        self.kind == Kind::Positive
    }

    /// Whether the chain ends at a target of which nothing is said, not even that there is nothing.
    pub fn is_open(&self) -> bool {
        self.kind == Kind::NoData && self.negative_ttl.is_none() && !self.chain.is_empty()
    }

    /// Brings every TTL between `least` and `most`.
    pub fn clamp_ttls(&mut self, least: Ttl, most: Ttl) {
        let clamp = |ttl: u32| ttl.max(least.seconds()).min(most.seconds());
        for &at in &self.ttl_offsets {
            let at = usize::from(at);
            if let Some(field) = self.message.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<4>) {
                *field = clamp(u32::from_be_bytes(*field)).to_be_bytes();
            }
        }
        self.least_ttl = Ttl::from_wire(clamp(self.least_ttl.seconds()));
    }
}

/// Whether the answer is ours to be authoritative for.
#[derive(Debug, Clone, Copy)]
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
        0 if rcode != Rcode::NOERROR && rcode != Rcode::NXDOMAIN => return Ok(HEADER),
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

/// The records of a message, all of them known to stand inside it.
struct Body {
    records: Vec<Record>,
    edns: bool,
    extended_rcode: u16,
}

impl Body {
    fn read(message: &[u8], header: &Header, at: usize) -> Result<Self, Malformed> {
        let mut walk = Records::new(message, header, at);
        // Every record takes eleven octets at the least, whatever the counts claim.
        let counted: usize = header.counts[1..].iter().map(|&count| usize::from(count)).sum();
        let mut body =
            Self { records: Vec::with_capacity(counted.min(message.len() / 11)), edns: false, extended_rcode: 0 };
        for record in walk.by_ref() {
            let record = record?;
            match record.rtype {
                RecordType::OPT if body.edns || record.section != Section::Additional => return Err(Malformed::Opt),
                RecordType::OPT => {
                    body.extended_rcode = u16::from(Edns::read(message, &record)?.extended_rcode);
                    body.edns = true;
                }
                RecordType::TSIG | RecordType::TKEY => {}
                RecordType::SIG if read_u16(message, record.rdata_at) == Ok(0) => {}
                _ => body.records.push(record),
            }
        }
        if walk.position() == message.len() { Ok(body) } else { Err(Malformed::Trailing) }
    }
}

/// The CNAME chain and the answer records at its names, in the chain's order.
struct Chain {
    /// QNAME and each target, in lower case.
    names: Vec<NameBuf>,
    /// The position in `names` of each record's owner, with the record.
    answers: Vec<(usize, Record)>,
}

impl Chain {
    fn read(message: &[u8], records: &[Record], query: &UpstreamQuery) -> Result<Self, Malformed> {
        let mut owners = Vec::with_capacity(4);
        for record in records.iter().filter(|r| r.section == Section::Answer && r.class == query.qclass) {
            let mut owner = NameBuf::new();
            owner.expand(message, record.owner_at)?;
            owner.make_lowercase();
            owners.push((owner, *record));
        }
        let mut first = NameBuf::new();
        first.expand(query.name.as_wire(), 0)?;
        let mut names = vec![first];
        if query.qtype != RecordType::CNAME && query.qtype != RecordType::ANY {
            while names.len() <= MAX_CHAIN
                && let Some(target) = target_of(message, &owners, &names[names.len() - 1])?
                && !names.iter().any(|name| name.as_wire() == target.as_wire())
            {
                names.push(target);
            }
        }
        let mut answers: Vec<(usize, Record)> = Vec::with_capacity(owners.len());
        for (owner, record) in &owners {
            let place = names.iter().position(|name| match record.rtype {
                // A DNAME stands above the name it rewrites (RFC 6672), with its signature.
                RecordType::DNAME | RecordType::RRSIG => name::is_within(name.as_wire(), owner.as_wire()),
                _ => name.as_wire() == owner.as_wire(),
            });
            answers.extend(place.map(|place| (place, *record)));
        }
        answers.sort_by_key(|(place, _)| *place);
        Ok(Self { names, answers })
    }
}

fn target_of(message: &[u8], owners: &[(NameBuf, Record)], name: &NameBuf) -> Result<Option<NameBuf>, Malformed> {
    let cname = owners.iter().find(|(owner, r)| r.rtype == RecordType::CNAME && owner.as_wire() == name.as_wire());
    let Some((_, record)) = cname else { return Ok(None) };
    let mut target = NameBuf::new();
    if target.expand(message, record.rdata_at)? != record.rdata_end {
        return Err(Malformed::Rdata);
    }
    target.make_lowercase();
    Ok(Some(target))
}

fn kind(body: &Body, chain: &Chain, rcode: Rcode, qtype: RecordType) -> Kind {
    if rcode == Rcode::NXDOMAIN {
        return Kind::NxDomain;
    }
    let last = chain.names.len() - 1;
    let at_end =
        |(place, record): &(usize, Record)| *place == last && (record.rtype == qtype || qtype == RecordType::ANY);
    if chain.answers.iter().any(at_end) {
        return Kind::Positive;
    }
    let authority = |rtype| body.records.iter().any(|r| r.section == Section::Authority && r.rtype == rtype);
    if chain.answers.is_empty() && authority(RecordType::NS) && !authority(RecordType::SOA) {
        return Kind::Referral;
    }
    Kind::NoData
}

/// The lesser of the TTL and the MINIMUM of the SOA in the authority section (RFC 2308 5).
fn negative_ttl(message: &[u8], records: &[Record]) -> Result<Option<Ttl>, Malformed> {
    let soa = records.iter().find(|r| r.section == Section::Authority && r.rtype == RecordType::SOA);
    let Some(soa) = soa else { return Ok(None) };
    let minimum_at = soa.rdata_end.checked_sub(4).filter(|&at| at >= soa.rdata_at).ok_or(Malformed::Rdata)?;
    Ok(Some(soa.ttl().min(Ttl::from_wire(read_u32(message, minimum_at)?))))
}
