//! The host's own name servers, as `system` upstreams, and which addresses are our own.
//!
//! Only the `nameserver` lines of resolv.conf count here (resolv.conf(5)); a search list that does not parse must not
//! cost a site its servers, and scopes of link-local addresses are kept, so the file is read here and not by a
//! resolver's parser. systemd-resolved's list of real servers is preferred over `/etc/resolv.conf`, which then names
//! its stub. 127.0.0.53 and .54 (that stub) and our own listeners are left out: they would be loops.
//!
//! The file is read again every two seconds and compared by what it says, so that a symlink that was switched, a file
//! that was replaced and one that was rewritten in place within one tick of the clock are all seen.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;

use crate::{
    config::{self, Address, Endpoint},
    files,
    upstream::{
        names::NameLists,
        spec::{Egress, ServerSpec},
    },
    wire::Transport,
};

/// The port of listed servers (resolv.conf(5)).
const PORT: u16 = 53;

/// The servers that systemd-resolved itself asks.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";
/// The file that all other programs read.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// systemd-resolved's stub and its proxy (systemd-resolved.service(8)).
const STUBS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 54))];
/// How often the file is compared.
pub const WATCH_INTERVAL: Duration = Duration::from_secs(2);

/// The addresses we listen on, and what each resolv.conf and each name last listed besides them. Clones share the lists.
#[derive(Debug, Clone, Default)]
pub struct OwnAddresses {
    listen: Vec<SocketAddr>,
    lists: Arc<Mutex<HashMap<Option<PathBuf>, Vec<Address>>>>,
    names: NameLists,
}

impl OwnAddresses {
    /// Addresses as bound; a wildcard stands for every address of this host.
    pub fn new(listen: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self { listen: listen.into_iter().collect(), ..Self::default() }
    }

    /// The addresses of servers that are given by name.
    pub const fn names(&self) -> &NameLists {
        &self.names
    }

    /// Whether a query to `address` would come back to us.
    pub fn holds(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        self.listen.iter().filter(|own| own.port() == address.port()).any(|own| match own.ip() {
            wildcard if wildcard.is_unspecified() => ip.is_unspecified() || is_local(ip),
            own => own.to_canonical() == ip,
        })
    }
}

impl OwnAddresses {
    fn last_list(&self, path: Option<&Path>) -> Option<Vec<Address>> {
        self.lists.lock().get(&path.map(Path::to_owned)).cloned()
    }

    fn keep_list(&self, path: Option<&Path>, servers: &[Address]) {
        self.lists.lock().insert(path.map(Path::to_owned), servers.to_vec());
    }
}

/// The name servers to ask: those that `path` lists now, or the last it listed where it lists none. A file that is
/// missing for a moment, empty while it is written, or not to be opened for want of descriptors, takes no server away.
pub(super) fn servers(path: Option<&Path>, ours: &OwnAddresses) -> Vec<Address> {
    let now = read(path, ours);
    if now.is_empty() {
        return ours.last_list(path).unwrap_or_default();
    }
    ours.keep_list(path, &now);
    now
}

/// How to ask a listed server.
pub fn spec_of(listed: Address, via: &Egress, path_label: &str) -> ServerSpec {
    let endpoint = Endpoint { address: listed, port: PORT };
    let (address, scope) = endpoint.place();
    let via = Egress { scope: scope.map(str::to_owned), ..via.clone() };
    ServerSpec { via, path_label: path_label.to_owned(), ..ServerSpec::plain(Transport::Udp, address) }
}

/// Whether this host has the address: only then may a socket be bound to it.
fn is_local(ip: IpAddr) -> bool {
    ip.is_loopback() || UdpSocket::bind((ip, 0)).is_ok()
}

/// The name servers that `path` lists now, or the host's usual file; empty where it cannot be read or none is left.
pub fn read(path: Option<&Path>, ours: &OwnAddresses) -> Vec<Address> {
    let text = match path {
        Some(path) => files::read(path),
        None => files::read(Path::new(RESOLVED)).or_else(|_| files::read(Path::new(RESOLV_CONF))),
    };
    let Ok(text) = text else { return Vec::new() };
    let mut servers = parse(&String::from_utf8_lossy(&text));
    servers.retain(|server| !STUBS.contains(&server.ip) && !ours.holds((server.ip, PORT).into()));
    servers
}

fn parse(text: &str) -> Vec<Address> {
    let mut servers = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        if let Some(server) = words.next().and_then(|word| Address::parse(word).ok())
            // 0.0.0.0 is this host to the C library, and so perhaps ourselves; no host has a multicast address.
            && config::is_host_address(server.ip)
            && !servers.contains(&server)
        {
            servers.push(server);
        }
    }
    servers
}

/// Notices when `system` servers change: what a file lists now against what groups were last built of, so that nothing is
/// missed between reading and watching.
#[derive(Debug)]
pub struct ResolvConfWatch {
    ours: OwnAddresses,
    files: Vec<File>,
}

#[derive(Debug)]
struct File {
    path: Option<PathBuf>,
    /// Whether it lists no server now, so that this is logged once.
    is_empty: bool,
}

impl ResolvConfWatch {
    /// Watches these files (none is the host's usual one).
    pub fn new(paths: impl IntoIterator<Item = Option<PathBuf>>, ours: OwnAddresses) -> Self {
        let files = paths.into_iter().map(|path| File { path, is_empty: false }).collect();
        Self { ours, files }
    }

