//! Finds which process holds a port, for the error message about it.
//!
//! `/proc/net` tells the socket and its user; which process has it open is found in `/proc/PID/fd`, as far as this
//! process may look. Used once, on the way to an error: speed does not matter, and every failure is "unknown".

use std::{
    fmt, fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process,
};

/// The transport protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PortProtocol {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

/// The holder of a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// This process.
    This,
    /// Another process.
    Process {
        /// Its name, as `ps` shows it.
        name: String,
        /// Its process id.
        pid: u32,
    },
    /// A process we may not look into.
    User(u32),
    /// Nobody we can see: it may have gone meanwhile, or live in a container.
    Unknown,
}

impl fmt::Display for PortProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
        })
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::This => f.write_str("another listen address of this process, which covers it"),
            Self::Process { name, pid } => write!(f, "{name} (pid {pid})"),
            Self::User(user) => write!(f, "a process of user {user} (as root, `ss -lpn` shows which)"),
            Self::Unknown => f.write_str("a process that cannot be seen from here (as root, `ss -lpn` shows which)"),
        }
    }
}

/// A socket in the kernel's table.
#[derive(Debug, PartialEq, Eq)]
struct Holder {
    address: SocketAddr,
    user: u32,
    inode: u64,
}

/// Finds the process that keeps us from binding `address`.
pub(super) fn find(protocol: PortProtocol, address: SocketAddr) -> Owner {
    let (v4, v6) = match protocol {
        PortProtocol::Udp => ("/proc/net/udp", "/proc/net/udp6"),
        PortProtocol::Tcp => ("/proc/net/tcp", "/proc/net/tcp6"),
    };
    let mut holders: Vec<Holder> = [v4, v6]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|table| parse(protocol, &table))
        .filter(|holder| conflict(holder.address, address))
        .collect();
    // The address itself first, then wildcards.
    holders.sort_by_key(|holder| holder.address.ip() != address.ip());
    let found = holders.iter().find_map(|holder| process_of(holder.inode));
    let user = holders.first().map(|holder| Owner::User(holder.user));
    found.or(user).unwrap_or(Owner::Unknown)
}

/// Whether a socket at `held` conflicts with one at `wanted`. Our IPv6 sockets take IPv6 only; others may take both.
fn conflict(held: SocketAddr, wanted: SocketAddr) -> bool {
    if held.port() != wanted.port() {
        return false;
    }
    let held = held.ip().to_canonical();
    match (held, wanted.ip()) {
        (IpAddr::V4(_), IpAddr::V6(_)) => false,
        (IpAddr::V6(held), IpAddr::V4(_)) => held.is_unspecified(),
        (held, wanted) => held == wanted || held.is_unspecified() || wanted.is_unspecified(),
    }
}

fn parse(protocol: PortProtocol, table: &str) -> Vec<Holder> {
    table.lines().skip(1).filter_map(|line| parse_line(protocol, line)).collect()
}

/// One line of proc_net_udp or proc_net_tcp: number, local, remote, state, queues, timer, retransmits, user, timeout,
/// inode.
fn parse_line(protocol: PortProtocol, line: &str) -> Option<Holder> {
    const LISTEN: &str = "0A";
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, local, _, state, _, _, _, user, _, inode, ..] = fields.as_slice() else { return None };
    if protocol == PortProtocol::Tcp && *state != LISTEN {
        return None;
    }
    Some(Holder { address: parse_address(local)?, user: user.parse().ok()?, inode: inode.parse().ok()? })
}

/// An address as the kernel prints it: 32-bit words in the machine's byte order, then the port.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut octets = Vec::with_capacity(16);
    for word in ip.as_bytes().chunks(8) {
        let word = u32::from_str_radix(str::from_utf8(word).ok()?, 16).ok()?;
        octets.extend(word.to_ne_bytes());
    }
    let ip = match octets.len() {
        4 => IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?)),
        16 => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?)),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

fn process_of(inode: u64) -> Option<Owner> {
    let target = format!("socket:[{inode}]");
    let holds = |pid: u32| {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        descriptors.flatten().any(|entry| fs::read_link(entry.path()).is_ok_and(|link| link.as_os_str() == &*target))
    };
    if holds(process::id()) {
        return Some(Owner::This);
    }
    let pids = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let pid = pids.into_iter().find(|pid| holds(*pid))?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(Owner::Process { name: name.trim_end().to_owned(), pid })
}

#[cfg(test)]
mod tests {
    use super::*;

    const UDP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
  320: 0100007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000   101        0 4711 2 0000000000000000 0
";
    const TCP6: &str =
        "  sl  local_address remote_address st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000001000000:0035 00000000000000000000000000000000:0000 0A 0:0 00:0 0 7 0 11 1 0 100 0 0 10 0
   1: 00000000000000000000000001000000:0035 00000000000000000000000001000000:9999 01 0:0 00:0 0 7 0 12 1 0 100 0 0 10 0
";

    #[test]
    #[cfg(target_endian = "little")]
    fn kernel_tables_are_read() {
        let address = "127.0.0.1:53".parse().unwrap();
        assert_eq!(parse(PortProtocol::Udp, UDP), [Holder { address, user: 101, inode: 4711 }]);
        let address = "[::1]:53".parse().unwrap();
        assert_eq!(parse(PortProtocol::Tcp, TCP6), [Holder { address, user: 7, inode: 11 }], "only what listens");
    }

    #[test]
    fn table_that_makes_no_sense_is_empty() {
        assert_eq!(parse(PortProtocol::Udp, "sl\n 1: 0100007F 0\n 2: XX:0035 0:0 07 0 0 0 0 0 1\n\n"), []);
    }

    #[test]
    fn conflicts_are_those_of_the_kernel() {
        for (held, wanted, expected) in [
            ("127.0.0.1:53", "127.0.0.1:53", true),
            ("127.0.0.1:53", "127.0.0.1:54", false),
            ("127.0.0.1:53", "127.0.0.2:53", false),
            ("0.0.0.0:53", "127.0.0.2:53", true),
            ("127.0.0.2:53", "0.0.0.0:53", true),
            ("[::]:53", "127.0.0.1:53", true),
            ("[::ffff:127.0.0.1]:53", "127.0.0.1:53", true),
            ("0.0.0.0:53", "[::]:53", false),
            ("[::1]:53", "[::]:53", true),
            ("[::1]:53", "127.0.0.1:53", false),
        ] {
            assert_eq!(conflict(held.parse().unwrap(), wanted.parse().unwrap()), expected, "{held} and {wanted}");
        }
    }
}
