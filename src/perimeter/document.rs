//! The document of `/api/v1/perimeter`: the report as JSON.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Exposure, NameVerdict, Perimeter, Report, Seen};
use crate::{
    clock::{self, Moment},
    config::{self, Remedy},
};

/// The page's content. Times are seconds since 1970.
pub fn page(perimeter: &Perimeter) -> Value {
    to_json(&perimeter.report(), Moment::now(), clock::wall())
}

fn to_json(report: &Report, now: Moment, wall: Duration) -> Value {
    let time = |moment: Moment| wall.saturating_sub(now.since(moment)).as_secs();
    json!({
        "since": time(report.since),
        "public": report.public(),
        "refused": report.count("refused"),
        "stripped": report.count("stripped"),
        "leaked": report.count("leaked"),
        "given_up": report.given_up,
        "names": report.names.iter().map(|seen| name(seen, &time)).collect::<Vec<_>>(),
    })
}

fn name(seen: &Seen, time: &impl Fn(Moment) -> u64) -> Value {
    let answers: Map<String, Value> = NameVerdict::ALL
        .iter()
        .zip(seen.answers)
        .map(|(verdict, count)| (verdict.label().to_owned(), count.into()))
        .collect();
    let mut line = json!({
        "name": seen.name.to_string(),
        "verdict": seen.verdict.label(),
        "outcome": seen.outcome.map(Exposure::label),
        "address": seen.address,
        "rule": &*seen.rule,
        "excepted": seen.excepted,
        "answers": answers,
        "clients": seen.clients,
        "first_seen": time(seen.first),
        "last_seen": time(seen.last),
    });
    if seen.verdict == NameVerdict::Public {
        line["remedy"] = remedy(&config::remedy(&seen.name));
    }
    line
}

fn remedy(remedy: &Remedy) -> Value {
    match remedy {
        Remedy::Endpoint(service) => json!({ "kind": "endpoint", "service": service }),
        Remedy::RegionalName(service) => json!({ "kind": "regional-name", "service": service }),
        Remedy::PublicOnly => json!({ "kind": "public-only" }),
        Remedy::Unknown => json!({ "kind": "unknown" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_name_comes_with_its_remedy_and_wall_clock_times() {
        let now = Moment::at(Duration::from_secs(5_000));
        let seen = Seen {
            name: "sts.eu-west-1.amazonaws.com".parse().unwrap(),
            rule: "aws".into(),
            excepted: false,
            verdict: NameVerdict::Public,
            outcome: Some(Exposure::Leaked),
            address: Some("52.1.2.3".parse().unwrap()),
            answers: [1, 0, 0, 2],
            clients: 3,
            first: now - Duration::from_secs(100),
            last: now,
        };
        let report = Report { since: now - Duration::from_secs(1_000), names: vec![seen], given_up: 0 };
        let expected = json!({
            "since": 9_000, "public": 1, "refused": 0, "stripped": 0, "leaked": 1, "given_up": 0,
            "names": [{
                "name": "sts.eu-west-1.amazonaws.com.", "verdict": "public", "outcome": "leaked", "address": "52.1.2.3", "rule": "aws",
                "excepted": false, "clients": 3, "first_seen": 9_900, "last_seen": 10_000,
                "answers": { "absent": 1, "private": 0, "unreachable-private": 0, "public": 2 },
                "remedy": { "kind": "endpoint", "service": "com.amazonaws.eu-west-1.sts" },
            }],
        });
        assert_eq!(to_json(&report, now, Duration::from_secs(10_000)), expected);
    }
}
