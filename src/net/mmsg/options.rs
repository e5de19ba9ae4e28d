//! Socket options that socket2 does not have, and interface names.

use std::{
    ffi::{CStr, CString},
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

/// The least MTU a path of IPv6 has (RFC 8200 section 5).
const IPV6_LEAST_MTU: libc::c_int = 1280;

/// `size_of::<libc::c_int>()` as the calls take it.
pub(super) const INTEGER_SIZE: libc::socklen_t = 4;

/// The address family of a socket, where the options differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::net) enum Family {
    V4,
    V6,
}

/// Makes the kernel say with each datagram which address it was sent to.
pub(in crate::net) fn report_destination(socket: BorrowedFd<'_>, family: Family) -> io::Result<()> {
    match family {
        Family::V4 => set(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1),
        Family::V6 => set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1),
    }
}

/// Ignores what ICMP says about the path's MTU. Forged ICMP messages could otherwise have our responses fragmented, and
/// second fragments can be forged (RFC 9715 section 3.1). IPv6 routers do not fragment, so datagrams longer than the
/// minimum MTU are fragmented here.
pub(in crate::net) fn ignore_path_mtu(socket: BorrowedFd<'_>, family: Family) -> io::Result<()> {
    match family {
        Family::V4 => set(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_OMIT),
        Family::V6 => {
            set(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_OMIT)?;
            set(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU, IPV6_LEAST_MTU)
        }
    }
}

/// Lets a bound source address share local ports: the port is chosen at `connect`, when the peer is known.
pub(in crate::net) fn bind_late(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)
}

fn set(socket: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the pointer is to an integer of the length given, alive during the call, which only reads it.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), INTEGER_SIZE) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The index of the network interface called `name`.
///
/// # Errors
/// There is no such interface.
pub fn interface_index(name: &str) -> io::Result<u32> {
    let name = CString::new(name)?;
    // SAFETY: `name` ends with a zero byte and is alive during the call, which only reads it.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 { Err(io::Error::last_os_error()) } else { Ok(index) }
}

/// The name of the network interface at `index`.
///
/// # Errors
/// There is none.
pub fn interface_name(index: u32) -> io::Result<String> {
    let mut name = [0u8; libc::IF_NAMESIZE];
    // SAFETY: the buffer has the `IF_NAMESIZE` bytes that the call may write.
    let written = unsafe { libc::if_indextoname(index, name.as_mut_ptr().cast()) };
    if written.is_null() {
        return Err(io::Error::last_os_error());
    }
    let name = CStr::from_bytes_until_nul(&name).map_err(io::Error::other)?;
    Ok(name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_interface_has_an_index_and_a_name() {
        let index = interface_index("lo").unwrap();
        assert_eq!(interface_name(index).unwrap(), "lo");
    }

    #[test]
    fn unknown_interface_is_an_error() {
        assert!(interface_index("no-such-device").is_err());
        assert!(interface_index("a\0b").is_err());
        assert!(interface_name(u32::MAX >> 1).is_err());
    }
}
