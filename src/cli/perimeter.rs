//! `tidegate perimeter`: what the running daemon has seen of the data perimeter.

use std::path::PathBuf;

use super::{
    client,
    duration::rough as ago,
    output::{ERR, OUT},
    perimeter_report::{self, ReportFormat, Wanted},
};
use crate::{
    clock,
    config::Remedy,
    perimeter::document::{PerimeterDocument, PerimeterName},
    plural::Plural,
};

/// What to print.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// As JSON
    #[arg(long)]
    json: bool,
    /// The first day of a report from the record on disk, in UTC, such as 2026-11-01 [default: the record's]
    #[arg(long, value_name = "DATE")]
    from: Option<String>,
    /// The last day of such a report [default: today]
    #[arg(long, value_name = "DATE")]
    to: Option<String>,
    /// How such a report is written
    #[arg(long, value_name = "FORMAT", conflicts_with = "json")]
    format: Option<ReportFormat>,
    /// The folder of the record, where it is not `record` in [perimeter] of the configuration
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,
    /// Where the daemon's `admin.http` is [env: TIDEGATE_ADMIN]
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    /// The daemon's configuration, which says where `admin.http` is unless --admin does [default:
    /// /etc/tidegate/tidegate.toml]
    #[arg(long, env = "TIDEGATE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

/// The verdicts on names in the order shown, each with its meaning.
const VERDICTS: [(&str, &str); 7] = [
    ("leaked", "clients got public addresses; traffic to these leaves the perimeter"),
    ("stripped", "public addresses, which the guard left out of the answers"),
    ("refused", "public addresses, which the guard kept from clients"),
    ("excepted", "public addresses, which `except` of the rule lets through"),
    ("unreachable-private", "private addresses that clients cannot reach"),
    ("absent", "no such name, or no address"),
    ("private", "as it should be"),
];

pub(super) fn run(options: &Options) -> i32 {
    // Without dates and a folder, the format applies to what the daemon has seen since its start.
    if options.from.is_some() || options.to.is_some() || options.record.is_some() {
        return perimeter_report::run(&options.wanted());
    }
    let is_json = options.json || options.format == Some(ReportFormat::Json);
    if options.format.is_some_and(|format| !matches!(format, ReportFormat::Text | ReportFormat::Json)) {
        writeln!(ERR, "tidegate: csv and html are made from the record on disk: say --from DATE");
        return super::UNUSABLE;
    }
    let admin = match client::admin(options.admin.as_deref(), options.config.as_deref()) {
        Ok(admin) => admin,
        Err(error) => {
            writeln!(ERR, "tidegate: {error}");
            return super::FAILED;
        }
    };
    let body = match client::fetch(&admin, "/api/v1/perimeter") {
        Ok(body) => body,
        Err(error) => {
            writeln!(ERR, "tidegate: {error}");
            return super::FAILED;
        }
    };
    let Ok(report) = serde_json::from_str::<PerimeterDocument>(&body) else {
        writeln!(ERR, "tidegate: the daemon at {} sent no report", admin);
        return super::FAILED;
    };
    if is_json {
        // As it came: a newer daemon may say more.
        writeln!(OUT, "{}", body.trim_end());
    } else {
        write!(OUT, "{}", text(&report, clock::wall().as_secs()));
    }
    if report.leaked == 0 { super::OK } else { super::FAILED }
}

impl Options {
    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            from: self.from.as_deref(),
            to: self.to.as_deref(),
            format: if self.json { ReportFormat::Json } else { self.format.unwrap_or_default() },
            record: self.record.as_deref(),
            config: self.config.as_deref(),
        }
    }
}

