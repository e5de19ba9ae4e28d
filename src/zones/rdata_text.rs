//! RDATA from text to wire, field by field (RFC 1035 5.1 and each type's own RFC; RFC 3597 5 for any type).
//!
//! A table says which fields a type has. Types without a row can be written in the generic form `\# LENGTH HEX`, which
//! is read back through the table's shape where there is one, so that no malformed RDATA gets into a zone.
//!
//! hickory-proto's text parser is not used: it reads `\DDD` in quotes as shifted bytes, has no DNAME, DS, URI, KX, RP
//! nor generic form, takes an SVCB target as it stands, and its errors have no place.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{
    encoding,
    entry::{self, Quoting, Token},
    error::ZoneErrorKind,
    svcb,
};
use crate::wire::{
    RecordType,
    name::{MAX_LABEL, MAX_NAME, NameError},
};

/// The format of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    /// A name.
    Name,
    /// A number of one octet.
    U8,
    /// A number of two octets.
    U16,
    /// A number of four octets.
    U32,
    /// A time in seconds or with units.
    Time,
    /// A DNSSEC algorithm: a number or a mnemonic.
    Algorithm,
    /// A certificate type (RFC 4398 2.1): a number or a mnemonic.
    Certificate,
    /// An IPv4 address.
    Ipv4,
    /// An IPv6 address.
    Ipv6,
    /// A character-string.
    Text,
    /// One or more character-strings.
    Texts,
    /// Octets without a length: the rest of the RDATA.
    Octets,
    /// Hexadecimal digits, the rest of the RDATA.
    Hex,
    /// Base 64, the rest of the RDATA.
    Base64,
    /// Hexadecimal octets with hyphens between them, so many.
    Eui(usize),
    /// Type mnemonics, as a bit map (RFC 4034 4.1.2).
    Types,
    /// Service parameters (RFC 9460 2.1).
    Parameters,
}

const fn fields(rtype: RecordType) -> Option<&'static [Field]> {
    use Field::*;
    use RecordType as T;
    Some(match rtype {
        T::A => &[Ipv4],
        T::AAAA => &[Ipv6],
        T::NS | T::CNAME | T::DNAME | T::PTR | T::MB | T::MD | T::MF | T::MG | T::MR => &[Name],
        T::SOA => &[Name, Name, U32, Time, Time, Time, Time],
        T::MX | T::KX | T::AFSDB | T::RT => &[U16, Name],
        T::RP | T::MINFO => &[Name, Name],
        T::PX => &[U16, Name, Name],
        T::SRV => &[U16, U16, U16, Name],
        T::TXT | T::SPF => &[Texts],
        T::HINFO => &[Text, Text],
        T::NAPTR => &[U16, U16, Text, Text, Text, Name],
        T::CAA => &[U8, Text, Octets],
        T::URI => &[U16, U16, Octets],
        T::SSHFP => &[U8, U8, Hex],
        T::TLSA | T::SMIMEA => &[U8, U8, U8, Hex],
        T::DS | T::CDS => &[U16, Algorithm, U8, Hex],
        T::DNSKEY | T::CDNSKEY | T::KEY => &[U16, U8, Algorithm, Base64],
        T::CERT => &[Certificate, U16, Algorithm, Base64],
        T::OPENPGPKEY | T::DHCID => &[Base64],
        T::ZONEMD => &[U32, U8, U8, Hex],
        T::CSYNC => &[U32, U16, Types],
        T::EUI48 => &[Eui(6)],
        T::EUI64 => &[Eui(8)],
        T::SVCB | T::HTTPS => &[U16, Name, Parameters],
        _ => return None,
    })
}

