//! Records and whole answers that scripted upstreams send.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::query::{flag, rtype, short, wire_name};

/// One record. The owner `@` is the queried name, as a compression pointer.
#[derive(Debug, Clone)]
pub struct Record {
    owner: String,
    rtype: u16,
    class: u16,
    ttl: u32,
    data: Vec<u8>,
}

impl Record {
    /// An IPv4 address.
    pub fn a(owner: &str, ttl: u32, address: &str) -> Self {
        let address: Ipv4Addr = address.parse().expect("an IPv4 address");
        Self::raw(owner, rtype::A, ttl, address.octets().to_vec())
    }

    /// An IPv6 address.
    pub fn aaaa(owner: &str, ttl: u32, address: &str) -> Self {
        let address: Ipv6Addr = address.parse().expect("an IPv6 address");
        Self::raw(owner, rtype::AAAA, ttl, address.octets().to_vec())
    }

    /// An alias.
    pub fn cname(owner: &str, ttl: u32, target: &str) -> Self {
        Self::raw(owner, rtype::CNAME, ttl, wire_name(target))
    }

    /// The name of an address.
    pub fn ptr(owner: &str, ttl: u32, target: &str) -> Self {
        Self::raw(owner, rtype::PTR, ttl, wire_name(target))
    }

    /// A start of authority whose minimum is `minimum`.
    pub fn soa(owner: &str, ttl: u32, minimum: u32) -> Self {
        let mut data = wire_name("ns.invalid.");
        data.extend(wire_name("hostmaster.invalid."));
        for field in [1, 7200, 900, 1_209_600, minimum] {
            data.extend(u32::to_be_bytes(field));
        }
        Self::raw(owner, rtype::SOA, ttl, data)
    }

    /// One character string.
    pub fn txt(owner: &str, ttl: u32, text: &str) -> Self {
        let mut data = vec![u8::try_from(text.len()).expect("a character string is short")];
        data.extend(text.as_bytes());
        Self::raw(owner, rtype::TXT, ttl, data)
    }

    /// Any type, any bytes.
    pub fn raw(owner: &str, rtype: u16, ttl: u32, data: Vec<u8>) -> Self {
        Self { owner: owner.to_owned(), rtype, class: 1, ttl, data }
    }

    /// In another class.
    pub fn class(self, class: u16) -> Self {
        Self { class, ..self }
    }

    fn write(&self, message: &mut Vec<u8>) {
        match self.owner.as_str() {
            "@" => message.extend([0xC0, 12]),
            owner => message.extend(wire_name(owner)),
        }
        message.extend(self.rtype.to_be_bytes());
        message.extend(self.class.to_be_bytes());
        message.extend(self.ttl.to_be_bytes());
        message.extend(short(self.data.len()).to_be_bytes());
        message.extend(&self.data);
    }
}

/// A deliberate fault in an answer.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The id of another query.
    WrongId,
    /// A question section with this name instead of the one asked.
    WrongQuestion(String),
    /// QR is 0.
    NotAResponse,
    /// RA is clear, as of a server that resolves for nobody.
    NoRecursion,
    /// These bytes after the right id, instead of an answer.
    Garbage(Vec<u8>),
    /// These bytes, instead of an answer.
    Noise(Vec<u8>),
    /// One letter of the question changed; for the root, which has none, another type.
    OtherLetter,
    /// The question in lower case.
    Lowered,
    /// Only the header, without a question.
    HeaderAlone,
    /// Id and question are right, but the records do not parse.
    Malformed,
}

/// One answer of a scripted upstream.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    rcode: u16,
    flags: u16,
    answers: Vec<Record>,
    authorities: Vec<Record>,
    additionals: Vec<Record>,
    options: Vec<u8>,
    trailing: Vec<u8>,
    fault: Option<Fault>,
}

impl Reply {
    /// NOERROR with these answers.
    pub fn of(answers: impl IntoIterator<Item = Record>) -> Self {
        Self { answers: answers.into_iter().collect(), ..Self::default() }
    }

    /// One address for the queried name, valid for five minutes.
    pub fn a(address: &str) -> Self {
        Self::of([Record::a("@", 300, address)])
    }

    /// This many addresses, from 10.9.0.0 up.
    pub fn addresses(count: u16) -> Self {
        Self::of((0..count).map(|n| {
            let [high, low] = n.to_be_bytes();
            Record::a("@", 300, &format!("10.9.{high}.{low}"))
        }))
    }

    /// NOERROR without data, with an SOA of this minimum.
    pub fn nodata(minimum: u32) -> Self {
        Self::default().authority(Record::soa("example.", 3600, minimum))
    }

    /// NXDOMAIN with an SOA of this minimum.
    pub fn nxdomain(minimum: u32) -> Self {
        Self { rcode: 3, ..Self::nodata(minimum) }
    }

    /// This RCODE and nothing else.
    pub fn rcode(rcode: u16) -> Self {
        Self { rcode, ..Self::default() }
    }

