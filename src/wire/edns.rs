//! EDNS(0) (RFC 6891): reads a client's OPT record and writes our own. Options are never passed from hop to hop.
//!
//! When space is short, an upstream's extended error is dropped first, then the text of ours, then its code. The cookie stays: a client that
//! has received one takes a reply without it for a forgery (RFC 7873 5.3).

use super::{Cookie, Malformed, ede::Ede, read_u16, record::Record};

/// The code of an EDNS option (RFC 6891 6.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionCode(pub u16);

/// The length of an OPT record without options.
pub const OPT_LENGTH: usize = 11;
/// The length of the longest OPT record that must not be cut: one with a cookie.
pub const OPT_WITH_COOKIE: usize = OPT_LENGTH + Cookie::OPTION_LENGTH;
/// The padding option (RFC 7830 3).
const PADDING: OptionCode = OptionCode(12);
/// The keepalive option (RFC 7828 3.1).
const KEEPALIVE: OptionCode = OptionCode(11);
/// The octets a keepalive option of ours takes.
const KEEPALIVE_LENGTH: usize = 6;
/// Padded responses are multiples of this (RFC 8467 4.1).
const PADDING_BLOCK: usize = 468;
/// The DO bit among the flags of an OPT's TTL field (RFC 3225).
const DO_BIT: u32 = 0x8000;
/// The smallest payload size; smaller values are treated as this one (RFC 6891 6.2.3).
pub const MIN_PAYLOAD: u16 = 512;

/// The contents of a received OPT record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edns<'a> {
    /// The largest UDP payload the sender takes, at least 512.
    pub payload: u16,
    /// The upper eight bits of the response code.
    pub extended_rcode: u8,
    /// The version; this is version 0.
    pub version: u8,
    /// DNSSEC OK: the sender wants signatures.
    pub do_bit: bool,
    /// The cookie: the client's as it came, until one of ours takes its place.
    pub cookie: Option<Cookie>,
    /// Whether there is a padding option (RFC 7830). If so, the response is padded on encrypted transports.
    pub has_padding: bool,
    /// Whether there is a keepalive option (RFC 7828). If so, the response over TCP or TLS states the idle time-out.
    pub has_keepalive: bool,
    /// The options, well formed.
    options: &'a [u8],
}

impl<'a> Edns<'a> {
    /// Reads an OPT record of `message`.
    pub fn read(message: &'a [u8], record: &Record) -> Result<Self, Malformed> {
        if message[record.owner_at] != 0 {
            return Err(Malformed::Opt);
        }
        let [extended_rcode, version, _, _] = record.raw_ttl.to_be_bytes();
        // The RDATA of a later version may have any format: it gets BADVERS, not FORMERR (RFC 6891 6.1.3).
        let options = if version == 0 { record.rdata(message) } else { &[] };
        let mut at = 0;
        while at < options.len() {
            let length = usize::from(read_u16(options, at + 2).map_err(|_| Malformed::Opt)?);
            at += 4 + length;
            if at > options.len() {
                return Err(Malformed::Opt);
            }
        }
        let payload = record.class.0.max(MIN_PAYLOAD);
        let do_bit = record.raw_ttl & DO_BIT != 0;
        let (has_padding, has_keepalive) = (false, false);
        Ok(Self { payload, extended_rcode, version, do_bit, cookie: None, has_padding, has_keepalive, options })
    }

    /// Reads the options of a client that a server handles. Only the first of several cookies counts (RFC 7873 5.2).
    pub(super) fn read_options(&mut self) -> Result<(), Malformed> {
        for (code, data) in self.options() {
            match code {
                Cookie::OPTION if self.cookie.is_none() => self.cookie = Some(Cookie::read(data)?),
                PADDING => self.has_padding = true,
                KEEPALIVE => self.has_keepalive = true,
                _ => {}
            }
        }
        Ok(())
    }

