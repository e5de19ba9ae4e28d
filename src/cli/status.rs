//! `tidegate status`: the running daemon at one glance, over its control socket, or else its HTTP.

use super::{
    control, duration,
    output::{ERR, OUT},
};
use crate::{
    admin::{
        status::{GroupStatus, NameStatus, ServerStatus, Status},
        top::Top,
    },
    clock,
    plural::Plural,
};

/// What to show.
#[derive(Debug, clap::Args)]
#[group(id = "status")]
pub(super) struct Options {
    /// Says "live" or "dead": whether the process answers DNS
    #[arg(long, conflicts_with_all = ["ready", "json"])]
    live: bool,
    /// Says "ready" or "unready": whether queries are welcome, and every upstream group has a usable server, which the
    /// page /readyz does not ask for
    #[arg(long, conflicts_with = "json")]
    ready: bool,
    #[command(flatten)]
    source: Source,
}

/// The source of the status.
#[derive(Debug, clap::Args)]
#[group(id = "status-source")]
pub(super) struct Source {
    /// Where the daemon's `admin.http` is, to ask there and not over the control socket; without one that answers,
    /// TIDEGATE_ADMIN or the configuration says where
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    #[command(flatten)]
    pub(super) daemon: control::Options,
}

/// Exit code 0 = all is well, 1 = something is wrong, or no daemon was reached.
pub(super) fn run(options: &Options) -> i32 {
    if options.live {
        let is_live = options.source.fetch("/healthz").is_ok_and(|(code, _)| code == 200);
        return word(is_live, "live", "dead");
    }
    let status = options.source.status();
    if options.ready {
        let why = match &status {
            Ok((status, _)) => unready(status),
            Err(error) => vec![error.to_string()],
        };
        why.iter().for_each(|reason| writeln!(ERR, "tidegate: {reason}"));
        return word(why.is_empty(), "ready", "unready");
    }
    let (status, text) = match status {
        Ok(status) => status,
        Err(error) => {
            writeln!(ERR, "tidegate: {error}");
            return super::FAILED;
        }
    };
    if options.source.daemon.json {
        writeln!(OUT, "{}", text.trim_end());
    } else {
        write!(OUT, "{}", screen(&status, clock::wall().as_secs()));
    }
    if status.health.is_wrong() { super::FAILED } else { super::OK }
}

fn word(is_so: bool, yes: &str, no: &str) -> i32 {
    writeln!(OUT, "{}", if is_so { yes } else { no });
    if is_so { super::OK } else { super::FAILED }
}

/// Why the daemon is not ready; empty if it is.
fn unready(status: &Status) -> Vec<String> {
    let bare = status.groups.iter().filter(|group| group.usable == 0);
    let mut reasons = status.reasons.clone();
    reasons.extend(bare.map(|group| format!("upstream {}: {}", group.name, group.words)));
    if reasons.is_empty() && !status.ready {
        reasons.push("queries are not welcome yet".to_owned());
    }
    reasons
}

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
pub(super) enum StatusError {
    #[error(transparent)]
    Daemon(#[from] control::DaemonError),
    #[error("the daemon answered with {0}, and no status; is it older than this program?")]
    NoStatus(u16),
}

impl Source {
    /// The parsed status, and its text.
    pub(super) fn status(&self) -> Result<(Status, String), StatusError> {
        let (code, text) = self.fetch("/v1/status")?;
        match serde_json::from_str(&text) {
            Ok(status) if code == 200 => Ok((status, text)),
            _ => Err(StatusError::NoStatus(code)),
        }
    }

    /// The parsed document of `/api/v1/top`; an empty one from a daemon that is older than it.
    pub(super) fn top(&self) -> Result<Top, StatusError> {
        match self.fetch("/v1/top")? {
            (404, _) => Ok(Top::default()),
            (code, text) => serde_json::from_str(&text).map_err(|_| StatusError::NoStatus(code)),
        }
    }

