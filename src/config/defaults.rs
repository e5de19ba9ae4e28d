//! Every key and its true default, as TOML: what a file that says nothing but where to forward means.

use std::fmt::{Display, Write};

use super::{
    group::Group,
    limits,
    plan::{Boot, Live, Plan, Rule, SpecialNames, WhenDown, Workers},
    units::{show_duration, show_size},
};

/// The smallest file. Its one upstream and one rule show the defaults of every other.
const SMALLEST: &str = "[upstream.NAME]\nservers = [\"192.0.2.1\"]\n[[forward]]\nzones = [\".\"]\nto = \"NAME\"\n";

/// Every key that has a default, with it, as TOML.
pub fn defaults() -> String {
    let plan = Plan::from_text("defaults", SMALLEST).expect("the smallest file is valid");
    let Plan { boot, live, .. } = &plan;
    let mut page = Page::default();
    page.list("include", &[]);
    server(&mut page, boot, live);
    bounds(&mut page, boot, live);
    cache(&mut page, boot, live);
    operators(&mut page, boot, live);
    for group in &live.groups {
        upstream(&mut page, group);
    }
    for rule in &live.rules {
        forward(&mut page, rule);
    }
    page.table("[local_hosts]");
    page.text("file", path(live.hosts.as_ref()));
    page.table("[special]");
    page.bare("enabled", live.special == SpecialNames::AnsweredHere);
    page.0
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn table(&mut self, header: &str) {
        let _ = write!(self.0, "\n{header}\n");
    }

    fn bare(&mut self, key: &str, value: impl Display) {
        let _ = writeln!(self.0, "{key} = {value}");
    }

    fn text(&mut self, key: &str, value: impl Display) {
        let _ = writeln!(self.0, "{key} = {:?}", value.to_string());
    }

    fn list(&mut self, key: &str, values: &[String]) {
        let _ = writeln!(self.0, "{key} = {values:?}");
    }
}

fn server(page: &mut Page, boot: &Boot, live: &Live) {
    page.table("[server]");
    page.list("listen", &boot.listen.iter().map(|listen| listen.endpoint.to_string()).collect::<Vec<_>>());
    page.bare("freebind", boot.freebind);
    page.list("allow", &limits::ALLOW.map(str::to_owned));
    page.list("deny", &live.access.deny.iter().map(ToString::to_string).collect::<Vec<_>>());
    match boot.workers {
        Workers::Auto => page.text("workers", "auto"),
        Workers::Count(count) => page.bare("workers", count),
    }
    page.bare("udp_payload", live.udp_payload);
    page.text("deadline", show_duration(live.deadline));
    page.text("lameduck", show_duration(live.lameduck));
    page.list("proxy_protocol", &live.balancers.iter().map(ToString::to_string).collect::<Vec<_>>());
    let secrets = live.cookie_secrets.iter().map(|secret| secret.path.display().to_string());
    page.list("cookie_secrets", &secrets.collect::<Vec<_>>());
    page.text("chaos", live.chaos.as_deref().unwrap_or_default());
    page.text("sandbox", limits::SANDBOX.word(&boot.sandbox));
    page.table("[server.tls]");
    for key in ["tls", "https", "quic"] {
        page.list(key, &[]);
    }
    for key in ["certificate", "key"] {
        page.text(key, "");
    }
}

fn bounds(page: &mut Page, boot: &Boot, live: &Live) {
    page.table("[limits]");
    page.bare("client_qps", limits::CLIENT_QPS.default);
    page.bare("client_burst", limits::CLIENT_BURST.default);
    page.list("exempt", &[]);
    page.bare("tcp_connections", boot.streams.connections);
    page.bare("tcp_per_client", boot.streams.per_client);
    page.bare("pipeline", boot.streams.pipeline);
    page.text("tcp_idle", show_duration(boot.streams.idle));
    page.bare("in_flight", live.in_flight);
}

