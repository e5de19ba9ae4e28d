//! Detects which server a configuration is for.

use std::net::IpAddr;

/// One line in so many must speak for the kind.
const ENOUGH: usize = 3;
const UNBOUND_SIGNS: [&str; 12] = [
    "server:",
    "forward-zone:",
    "stub-zone:",
    "auth-zone:",
    "view:",
    "rpz:",
    "remote-control:",
    "include:",
    "include-toplevel:",
    "local-zone:",
    "local-data:",
    "forward-addr:",
];
const NAMED_SIGNS: [&str; 8] = ["options", "zone", "acl", "view", "logging", "include", "forwarders", "controls"];
const DNSMASQ_SIGNS: [&str; 20] = [
    "server",
    "local",
    "rev-server",
    "address",
    "host-record",
    "cname",
    "ptr-record",
    "listen-address",
    "addn-hosts",
    "no-resolv",
    "no-hosts",
    "resolv-file",
    "expand-hosts",
    "conf-dir",
    "conf-file",
    "servers-file",
    "domain-needed",
    "bogus-priv",
    "cache-size",
    "interface",
];
/// Plugins of CoreDNS.
const PLUGINS: [&str; 12] =
    ["forward", "errors", "cache", "log", "health", "ready", "prometheus", "reload", "loop", "hosts", "file", "bind"];

/// A server whose configuration can be imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Kind {
    /// unbound.conf
    Unbound,
    /// named.conf of BIND
    Named,
    /// dnsmasq.conf
    Dnsmasq,
    /// A Corefile of CoreDNS
    Corefile,
    /// Get-DnsServerZone, Get-DnsServerForwarder, dnscmd
    Windows,
}

impl Kind {
    pub(super) const fn describe(self) -> &'static str {
        match self {
            Self::Unbound => "unbound.conf",
            Self::Named => "named.conf",
            Self::Dnsmasq => "dnsmasq.conf",
            Self::Corefile => "Corefile",
            Self::Windows => "export of Windows DNS",
        }
    }

    /// The kind that most lines indicate; none where too few do, as in a text that only mentions such a server.
    pub(super) fn of(text: &str) -> Option<Self> {
        let lower = text.to_ascii_lowercase();
        let is_windows = (lower.contains("zonename") && lower.contains("zonetype"))
            || lower.contains("enumerated zone list")
            || lower.contains("zone query result")
            || (lower.contains("useroothint") && lower.contains("ipaddress"));
        if is_windows {
            return Some(Self::Windows);
        }
        let kinds = [Self::Unbound, Self::Named, Self::Dnsmasq, Self::Corefile];
        let mut votes = kinds.map(|kind| (kind, 0_usize));
        let mut lines = 0_usize;
        let mut is_comment = false;
        for line in text.lines().map(str::trim) {
            is_comment |= line.starts_with("/*");
            if is_comment {
                is_comment = !line.ends_with("*/");
                continue;
            }
            if line.is_empty() || line.starts_with(['#', '}']) || line.starts_with("//") || is_host(line) {
                continue;
            }
            lines += 1;
            let voted = Self::of_line(line);
            votes.iter_mut().filter(|(kind, _)| voted == Some(*kind)).for_each(|(_, count)| *count += 1);
        }
        // Any text has a line that could be anybody's.
        let (kind, count) = votes.into_iter().max_by_key(|(_, count)| *count)?;
        (count * ENOUGH >= lines && count > 0 && kind.has_sign(text)).then_some(kind)
    }

    /// Whether some line could hardly stand in anything else.
    fn has_sign(self, text: &str) -> bool {
        let mut lines = text.lines().map(str::trim);
        let first = |line: &str| line.split([' ', '\t', '=', '{', ';']).next().unwrap_or_default().to_owned();
        let mut begins = |words: &[&str]| lines.any(|line| words.contains(&first(line).as_str()));
        match self {
            Self::Unbound => begins(&UNBOUND_SIGNS),
            Self::Named => begins(&NAMED_SIGNS),
            Self::Dnsmasq => begins(&DNSMASQ_SIGNS),
            Self::Corefile => begins(&PLUGINS) && text.lines().any(|line| line.trim_end().ends_with('{')),
            Self::Windows => true,
        }
    }

    fn of_line(line: &str) -> Option<Self> {
        let first = line.split_whitespace().next()?;
        if line.ends_with(';')
            || matches!(first, "options" | "zone" | "acl" | "view" | "logging") && line.ends_with('{')
        {
            return Some(Self::Named);
        }
        let is_key = |word: &str| word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if first.split_once(':').is_some_and(|(name, _)| name.len() > 2 && is_key(name)) && !line.ends_with('{') {
            return Some(Self::Unbound);
        }
        if line.split_once('=').is_some_and(|(name, _)| is_key(name.trim()))
            || first == line && first.contains('-') && is_key(first)
        {
            return Some(Self::Dnsmasq);
        }
        (line.ends_with('{') || PLUGINS.contains(&first)).then_some(Self::Corefile)
    }
}

/// A line of a hosts file, which a Corefile may hold.
fn is_host(line: &str) -> bool {
    line.split_whitespace().next().is_some_and(|word| word.parse::<IpAddr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_is_told_from_the_content() {
        for (text, kind) in [
            (
                "server:\n  interface: 10.0.0.1\nforward-zone:\n name: \".\"\n forward-addr: 10.0.0.1\n",
                Some(Kind::Unbound),
            ),
            ("// c\noptions {\n  forwarders { 10.0.0.1; };\n};\n", Some(Kind::Named)),
            ("# c\nno-resolv\nserver=/a.example/10.0.0.1\n", Some(Kind::Dnsmasq)),
            (".:53 {\n  forward . 10.0.0.1\n  cache\n}\n", Some(Kind::Corefile)),
            ("\"ZoneName\",\"ZoneType\"\r\n\"a.example\",\"Forwarder\"\r\n", Some(Kind::Windows)),
            (
                ".:53 {\n  hosts {\n10.0.0.1 a.example\n10.0.0.2 b.example\n  fallthrough\n  }\n}\n",
                Some(Kind::Corefile),
            ),
            ("/*\nA long\nintroduction\nin words\n*/\nzone \"a.example\" {\n};\n", Some(Kind::Named)),
            ("Dear colleague\n", None),
            ("# Title\nSet\n\nserver=/a.example/10.0.0.1\n\nor so,\nas anybody\nwould do\n", None),
            ("[package]\nname = \"x\"\nversion = \"1\"\n", None),
            ("use std::io;\nfn main() {\n  run();\n}\n", None),
            ("root:x:0:0::/root:/bin/sh\n", None),
            ("{\n  \"panels\": {\n  }\n}\n", None),
            ("", None),
        ] {
            assert_eq!(Kind::of(text), kind, "{text}");
        }
    }
}