    /// SERVFAIL.
    pub fn servfail() -> Self {
        Self::rcode(2)
    }

    /// REFUSED.
    pub fn refused() -> Self {
        Self::rcode(5)
    }

    /// With these additional header bits.
    pub fn with(mut self, flags: u16) -> Self {
        self.flags |= flags;
        self
    }

    /// With TC.
    pub fn truncated(self) -> Self {
        self.with(flag::TC)
    }

    /// With one more record in the answer section.
    pub fn answer(mut self, record: Record) -> Self {
        self.answers.push(record);
        self
    }

    /// With one more record in the authority section.
    pub fn authority(mut self, record: Record) -> Self {
        self.authorities.push(record);
        self
    }

    /// With one more record in the additional section.
    pub fn additional(mut self, record: Record) -> Self {
        self.additionals.push(record);
        self
    }

    /// With one more EDNS option, for queries that carry EDNS.
    pub fn option(mut self, code: u16, data: &[u8]) -> Self {
        self.options.extend(code.to_be_bytes());
        self.options.extend(short(data.len()).to_be_bytes());
        self.options.extend(data);
        self
    }

    /// With these octets as EDNS options, well formed or not.
    pub fn raw_options(mut self, octets: &[u8]) -> Self {
        self.options.extend(octets);
        self
    }

    /// With an extended error (RFC 8914), whose text may be any octets.
    pub fn ede(self, code: u16, text: &[u8]) -> Self {
        self.option(15, &[&code.to_be_bytes()[..], text].concat())
    }

    /// With extra octets after the message.
    pub fn trailing(mut self, octets: &[u8]) -> Self {
        self.trailing.extend(octets);
        self
    }

    /// With a fault.
    pub fn but(mut self, fault: Fault) -> Self {
        self.fault = Some(fault);
        self
    }

    /// The message that answers `query`, whose question is the octets `12..question_end`.
    pub fn bytes(&self, query: &[u8], question_end: usize, limit: usize) -> Vec<u8> {
        let full = self.encode(query, question_end, self.flags, Sections::All);
        if full.len() <= limit {
            return full;
        }
        self.encode(query, question_end, self.flags | flag::TC, Sections::None)
    }

    fn encode(&self, query: &[u8], question_end: usize, flags: u16, sections: Sections) -> Vec<u8> {
        let mut id = [query[0], query[1]];
        let mut flags = flags | flag::QR | flag::RA | self.rcode | u16::from(query[2]) << 8 & flag::RD;
        let mut question = query[12..question_end].to_vec();
        match &self.fault {
            Some(Fault::WrongId) => id[0] ^= 0xA5,
            Some(Fault::NotAResponse) => flags &= !flag::QR,
            Some(Fault::NoRecursion) => flags &= !flag::RA,
            Some(Fault::WrongQuestion(name)) => {
                let fixed = question.split_off(question.len() - 4);
                question = wire_name(name);
                question.extend(fixed);
            }
            Some(Fault::Garbage(bytes)) => return [&id[..], bytes].concat(),
            Some(Fault::Noise(bytes)) => return bytes.clone(),
            Some(Fault::OtherLetter) if question[0] > 0 => {
                question[1] = if question[1].eq_ignore_ascii_case(&b'x') { b'y' } else { b'x' };
            }
            Some(Fault::OtherLetter) => question[2] ^= 1,
            Some(Fault::Lowered) => question.make_ascii_lowercase(),
            Some(Fault::HeaderAlone) => return [&id[..], &flags.to_be_bytes(), &[0; 8]].concat(),
            Some(Fault::Malformed) => {
                let counts_and_question = [&[0, 1, 0, 7, 0, 0, 0, 0], &question[..]].concat();
                return [&id[..], &flags.to_be_bytes(), &counts_and_question, &[0xc0, 0xff, 1, 2, 3]].concat();
            }
            None => {}
        }
        let kept = |records: &[Record]| match sections {
            Sections::All => records.to_vec(),
            Sections::None => Vec::new(),
        };
        let (answers, authorities, additionals) =
            (kept(&self.answers), kept(&self.authorities), kept(&self.additionals));
        let mut message = id.to_vec();
        message.extend(flags.to_be_bytes());
        let has_edns = query[10..12] != [0, 0];
        let additional_count = short(additionals.len()) + u16::from(has_edns);
        for count in [1, short(answers.len()), short(authorities.len()), additional_count] {
            message.extend(count.to_be_bytes());
        }
        message.extend(question);
        for record in answers.iter().chain(&authorities).chain(&additionals) {
            record.write(&mut message);
        }
        if has_edns {
            // An OPT with the 4096 octets that Route 53 inbound endpoints advertise.
            message.extend([0, 0, 41, 0x10, 0, 0, 0, 0, 0]);
            message.extend(short(self.options.len()).to_be_bytes());
            message.extend(&self.options);
        }
        message.extend(&self.trailing);
        message
    }
}

enum Sections {
    All,
    None,
}
