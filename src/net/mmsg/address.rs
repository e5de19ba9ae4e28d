//! Socket addresses as the kernel writes them.

use std::{
    mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
};

/// An IPv4 or IPv6 socket address in kernel form, all bytes initialised at all times.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) union RawAddress {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

#[expect(clippy::cast_possible_truncation, reason = "small numbers; libc declares them wider than their field")]
const V4: libc::sa_family_t = libc::AF_INET as _;
#[expect(clippy::cast_possible_truncation, reason = "as above")]
const V6: libc::sa_family_t = libc::AF_INET6 as _;

const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

impl RawAddress {
    pub(super) const SIZE: libc::socklen_t = 28;
    const V4_SIZE: libc::socklen_t = 16;

    pub(super) const fn empty() -> Self {
        // SAFETY: both fields are plain numbers, for which zero is a value; the larger one covers the union.
        Self { v6: unsafe { mem::zeroed() } }
    }

    /// Writes `address`; returns how many bytes of `self` it takes.
    pub(super) fn set(&mut self, address: &SocketAddr) -> libc::socklen_t {
        *self = Self::empty();
        match address {
            SocketAddr::V4(address) => {
                // SAFETY: an all-zero `sockaddr_in` is a value of it.
                let mut name: libc::sockaddr_in = unsafe { mem::zeroed() };
                name.sin_family = V4;
                name.sin_port = address.port().to_be();
                name.sin_addr.s_addr = u32::from_ne_bytes(address.ip().octets());
                self.v4 = name;
                Self::V4_SIZE
            }
            SocketAddr::V6(address) => {
                // SAFETY: an all-zero `sockaddr_in6` is a value of it.
                let mut name: libc::sockaddr_in6 = unsafe { mem::zeroed() };
                name.sin6_family = V6;
                name.sin6_port = address.port().to_be();
                name.sin6_flowinfo = address.flowinfo();
                name.sin6_addr.s6_addr = address.ip().octets();
                name.sin6_scope_id = address.scope_id();
                self.v6 = name;
                Self::SIZE
            }
        }
    }

    /// The address, of which the kernel wrote `length` bytes. Anything that is not an internet address reads as
    /// `0.0.0.0:0`: the socket was not a UDP socket.
    pub(super) fn read(&self, length: libc::socklen_t) -> SocketAddr {
        match self.family(length) {
            Some(V4) => {
                // SAFETY: every byte of the union is initialised and every bit pattern a value of `sockaddr_in`.
                let name = unsafe { self.v4 };
                let ip = Ipv4Addr::from(name.sin_addr.s_addr.to_ne_bytes());
                SocketAddr::from((ip, u16::from_be(name.sin_port)))
            }
            Some(V6) => {
                // SAFETY: as above, for `sockaddr_in6`.
                let name = unsafe { self.v6 };
                let ip = Ipv6Addr::from(name.sin6_addr.s6_addr);
                // The flow label of a question says nothing about its answer.
                SocketAddrV6::new(ip, u16::from_be(name.sin6_port), 0, name.sin6_scope_id).into()
            }
            _ => NOBODY,
        }
    }

    /// The address without its port.
    pub(super) fn ip(&self, length: libc::socklen_t) -> IpAddr {
        self.read(length).ip()
    }

    fn family(&self, length: libc::socklen_t) -> Option<libc::sa_family_t> {
        // SAFETY: the family is the first field of both structures, and initialised.
        let family = unsafe { self.v4.sin_family };
        let least = if family == V6 { Self::SIZE } else { Self::V4_SIZE };
        (length >= least).then_some(family)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_written_is_the_address_read() {
        for address in ["192.0.2.1:53", "[2001:db8::1]:5353", "[fe80::1%3]:853", "0.0.0.0:0", "[::ffff:192.0.2.1]:1"] {
            let address: SocketAddr = address.parse().unwrap();
            let mut name = RawAddress::empty();
            let length = name.set(&address);
            assert_eq!(name.read(length), address);
            assert_eq!(name.ip(length), address.ip());
        }
    }

    #[test]
    fn address_cut_short_is_nobodys() {
        let mut name = RawAddress::empty();
        for (address, least) in [("192.0.2.1:53", 16), ("[2001:db8::1]:53", 28)] {
            name.set(&address.parse().unwrap());
            assert_eq!(name.read(least - 1), NOBODY);
            assert_eq!(name.read(0), NOBODY);
        }
    }
}