/// The RDATA of a record from its words; names without a final dot are completed with `origin`, a wire name.
pub(super) fn rdata(rtype: RecordType, tokens: &[Token<'_>], origin: &[u8]) -> Result<Box<[u8]>, ZoneErrorKind> {
    let bad = |what: String| ZoneErrorKind::Rdata { rtype, what };
    if let Some((mark, generic)) = tokens.split_first()
        && mark.is("\\#")
    {
        let rdata = generic_rdata(generic).map_err(bad)?;
        let fits = fields(rtype).is_none_or(|fields| fits(fields, &rdata));
        return if fits { Ok(rdata.into()) } else { Err(bad("the octets do not fit the type".to_owned())) };
    }
    let Some(fields) = fields(rtype) else {
        return Err(bad("there is no text form for it here; write it as \\# LENGTH HEX (RFC 3597)".to_owned()));
    };
    let mut words = tokens.iter();
    let mut wire = Vec::new();
    for field in fields {
        one(*field, &mut words, origin, &mut wire).map_err(|kind| match kind {
            Unfit::Kind(kind) => kind,
            Unfit::What(what) => bad(what),
        })?;
    }
    if let Some(word) = words.next() {
        return Err(bad(format!("\"{}\" is one word too many", word.shown())));
    }
    if wire.len() > usize::from(u16::MAX) {
        return Err(bad("it is longer than 65535 octets".to_owned()));
    }
    Ok(wire.into())
}

/// Why a field could not be read.
enum Unfit {
    Kind(ZoneErrorKind),
    What(String),
}

impl From<ZoneErrorKind> for Unfit {
    fn from(kind: ZoneErrorKind) -> Self {
        Self::Kind(kind)
    }
}

impl From<String> for Unfit {
    fn from(what: String) -> Self {
        Self::What(what)
    }
}

fn one<'t>(
    field: Field,
    words: &mut (impl Iterator<Item = &'t Token<'t>> + Clone),
    origin: &[u8],
    wire: &mut Vec<u8>,
) -> Result<(), Unfit> {
    match field {
        Field::Texts => {
            let first = words.next().ok_or_else(|| missing(field))?;
            for word in std::iter::once(first).chain(words) {
                text(word, wire)?;
            }
        }
        Field::Hex => wire.extend(encoding::hex(&joined(field, words)?)?),
        Field::Base64 => wire.extend(encoding::base64(&joined(field, words)?)?),
        Field::Types => wire.extend(types(words)?),
        Field::Parameters => wire.extend(svcb::parameters(words)?),
        _ => word(field, words.next().ok_or_else(|| missing(field))?, origin, wire)?,
    }
    Ok(())
}

fn missing(field: Field) -> String {
    let what = match field {
        Field::Name => "a name",
        Field::U8 | Field::U16 | Field::U32 => "a number",
        Field::Time => "a time",
        Field::Algorithm => "an algorithm",
        Field::Certificate => "a certificate type",
        Field::Ipv4 => "an IPv4 address",
        Field::Ipv6 => "an IPv6 address",
        Field::Text | Field::Texts | Field::Octets => "a text",
        Field::Hex => "hexadecimal digits",
        Field::Base64 => "base 64",
        Field::Eui(_) => "an EUI",
        Field::Types => "types",
        Field::Parameters => "parameters",
    };
    format!("{what} is missing")
}

