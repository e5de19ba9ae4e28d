//! DNS cookies, the server's side (RFC 7873, RFC 9018): a client that comes back with our cookie has proved its
//! address.
//!
//! Policy:
//! - A COOKIE option of 8 or of 16 to 40 octets gets one back; any other length is FORMERR (RFC 7873 5.2.2). Of several
//!   only the first counts.
//! - Server cookies are version 1 (RFC 9018 4): version, three reserved octets, a timestamp, and SipHash-2-4 over
//!   client cookie, those, and the client's address. The first secret makes them, each of them verifies.
//! - A cookie holds for an hour, and five minutes into the future for the clocks of replicas (RFC 9018 4.3). One that
//!   is over half an hour old, or made with another secret than the first, is answered with a new one.
//! - A client without a valid cookie is served all the same: BADCOOKIE is never sent.

use std::{fmt, hash::Hasher, net::IpAddr, str::FromStr};

use siphasher::sip::SipHasher24;

use super::{Malformed, edns::OptionCode};

/// The octets of a client cookie.
const CLIENT: usize = 8;
/// The octets of a server cookie before its hash: version, reserved, timestamp.
const HEAD: usize = 8;
/// The octets of a client cookie and a server cookie of ours.
const LENGTH: usize = 24;
/// The server cookies we make: version 1, reserved octets zero.
const VERSION: [u8; 4] = [1, 0, 0, 0];
/// How old a server cookie may be, in seconds (RFC 9018 4.3).
const LIFETIME: i32 = 3600;
/// How old it may be before it is replaced (RFC 9018 4.3).
const FRESH: i32 = 1800;
/// How far in the future it may have been made: clocks of replicas differ (RFC 9018 4.3).
const SKEW: i32 = 300;

/// A COOKIE option: what a client sent, or what it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cookie {
    octets: [u8; LENGTH],
    standing: Standing,
}

/// How far a cookie has been verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// As the client sent it; never sent back in this form.
    Unchecked,
    /// Ours, for a client that did not send a valid one.
    New,
    /// Ours, for a client that sent a valid one: its address is not forged.
    Proven,
}

impl Cookie {
    /// The option's code on the wire.
    pub const OPTION: OptionCode = OptionCode(10);
    /// The octets ours takes as an EDNS option, its four of code and length included.
    pub const OPTION_LENGTH: usize = 4 + LENGTH;

    /// Reads the option's data as a client sent it. A server cookie of another length than ours is ignored.
    pub fn read(data: &[u8]) -> Result<Self, Malformed> {
        if !matches!(data.len(), CLIENT | 16..=40) {
            return Err(Malformed::Cookie);
        }
        let mut octets = [0; LENGTH];
        let known = if data.len() == LENGTH { LENGTH } else { CLIENT };
        octets[..known].copy_from_slice(&data[..known]);
        Ok(Self { octets, standing: Standing::Unchecked })
    }

    /// How far it has been verified.
    pub const fn standing(&self) -> Standing {
        self.standing
    }

    /// The cookie to answer with, for a client at this address at `now`, the wall clock's seconds modulo 2^32. Without
    /// a secret there is none.
    pub fn answered(&self, secrets: &[Secret], client: IpAddr, now: u32) -> Option<Self> {
        let first = secrets.first()?;
        let age = now.wrapping_sub(self.timestamp()).cast_signed();
        let is_alive = self.octets[CLIENT] == VERSION[0] && (-SKEW..=LIFETIME).contains(&age);
        let signer = secrets.iter().position(|secret| is_alive && self.hash(secret, client) == self.octets[16..]);
        let standing = if signer.is_some() { Standing::Proven } else { Standing::New };
        if signer == Some(0) && age <= FRESH {
            return Some(Self { standing, ..*self });
        }
        let mut ours = Self { octets: self.octets, standing };
        ours.octets[CLIENT..12].copy_from_slice(&VERSION);
        ours.octets[12..16].copy_from_slice(&now.to_be_bytes());
        let hash = ours.hash(first, client);
        ours.octets[16..].copy_from_slice(&hash);
        Some(ours)
    }

