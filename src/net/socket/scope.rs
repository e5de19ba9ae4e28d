//! Addresses that name a network interface, `fe80::1%eth0` (RFC 4007 section 11).
//!
//! The name stays in the configuration and becomes an index when a socket is made: interfaces come, go and get new
//! indexes while the process runs.

use std::{
    fmt,
    net::{IpAddr, SocketAddr, SocketAddrV6},
    str::FromStr,
};

use crate::net::mmsg::interface_index;

/// An address and port, with the interface it is on where it has a scope.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ScopedAddress {
    ip: IpAddr,
    port: u16,
    scope: Option<Box<str>>,
}

/// Why a text is no address, or an address no place to reach.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// The text is no address with a port.
    #[error("\"{0}\" is not an address with a port, like 192.0.2.1:53, [2001:db8::1]:53 or [fe80::1%eth0]:53")]
    Malformed(String),
    /// A scope on an address that has none.
    #[error("{0} belongs to no interface: only link-local IPv6 addresses take a scope")]
    NotScoped(IpAddr),
    /// There is no such interface now.
    #[error("this host has no network interface \"{0}\"")]
    NoInterface(Box<str>),
}

impl ScopedAddress {
    /// An address and port, and the name or number of an interface.
    ///
    /// # Errors
    /// `NotScoped` if there is a scope and the address is not link-local.
    pub fn new(ip: IpAddr, scope: Option<&str>, port: u16) -> Result<Self, ScopeError> {
        let takes_scope = match ip {
            IpAddr::V4(_) => false,
            // fe80::/10, and multicast, which is local to a link in most of its forms.
            IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.is_multicast(),
        };
        if scope.is_some() && !takes_scope {
            return Err(ScopeError::NotScoped(ip));
        }
        Ok(Self { ip, port, scope: scope.map(Box::from) })
    }

    /// The address without scope and port.
    pub const fn ip(&self) -> IpAddr {
        self.ip
    }

    /// The port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The address as sockets take it, with the interface's index of this moment.
    ///
    /// # Errors
    /// `NoInterface`.
    pub fn resolve(&self) -> Result<SocketAddr, ScopeError> {
        let IpAddr::V6(ip) = self.ip else { return Ok(SocketAddr::new(self.ip, self.port)) };
        let index = match &self.scope {
            None => 0,
            Some(scope) => match scope.parse() {
                Ok(index) => index,
                Err(_) => interface_index(scope).map_err(|_| ScopeError::NoInterface(scope.clone()))?,
            },
        };
        Ok(SocketAddrV6::new(ip, self.port, 0, index).into())
    }
}

impl From<SocketAddr> for ScopedAddress {
    fn from(address: SocketAddr) -> Self {
        let scope = match address {
            SocketAddr::V6(address) if address.scope_id() != 0 => Some(address.scope_id().to_string().into()),
            _ => None,
        };
        Self { ip: address.ip(), port: address.port(), scope }
    }
}

impl FromStr for ScopedAddress {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let malformed = || ScopeError::Malformed(text.to_owned());
        let Some((address, port)) = text.strip_prefix('[').and_then(|text| text.split_once("]:")) else {
            return text.parse::<SocketAddr>().map(Self::from).map_err(|_| malformed());
        };
        let (ip, scope) = match address.split_once('%') {
            Some((_, "")) => return Err(malformed()),
            Some((ip, scope)) => (ip, Some(scope)),
            None => (address, None),
        };
        let ip: std::net::Ipv6Addr = ip.parse().map_err(|_| malformed())?;
        let port = port.parse().map_err(|_| malformed())?;
        Self::new(ip.into(), scope, port)
    }
}

impl fmt::Display for ScopedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.port;
        match (self.ip, &self.scope) {
            (IpAddr::V4(ip), _) => write!(f, "{ip}:{port}"),
            (IpAddr::V6(ip), None) => write!(f, "[{ip}]:{port}"),
            (IpAddr::V6(ip), Some(scope)) => write!(f, "[{ip}%{scope}]:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_is_shown_as_it_was_written() {
        for text in ["192.0.2.1:53", "[2001:db8::1]:53", "[fe80::1%eth0]:5353", "[fe80::1%3]:53", "[::]:0"] {
            assert_eq!(text.parse::<ScopedAddress>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn scope_becomes_the_index_of_the_interface() {
        let index = interface_index("lo").unwrap();
        let address = "[fe80::1%lo]:53".parse::<ScopedAddress>().unwrap().resolve().unwrap();
        assert_eq!(address, SocketAddrV6::new("fe80::1".parse().unwrap(), 53, 0, index).into());
        let address = "[fe80::1%17]:53".parse::<ScopedAddress>().unwrap().resolve().unwrap();
        assert_eq!(address, "[fe80::1%17]:53".parse().unwrap());
    }

    #[test]
    fn missing_interface_is_named_when_it_is_needed() {
        let address: ScopedAddress = "[fe80::1%nowhere0]:53".parse().unwrap();
        assert_eq!(address.resolve(), Err(ScopeError::NoInterface("nowhere0".into())));
    }

    #[test]
    fn text_that_is_no_address_is_refused() {
        for text in ["", "192.0.2.1", "[::1]", "[::1%]:53", "[fe80::1%lo]:66000", "fe80::1%lo:53", "host:53"] {
            assert_eq!(text.parse::<ScopedAddress>(), Err(ScopeError::Malformed(text.to_owned())));
        }
        let global = "2001:db8::1".parse().unwrap();
        assert_eq!("[2001:db8::1%lo]:53".parse::<ScopedAddress>(), Err(ScopeError::NotScoped(global)));
    }
}