fn word(field: Field, word: &Token<'_>, origin: &[u8], wire: &mut Vec<u8>) -> Result<(), Unfit> {
    let shown = || word.shown();
    let plain = std::str::from_utf8(word.text).unwrap_or("\u{fffd}");
    match field {
        Field::Name => wire.extend(name(word, origin)?),
        Field::U8 => wire.push(plain.parse().map_err(|_| format!("\"{}\" is not a number up to 255", shown()))?),
        Field::U16 => {
            let number: u16 = plain.parse().map_err(|_| format!("\"{}\" is not a number up to 65535", shown()))?;
            wire.extend(number.to_be_bytes());
        }
        Field::U32 => {
            let number: u32 = plain.parse().map_err(|_| format!("\"{}\" is not a number up to 2^32-1", shown()))?;
            wire.extend(number.to_be_bytes());
        }
        Field::Time => {
            let seconds = encoding::seconds(word.text).ok_or_else(|| format!("\"{}\" is not a time", shown()))?;
            wire.extend(seconds.to_be_bytes());
        }
        Field::Algorithm => {
            let number = mnemonic(&ALGORITHMS, plain).and_then(|number| u8::try_from(number).ok());
            wire.push(number.ok_or_else(|| format!("\"{}\" is not an algorithm", shown()))?);
        }
        Field::Certificate => {
            let number = mnemonic(&CERTIFICATES, plain);
            wire.extend(number.ok_or_else(|| format!("\"{}\" is not a certificate type", shown()))?.to_be_bytes());
        }
        Field::Ipv4 => {
            let address: Ipv4Addr = plain.parse().map_err(|_| format!("\"{}\" is not an IPv4 address", shown()))?;
            wire.extend(address.octets());
        }
        Field::Ipv6 => {
            let address: Ipv6Addr = plain.parse().map_err(|_| format!("\"{}\" is not an IPv6 address", shown()))?;
            wire.extend(address.octets());
        }
        Field::Text => text(word, wire)?,
        Field::Octets => wire.extend(entry::unescape(word.text)?),
        Field::Eui(length) => {
            let octets: Option<Vec<u8>> = plain.split('-').map(|pair| u8::from_str_radix(pair, 16).ok()).collect();
            let octets = octets.filter(|octets| octets.len() == length && plain.len() == length * 3 - 1);
            wire.extend(octets.ok_or_else(|| format!("\"{}\" is not {length} octets like 00-00-5e", shown()))?);
        }
        Field::Texts | Field::Hex | Field::Base64 | Field::Types | Field::Parameters => {}
    }
    Ok(())
}

/// A wire name from text, in the letter case it is written in; relative ones are completed with `origin`.
pub(super) fn name(token: &Token<'_>, origin: &[u8]) -> Result<Vec<u8>, ZoneErrorKind> {
    if token.is("@") {
        return Ok(origin.to_vec());
    }
    let wrong = |source| ZoneErrorKind::Name { text: String::from_utf8_lossy(token.text).into_owned(), source };
    if token.text == b"." {
        return Ok(vec![0]);
    }
    let mut wire = vec![0_u8];
    let mut start = 0;
    let mut rest = token.text;
    if rest.is_empty() {
        return Err(wrong(NameError::Empty));
    }
    while let Some((&octet, behind)) = rest.split_first() {
        rest = behind;
        let octet = match octet {
            b'.' if wire.len() == start + 1 => return Err(wrong(NameError::EmptyLabel)),
            b'.' => {
                start = wire.len();
                0
            }
            b'\\' => {
                let (escaped, behind) = entry::escape(rest).map_err(|_| wrong(NameError::Escape))?;
                rest = behind;
                escaped
            }
            octet => octet,
        };
        wire.push(octet);
        if start + 1 < wire.len() {
            wire[start] = u8::try_from(wire.len() - start - 1).unwrap_or(u8::MAX);
            if usize::from(wire[start]) > MAX_LABEL {
                return Err(wrong(NameError::LongLabel));
            }
        }
    }
    if wire[start] != 0 {
        wire.extend_from_slice(origin);
    }
    if wire.len() > MAX_NAME { Err(wrong(NameError::LongName)) } else { Ok(wire) }
}

fn text(word: &Token<'_>, wire: &mut Vec<u8>) -> Result<(), Unfit> {
    let octets = entry::unescape(word.text)?;
    let length = u8::try_from(octets.len()).map_err(|_| {
        format!("a text of {} octets is too long, 255 is the most; split it into several", octets.len())
    })?;
    wire.push(length);
    wire.extend(octets);
    Ok(())
}

