//! This host, by its files: who holds our port, whether a certificate expires, and whether the kernel is at a limit.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{document::DoctorFinding, kind::Kind};
use crate::{
    clock,
    config::{Boot, Endpoint, Plan},
    daemon::{self, DescriptorBudget},
    net::socket::{BindError, ListenOptions, tcp_listeners, udp_listeners},
    plural::Plural,
};

/// A table counts as nearly full from this percentage on.
const NEARLY_FULL: u64 = 90;
/// A certificate that expires within this time is a finding, in seconds.
const CERTIFICATE_WARNING: u64 = 14 * 86_400;
/// More than one dropped datagram in this many is a finding.
const TOLERATED_DROPS: u64 = 1000;

/// Where the files of this host are.
#[derive(Debug, Clone)]
pub struct HostFiles {
    /// What stub resolvers read.
    pub resolv_conf: PathBuf,
    /// The servers that systemd-resolved asks.
    pub resolved: PathBuf,
    /// The sources that glibc looks names up in.
    pub nsswitch: PathBuf,
    /// The kernel's files, `/proc`.
    pub proc: PathBuf,
}

impl Default for HostFiles {
    fn default() -> Self {
        Self {
            resolv_conf: "/etc/resolv.conf".into(),
            resolved: "/run/systemd/resolve/resolv.conf".into(),
            nsswitch: "/etc/nsswitch.conf".into(),
            proc: "/proc".into(),
        }
    }
}

/// Everything about this host except [lookups](super::lookups).
pub(super) fn check(plan: &Plan, host: &HostFiles) -> Vec<DoctorFinding> {
    let mut findings = kernel(&host.proc);
    let missing = daemon::missing_listeners(&plan.boot).into_iter();
    let missing = missing.chain(daemon::missing_upstreams(&plan.live, &plan.boot));
    findings.extend(missing.map(|line| DoctorFinding::new(Kind::NotOnThisHost, line)));
    findings.extend(certificate(plan));
    findings
}

/// Whether the limit on open files is enough: that of the running daemon, which has `workers`, else of this process.
pub(super) fn open_files(plan: &Plan, proc: &Path, workers: Option<usize>) -> Option<DoctorFinding> {
    let few = match workers {
        Some(workers) => {
            let budget = DescriptorBudget::new(&plan.boot, workers, limit_of_daemon(proc)?);
            budget.warning().map(|warning| warning.to_string())
        }
        None => daemon::few_descriptors(&plan.boot),
    };
    few.map(|line| DoctorFinding::new(Kind::OpenFiles, line))
}

