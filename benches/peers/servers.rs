//! Who takes part, how each is started, and with which file. The reasons for each setting stand in the files.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// A server that takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// What it is called here.
    pub(crate) name: &'static str,
    /// Its program.
    pub(crate) program: Program,
    /// The package it comes from, of Debian or the Rust registry.
    pub(crate) package: &'static str,
    /// Its arguments; `@CONFIG@`, `@DIR@`, `@PORT@` and `@UPSTREAM@` are filled in, in files also `@ENTRIES@`, `@CACHE@`
    /// (MiB) and `@HALF@` of it.
    pub(crate) arguments: &'static [&'static str],
    /// Its configuration, with the same to fill in; empty for none.
    pub(crate) config: &'static str,
    /// Room for every workload but those of a small cache, in MiB.
    pub(crate) cache: u32,
    /// What it is in the contest.
    pub(crate) role: Role,
}

/// Which program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// One that is installed.
    Installed(&'static str),
    /// Ourselves.
    This,
    /// The server this harness belongs to.
    Tidegate,
}

/// What a server is compared as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The one whose figures are wanted.
    Subject,
    /// Another server.
    Peer,
    /// System calls alone.
    Floor,
}

const fn peer(
    name: &'static str,
    program: &'static str,
    package: &'static str,
    arguments: &'static [&'static str],
    config: &'static str,
) -> Entry {
    Entry { name, program: Program::Installed(program), package, arguments, config, cache: 1000, role: Role::Peer }
}

/// All of them, in the order they take turns.
pub(crate) const ALL: [Entry; 11] = [
    Entry {
        name: "reflector",
        program: Program::This,
        package: "",
        arguments: &["reflect", "--listen", "127.0.0.1:@PORT@"],
        config: "",
        cache: 0,
        role: Role::Floor,
    },
    Entry {
        name: "relay",
        program: Program::This,
        package: "",
        arguments: &["relay", "--listen", "127.0.0.1:@PORT@", "--upstream", "127.0.0.1:@UPSTREAM@"],
        config: "",
        cache: 0,
        role: Role::Floor,
    },
    Entry {
        name: "tidegate",
        program: Program::Tidegate,
        package: "",
        arguments: &["serve", "--config", "@CONFIG@"],
        config: include_str!("config/tidegate.toml"),
        cache: 512,
        role: Role::Subject,
    },
    peer(
        "dnsdist",
        "dnsdist",
        "dnsdist",
        &["--supervised", "--disable-syslog", "-C", "@CONFIG@"],
        include_str!("config/dnsdist.conf"),
    ),
    peer("unbound", "unbound", "unbound", &["-d", "-c", "@CONFIG@"], include_str!("config/unbound.conf")),
    peer("bind", "named", "bind9", &["-g", "-n", "1", "-c", "@CONFIG@"], include_str!("config/named.conf")),
    peer("dnsmasq", "dnsmasq", "dnsmasq-base", &["-k", "-C", "@CONFIG@"], include_str!("config/dnsmasq.conf")),
    peer(
        "recursor",
        "pdns_recursor",
        "pdns-recursor",
        &["--config-dir=@DIR@", "--socket-dir=@DIR@"],
        include_str!("config/recursor.conf"),
    ),
    peer(
        "knot-resolver",
        "kresd",
        "knot-resolver",
        &["-n", "-q", "-c", "@CONFIG@", "@DIR@"],
        include_str!("config/kresd.conf"),
    ),
    peer(
        "smartdns",
        "smartdns",
        "smartdns",
        &["-f", "-c", "@CONFIG@", "-p", "@DIR@/pid"],
        include_str!("config/smartdns.conf"),
    ),
    // Of the Rust registry: benches/peers/run installs it.
    peer(
        "hickory-dns",
        "hickory-dns",
        "hickory-dns",
        &["--quiet", "--workers", "1", "--config", "@CONFIG@"],
        include_str!("config/hickory-dns.toml"),
    ),
];

impl Entry {
    /// Where its program is, if it is anywhere.
    pub(crate) fn locate(&self) -> Option<PathBuf> {
        match self.program {
            Program::This => env::current_exe().ok(),
            // target/release/examples/peers stands beside target/release/tidegate.
            Program::Tidegate => Some(env::current_exe().ok()?.parent()?.parent()?.join("tidegate")),
            Program::Installed(program) => search(program),
        }
        .filter(|path| path.is_file())
    }

    /// Its configuration for a server that has nothing to do but its probes, where it has any.
    pub(crate) fn idle_config(&self) -> Option<&'static str> {
        match self.name {
            "tidegate" => Some(include_str!("config/idle.toml")),
            "dnsdist" => Some(include_str!("config/idle.dnsdist")),
            _ => None,
        }
    }

    /// The resident bytes of a name in its cache, as workload W measured them: for files that count entries.
    pub(crate) fn bytes_a_name(&self) -> u32 {
        match self.name {
            "dnsdist" => 381,
            "smartdns" => 544,
            "recursor" => 1143,
            "hickory-dns" => 1244,
            "dnsmasq" => 2064,
            _ => 131,
        }
    }

    /// What its configuration file is called; the Recursor wants a name of its own.
    pub(crate) fn config_name(&self) -> &'static str {
        match self.name {
            "tidegate" => "tidegate.toml",
            "recursor" => "recursor.conf",
            _ => "config",
        }
    }

    /// Its version, as it says itself.
    pub(crate) fn version(&self, program: &Path) -> String {
        let argument = match self.name {
            "reflector" | "relay" => return String::new(),
            "bind" | "dnsmasq" | "smartdns" => "-v",
            "unbound" | "knot-resolver" => "-V",
            _ => "--version",
        };
        let Ok(output) = Command::new(program).arg(argument).output() else { return String::new() };
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        // The first word with a digit before a dot and one behind it, but no date and no path.
        let is_version = |word: &&str| {
            word.split_once('.').is_some_and(|(major, minor)| {
                major.ends_with(|c: char| c.is_ascii_digit())
                    && minor.starts_with(|c: char| c.is_ascii_digit())
                    && !word.contains(['/', ':'])
            })
        };
        text.split_whitespace().find(is_version).unwrap_or_default().to_owned()
    }
}

fn search(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(system).map(|directory| directory.join(program)).find(|path| path.is_file())
}