fn joined<'t>(field: Field, words: &mut impl Iterator<Item = &'t Token<'t>>) -> Result<Vec<u8>, String> {
    let text: Vec<u8> = words.flat_map(|word| word.text.iter().copied()).collect();
    if text.is_empty() { Err(missing(field)) } else { Ok(text) }
}

fn types<'t>(words: &mut impl Iterator<Item = &'t Token<'t>>) -> Result<Vec<u8>, String> {
    let types = words.map(|word| {
        let text = word.shown();
        text.parse::<RecordType>().map_err(|_| format!("\"{text}\" is not a type"))
    });
    Ok(encoding::bitmap(types.collect::<Result<_, _>>()?))
}

fn mnemonic(table: &[(&str, u16)], text: &str) -> Option<u16> {
    let named = table.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, number)| *number);
    named.or_else(|| text.parse().ok())
}

/// IANA, DNS Security Algorithm Numbers.
const ALGORITHMS: [(&str, u16); 11] = [
    ("RSAMD5", 1),
    ("DSA", 3),
    ("RSASHA1", 5),
    ("NSEC3RSASHA1", 7),
    ("RSASHA256", 8),
    ("RSASHA512", 10),
    ("ECDSAP256SHA256", 13),
    ("ECDSAP384SHA384", 14),
    ("ED25519", 15),
    ("ED448", 16),
    ("PRIVATEDNS", 253),
];

/// IANA, CERT Resource Record types (RFC 4398).
const CERTIFICATES: [(&str, u16); 10] = [
    ("PKIX", 1),
    ("SPKI", 2),
    ("PGP", 3),
    ("IPKIX", 4),
    ("ISPKI", 5),
    ("IPGP", 6),
    ("ACPKIX", 7),
    ("IACPKIX", 8),
    ("URI", 253),
    ("OID", 254),
];

