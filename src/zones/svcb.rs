//! Service parameters of SVCB and HTTPS (RFC 9460 2.1, 2.2, 7; RFC 9461; RFC 9540), from text to wire.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{
    encoding,
    entry::{self, Token},
};

/// The names of keys (IANA, Service Parameter Keys). A key's number is its index.
const KEYS: [&str; 9] =
    ["mandatory", "alpn", "no-default-alpn", "port", "ipv4hint", "ech", "ipv6hint", "dohpath", "ohttp"];

/// Encodes the parameters in `words`, sorted by key as the wire format demands.
pub(super) fn parameters<'t>(words: &mut impl Iterator<Item = &'t Token<'t>>) -> Result<Vec<u8>, String> {
    let mut parameters = Vec::new();
    for word in words {
        let at = word.text.iter().position(|&octet| octet == b'=');
        let (key_text, rest) = word.text.split_at(at.unwrap_or(word.text.len()));
        let key = key(key_text).ok_or_else(|| format!("\"{}\" is not a service parameter", word.shown()))?;
        let bare = rest.strip_prefix(b"=").unwrap_or(rest);
        let bare = bare.strip_prefix(b"\"").and_then(|bare| bare.strip_suffix(b"\"")).unwrap_or(bare);
        let text = entry::unescape(bare).map_err(|kind| kind.to_string())?;
        let value = value(key, &text).ok_or_else(|| format!("\"{}\" has no proper value", word.shown()))?;
        parameters.push((key, value));
    }
    parameters.sort_unstable();
    if let Some(twice) = parameters.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(format!("the parameter {} is here twice", shown(twice[0].0)));
    }
    let holds = |key: u16| parameters.iter().any(|(present, _)| *present == key);
    if let Some((0, mandatory)) = parameters.first() {
        let mut keys = mandatory.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
        if let Some(absent) = keys.find(|&key| !holds(key)) {
            return Err(format!("the mandatory parameter {} is missing", shown(absent)));
        }
    }
    if holds(2) && !holds(1) {
        return Err("no-default-alpn without alpn".to_owned());
    }
    let mut wire = Vec::new();
    for (key, value) in parameters {
        let length = u16::try_from(value.len()).map_err(|_| "a parameter is too long".to_owned())?;
        wire.extend(key.to_be_bytes());
        wire.extend(length.to_be_bytes());
        wire.extend(value);
    }
    Ok(wire)
}

fn key(text: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(text).ok()?;
    if let Some(place) = KEYS.iter().position(|name| *name == text) {
        return u16::try_from(place).ok();
    }
    let digits = text.strip_prefix("key")?;
    let number: u16 = digits.parse().ok()?;
    // No leading zeros (RFC 9460 2.1), and 65535 is reserved.
    (number != u16::MAX && digits == number.to_string()).then_some(number)
}

fn shown(key: u16) -> String {
    KEYS.get(usize::from(key)).map_or_else(|| format!("key{key}"), |&name| name.to_owned())
}

/// The value of a key in wire form, from text whose escapes were replaced once.
fn value(key: u16, text: &[u8]) -> Option<Vec<u8>> {
    let plain = || std::str::from_utf8(text).ok();
    match key {
        0 => {
            let mut keys: Vec<u16> = text.split(|&octet| octet == b',').map(self::key).collect::<Option<_>>()?;
            keys.sort_unstable();
            let proper = !keys.contains(&0) && keys.windows(2).all(|pair| pair[0] != pair[1]);
            proper.then(|| keys.into_iter().flat_map(u16::to_be_bytes).collect())
        }
        1 => alpn(text),
        2 | 8 => text.is_empty().then(Vec::new),
        3 => plain()?.parse::<u16>().ok().map(|port| port.to_be_bytes().to_vec()),
        4 => addresses(plain()?, |address: Ipv4Addr| address.octets().to_vec()),
        5 => encoding::base64(text).ok().filter(|list| !list.is_empty()),
        6 => addresses(plain()?, |address: Ipv6Addr| address.octets().to_vec()),
        7 => plain().filter(|path| path.starts_with('/') && path.contains("{?dns}")).map(|_| text.to_vec()),
        _ => Some(text.to_vec()),
    }
}

fn addresses<A: std::str::FromStr>(text: &str, octets: impl Fn(A) -> Vec<u8>) -> Option<Vec<u8>> {
    let addresses: Option<Vec<_>> = text.split(',').map(|address| address.parse().ok().map(&octets)).collect();
    addresses.map(|addresses| addresses.concat())
}

/// Protocol ids with commas between them; a comma or backslash in an id has a backslash (RFC 9460 A.1).
fn alpn(text: &[u8]) -> Option<Vec<u8>> {
    let mut ids = vec![Vec::new()];
    let mut octets = text.iter();
    while let Some(&octet) = octets.next() {
        let id = ids.last_mut()?;
        match octet {
            b',' => ids.push(Vec::new()),
            b'\\' => id.push(*octets.next()?),
            _ => id.push(octet),
        }
    }
    let mut wire = Vec::new();
    for id in ids {
        wire.push(u8::try_from(id.len()).ok().filter(|&length| length > 0)?);
        wire.extend(id);
    }
    Some(wire)
}

/// Whether octets are parameters, their keys ascending.
pub(super) fn fits(parameters: &[u8]) -> bool {
    let mut rest = parameters;
    let mut before = None;
    while let Some((head, behind)) = rest.split_first_chunk::<4>() {
        let key = u16::from_be_bytes([head[0], head[1]]);
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let Some(behind) = behind.get(length..) else { return false };
        if before.is_some_and(|before| before >= key) {
            return false;
        }
        (before, rest) = (Some(key), behind);
    }
    rest.is_empty()
}