    /// Writes it as an EDNS option into `out`, [`Cookie::OPTION_LENGTH`] octets.
    pub(super) fn write(&self, out: &mut [u8]) {
        debug_assert_ne!(self.standing, Standing::Unchecked, "what a client sent is not sent back");
        out[..4].copy_from_slice(&[0, 10, 0, 24]);
        out[4..Self::OPTION_LENGTH].copy_from_slice(&self.octets);
    }

    fn timestamp(&self) -> u32 {
        let octets = &self.octets;
        u32::from_be_bytes([octets[12], octets[13], octets[14], octets[15]])
    }

    /// SipHash-2-4 over the fields before the hash and the client's address, lowest octet first (RFC 9018 4.4).
    fn hash(&self, secret: &Secret, client: IpAddr) -> [u8; 8] {
        let mut message = [0; CLIENT + HEAD + 16];
        message[..CLIENT + HEAD].copy_from_slice(&self.octets[..CLIENT + HEAD]);
        let rest = &mut message[CLIENT + HEAD..];
        let address = match client.to_canonical() {
            IpAddr::V4(address) => {
                rest[..4].copy_from_slice(&address.octets());
                4
            }
            IpAddr::V6(address) => {
                rest.copy_from_slice(&address.octets());
                16
            }
        };
        let mut hasher = SipHasher24::new_with_key(&secret.0);
        hasher.write(&message[..CLIENT + HEAD + address]);
        hasher.finish().to_le_bytes()
    }
}

/// The key of server cookies, the same on all replicas behind one address. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; 16]);

impl Secret {
    /// A secret of 16 random octets.
    pub const fn new(octets: [u8; 16]) -> Self {
        Self(octets)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Why a text is not a secret. The message does not repeat the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Not 32 characters.
    #[error("it has {0} characters, and a secret is 32 hexadecimal digits")]
    Length(usize),
    /// Characters that are not hexadecimal digits.
    #[error("character {0} is no hexadecimal digit")]
    Digit(usize),
}

impl FromStr for Secret {
    type Err = SecretError;

