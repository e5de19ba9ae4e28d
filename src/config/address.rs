//! Addresses as the configuration writes them: with an optional scope (`fe80::1%eth0`) and an optional port.
//!
//! A scope stays text here, because interfaces come and go: it becomes an index when a socket is made.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6},
};

/// An IP address with its scope as written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    /// The address itself.
    pub ip: IpAddr,
    /// The interface of a link-local address: a name, or an index in decimal digits.
    pub scope: Option<Box<str>>,
}

/// An address and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The address.
    pub address: Address,
    /// The port; 0 only for a listener, where the kernel then chooses.
    pub port: u16,
}

/// Why a text is not an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Nothing is written.
    #[error("it is empty")]
    Empty,
    /// It is neither IPv4 nor IPv6.
    #[error("it is not an IPv4 or IPv6 address")]
    NotAnAddress,
    /// A bracket is not closed, or there is text between bracket and port.
    #[error("an IPv6 address with a port is written [address]:port")]
    Brackets,
    /// The port is not a number up to 65535.
    #[error("the port must be a number from 1 to 65535")]
    Port,
    /// It has a scope but is not link-local IPv6, or the scope is empty.
    #[error("only a link-local IPv6 address (fe80::/10, ff02::/16) takes a scope")]
    Scope,
}

impl Address {
    /// Reads an address with its scope.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        let Some((ip, scope)) = text.split_once('%') else {
            let ip: IpAddr = text.parse().map_err(|_| AddressError::NotAnAddress)?;
            // An IPv4-mapped address is treated as IPv4, so that one host never counts as two.
            return Ok(Self { ip: ip.to_canonical(), scope: None });
        };
        let ip: Ipv6Addr = ip.parse().map_err(|_| AddressError::NotAnAddress)?;
        let local = ip.is_unicast_link_local() || ip.segments()[0] == 0xff02;
        if scope.contains(':') {
            return Err(AddressError::Brackets);
        }
        if !local || scope.is_empty() || scope.contains(['%', '/']) || scope.contains(char::is_whitespace) {
            return Err(AddressError::Scope);
        }
        Ok(Self { ip: ip.into(), scope: Some(scope.into()) })
    }
}

/// Rewrites an address with a port in another program's notation (`10.1.1.53#5353`, `10.1.1.53@5353`, `10.1.1.53 port
/// 5353`) in ours; none for any other text.
pub(super) fn port_behind_colon(text: &str) -> Option<String> {
    let (address, port) =
        text.split_once(['#', '@']).or_else(|| text.split_once(" port ")).or_else(|| text.split_once(' '))?;
    let address = address.strip_prefix('[').and_then(|inside| inside.strip_suffix(']')).unwrap_or(address);
    let endpoint = Endpoint { address: Address::parse(address).ok()?, port: parse_port(port).ok()? };
    Some(endpoint.to_string())
}

/// Detects an IPv6 address without brackets whose last group looks like a port, as in `fd00::53:53`: the text before it
/// is an address too, and the group is a DNS port, one that ends in 53 (53, 5353, 853, 8053) or 443.
pub(super) fn port_was_meant(text: &str) -> Option<Endpoint> {
    let (address, port) = text.rsplit_once(':')?;
    let address: Ipv6Addr = address.parse().ok()?;
    let is_port = (port.ends_with("53") || port.ends_with("443")) && !port.starts_with('0');
    let port = parse_port(port).ok().filter(|_| is_port)?;
    Some(Endpoint { address: Address { ip: address.into(), scope: None }, port })
}

impl Endpoint {
    /// Reads `address`, `address:port` (IPv4), `[address]` or `[address]:port` (IPv6); without a port it is `port`.
    pub fn parse(text: &str, port: u16) -> Result<Self, AddressError> {
        if let Some(rest) = text.strip_prefix('[') {
            let (inside, behind) = rest.split_once(']').ok_or(AddressError::Brackets)?;
            let address = Address::parse(inside)?;
            if !inside.contains(':') {
                return Err(AddressError::Brackets);
            }
            let port = match behind.strip_prefix(':') {
                Some(digits) => parse_port(digits)?,
                None if behind.is_empty() => port,
                None => return Err(AddressError::Brackets),
            };
            return Ok(Self { address, port });
        }
        match text.split_once(':') {
            // One colon precedes a port; more belong to an IPv6 address.
            Some((ip, digits)) if !digits.contains(':') => {
                let address = Address::parse(ip)?;
                Ok(Self { address, port: parse_port(digits)? })
            }
            _ => Ok(Self { address: Address::parse(text)?, port }),
        }
    }

    /// The address, and the interface that its scope names. A scope that is a number is in the address.
    pub fn place(&self) -> (SocketAddr, Option<&str>) {
        let (IpAddr::V6(ip), Some(scope)) = (self.address.ip, self.address.scope.as_deref()) else {
            return (SocketAddr::new(self.address.ip, self.port), None);
        };
        let index = scope.parse().ok();
        (SocketAddrV6::new(ip, self.port, 0, index.unwrap_or(0)).into(), index.is_none().then_some(scope))
    }

