//! `tidegate perimeter`: what the running daemon has seen of the data perimeter.

use std::path::PathBuf;

use serde_json::Value;

use super::{
    client,
    duration::rough as ago,
    output::{ERR, OUT},
    perimeter_report::{self, ReportFormat, Wanted},
};
use crate::{clock, plural::Plural};

/// What to print.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// As JSON
    #[arg(long)]
    json: bool,
    /// The first day of a report from the record on disk, in UTC, such as 2026-11-01
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
    let Ok(report) = serde_json::from_str::<Value>(&body) else {
        writeln!(ERR, "tidegate: the daemon at {} sent no report", admin);
        return super::FAILED;
    };
    if is_json {
        writeln!(OUT, "{report}");
    } else {
        write!(OUT, "{}", text(&report, clock::wall().as_secs()));
    }
    // If it is unknown whether something leaked, that is no success.
    if report["leaked"].as_u64() == Some(0) { super::OK } else { super::FAILED }
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

fn text(report: &Value, now: u64) -> String {
    let names = report["names"].as_array().map_or(&[][..], Vec::as_slice);
    let since = now.saturating_sub(report["since"].as_u64().unwrap_or(now));
    if names.is_empty() {
        return format!("no AWS name was asked for in the last {}\n", ago(since));
    }
    let mut text = String::new();
    for (verdict, meaning) in VERDICTS {
        let lines: Vec<&Value> = names.iter().filter(|name| kind(name) == verdict).collect();
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
    for (outcome, none) in [("leaked", ", none leaked"), ("stripped", ""), ("refused", "")] {
        match report[outcome].as_u64() {
            Some(0) => text += none,
            Some(count) => text += &format!(", {count} {outcome}"),
            None => {}
        }
    }
    if let Some(given_up) = report["given_up"].as_u64().filter(|&count| count > 0) {
        text += &format!("; {given_up} more were given up to bound memory");
    }
    text.push('\n');
    text
}

/// The verdict on a name, or for a public one what the guard did. An old daemon that does not report this had no guard.
fn kind(name: &Value) -> &str {
    match name["verdict"].as_str().unwrap_or_default() {
        "public" => name["outcome"].as_str().unwrap_or("leaked"),
        verdict => verdict,
    }
}

fn describe(line: &Value, now: u64) -> String {
    let word = |key: &str| line[key].as_str().unwrap_or_default();
    let number = |key: &str| line[key].as_u64().unwrap_or_default();
    let answers: u64 = line["answers"].as_object().into_iter().flatten().filter_map(|(_, count)| count.as_u64()).sum();
    let mut text = format!("  {}", word("name").trim_end_matches('.'));
    if let Some(address) = line["address"].as_str() {
        text += &format!("  {address}");
    }
    let clients = number("clients");
    text += &format!(
        "  rule {}, {}, {}, last {} ago",
        word("rule"),
        Plural(answers, "answer"),
        Plural(clients, "client"),
        ago(now.saturating_sub(number("last_seen")))
    );
    if line["excepted"] == true {
        text += ", excepted by the rule";
    }
    text.push('\n');
    text += &remedy(&line["remedy"]);
    text
}

fn remedy(remedy: &Value) -> String {
    let service = remedy["service"].as_str().unwrap_or_default();
    match remedy["kind"].as_str() {
        Some("endpoint") => format!("    private with an interface endpoint for {service} and its private DNS\n"),
        Some("regional-name") => {
            format!("    no endpoint covers this name; ask for the regional name of {service} instead\n")
        }
        Some("public-only") => "    exists in public only; add it to `except` if it must resolve\n".to_owned(),
        Some("unknown") => "    no endpoint is known for it; perhaps a resource with a public address\n".to_owned(),
        _ => String::new(),
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
                "name": name, "verdict": verdict, "address": null, "rule": "aws", "excepted": false, "clients": 1,
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
        let report = json!({ "since": 0, "leaked": 1, "stripped": 0, "refused": 1, "given_up": 0, "names": [private, refused, public] });
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
        assert_eq!(text(&report, 1_000), expected);
    }
}
