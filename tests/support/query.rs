//! Queries as bytes, well-formed or not.

/// Record types by their numbers.
pub mod rtype {
    pub const A: u16 = 1;
    pub const NS: u16 = 2;
    pub const CNAME: u16 = 5;
    pub const SOA: u16 = 6;
    pub const PTR: u16 = 12;
    pub const HINFO: u16 = 13;
    pub const TXT: u16 = 16;
    pub const AAAA: u16 = 28;
    pub const OPT: u16 = 41;
    pub const IXFR: u16 = 251;
    pub const AXFR: u16 = 252;
    pub const ANY: u16 = 255;
}

/// Classes by their numbers.
pub mod class {
    pub const IN: u16 = 1;
    pub const CH: u16 = 3;
    pub const NONE: u16 = 254;
    pub const ANY: u16 = 255;
}

/// The bits of the header's second word.
pub mod flag {
    pub const QR: u16 = 0x8000;
    pub const AA: u16 = 0x0400;
    pub const TC: u16 = 0x0200;
    pub const RD: u16 = 0x0100;
    pub const RA: u16 = 0x0080;
    pub const Z: u16 = 0x0040;
    pub const AD: u16 = 0x0020;
    pub const CD: u16 = 0x0010;
}

/// A query with any header and EDNS that a test needs.
#[derive(Debug, Clone)]
pub struct Query {
    pub id: u16,
    flags: u16,
    name: String,
    qtype: u16,
    qclass: u16,
    edns: Option<EdnsOut>,
}

#[derive(Debug, Clone)]
struct EdnsOut {
    payload: u16,
    version: u8,
    flags: u16,
    options: Vec<(u16, Vec<u8>)>,
}

impl Query {
    /// A query of class IN with RD, a random id and no EDNS.
    pub fn new(name: &str, qtype: u16) -> Self {
        Self { id: rand::random(), flags: flag::RD, name: name.to_owned(), qtype, qclass: class::IN, edns: None }
    }

    /// A query for an IPv4 address.
    pub fn a(name: &str) -> Self {
        Self::new(name, rtype::A)
    }

    /// With EDNS, and the payload size that most clients advertise.
    pub fn edns(self) -> Self {
        self.payload(1232)
    }

    /// With EDNS and this payload size.
    pub fn payload(mut self, payload: u16) -> Self {
        self.edns_mut().payload = payload;
        self
    }

    /// With EDNS and the DO bit.
    pub fn dnssec_ok(self) -> Self {
        self.edns_flags(0x8000)
    }

    /// With these EDNS flags.
    pub fn edns_flags(mut self, flags: u16) -> Self {
        self.edns_mut().flags = flags;
        self
    }

    /// With this EDNS version.
    pub fn version(mut self, version: u8) -> Self {
        self.edns_mut().version = version;
        self
    }

    /// With one more EDNS option.
    pub fn option(mut self, code: u16, data: &[u8]) -> Self {
        self.edns_mut().options.push((code, data.to_vec()));
        self
    }

    /// With these additional header bits.
    pub fn with(mut self, flags: u16) -> Self {
        self.flags |= flags;
        self
    }

    /// Without these header bits.
    pub fn without(mut self, flags: u16) -> Self {
        self.flags &= !flags;
        self
    }

    /// With this opcode.
    pub fn opcode(mut self, opcode: u16) -> Self {
        self.flags = self.flags & !0x7800 | opcode << 11;
        self
    }

    /// In another class.
    pub fn class(mut self, qclass: u16) -> Self {
        self.qclass = qclass;
        self
    }

    /// The message.
    pub fn bytes(&self) -> Vec<u8> {
        self.bytes_asking(1)
    }

    /// The message with its question repeated `questions` times.
    pub fn bytes_asking(&self, questions: u16) -> Vec<u8> {
        let mut message = Vec::with_capacity(64);
        for word in [self.id, self.flags, questions, 0, 0, u16::from(self.edns.is_some())] {
            message.extend(word.to_be_bytes());
        }
        for _ in 0..questions {
            message.extend(self.question_bytes());
        }
        if let Some(edns) = &self.edns {
            edns.write(&mut message);
        }
        message
    }

    /// The question section's bytes: the name as it was spelled, type and class.
    pub fn question_bytes(&self) -> Vec<u8> {
        let mut question = wire_name(&self.name);
        question.extend(self.qtype.to_be_bytes());
        question.extend(self.qclass.to_be_bytes());
        question
    }

    fn edns_mut(&mut self) -> &mut EdnsOut {
        self.edns.get_or_insert_with(|| EdnsOut { payload: 1232, version: 0, flags: 0, options: Vec::new() })
    }
}

impl EdnsOut {
    fn write(&self, message: &mut Vec<u8>) {
        message.push(0);
        message.extend(rtype::OPT.to_be_bytes());
        message.extend(self.payload.to_be_bytes());
        message.extend([0, self.version]);
        message.extend(self.flags.to_be_bytes());
        let mut options = Vec::new();
        for (code, data) in &self.options {
            options.extend(code.to_be_bytes());
            options.extend(short(data.len()).to_be_bytes());
            options.extend(data);
        }
        message.extend(short(options.len()).to_be_bytes());
        message.extend(options);
    }
}

/// A name on the wire, letter case kept, without compression.
pub fn wire_name(name: &str) -> Vec<u8> {
    let mut wire = Vec::with_capacity(name.len() + 2);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        wire.push(u8::try_from(label.len()).expect("labels in tests are short"));
        wire.extend(label.as_bytes());
    }
    wire.push(0);
    wire
}

/// A length that a two-octet field holds.
pub fn short(length: usize) -> u16 {
    u16::try_from(length).expect("messages in tests fit 65,535 octets")
}