    /// The socket address. `index_of` turns an interface's name into its index; none where there is no such interface.
    pub fn resolve(&self, index_of: impl FnOnce(&str) -> Option<u32>) -> Option<SocketAddr> {
        match self.place() {
            (SocketAddr::V6(v6), Some(scope)) => {
                Some(SocketAddrV6::new(*v6.ip(), v6.port(), 0, index_of(scope)?).into())
            }
            (address, _) => Some(address),
        }
    }
}

pub(super) fn parse_port(digits: &str) -> Result<u16, AddressError> {
    let plain = !digits.is_empty() && digits.bytes().all(|octet| octet.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten().ok_or(AddressError::Port)
}

impl From<SocketAddr> for Endpoint {
    fn from(socket: SocketAddr) -> Self {
        Self { address: Address { ip: socket.ip(), scope: None }, port: socket.port() }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.scope {
            Some(scope) => write!(f, "{}%{scope}", self.ip),
            None => self.ip.fmt(f),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address.ip {
            IpAddr::V4(_) => write!(f, "{}:{}", self.address, self.port),
            IpAddr::V6(_) => write!(f, "[{}]:{}", self.address, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_read_and_print() {
        for (text, printed) in [
            ("10.1.1.53", "10.1.1.53:53"),
            ("10.1.1.53:5353", "10.1.1.53:5353"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("::1", "[::1]:53"),
            ("[::1]", "[::1]:53"),
            ("[2001:db8::1]:853", "[2001:db8::1]:853"),
            ("fe80::1%eth0", "[fe80::1%eth0]:53"),
            ("[fe80::1%eth0]:5353", "[fe80::1%eth0]:5353"),
            ("::ffff:10.1.1.53", "10.1.1.53:53"),
            ("[::ffff:10.1.1.53]:5353", "10.1.1.53:5353"),
        ] {
            assert_eq!(Endpoint::parse(text, 53).unwrap().to_string(), printed, "{text}");
        }
    }

    #[test]
    fn texts_that_are_no_endpoints_say_why() {
        for (text, error) in [
            ("", AddressError::Empty),
            ("dns.example", AddressError::NotAnAddress),
            ("10.1.1.256", AddressError::NotAnAddress),
            ("10.1.1.1:", AddressError::Port),
            ("10.1.1.1:65536", AddressError::Port),
            ("10.1.1.1:+53", AddressError::Port),
            ("[::1", AddressError::Brackets),
            ("[::1]53", AddressError::Brackets),
            ("[10.1.1.1]:53", AddressError::Brackets),
            ("2001:db8::1%eth0", AddressError::Scope),
            ("fe80::1%", AddressError::Scope),
            ("fe80::1%eth0:53", AddressError::Brackets),
            ("10.1.1.1%eth0", AddressError::NotAnAddress),
        ] {
            assert_eq!(Endpoint::parse(text, 53), Err(error), "{text}");
        }
    }

    #[test]
    fn the_notations_of_other_programs_are_understood_for_advice() {
        for (text, meant) in [
            ("10.1.1.53#5353", Some("10.1.1.53:5353")),
            ("10.1.1.53@5353", Some("10.1.1.53:5353")),
            ("10.1.1.53 5353", Some("10.1.1.53:5353")),
            ("10.1.1.53 port 5353", Some("10.1.1.53:5353")),
            ("fd00::53@53", Some("[fd00::53]:53")),
            ("[fd00::53]#5353", Some("[fd00::53]:5353")),
            ("fe80::1%eth0#53", Some("[fe80::1%eth0]:53")),
            ("10.1.1.53#dns.example", None),
            ("10.1.1.53:5353", None),
            ("dns.example@53", None),
        ] {
            assert_eq!(port_behind_colon(text).as_deref(), meant, "{text}");
        }
    }

    #[test]
    fn an_ipv6_address_whose_port_was_meant_is_told() {
        for (text, meant) in [
            ("fd00::53:53", Some("[fd00::53]:53")),
            ("::1:53", Some("[::1]:53")),
            ("fd00::53:5353", Some("[fd00::53]:5353")),
            ("2001:db8:1:2:3:4:5:53", None),
            ("fd00:1:2::7:853", Some("[fd00:1:2::7]:853")),
            ("fd00::53", None),
            ("fd00::1:10", None),
            ("fd00::1:0053", None),
            ("[fd00::53:53]", None),
            ("10.1.1.53:53", None),
        ] {
            assert_eq!(port_was_meant(text).map(|endpoint| endpoint.to_string()).as_deref(), meant, "{text}");
        }
    }

    #[test]
    fn a_scope_becomes_the_index_of_its_interface() {
        let named = Endpoint::parse("[fe80::1%eth0]:53", 53).unwrap();
        let resolved = named.resolve(|name| (name == "eth0").then_some(7)).unwrap();
        assert!(matches!(resolved, SocketAddr::V6(v6) if v6.scope_id() == 7));
        assert_eq!(named.resolve(|_| None), None);
        let numbered = Endpoint::parse("fe80::1%3", 53).unwrap();
        assert!(matches!(numbered.resolve(|_| None), Some(SocketAddr::V6(v6)) if v6.scope_id() == 3));
    }
}
