//! Control messages that say which of our addresses a datagram came to, and make its answer leave from there.

use std::{
    mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// Which of this host's addresses a datagram was sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Local {
    /// The address an answer leaves from.
    pub address: IpAddr,
    /// The index of the network interface it came in by.
    pub interface: u32,
}

/// Where a datagram came from and which address it was sent to: what an answer that is sent later needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Path {
    /// Who sent it.
    pub peer: SocketAddr,
    /// Where it was sent to, if the socket reports it.
    pub local: Option<Local>,
}

/// Room for one control message, laid out as `CMSG_DATA` would: the data follow the header without a gap, since the
/// header's size is a multiple of its alignment.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) union Control {
    v4: Info<libc::in_pktinfo>,
    v6: Info<libc::in6_pktinfo>,
    /// Larger than either, so that a socket with one more option set still shows the first message whole.
    room: [u64; 8],
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Info<T> {
    header: libc::cmsghdr,
    info: T,
}

enum Kind {
    V4,
    V6,
    Other,
}

impl Control {
    pub(super) const SIZE: usize = size_of::<Self>();
    const HEADER: usize = size_of::<libc::cmsghdr>();
    const V4_LENGTH: usize = Self::HEADER + size_of::<libc::in_pktinfo>();
    const V6_LENGTH: usize = Self::HEADER + size_of::<libc::in6_pktinfo>();

    pub(super) const fn empty() -> Self {
        Self { room: [0; 8] }
    }

    /// Which kind of message the first `length` bytes hold. Only the first message counts: our sockets ask for one.
    fn kind(&self, length: usize) -> Kind {
        if length < Self::V4_LENGTH {
            return Kind::Other;
        }
        // SAFETY: every byte of the union is initialised, and every bit pattern a value of `cmsghdr`.
        let header = unsafe { self.v4.header };
        match (header.cmsg_level, header.cmsg_type) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => Kind::V4,
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) if length >= Self::V6_LENGTH => Kind::V6,
            _ => Kind::Other,
        }
    }

    /// The address asked, given how many bytes the kernel wrote.
    pub(super) fn local(&self, length: usize) -> Option<Local> {
        match self.kind(length) {
            Kind::V4 => {
                // SAFETY: every byte of the union is initialised, and every bit pattern a value of `in_pktinfo`.
                let info = unsafe { self.v4.info };
                // For a broadcast the destination is no address of ours; the kernel says here which one is.
                let address = Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes());
                Some(Local { address: address.into(), interface: info.ipi_ifindex.cast_unsigned() })
            }
            Kind::V6 => {
                // SAFETY: as above, for `in6_pktinfo`.
                let info = unsafe { self.v6.info };
                let address = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                Some(Local { address: address.into(), interface: info.ipi6_ifindex as _ })
            }
            Kind::Other => None,
        }
    }

    /// Turns a received message into one that sends from the address asked, in place. Returns its length, 0 where
    /// there is nothing to say.
    pub(super) fn turn_around(&mut self, length: usize) -> usize {
        match self.kind(length) {
            Kind::V4 => {
                // `ipi_spec_dst`, the address to send from, stays as it is.
                self.v4.info.ipi_ifindex = 0;
                size_of::<Info<libc::in_pktinfo>>()
            }
            Kind::V6 => {
                // SAFETY: every byte of the union is initialised, and every bit pattern a value of `in6_pktinfo`.
                let address = Ipv6Addr::from(unsafe { self.v6.info.ipi6_addr.s6_addr });
                if !address.is_unicast_link_local() {
                    self.v6.info.ipi6_ifindex = 0;
                }
                size_of::<Info<libc::in6_pktinfo>>()
            }
            Kind::Other => 0,
        }
    }

    /// Writes a message that sends from `local`; returns its length.
    pub(super) fn set(&mut self, local: Local) -> usize {
        *self = Self::empty();
        // SAFETY: an all-zero `cmsghdr` is a value of it.
        let mut header: libc::cmsghdr = unsafe { mem::zeroed() };
        let length = match local.address {
            IpAddr::V4(address) => {
                header.cmsg_len = Self::V4_LENGTH as _;
                header.cmsg_level = libc::IPPROTO_IP;
                header.cmsg_type = libc::IP_PKTINFO;
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(address.octets()) },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                self.v4 = Info { header, info };
                Self::V4_LENGTH
            }
            IpAddr::V6(address) => {
                header.cmsg_len = Self::V6_LENGTH as _;
                header.cmsg_level = libc::IPPROTO_IPV6;
                header.cmsg_type = libc::IPV6_PKTINFO;
                let interface = local.interface;
                let info = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr { s6_addr: address.octets() },
                    ipi6_ifindex: interface as _,
                };
                self.v6 = Info { header, info };
                Self::V6_LENGTH
            }
        };
        self.turn_around(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_is_the_one_of_cmsg_data() {
        // SAFETY: the function does arithmetic only.
        let (v4, v6) = unsafe { (libc::CMSG_LEN(12) as usize, libc::CMSG_LEN(20) as usize) };
        assert_eq!((Control::V4_LENGTH, Control::V6_LENGTH), (v4, v6));
        // SAFETY: as above.
        let spaces = unsafe { (libc::CMSG_SPACE(12) as usize, libc::CMSG_SPACE(20) as usize) };
        assert_eq!((size_of::<Info<libc::in_pktinfo>>(), size_of::<Info<libc::in6_pktinfo>>()), spaces);
    }

    #[test]
    fn message_written_is_the_message_read() {
        let table = [("192.0.2.1", 0), ("2001:db8::1", 0), ("fe80::1", 7), ("::ffff:192.0.2.1", 0)];
        for (address, interface) in table {
            let address = address.parse().unwrap();
            let mut control = Control::empty();
            let length = control.set(Local { address, interface: 7 });
            assert_eq!(control.local(length), Some(Local { address, interface }), "{address}");
        }
    }

    #[test]
    fn message_cut_short_says_nothing() {
        let mut control = Control::empty();
        let full = control.set(Local { address: "2001:db8::1".parse().unwrap(), interface: 0 });
        assert!(control.local(full).is_some());
        for length in 0..Control::V6_LENGTH {
            assert_eq!(control.local(length), None);
            assert_eq!(control.turn_around(length), 0);
        }
    }
}