fn text(report: &PerimeterDocument, now: u64) -> String {
    let names = &report.names;
    let since = now.saturating_sub(report.since);
    if names.is_empty() {
        return format!("no AWS name was asked for in the last {}\n", ago(since));
    }
    let mut text = String::new();
    for (verdict, meaning) in VERDICTS {
        let lines: Vec<&PerimeterName> = names.iter().filter(|name| name.kind() == verdict).collect();
        if lines.is_empty() {
            continue;
        }
        text += &format!("{verdict}: {meaning}\n");
        for line in lines {
            text += &describe(line, now);
        }
        text.push('\n');
    }
    text += &format!("{} in the last {}", Plural(names.len(), "name"), ago(since));
    let outcomes = [
        ("leaked", report.leaked, ", none leaked"),
        ("stripped", report.stripped, ""),
        ("refused", report.refused, ""),
    ];
    for (outcome, count, none) in outcomes {
        if count == 0 {
            text += none;
        } else {
            text += &format!(", {count} {outcome}");
        }
    }
    if report.given_up > 0 {
        text += &format!("; {} more were given up to bound memory", report.given_up);
    }
    text.push('\n');
    text
}

fn describe(name: &PerimeterName, now: u64) -> String {
    let mut text = format!("  {}", name.name.trim_end_matches('.'));
    if let Some(address) = name.address {
        text += &format!("  {address}");
    }
    text += &format!(
        "  rule {}, {}, {}, last {} ago",
        name.rule,
        Plural(name.answers.values().sum::<u64>(), "answer"),
        Plural(name.clients, "client"),
        ago(now.saturating_sub(name.last_seen))
    );
    if name.excepted {
        text += ", excepted by the rule";
    }
    text.push('\n');
    text += &name.remedy.as_ref().map(remedy).unwrap_or_default();
    text
}

fn remedy(remedy: &Remedy) -> String {
    match remedy {
        Remedy::Endpoint(service) => {
            format!("    private with an interface endpoint for {service} and its private DNS\n")
        }
        Remedy::RegionalName(service) => {
            format!("    no endpoint covers this name; ask for the regional name of {service} instead\n")
        }
        Remedy::PublicOnly => "    exists in public only; add it to `except` if it must resolve\n".to_owned(),
        Remedy::Unknown => "    no endpoint is known for it; perhaps a resource with a public address\n".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn public_names_come_first_with_what_to_do() {
        let line = |name: &str, verdict: &str| {
            json!({
                "name": name, "verdict": verdict, "address": null, "rule": "aws", "excepted": false, "clients": 1, "first_seen": 0,
                "answers": { "absent": 0, "private": 0, "unreachable-private": 0, "public": 2 }, "last_seen": 900,
            })
        };
        let mut public = line("sts.eu-west-1.amazonaws.com.", "public");
        public["address"] = json!("52.1.2.3");
        public["outcome"] = json!("leaked");
        public["remedy"] = json!({ "kind": "endpoint", "service": "com.amazonaws.eu-west-1.sts" });
        let mut refused = line("ec2.eu-west-1.amazonaws.com.", "public");
        refused["outcome"] = json!("refused");
        let private = line("kms.eu-west-1.amazonaws.com.", "private");
        let report = json!({ "since": 0, "public": 2, "leaked": 1, "stripped": 0, "refused": 1, "given_up": 0, "names": [private, refused, public] });
        let expected = "\
leaked: clients got public addresses; traffic to these leaves the perimeter
  sts.eu-west-1.amazonaws.com  52.1.2.3  rule aws, 2 answers, 1 client, last 100 s ago
    private with an interface endpoint for com.amazonaws.eu-west-1.sts and its private DNS

refused: public addresses, which the guard kept from clients
  ec2.eu-west-1.amazonaws.com  rule aws, 2 answers, 1 client, last 100 s ago

private: as it should be
  kms.eu-west-1.amazonaws.com  rule aws, 2 answers, 1 client, last 100 s ago

3 names in the last 16 min, 1 leaked, 1 refused
";
        let report: PerimeterDocument = serde_json::from_value(report).unwrap();
        assert_eq!(text(&report, 1_000), expected);
    }
}