/// The generic form behind its `\#` (RFC 3597 5): a length and so many octets in hexadecimal.
fn generic_rdata(words: &[Token<'_>]) -> Result<Vec<u8>, String> {
    let Some((length, digits)) = words.split_first() else { return Err("a length is missing".to_owned()) };
    let length: usize = length.shown().parse().map_err(|_| "the length is not a number".to_owned())?;
    let octets = encoding::hex(&digits.iter().flat_map(|word| word.text.iter().copied()).collect::<Vec<_>>())?;
    if octets.len() != length || length > usize::from(u16::MAX) {
        return Err(format!("there are {} octets, the length says {length}", octets.len()));
    }
    Ok(octets)
}

/// Whether RDATA is well formed for a type.
fn fits(fields: &[Field], rdata: &[u8]) -> bool {
    let mut rest = rdata;
    for field in fields {
        let length = match field {
            Field::Name => name_shape(rest),
            Field::U8 | Field::Algorithm => Some(1),
            Field::U16 | Field::Certificate => Some(2),
            Field::U32 | Field::Time | Field::Ipv4 => Some(4),
            Field::Ipv6 => Some(16),
            Field::Eui(length) => Some(*length),
            Field::Text => rest.first().map(|&length| 1 + usize::from(length)),
            Field::Texts => texts_shape(rest),
            Field::Octets | Field::Hex | Field::Base64 | Field::Types => Some(rest.len()),
            Field::Parameters => svcb::fits(rest).then_some(rest.len()),
        };
        let Some(behind) = length.and_then(|length| rest.get(length..)) else { return false };
        rest = behind;
    }
    rest.is_empty()
}

fn name_shape(rdata: &[u8]) -> Option<usize> {
    let end = crate::wire::name::skip_uncompressed(rdata, 0).ok()?;
    (end <= MAX_NAME).then_some(end)
}

fn texts_shape(rdata: &[u8]) -> Option<usize> {
    let mut at = 0;
    while at < rdata.len() {
        at += 1 + usize::from(rdata[at]);
    }
    (at == rdata.len() && at > 0).then_some(at)
}

/// Whether a token may be a TTL, class or type: a bare word.
pub(super) fn is_bare(token: &Token<'_>) -> bool {
    token.quoting == Quoting::Bare
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zones::entry::Entries;

    fn read(text: &str) -> Result<Vec<u8>, String> {
        let entry = Entries::new(text.as_bytes(), 1).next().unwrap().unwrap();
        let rtype = entry.tokens[0].shown().parse().unwrap();
        let rdata = rdata(rtype, &entry.tokens[1..], b"\x01o\0").map_err(|kind| kind.to_string())?;
        Ok(rdata.into())
    }

    #[test]
    fn text_becomes_wire() {
        for (text, wire) in [
            ("A 10.0.0.1", &b"\x0a\0\0\x01"[..]),
            ("CNAME Www", b"\x03Www\x01o\0"),
            ("CNAME @", b"\x01o\0"),
            ("CNAME a\\.b.\\099.", b"\x03a.b\x01c\0"),
            ("CNAME .", b"\0"),
            ("TXT a \"b c\" \\; \"\\\"\\255\"", b"\x01a\x03b c\x01;\x02\"\xff"),
            ("TXT \"\"", b"\0"),
            ("CAA 0 issue \"ca;x\"", b"\0\x05issueca;x"),
            ("DS 1 ECDSAP256SHA256 2 0a 0B", b"\0\x01\x0d\x02\x0a\x0b"),
            ("OPENPGPKEY AQID BA==", b"\x01\x02\x03\x04"),
            ("CSYNC 1 3 A MX CAA", b"\0\0\0\x01\0\x03\0\x02\x40\x01\x01\x01\x40"),
            ("TYPE65280 \\# 3 01 0203", b"\x01\x02\x03"),
            ("EUI48 00-00-5e-00-53-2a", b"\0\0\x5e\0\x53\x2a"),
            ("SVCB 0 svc.", b"\0\0\x03svc\0"),
            ("HTTPS 1 . port=53 alpn=a,b", b"\0\x01\0\0\x01\0\x04\x01a\x01b\0\x03\0\x02\0\x35"),
            ("HTTPS 1 . alpn=\"f\\\\\\\\oo\\\\,bar,h2\"", b"\0\x01\0\0\x01\0\x0c\x08f\\oo,bar\x02h2"),
            ("HTTPS 1 . key667=\"hello\\210qoo\"", b"\0\x01\0\x02\x9b\0\x09hello\xd2qoo"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(wire), "{text}");
        }
    }

    #[test]
    fn rdata_that_does_not_fit_says_why() {
        let long = format!("TXT {}", "x".repeat(256));
        for (text, what) in [
            ("A 10.0.0", "not an IPv4 address"),
            ("A", "an IPv4 address is missing"),
            ("MX 70000 a", "not a number up to 65535"),
            ("SRV 1 2 3", "a name is missing"),
            ("TXT", "a text is missing"),
            (&long, "split it into several"),
            ("DS 1 99x 2 00", "not an algorithm"),
            ("TLSA 1 1 1 abc", "not pairs"),
            ("OPENPGPKEY AQI", "not base 64"),
            ("TYPE65280 x", "write it as \\# LENGTH HEX"),
            ("TYPE65280 \\# 2 00", "there are 1 octets"),
            ("MX \\# 3 0001ff", "do not fit"),
            ("SVCB 1 . alpn=h2 alpn=h3", "twice"),
            ("SVCB 1 . mandatory=port", "mandatory parameter port is missing"),
            ("SVCB 1 . no-default-alpn", "without alpn"),
            ("SVCB 1 . port=x", "no proper value"),
            ("SVCB 1 . key007=x", "not a service parameter"),
            ("SVCB 1 . ipv4hint=", "no proper value"),
        ] {
            let kind = read(text).unwrap_err();
            assert!(kind.contains(what), "{text}: {kind}");
        }
    }
}