/// The limit on open files of the process that serves (`Max open files SOFT HARD files`).
fn limit_of_daemon(proc: &Path) -> Option<u64> {
    let processes = fs::read_dir(proc).ok()?.filter_map(Result::ok).map(|entry| entry.path());
    let serves = |process: &PathBuf| {
        let arguments = read(process, "cmdline").unwrap_or_default();
        read(process, "comm").is_some_and(|name| name.trim() == "tidegate")
            && arguments.split('\0').any(|word| word == "serve")
    };
    let limits = read(&processes.into_iter().find(serves)?, "limits")?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Whether the certificate of our own listeners is about to expire.
fn certificate(plan: &Plan) -> Option<DoctorFinding> {
    let certificate = plan.live.certificate.as_ref()?;
    let left = certificate.pair.facts().seconds_left(clock::wall());
    let file = certificate.chain.display();
    match u64::try_from(left) {
        Err(_) => Some(DoctorFinding::new(Kind::CertificateExpired, format!("{file}, of our listeners, has expired"))),
        Ok(left) if left < CERTIFICATE_WARNING => {
            let what = format!("{file}, of our listeners, expires in {}", Plural(left / 86_400, "day"));
            Some(DoctorFinding::new(Kind::CertificateExpires, what))
        }
        Ok(_) => None,
    }
}

/// Listen addresses that another program holds, of every listener. For a host on which no daemon runs.
pub(super) fn ports(boot: &Boot) -> Vec<DoctorFinding> {
    let options = ListenOptions::default();
    let udp = |address| udp_listeners(address, 1, &options).err();
    let tcp = |address| tcp_listeners(address, 1, &options).err();
    let resolve = |endpoint: &Endpoint| endpoint.resolve(|_| None);
    let plain = boot.listen.iter().filter_map(|listen| resolve(&listen.endpoint));
    let plain = plain.filter_map(|address| udp(address).or_else(|| tcp(address)));
    let quic = boot.quic.iter().filter_map(resolve).filter_map(udp);
    let streams = boot.tls.iter().chain(boot.https.iter().map(|listen| &listen.endpoint)).chain(&boot.admin_http);
    let streams = streams.filter_map(resolve).filter_map(tcp);
    let taken = plain.chain(quic).chain(streams).filter(|error| {
        // A tidegate whose pages are off cannot be asked, but it is no conflict.
        matches!(error, BindError::InUse { owner, .. } if !owner.to_string().starts_with("tidegate (pid "))
    });
    taken.map(|error| DoctorFinding::new(Kind::PortTaken, error.to_string())).collect()
}

/// Limits of the kernel that are nearly reached.
fn kernel(proc: &Path) -> Vec<DoctorFinding> {
    let mut findings = Vec::new();
    let number = |path: &str| read(proc, path)?.trim().parse::<u64>().ok();
    let netfilter = "sys/net/netfilter/nf_conntrack_";
    if let (Some(count), Some(max)) = (number(&format!("{netfilter}count")), number(&format!("{netfilter}max")))
        && count * 100 >= max * NEARLY_FULL
        && max > 0
    {
        findings
            .push(DoctorFinding::new(Kind::ConntrackFull, format!("{count} of {max} tracked connections are in use")));
    }
    for (family, file, label) in [("IPv4", "net/sockstat", "UDP: inuse "), ("IPv6", "net/sockstat6", "UDP6: inuse ")] {
        if let (Some(used), Some(ports)) = (sockets(proc, file, label), port_range(proc))
            && used * 100 >= ports * NEARLY_FULL
        {
            let what = format!("{used} UDP sockets of {family} are open, and there are {ports} local ports");
            findings.push(DoctorFinding::new(Kind::SourcePorts, what));
        }
    }
    for (family, counters) in [("IPv4", udp_counters(proc)), ("IPv6", udp6_counters(proc))] {
        if let Some((received, dropped)) = counters
            && dropped * TOLERATED_DROPS > received
        {
            let what = format!(
                "{dropped} datagrams of {family} were dropped for full buffers since the host started, {received} delivered"
            );
            findings.push(DoctorFinding::new(Kind::ReceiveBufferDrops, what));
        }
    }
    findings
}

fn read(proc: &Path, path: &str) -> Option<String> {
    fs::read_to_string(proc.join(path)).ok()
}

/// UDP sockets in use (`UDP: inuse N mem M`, `UDP6: inuse N`).
fn sockets(proc: &Path, file: &str, label: &str) -> Option<u64> {
    let text = read(proc, file)?;
    text.lines().find_map(|line| line.strip_prefix(label))?.split(' ').next()?.parse().ok()
}

fn port_range(proc: &Path) -> Option<u64> {
    let text = read(proc, "sys/net/ipv4/ip_local_port_range")?;
    let mut ends = text.split_whitespace().map_while(|end| end.parse::<u64>().ok());
    let (first, last) = (ends.next()?, ends.next()?);
    Some((last + 1).saturating_sub(first))
}

/// InDatagrams and RcvbufErrors of the two lines `Udp:`, of which the first names the columns.
fn udp_counters(proc: &Path) -> Option<(u64, u64)> {
    let text = read(proc, "net/snmp")?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let names: Vec<&str> = lines.next()?.split(' ').collect();
    let values: Vec<&str> = lines.next()?.split(' ').collect();
    let value = |name: &str| values.get(names.iter().position(|other| *other == name)?)?.parse().ok();
    Some((value("InDatagrams")?, value("RcvbufErrors")?))
}

/// The same of IPv6, which has a line for each counter.
fn udp6_counters(proc: &Path) -> Option<(u64, u64)> {
    let text = read(proc, "net/snmp6")?;
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse().ok()
    };
    Some((value("Udp6InDatagrams ")?, value("Udp6RcvbufErrors ")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_proc(files: &[(&str, &str)]) -> Vec<Kind> {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        kernel(folder.path()).into_iter().map(|finding| finding.kind).collect()
    }

    #[test]
    fn limits_of_the_kernel_are_told_when_they_are_near() {
        let snmp = |dropped| format!("Udp: InDatagrams NoPorts RcvbufErrors\nUdp: 50000 1 {dropped}\n");
        let count = "sys/net/netfilter/nf_conntrack_count";
        let max = ("sys/net/netfilter/nf_conntrack_max", "1000\n");
        let range = ("sys/net/ipv4/ip_local_port_range", "32768\t60999\n");
        for (files, expected) in [
            (vec![], vec![]),
            (vec![(count, "899\n"), max], vec![]),
            (vec![(count, "900\n"), max], vec![Kind::ConntrackFull]),
            (vec![("net/sockstat", "TCP: inuse 9\nUDP: inuse 300 mem 5\n"), range], vec![]),
            (vec![("net/sockstat", "TCP: inuse 9\nUDP: inuse 28000 mem 5\n"), range], vec![Kind::SourcePorts]),
            (vec![("net/snmp", snmp(50).as_str())], vec![]),
            (vec![("net/snmp", snmp(51).as_str())], vec![Kind::ReceiveBufferDrops]),
            (vec![("net/sockstat6", "UDP6: inuse 300\n"), range], vec![]),
            (vec![("net/sockstat6", "TCP6: inuse 9\nUDP6: inuse 28000\n"), range], vec![Kind::SourcePorts]),
            (vec![("net/snmp6", "Udp6InDatagrams   \t50000\nUdp6RcvbufErrors   \t50\n")], vec![]),
            (
                vec![("net/snmp6", "Udp6InDatagrams   \t50000\nUdp6RcvbufErrors   \t51\n")],
                vec![Kind::ReceiveBufferDrops],
            ),
            (vec![("net/snmp", "Udp: a\n"), ("net/sockstat", ""), (count, "x"), max], vec![]),
        ] {
            assert_eq!(in_proc(&files), expected, "{files:?}");
        }
    }

    #[test]
    fn a_port_that_is_taken_names_who_has_it() {
        let holder = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let taken = |address: &str| {
            let text = format!("[server]\nlisten = [\"{address}\"]\n[admin]\nhttp = \"\"\n");
            let taken = ports(&Plan::from_text("t.toml", &text).unwrap().boot);
            taken.iter().map(|finding| finding.kind).collect::<Vec<_>>()
        };
        assert_eq!(taken(&holder.local_addr().unwrap().to_string()), [Kind::PortTaken]);
        assert_eq!(taken("127.0.0.1:0"), [], "any port is free");
    }
}