    /// Compares once. Whether any list changed: groups that hold `system` are then built again.
    pub fn check(&mut self) -> Changes {
        let mut changes = Changes::None;
        for File { path, is_empty } in &mut self.files {
            let path = path.as_deref();
            let now = read(path, &self.ours);
            let used = self.ours.last_list(path).unwrap_or_default();
            let was_empty = std::mem::replace(is_empty, now.is_empty() && !used.is_empty());
            if *is_empty {
                if !was_empty {
                    let file = path.unwrap_or_else(|| Path::new(RESOLV_CONF)).display();
                    tracing::warn!(%file, "{file} lists no name server now: the last ones stay in use");
                }
            } else if now != used {
                let list = |servers: &[Address]| servers.iter().map(Address::to_string).collect::<Vec<_>>().join(", ");
                let (from, to) = (list(&used), list(&now));
                tracing::info!(from, to, "system name servers changed from {from} to {to}");
                self.ours.keep_list(path, &now);
                changes = Changes::Servers;
            }
        }
        changes
    }

    /// Waits until a list changes.
    pub async fn changed(&mut self) {
        while self.check() == Changes::None {
            tokio::time::sleep(WATCH_INTERVAL).await;
        }
    }
}

/// What a comparison found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changes {
    /// Nothing changed.
    None,
    /// The servers are others than before.
    Servers,
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn texts(servers: &[Address]) -> Vec<String> {
        servers.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn only_nameserver_lines_count() {
        let text = "# nameserver 9.9.9.9\nsearch -- lan bad..name\nnameserver 10.1.1.53\n nameserver\t10.1.1.54 # two\n\
                    nameserver fd00::53\nnameserver nonsense\nnameserver\nnameserver 10.1.1.53\noptions edns0\n\
                    nameserver 0.0.0.0\nnameserver ::\nnameserver 224.0.0.1\n";
        assert_eq!(texts(&parse(text)), ["10.1.1.53", "10.1.1.54", "fd00::53"]);
    }

    #[test]
    fn scopes_are_kept() {
        let servers = parse("nameserver fe80::1%lo\nnameserver fe80::2%7\nnameserver fe80::3%no-such-device\n");
        assert_eq!(texts(&servers), ["fe80::1%lo", "fe80::2%7", "fe80::3%no-such-device"]);
        let specs = servers.into_iter().map(|server| spec_of(server, &Egress::default(), ""));
        let specs: Vec<ServerSpec> = specs.collect();
        let scopes: Vec<Option<&str>> = specs.iter().map(|spec| spec.via.scope.as_deref()).collect();
        assert_eq!(scopes, [Some("lo"), None, Some("no-such-device")], "an interface may come later");
        assert!(matches!(specs[1].address, SocketAddr::V6(v6) if v6.scope_id() == 7));
    }

    #[test]
    fn stubs_and_our_own_listeners_are_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resolv.conf");
        fs::write(&path, "nameserver 127.0.0.53\nnameserver 127.0.0.54\nnameserver 127.0.0.1\nnameserver 10.1.1.53\n")
            .unwrap();
        let ours = OwnAddresses::new(["127.0.0.1:53".parse().unwrap(), "[::1]:53".parse().unwrap()]);
        assert_eq!(texts(&read(Some(&path), &ours)), ["10.1.1.53"]);
        assert_eq!(texts(&read(Some(&path), &OwnAddresses::default())), ["127.0.0.1", "10.1.1.53"]);
        let elsewhere = OwnAddresses::new(["127.0.0.1:5353".parse().unwrap()]);
        assert_eq!(read(Some(&path), &elsewhere).len(), 2);
        let wildcard = OwnAddresses::new(["0.0.0.0:53".parse().unwrap()]);
        assert_eq!(texts(&read(Some(&path), &wildcard)), ["10.1.1.53"]);
    }

    #[test]
    fn a_missing_file_has_no_servers() {
        assert!(read(Some(Path::new("/no/such/resolv.conf")), &OwnAddresses::default()).is_empty());
    }

    #[test]
    fn rewritten_files_and_switched_symlinks_are_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (directory.path().join("one"), directory.path().join("two"));
        let link = directory.path().join("resolv.conf");
        fs::write(&one, "nameserver 10.1.1.53\n").unwrap();
        fs::write(&two, "nameserver 10.1.1.54\n").unwrap();
        symlink(&one, &link).unwrap();
        let ours = OwnAddresses::default();
        assert_eq!(texts(&servers(Some(&link), &ours)), ["10.1.1.53"]);
        // What changes between reading and watching is seen.
        fs::write(&one, "nameserver 10.1.1.56\n").unwrap();
        let mut watch = ResolvConfWatch::new([Some(link.clone())], ours.clone());
        assert_eq!(watch.check(), Changes::Servers);
        assert_eq!(watch.check(), Changes::None);
        fs::write(&one, "nameserver 10.1.1.55\n").unwrap();
        assert_eq!(watch.check(), Changes::Servers);
        fs::write(&one, "nameserver 10.1.1.55\n# a comment changes nothing\n").unwrap();
        assert_eq!(watch.check(), Changes::None);
        fs::remove_file(&link).unwrap();
        symlink(&two, &link).unwrap();
        assert_eq!(watch.check(), Changes::Servers);
        fs::remove_file(&two).unwrap();
        assert_eq!(watch.check(), Changes::None);
        assert_eq!(texts(&servers(Some(&link), &ours)), ["10.1.1.54"], "the last list stays");
        fs::write(&two, "# being written\n").unwrap();
        assert_eq!(watch.check(), Changes::None);
        assert_eq!(texts(&servers(Some(&link), &ours)), ["10.1.1.54"]);
        fs::write(&two, "nameserver 10.1.1.57\n").unwrap();
        assert_eq!(watch.check(), Changes::Servers);
        assert_eq!(texts(&servers(Some(&link), &ours)), ["10.1.1.57"]);
    }
}