    fn fetch(&self, path: &str) -> Result<(u16, String), control::DaemonError> {
        self.daemon.get(self.admin.as_deref(), path)
    }
}

fn screen(status: &Status, now: u64) -> String {
    let mut text = String::new();
    let wrong = status.findings.iter().filter(|finding| finding.severity.is_wrong()).count();
    match wrong {
        0 => text += "all is well\n",
        1 => text += "one thing is wrong\n",
        wrong => line(&mut text, format_args!("{wrong} things are wrong")),
    }
    for finding in &status.findings {
        line(&mut text, format_args!("  {:<8} {}", finding.severity.to_string(), finding.text));
    }
    text.push('\n');
    let up = duration::rough(status.uptime);
    line(
        &mut text,
        format_args!(
            "tidegate {} ({}), up {up}, since {}",
            status.version,
            status.revision,
            duration::utc(status.started)
        ),
    );
    line(&mut text, format_args!("answers on {}; {}", status.listen.join(", "), Plural(status.workers, "worker")));
    configuration(&mut text, status, now);
    traffic(&mut text, status);
    for group in &status.groups {
        text.push('\n');
        self::group(&mut text, group);
    }
    text
}

fn configuration(text: &mut String, status: &Status, now: u64) {
    let configuration = &status.configuration;
    let last = configuration.last_reload.as_ref().map_or_else(
        || "not reloaded since the start".to_owned(),
        |last| {
            let ago = duration::rough(now.saturating_sub(last.at));
            format!("last reload {ago} ago, {}", if last.success { "in force" } else { "refused" })
        },
    );
    line(text, format_args!("configuration {}, {last}", configuration.hash));
    for problem in configuration.last_reload.iter().filter(|last| !last.success).flat_map(|last| &last.lines) {
        line(text, format_args!("  {problem}"));
    }
}

fn traffic(text: &mut String, status: &Status) {
    let queries: u64 = status.queries.values().sum();
    let dropped: u64 = status.dropped.values().sum();
    let used = status.queries.iter().filter(|(_, count)| **count > 0);
    let by: Vec<String> = used.map(|(transport, count)| format!("{transport} {count}")).collect();
    let by = if by.is_empty() { String::new() } else { format!(" ({})", by.join(", ")) };
    let hits =
        status.cache.hit_ratio.map_or_else(|| "no hits yet".into(), |ratio| format!("{:.1} % hits", 100.0 * ratio));
    line(
        text,
        format_args!(
            "{}{by}, {hits}, {dropped} dropped, {} in flight, {}",
            Plural(queries, "query"),
            status.in_flight,
            Plural(status.connections, "connection")
        ),
    );
    let guard: Vec<String> = status
        .guard
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(action, count)| format!("{action} {count}"))
        .collect();
    if !guard.is_empty() {
        line(text, format_args!("answers that the guard objected to: {}", guard.join(", ")));
    }
    let cache = &status.cache;
    line(
        text,
        format_args!(
            "cache: {}, {} of {} MiB",
            Plural(cache.entries, "entry"),
            cache.bytes.div_ceil(1 << 20),
            cache.capacity.div_ceil(1 << 20)
        ),
    );
}

fn group(text: &mut String, group: &GroupStatus) {
    line(text, format_args!("upstream {} ({}): {}", group.name, group.policy, group.words));
    let width = group.servers().map(|server| server.server.len()).max().unwrap_or(0);
    for (tier, servers) in group.tiers.iter().enumerate() {
        for server in servers {
            line(text, format_args!("  tier {tier}  {:<width$}  {}", server.server, self::server(server)));
        }
    }
    for name in &group.names {
        line(text, format_args!("  name    {}", self::name(name)));
    }
}

fn name(name: &NameStatus) -> String {
    let mut text = format!("{}  {}", name.name, name.words);
    if let Some(age) = name.age {
        text += &format!(", resolved {} ago", duration::rough(seconds(age)));
    }
    if let Some(next) = name.next {
        text += &format!(", again in {}", duration::rough(seconds(next)));
    }
    text
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a length of time for people")]
fn seconds(seconds: f64) -> u64 {
    seconds.max(0.0).round() as u64
}

fn server(server: &ServerStatus) -> String {
    let mut text = server.words.clone();
    if let Some(rtt) = server.rtt {
        text += &format!(", {:.1} ms", 1000.0 * rtt);
    }
    if let Some(last) = server.last_answer {
        text += &format!(", last answer {last:.0} s ago");
    }
    // Failed connections are counted as queries by result, although no query was sent.
    let answered = server.queries.get("ok").copied().unwrap_or(0);
    let failed = server.queries.values().sum::<u64>().saturating_sub(answered);
    if answered > 0 {
        text += &format!(", {} answered", Plural(answered, "query"));
    }
    if failed > 0 {
        text += &format!(", {} failed", Plural(failed, "try"));
    }
    if !server.loops_for.is_empty() {
        text += &format!(", left out for {} (a loop)", server.loops_for.join(", "));
    }
    text
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    *text += &format!("{arguments}\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::status::{Finding, Severity};

    #[test]
    fn the_screen_begins_with_what_is_wrong() {
        let finding = Finding {
            severity: Severity::Error,
            kind: "group-down".to_owned(),
            group: Some("vpc".to_owned()),
            server: None,
            text: "upstream vpc: no server is usable: 2 down".to_owned(),
        };
        let status = Status { health: Severity::Error, findings: vec![finding], ..Status::default() };
        let expected = "one thing is wrong\n  error    upstream vpc: no server is usable: 2 down\n\n";
        assert!(screen(&status, 0).starts_with(expected));
        assert!(screen(&Status::default(), 0).starts_with("all is well\n\n"));
    }

    #[test]
    fn ready_needs_a_usable_server_in_every_group() {
        let group = |usable| GroupStatus { usable, ..GroupStatus::default() };
        let status = |ready, groups: Vec<GroupStatus>| Status { ready, groups, ..Status::default() };
        assert_eq!(unready(&status(true, vec![group(1), group(2)])), [""; 0]);
        assert_eq!(unready(&status(true, vec![group(1), group(0)])).len(), 1);
        assert_eq!(unready(&status(false, vec![group(1)])).len(), 1);
    }
}
