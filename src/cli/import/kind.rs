//! Detects which server a configuration is for.

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

    /// The kind that most lines indicate.
    pub(super) fn of(text: &str) -> Option<Self> {
        let lower = text.to_ascii_lowercase();
        let is_windows = (lower.contains("zonename") && lower.contains("zonetype"))
            || lower.contains("enumerated zone list")
            || lower.contains("zone query result")
            || (lower.contains("useroothint") && lower.contains("ipaddress"));
        if is_windows {
            return Some(Self::Windows);
        }
        let mut votes = [(Self::Unbound, 0), (Self::Named, 0), (Self::Dnsmasq, 0), (Self::Corefile, 0)];
        for line in text.lines() {
            let line = line.trim();
            let voted = Self::of_line(line);
            votes.iter_mut().filter(|(kind, _)| voted == Some(*kind)).for_each(|(_, count)| *count += 1);
        }
        votes.into_iter().filter(|(_, count)| *count > 0).max_by_key(|(_, count)| *count).map(|(kind, _)| kind)
    }

    fn of_line(line: &str) -> Option<Self> {
        const PLUGINS: [&str; 12] = [
            "forward",
            "errors",
            "cache",
            "log",
            "health",
            "ready",
            "prometheus",
            "reload",
            "loop",
            "hosts",
            "file",
            "bind",
        ];
        let first = line.split_whitespace().next()?;
        if line.starts_with('#') || line.starts_with("//") {
            return None;
        }
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
            ("Dear colleague\n", None),
            ("", None),
        ] {
            assert_eq!(Kind::of(text), kind, "{text}");
        }
    }
}
