//! The settings of the process itself: listeners, limits, cache, admin, log, special names.

use std::path::PathBuf;

use super::{
    super::{
        address::{Address, Endpoint, port_behind_colon},
        file::{
            ADMIN_ALLOW, ADMIN_HTTP, ALLOW, CHAOS, CONTROL_SOCKET, COOKIE_SECRETS, File, LISTEN, ServerSection, Text,
            Texts,
        },
        plan::{
            AccessPlan, AdminAccess, Boot, CachePolicy, CookieSecret, Listen, Need, PerimeterRecord, SpecialNames,
            StreamLimits,
        },
    },
    Builder, section,
};
use crate::{dnstap::DnstapTarget, files, otlp::OtlpTarget, system_error::SystemError};

const DNS_PORT: u16 = 53;
const ADMIN_PORT: u16 = 9153;

impl Builder<'_> {
    pub(super) fn boot(&mut self, file: &File) -> Boot {
        let server = section(file.server.as_ref());
        let bounds = section(file.limits.as_ref());
        let cache = section(file.cache.as_ref());
        let admin = section(file.admin.as_ref());
        let log = section(file.log.as_ref());
        let perimeter = section(file.perimeter.as_ref());
        Boot {
            listen: self.listen(server.listen.as_ref()),
            tls: self.encrypted(&server, "tls"),
            https: self.https(&server),
            quic: self.encrypted(&server, "quic"),
            freebind: server.freebind(),
            workers: server.workers(),
            streams: StreamLimits {
                connections: bounds.tcp_connections(),
                per_client: bounds.tcp_per_client(),
                pipeline: bounds.pipeline(),
                idle: bounds.tcp_idle(),
            },
            cache_size: cache.size(),
            snapshot: self.snapshot(cache.snapshot.as_ref()),
            perimeter: self
                .path(perimeter.record.as_ref())
                .map(|folder| PerimeterRecord { folder, keep: perimeter.keep() }),
            admin_http: self.admin_http(admin.http.as_ref()),
            admin_socket: match &admin.socket {
                Some(_) => self.path(admin.socket.as_ref()),
                None => Some(CONTROL_SOCKET.into()),
            },
            log_format: log.format(),
            dnstap: self.dnstap(log.dnstap.as_ref()),
            otlp: self.otlp(log.otlp.as_ref()),
            sandbox: server.sandbox(),
        }
    }

    /// Where traces go.
    fn otlp(&mut self, text: Option<&Text>) -> Option<OtlpTarget> {
        let text = text.filter(|text| !text.value.is_empty())?;
        if cfg!(not(feature = "otlp")) {
            let message = "this build of tidegate sends no traces: it was made without the feature otlp";
            self.problem_with_help(&text.place, message, "take another build, or leave otlp out");
            return None;
        }
        match text.value.parse() {
            Ok(target) => Some(target),
            Err(error) => {
                let message = format!("otlp \"{}\" cannot be used: {error}", text.value);
                self.problem_with_help(
                    &text.place,
                    message,
                    "write \"http://127.0.0.1:4318\" or \"http://[::1]:4318\"",
                );
                None
            }
        }
    }

    /// Where dnstap messages go.
    fn dnstap(&mut self, text: Option<&Text>) -> Option<DnstapTarget> {
        let text = text.filter(|text| !text.value.is_empty())?;
        if let Some(path) = text.value.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            let path = Text::new(path.to_owned(), text.place);
            return self.path(Some(&path)).map(DnstapTarget::Unix);
        }
        let address = text.value.strip_prefix("tcp:").and_then(|address| address.parse().ok());
        if address.is_none() {
            let help = "write \"unix:/run/dnstap.sock\", \"tcp:127.0.0.1:6000\" or \"tcp:[::1]:6000\"; a host is given by its \
                        address, since its name may need this server";
            self.problem_with_help(&text.place, format!("dnstap \"{}\" is no collector", text.value), help);
        }
        address.map(DnstapTarget::Tcp)
    }

    fn listen(&mut self, texts: Option<&Texts>) -> Vec<Listen> {
        let Some(texts) = texts else {
            let default = LISTEN.iter().filter_map(|text| Endpoint::parse(text, DNS_PORT).ok());
            return default.map(|endpoint| Listen { need: need(&endpoint.address), endpoint }).collect();
        };
        if texts.value.is_empty() {
            let help = "name an address, or leave the key out for 127.0.0.1 and ::1";
            self.problem_with_help(&texts.place, "listen names no address", help);
        }
        let mut listen: Vec<Listen> = Vec::new();
        for text in &texts.value {
            let Some(endpoint) = self.listener(text, "listen", DNS_PORT) else { continue };
            if endpoint.port != 0 && listen.iter().any(|known| known.endpoint == endpoint) {
                self.problem(&text.place, format!("listen names {endpoint} twice"));
                continue;
            }
            listen.push(Listen { endpoint, need: Need::Required });
        }
        listen
    }

    /// The snapshot file, which need not exist yet.
    fn snapshot(&mut self, text: Option<&Text>) -> Option<PathBuf> {
        let path = self.path(text)?;
        let Some(text) = text else { return Some(path) };
        match files::require_replaceable(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => {
                let message = format!("snapshot \"{}\" cannot be used: {}", text.value, SystemError(&error));
                self.problem_with_help(&text.place, message, "name a file; it is made where there is none");
                None
            }
            // Other errors are reported when it is written: the folder may come later.
            Ok(()) | Err(_) => Some(path),
        }
    }

    pub(super) fn listener(&mut self, text: &Text, key: &str, port: u16) -> Option<Endpoint> {
        let message = match Endpoint::parse(&text.value, port) {
            Ok(endpoint) if !endpoint.address.ip.is_multicast() => {
                self.warn_of_meant_port(&text.place, &text.value);
                return Some(endpoint);
            }
            Ok(_) => format!("{key} \"{}\" is a multicast address", text.value),
            Err(error) => match port_behind_colon(&text.value) {
                Some(meant) => format!("{key} \"{}\": a port stands behind a colon: write \"{meant}\"", text.value),
                None => format!("{key} \"{}\" is no address to listen on: {error}", text.value),
            },
        };
        let help = format!("write \"127.0.0.1:{port}\", \"[::1]:{port}\", \"0.0.0.0:{port}\" or \"[::]:{port}\"");
        self.problem_with_help(&text.place, message, help);
        None
    }

    fn admin_http(&mut self, text: Option<&Text>) -> Option<Endpoint> {
        match text {
            Some(text) if !text.value.is_empty() => self.listener(text, "http", ADMIN_PORT),
            _ => admin_http(text),
        }
    }

    pub(super) fn access(&mut self, server: &ServerSection) -> AccessPlan {
        AccessPlan { allow: self.clients(server.allow.as_ref(), ALLOW), deny: self.clients(server.deny.as_ref(), &[]) }
    }

    /// Reads the secret files, newest first.
    pub(super) fn cookie_secrets(&mut self, texts: Option<&Texts>) -> Vec<CookieSecret> {
        let Some(texts) = texts else { return Vec::new() };
        let most = COOKIE_SECRETS;
        if texts.value.len() > most {
            let message = format!("cookie_secrets names {} files, and takes {most} at most", texts.value.len());
            self.problem(&texts.place, message);
        }
        let mut secrets: Vec<CookieSecret> = Vec::new();
        for text in texts.value.iter().take(most) {
            let Some(secret) = self.cookie_secret(text) else { continue };
            if secrets.iter().any(|known| known.secret == secret.secret) {
                self.problem(&text.place, format!("cookie secret \"{}\" stands there twice", text.value));
                continue;
            }
            secrets.push(secret);
        }
        secrets
    }

    fn cookie_secret(&mut self, text: &Text) -> Option<CookieSecret> {
        let path = self.beside(&text.place, &text.value);
        let problem = match files::read_to_string(&path) {
            Ok(content) => match content.trim().parse() {
                Ok(secret) => return Some(CookieSecret { path, secret }),
                Err(error) => format!("\"{}\" holds no cookie secret: {error}", text.value),
            },
            Err(error) => format!("cookie secret \"{}\" cannot be read: {}", text.value, SystemError(&error)),
        };
        self.problem_with_help(&text.place, problem, "make one with: openssl rand -hex 16");
        None
    }

    pub(super) fn chaos(&mut self, text: Option<&Text>) -> Option<String> {
        let text = text.filter(|text| !text.value.is_empty())?;
        let (length, most) = (text.value.len(), CHAOS);
        if length > most {
            self.problem(&text.place, format!("chaos has {length} octets, and a TXT record takes {most}"));
            return None;
        }
        Some(text.value.clone())
    }

    pub(super) fn cache_policy(&mut self, file: &File) -> CachePolicy {
        let cache = section(file.cache.as_ref());
        let policy = CachePolicy {
            min_ttl: cache.min_ttl(),
            max_ttl: cache.max_ttl(),
            negative_ttl: cache.negative_ttl(),
            no_soa_ttl: cache.no_soa_ttl(),
            failure_ttl: cache.failure_ttl(),
            stale: cache.stale(),
            stale_after: cache.stale_after(),
            stale_ttl: cache.stale_ttl(),
            prefetch: cache.prefetch(),
            rotate: cache.rotate(),
        };
        if policy.min_ttl > policy.max_ttl {
            let written = cache.min_ttl.as_ref().or(cache.max_ttl.as_ref());
            if let Some(place) = written.map(|ttl| ttl.place) {
                self.problem(&place, "min_ttl is longer than max_ttl");
            }
        }
        policy
    }

    pub(super) fn admin_access(&mut self, file: &File) -> AdminAccess {
        let admin = section(file.admin.as_ref());
        let mut hosts = Vec::new();
        for host in admin.hosts.iter().flat_map(|hosts| &hosts.value) {
            let odd = |letter: char| letter.is_whitespace() || letter.is_control() || letter == '/';
            if host.value.is_empty() || host.value.contains(odd) {
                self.problem(&host.place, format!("hosts: \"{}\" is no name of a host", host.value));
                continue;
            }
            hosts.push(host.value.to_ascii_lowercase());
        }
        AdminAccess { allow: self.clients(admin.allow.as_ref(), ADMIN_ALLOW), hosts }
    }
}

/// The address of the operators' HTTP; none if it is off or wrong.
pub(in crate::config) fn admin_http(text: Option<&Text>) -> Option<Endpoint> {
    let text = text.map_or(ADMIN_HTTP, |text| &text.value);
    Endpoint::parse(text, ADMIN_PORT).ok()
}

/// Only IPv6 may be missing on a host.
const fn need(address: &Address) -> Need {
    if address.ip.is_ipv6() { Need::IfSupported } else { Need::Required }
}

pub(super) fn special(file: &File) -> SpecialNames {
    match section(file.special.as_ref()).enabled() {
        true => SpecialNames::AnsweredHere,
        false => SpecialNames::Forwarded,
    }
}
