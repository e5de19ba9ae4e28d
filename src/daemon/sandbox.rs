//! The sandbox: rights that the daemon gives up once it knows its files, before it starts a thread.
//!
//! Policy (`server.sandbox = "auto"`): as much as the kernel supports, with a log line that says what is in force.
//! - Landlock: files may be read below the folders of those that the configuration names, and below the system's;
//!   written below the folders of the snapshot, the control socket and the perimeter record; nothing may be executed. A
//!   file is allowed by its folder, since tools replace files by new ones of the same name. Paths outside that a reload
//!   names are refused ([`files::confine`]).
//! - seccomp: system calls that a DNS server never makes fail with EPERM: other programs, mounts, namespaces, modules,
//!   the clock, tracing, and sockets of other families. It is a list of denied calls, not of allowed ones, since a
//!   future C library may use calls that do not exist today.
//! - No core dumps: they would contain keys and names that clients asked for.
//!
//! The log's thread is already running, so Landlock does not cover it; it only has its descriptor.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use landlock::{
    ABI, Access, AccessFs, LandlockStatus, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus,
    make_bitflags, path_beneath_rules,
};
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};
use tracing::{info, warn};

use crate::{
    config::{Boot, Live, Sandbox, ServerAddress, ZoneData},
    files,
    zones::Zones,
};

/// System files: name servers, CAs, the process's own state, interfaces. All of `/run`, since the program that writes
/// name servers there (systemd-resolved, resolvconf, NetworkManager) may create its folder after our start.
const SYSTEM: [&str; 11] = [
    "/etc",
    "/proc",
    "/sys/class/net",
    "/sys/devices",
    "/run",
    "/usr/lib/ssl",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
    "/var/lib/ca-certificates",
    "/dev/null",
    "/dev/urandom",
];

/// Socket families in use: local, IPv4, IPv6, netlink.
const FAMILIES: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// System calls that are denied.
const DENIED: &[libc::c_long] = &[
    // Executing programs, and other processes' memory.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    // Changing the view of the file system.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    // Changing the machine.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    // Kernel interfaces with many vulnerabilities.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_personality,
    // Changing users.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
];

/// The files a daemon needs, by their folders.
#[derive(Debug, Default, PartialEq, Eq)]
struct Folders {
    read: BTreeSet<PathBuf>,
    write: BTreeSet<PathBuf>,
}

/// Gives up the rights that are not needed. `configuration` are the files it was read from.
pub(super) fn enter(configuration: &[PathBuf], boot: &Boot, live: &Live, zones: &Zones) {
    if boot.sandbox == Sandbox::Off {
        return info!("the sandbox is off (server.sandbox)");
    }
    let folders = Folders::of(configuration, boot, live, zones);
    let files = match restrict_files(&folders) {
        Ok(said) => said,
        Err(error) => format!("files are not restricted (Landlock: {error})"),
    };
    let calls = match restrict_calls() {
        Ok(()) => "system calls are restricted (seccomp)".to_owned(),
        Err(error) => format!("system calls are not restricted (seccomp: {error})"),
    };
    let cores = match forbid_core_dumps() {
        Ok(()) => "no core dumps".to_owned(),
        Err(error) => format!("core dumps are not forbidden ({error})"),
    };
    let line = format!("sandbox: {files}; {calls}; {cores}");
    if line.contains(" not ") { warn!("{line}") } else { info!("{line}") }
}

impl Folders {
    fn of(configuration: &[PathBuf], boot: &Boot, live: &Live, zones: &Zones) -> Self {
        let mut folders = Self::default();
        for path in configuration.iter().map(PathBuf::as_path).chain(zones.watch().files()).chain(live.hosts.as_deref())
        {
            folders.read_beside(path);
        }
        for local in &live.local {
            if let ZoneData::File(path) = &local.data {
                folders.read_beside(path);
            }
        }
        if let Some(certificate) = &live.certificate {
            folders.read_beside(&certificate.chain);
            folders.read_beside(&certificate.key);
        }
        live.cookie_secrets.iter().for_each(|secret| folders.read_beside(&secret.path));
        for group in &live.groups {
            group.ca.iter().for_each(|ca| folders.read_beside(&ca.path));
            for server in group.tiers.iter().flatten() {
                if let ServerAddress::System { path: Some(path) } = &server.address {
                    folders.read_beside(path);
                }
            }
        }
        let bundles = ["SSL_CERT_FILE", "SSL_CERT_DIR"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
        bundles.for_each(|path| folders.read_beside(&path.join("any")));
        folders.read.extend(SYSTEM.iter().map(PathBuf::from));
        for path in boot.snapshot.iter().chain(&boot.admin_socket) {
            folders.write.extend(beside(path));
        }
        folders.write.extend(boot.perimeter.iter().map(|record| record.folder.clone()));
        folders
    }

    fn read_beside(&mut self, path: &Path) {
        self.read.extend(beside(path));
    }
}

/// The folders of a file: that of its path, and that of a symlink's target. For a file in the root folder, the file
/// itself.
fn beside(path: &Path) -> Vec<PathBuf> {
    let folder = |path: &Path| match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => fs::canonicalize(".").ok(),
        Some(parent) if parent == Path::new("/") => Some(path.to_owned()),
        Some(parent) => Some(fs::canonicalize(parent).unwrap_or_else(|_| parent.to_owned())),
        None => None,
    };
    let target = fs::canonicalize(path).ok();
    [Some(path), target.as_deref()].into_iter().flatten().filter_map(folder).collect()
}

/// Restricts file access and returns how far the kernel supports it.
fn restrict_files(folders: &Folders) -> Result<String, RulesetError> {
    let read = make_bitflags!(AccessFs::{ReadFile | ReadDir});
    let write = make_bitflags!(AccessFs::{ReadFile | ReadDir | WriteFile | Truncate | MakeReg | MakeSock | RemoveFile});
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(ABI::V5))?
        .create()?
        .add_rules(path_beneath_rules(&folders.read, read))?
        .add_rules(path_beneath_rules(&folders.write, write))?
        .restrict_self()?;
    let version = match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => format!("Landlock ABI {}", effective_abi as i32),
        LandlockStatus::NotEnabled => "Landlock is switched off in this kernel".to_owned(),
        _ => "this kernel has no Landlock, or a container keeps it away".to_owned(),
    };
    if status.ruleset == RulesetStatus::NotEnforced {
        return Ok(format!("files are not restricted ({version})"));
    }
    files::confine(folders.read.union(&folders.write).cloned());
    let part = if status.ruleset == RulesetStatus::PartiallyEnforced { ", in part" } else { "" };
    Ok(format!("files are restricted to the folders of those in use ({version}{part})"))
}

fn restrict_calls() -> Result<(), seccompiler::Error> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = DENIED.iter().map(|&call| (call, Vec::new())).collect();
    let is_other = |family: i32| {
        let family = u64::from(family.unsigned_abs());
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, family)
    };
    let conditions = FAMILIES.into_iter().map(is_other).collect::<Result<Vec<_>, _>>()?;
    rules.insert(libc::SYS_socket, vec![SeccompRule::new(conditions)?]);
    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filter =
        SeccompFilter::new(rules, SeccompAction::Allow, refuse, TargetArch::try_from(std::env::consts::ARCH)?)?;
    seccompiler::apply_filter_all_threads(&BpfProgram::try_from(filter)?)
}

fn forbid_core_dumps() -> rustix::io::Result<()> {
    let maximum = getrlimit(Resource::Core).maximum;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
}