fn cache(page: &mut Page, boot: &Boot, live: &Live) {
    let cache = &live.cache;
    page.table("[cache]");
    page.text("size", show_size(boot.cache_size));
    for (key, duration) in [
        ("min_ttl", cache.min_ttl),
        ("max_ttl", cache.max_ttl),
        ("negative_ttl", cache.negative_ttl),
        ("no_soa_ttl", cache.no_soa_ttl),
        ("failure_ttl", cache.failure_ttl),
        ("stale", cache.stale),
        ("stale_after", cache.stale_after),
        ("stale_ttl", cache.stale_ttl),
    ] {
        page.text(key, show_duration(duration));
    }
    page.bare("prefetch", cache.prefetch);
    page.bare("rotate", cache.rotate);
    page.text("snapshot", "");
}

fn operators(page: &mut Page, boot: &Boot, live: &Live) {
    page.table("[admin]");
    page.text("http", boot.admin_http.as_ref().map(ToString::to_string).unwrap_or_default());
    page.list("allow", &limits::ADMIN_ALLOW.map(str::to_owned));
    page.list("hosts", &live.admin.hosts);
    page.text("socket", path(boot.admin_socket.as_ref()));
    page.table("[log]");
    page.text("level", limits::LOG_LEVEL.word(&live.log_level));
    page.text("format", limits::LOG_FORMAT.word(&boot.log_format));
    page.text("queries", "off");
    page.bare("sample", format!("{:?}", limits::LOG_SAMPLE.default));
    page.text("dnstap", "");
    page.text("otlp", "");
}

fn upstream(page: &mut Page, group: &Group) {
    page.table(&format!("[upstream.{}]", group.name));
    page.list("backup", &[]);
    page.text("policy", limits::POLICY.word(&group.policy));
    page.text("timeout", show_duration(group.timeout));
    page.bare("attempts", group.attempts);
    page.bare("hedge", group.hedge.is_some());
    page.bare("hedge_budget", group.hedge.map_or(0.0, super::group::Share::fraction));
    page.bare("max_qps", group.max_qps.map_or(0, std::num::NonZeroU32::get));
    page.bare("in_flight", group.in_flight);
    page.bare("connections", group.connections);
    let way = group.tiers.first().and_then(|tier| tier.first()).map(|server| server.path.clone()).unwrap_or_default();
    page.text("source", way.source.map(|source| source.to_string()).unwrap_or_default());
    page.text("device", way.device.unwrap_or_default());
    page.bare("mark", way.mark);
    page.bare("source_ports", group.source_ports);
    page.bare("mix_case", group.mix_case);
    page.text("fail_back", show_duration(group.fail_back));
    page.text("ca", path(group.ca.as_ref().map(|ca| &ca.path)));
    page.table(&format!("[upstream.{}.health]", group.name));
    page.text("probe", "");
    page.list("expect", &group.health.expect.iter().map(ToString::to_string).collect::<Vec<_>>());
    page.text("interval", show_duration(group.health.interval));
    page.text("interval_down", show_duration(group.health.interval_down));
    page.bare("fall", group.health.fall);
    page.bare("rise", group.health.rise);
}

fn forward(page: &mut Page, rule: &Rule) {
    page.table("[[forward]]");
    page.list("clients", &rule.clients.iter().map(ToString::to_string).collect::<Vec<_>>());
    let guarded = rule.guard.iter().flat_map(|guard| &guard.networks);
    page.list("private", &guarded.map(ToString::to_string).collect::<Vec<_>>());
    page.list("except", &rule.except.iter().map(ToString::to_string).collect::<Vec<_>>());
    page.text("rebind", limits::REBIND.word(&rule.rebind));
    page.text("negative_ttl", show_duration(rule.negative_ttl));
    page.text(
        "when_down",
        match rule.when_down {
            WhenDown::Stale => "stale",
            WhenDown::Fail => "fail",
            WhenDown::Upstream(_) => "upstream",
        },
    );
    page.text("aaaa", limits::AAAA.word(&rule.aaaa));
    page.bare("follow", rule.follow);
}

fn path(path: Option<&std::path::PathBuf>) -> String {
    path.map(|path| path.display().to_string()).unwrap_or_default()
}