    /// Reads 32 hexadecimal digits.
    fn from_str(text: &str) -> Result<Self, SecretError> {
        let length = text.chars().count();
        if length != 32 {
            return Err(SecretError::Length(length));
        }
        let mut octets = [0; 16];
        for (at, digit) in text.chars().enumerate() {
            let value = digit.to_digit(16).and_then(|value| u8::try_from(value).ok());
            octets[at / 2] = octets[at / 2] << 4 | value.ok_or(SecretError::Digit(at + 1))?;
        }
        Ok(Self(octets))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The secrets of RFC 9018 A.1 and A.4.
    const FIRST: &str = "e5e973e5a6b2a43f48e7dc849e37bfcf";
    const OLD: &str = "dd3bdf9344b678b185a6f5cb60fca715";
    const NEW: &str = "445536bcd2513298075a5d379663c962";

    fn secrets(texts: &[&str]) -> Vec<Secret> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn octets(hex: &str) -> Vec<u8> {
        let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(digit).collect()
    }

    fn answered(presented: &[u8], texts: &[&str], client: &str, now: u32) -> Cookie {
        let cookie = Cookie::read(presented).unwrap();
        cookie.answered(&secrets(texts), client.parse().unwrap(), now).unwrap()
    }

    #[test]
    fn the_vectors_of_rfc_9018_hold() {
        use Standing::{New, Proven};
        let v6 = "2001:db8:220:1:59de:d0f4:8769:82b8";
        let a4 = "22681ab97d52c298010000005cf7c57926556bd0934c72f8";
        let renewed_a4 = "22681ab97d52c298010000005cf7c609a6bb79d16625507a";
        let a1 = "2464c4abcf10c957010000005cf79f111f8130c3eee29480";
        let a2 = "2464c4abcf10c957010000005cf7a871d4a564a1442aca77";
        let a3 = "fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5";
        let renewed_a3 = "fc93fc62807ddb86010000005cf7a9acf73a7810aca2381e";
        for (name, presented, secrets, client, now, expected, standing) in [
            ("A.1", &a1[..16], &[FIRST][..], "198.51.100.100", 1_559_731_985, a1, New),
            ("A.2", a1, &[FIRST], "198.51.100.100", 1_559_734_385, a2, Proven),
            ("A.3, over an hour old", a3, &[FIRST], "203.0.113.203", 1_559_734_700, renewed_a3, New),
            ("A.4", a4, &[NEW, OLD], v6, 1_559_741_961, renewed_a4, Proven),
            ("A.4 without the old secret", a4, &[NEW], v6, 1_559_741_961, renewed_a4, New),
        ] {
            let cookie = answered(&octets(presented), secrets, client, now);
            assert_eq!((cookie.octets.as_slice(), cookie.standing()), (&octets(expected)[..], standing), "{name}");
        }
        // The reserved octets of A.3 are part of what is signed.
        let in_time = answered(&octets(a3), &[FIRST], "203.0.113.203", 1_559_727_985 + 60);
        assert_eq!((in_time.octets.as_slice(), in_time.standing()), (&octets(a3)[..], Proven));
    }

    #[test]
    fn a_cookie_is_kept_for_half_an_hour_and_holds_for_an_hour() {
        let made = u32::MAX - 5;
        let client = "10.1.2.3";
        let first = answered(b"8 octets", &[FIRST], client, made);
        for (name, seconds, standing, is_kept) in [
            ("at once", 0, Standing::Proven, true),
            ("across the end of the count", 60, Standing::Proven, true),
            ("half an hour", 1800, Standing::Proven, true),
            ("more", 1801, Standing::Proven, false),
            ("an hour", 3600, Standing::Proven, false),
            ("over an hour", 3601, Standing::New, false),
            ("five minutes too early", -300, Standing::Proven, true),
            ("earlier still", -301, Standing::New, false),
        ] {
            let cookie = answered(&first.octets, &[FIRST], client, made.wrapping_add_signed(seconds));
            assert_eq!((cookie.standing(), cookie.octets == first.octets), (standing, is_kept), "{name}");
        }
    }

    #[test]
    fn a_cookie_proves_one_address_and_no_other_bit() {
        let first = answered(b"8 octets", &[FIRST], "10.1.2.3", 7);
        let standing = |octets: &[u8], client| answered(octets, &[FIRST], client, 7).standing();
        assert_eq!(standing(&first.octets, "::ffff:10.1.2.3"), Standing::Proven);
        assert_eq!(standing(&first.octets, "10.1.2.4"), Standing::New);
        assert_eq!(standing(&first.octets, "fd00::1"), Standing::New);
        for at in 0..LENGTH {
            let mut forged = first.octets;
            forged[at] ^= 1;
            assert_eq!(standing(&forged, "10.1.2.3"), Standing::New, "octet {at}");
        }
    }

    #[test]
    fn lengths_that_no_cookie_has_are_malformed() {
        for length in 0..64 {
            let is_valid = length == 8 || (16..=40).contains(&length);
            let read = Cookie::read(&[7; 64][..length]);
            assert_eq!(read.is_ok(), is_valid, "{length} octets");
            let Ok(cookie) = read else { continue };
            assert_eq!(cookie.standing(), Standing::Unchecked, "{length} octets");
            let ours = cookie.answered(&secrets(&[FIRST]), [10, 0, 0, 1].into(), 9).unwrap();
            assert_eq!((ours.octets[..8].to_vec(), ours.standing()), (vec![7; 8], Standing::New), "{length} octets");
        }
    }

    #[test]
    fn a_secret_is_32_digits_and_is_not_shown() {
        assert_eq!(format!("{:?}", FIRST.parse::<Secret>().unwrap()), "Secret(..)");
        assert_eq!(FIRST.to_uppercase().parse::<Secret>(), FIRST.parse());
        for (text, error) in [
            ("", SecretError::Length(0)),
            (&FIRST[1..], SecretError::Length(31)),
            (&format!("{FIRST}0"), SecretError::Length(33)),
            (&FIRST.replace("973", "9g3"), SecretError::Digit(5)),
            (&FIRST.replace("e5e9", "e5é9"), SecretError::Digit(3)),
        ] {
            assert_eq!(text.parse::<Secret>(), Err(error), "{text}");
        }
    }
}