    /// A copy without the options, which may outlive the message. The cookie stays.
    pub const fn without_options(self) -> Edns<'static> {
        Edns {
            payload: self.payload,
            extended_rcode: self.extended_rcode,
            version: self.version,
            do_bit: self.do_bit,
            cookie: self.cookie,
            has_padding: self.has_padding,
            has_keepalive: self.has_keepalive,
            options: &[],
        }
    }

    /// The options, in the order of the record.
    pub fn options(&self) -> impl Iterator<Item = (OptionCode, &'a [u8])> + use<'a> {
        let mut rest = self.options;
        std::iter::from_fn(move || {
            let (head, tail) = rest.split_first_chunk::<4>()?;
            let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
            let (value, behind) = tail.split_at_checked(length)?;
            rest = behind;
            Some((OptionCode(u16::from_be_bytes([head[0], head[1]])), value))
        })
    }
}

/// An OPT record of ours, to be written.
#[derive(Debug, Clone, Copy, Default)]
pub struct Opt<'a> {
    /// The payload size we advertise.
    pub payload: u16,
    /// The upper eight bits of the response code.
    pub extended_rcode: u8,
    /// The DO bit, copied from the query (RFC 3225 3).
    pub do_bit: bool,
    /// A cookie of ours.
    pub cookie: Option<&'a Cookie>,
    /// The idle time-out of the connection, in units of 100 ms (RFC 7828 3.1).
    pub keepalive: Option<u16>,
    /// The reason for the response code.
    pub ede: Option<Ede<'a>>,
    /// Octets of padding (RFC 7830), written last.
    pub padding: Option<u16>,
}

impl Opt<'_> {
    /// Its length in octets.
    pub fn length(&self) -> usize {
        let cookie = if self.cookie.is_some() { Cookie::OPTION_LENGTH } else { 0 };
        let keepalive = if self.keepalive.is_some() { KEEPALIVE_LENGTH } else { 0 };
        let padding = self.padding.map_or(0, |octets| 4 + usize::from(octets));
        OPT_LENGTH + cookie + keepalive + self.ede.map_or(0, |ede| ede.options_length()) + padding
    }

    /// Adds padding so that a message of `before` octets plus this record is a multiple of `PADDING_BLOCK` long, or as
    /// long as `limit` allows (RFC 8467 4.1).
    pub fn pad(&mut self, before: usize, limit: usize) {
        let bare = before + self.length() + 4;
        let octets = bare.next_multiple_of(PADDING_BLOCK).min(limit).checked_sub(bare);
        self.padding = octets.and_then(|octets| u16::try_from(octets).ok());
    }

    /// Shortens the reason to fit `room` octets: all of it, without the upstream's, its code alone, or nothing.
    pub fn shorten(&mut self, room: usize) {
        let Some(ede) = self.ede else { return };
        for shorter in [Some(Ede { relayed: None, ..ede }), Some(Ede::bare(ede.code)), None] {
            if self.length() <= room {
                return;
            }
            self.ede = shorter;
        }
    }

    /// Writes it at the start of `out` and gives its length; none if it does not fit.
    pub fn write(&self, out: &mut [u8]) -> Option<usize> {
        let length = self.length();
        let out = out.get_mut(..length)?;
        let [rdata_high, rdata_low] = u16::try_from(length - OPT_LENGTH).ok()?.to_be_bytes();
        let [payload_high, payload_low] = self.payload.to_be_bytes();
        let do_octet = if self.do_bit { 0x80 } else { 0 };
        let fixed = [0, 0, 41, payload_high, payload_low, self.extended_rcode, 0, do_octet, 0, rdata_high, rdata_low];
        out[..OPT_LENGTH].copy_from_slice(&fixed);
        let mut end = OPT_LENGTH;
        if let Some(cookie) = self.cookie {
            cookie.write(&mut out[end..]);
            end += Cookie::OPTION_LENGTH;
        }
        if let Some(keepalive) = self.keepalive {
            let [high, low] = keepalive.to_be_bytes();
            out[end..end + KEEPALIVE_LENGTH].copy_from_slice(&[0, 11, 0, 2, high, low]);
            end += KEEPALIVE_LENGTH;
        }
        if let Some(ede) = self.ede {
            end += ede.write_options(&mut out[end..])?;
        }
        if let Some(octets) = self.padding {
            out[end..end + 2].copy_from_slice(&PADDING.0.to_be_bytes());
            out[end + 2..end + 4].copy_from_slice(&octets.to_be_bytes());
            out[end + 4..].fill(0);
        }
        Some(length)
    }
}
