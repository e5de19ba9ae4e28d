//! Charts as SVG, each next to the numbers in words: queries of the last hour, round-trip times of a server, and how long
//! responses took.

use maud::{Markup, html};

use super::quantity::{count, counted, percent, seconds};
use crate::admin::status::{LatencyStatus, MinuteStatus, ServerMinuteStatus, Status};

/// Number of bars.
const MINUTES: usize = 60;
/// The height of the tallest bar, in units of the picture.
const HEIGHT: u64 = 100;

/// Queries of the last hour: a bar for each minute, with the cache's share at its foot.
pub(super) fn last_hour(minutes: &[MinuteStatus]) -> Markup {
    let sum = |of: fn(&MinuteStatus) -> u64| minutes.iter().map(of).sum::<u64>();
    let (queries, hits) = (sum(|minute| minute.queries), sum(|minute| minute.hits));
    let peak = minutes.iter().map(|minute| minute.queries).max().unwrap_or(0);
    let asked = hits + sum(|minute| minute.misses);
    let summary = format!(
        "{}, {} at most in a minute. Hit ratio {}. {} failed, {}.",
        counted(queries, "query"),
        count(peak),
        ratio(hits, asked).map_or_else(|| "–".to_owned(), percent),
        count(sum(|minute| minute.failed)),
        counted(sum(|minute| minute.violations), "guard violation"),
    );
    let first = MINUTES.saturating_sub(minutes.len());
    html! {
        section aria-labelledby="hour" {
            h2 #hour { "The last hour" }
            p { (summary) }
            svg.hour viewBox={ "0 0 " (MINUTES * 10) " " (HEIGHT) } preserveAspectRatio="none" role="img"
                aria-label="Queries by the minute; the words above say the same" {
                @for (at, minute) in minutes.iter().enumerate() {
                    @let all = share(minute.queries, peak);
                    @let hits = share(minute.hits.min(minute.queries), peak);
                    rect.queries x=((first + at) * 10) y=(HEIGHT - all) width="8" height=(all) {}
                    rect.hits x=((first + at) * 10) y=(HEIGHT - hits) width="8" height=(hits) {}
                }
            }
            p.legend.more aria-hidden="true" {
                span { "an hour ago" }
                span { span.key.hits {} " answered from the cache " span.key.queries {} " other queries" }
                span { "now" }
            }
        }
    }
}

/// The last hour of a server: a bar for each minute, as tall as its round-trip time, of full height where it was not up.
pub(super) fn server_hour(history: &[ServerMinuteStatus]) -> Markup {
    let slowest = history.iter().filter_map(|minute| minute.rtt).fold(0.0, f64::max);
    let first = MINUTES.saturating_sub(history.len());
    html! {
        @if !history.is_empty() {
            svg.sparkline viewBox={ "0 0 " (MINUTES * 4) " " (HEIGHT) } preserveAspectRatio="none" role="img"
                aria-label=(in_words(history, slowest)) {
                @for (at, minute) in history.iter().enumerate() {
                    @let height = height(minute, slowest);
                    rect.(minute_class(minute)) x=((first + at) * 4) y=(HEIGHT - height) width="3" height=(height) {}
                }
            }
        }
    }
}

fn in_words(history: &[ServerMinuteStatus], slowest: f64) -> String {
    let times =
        if slowest > 0.0 { format!("round trips up to {}", seconds(slowest)) } else { "no round trips".to_owned() };
    let with = |states: &[&str]| history.iter().filter(|minute| states.contains(&&*minute.state)).count() as u64;
    let mut text = format!("Last hour: {times}");
    for (minutes, state) in
        [(with(&["down"]), "down"), (with(&["suspect"]), "suspect"), (with(&["drained"]), "drained")]
    {
        if minutes > 0 {
            text += &format!(", {state} in {}", counted(minutes, "minute"));
        }
    }
    text
}

fn height(minute: &ServerMinuteStatus, slowest: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to a million")]
    let millionths = |seconds: f64| (seconds / slowest * 1e6) as u64;
    match minute.rtt {
        _ if minute.state != "up" => HEIGHT,
        Some(rtt) if slowest > 0.0 => share(millionths(rtt), 1_000_000).max(HEIGHT / 10),
        _ => HEIGHT / 10,
    }
}

fn minute_class(minute: &ServerMinuteStatus) -> &'static str {
    match &*minute.state {
        "up" => "ok",
        "drained" => "note",
        "down" => "error",
        _ => "warning",
    }
}

/// How long responses took, if there were any.
pub(super) fn latency(status: &Status) -> Markup {
    let buckets = &status.latency;
    let all: u64 = buckets.iter().map(|bucket| bucket.responses).sum();
    let used: Vec<&LatencyStatus> = buckets.iter().filter(|bucket| bucket.responses > 0).collect();
    let most = used.iter().map(|bucket| bucket.responses).max().unwrap_or(0);
    html! {
        @if !used.is_empty() {
            section aria-labelledby="latency" {
                h2 #latency { "Time to respond" }
                table.latency {
                    thead {
                        tr {
                            th scope="col" { "Up to" }
                            th.state scope="col" { "Share" }
                            th.number scope="col" { "Responses" }
                        }
                    }
                    tbody {
                        @for bucket in &used {
                            tr {
                                th scope="row" { (bucket.up_to.map_or_else(|| "longer".to_owned(), bound)) }
                                td data-label="Share" {
                                    svg.bar viewBox={ "0 0 " (HEIGHT) " 10" } preserveAspectRatio="none" aria-hidden="true" {
                                        rect.hits width=(share(bucket.responses, most)) height="10" {}
                                    }
                                    span.more { (ratio(bucket.responses, all).map_or_else(String::new, percent)) }
                                }
                                td.number data-label="Responses" { (count(bucket.responses)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A bar for a share of one.
pub(super) fn share_bar(share: f64) -> Markup {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 100")]
    let width = (share.clamp(0.0, 1.0) * 100.0).ceil() as u64;
    html! {
        svg.share viewBox={ "0 0 " (HEIGHT) " 10" } preserveAspectRatio="none" aria-hidden="true" {
            rect.hits width=(width) height="10" {}
        }
    }
}

/// A bound, without needless decimals.
fn bound(up_to: f64) -> String {
    seconds(up_to).replace(".0 ", " ")
}

/// A part in units of [`HEIGHT`]; anything above zero is visible.
fn share(part: u64, most: u64) -> u64 {
    if part == 0 { 0 } else { (part.saturating_mul(HEIGHT) / most.max(1)).max(1) }
}

fn ratio(part: u64, all: u64) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "a percentage is shown")]
    (all > 0).then(|| part as f64 / all as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_tall_as_their_share_and_none_is_lost() {
        assert_eq!(
            [(0, 10), (1, 1000), (5, 10), (10, 10), (0, 0)].map(|(part, most)| share(part, most)),
            [0, 1, 50, 100, 0]
        );
        let minutes = [(120, 60), (240, 240)].map(|(queries, hits)| MinuteStatus {
            queries,
            hits,
            misses: queries - hits,
            ..MinuteStatus::default()
        });
        let text = last_hour(&minutes).into_string();
        assert!(text.contains("360 queries, 240 at most in a minute. Hit ratio 83.3 %."), "{text}");
        assert!(
            text.contains("x=\"580\" y=\"50\"") && text.contains("x=\"590\" y=\"0\""),
            "newest on the right: {text}"
        );
    }

    #[test]
    fn only_what_took_place_is_shown() {
        let bucket = |up_to, responses| LatencyStatus { up_to, responses };
        let latency = vec![bucket(Some(0.000_01), 0), bucket(Some(0.001), 3), bucket(Some(1.0), 0), bucket(None, 1)];
        let text = super::latency(&Status { latency, ..Status::default() }).into_string();
        assert!(text.contains("1 ms") && text.contains("75.0 %") && text.contains("longer"), "{text}");
        assert!(!text.contains("10 µs") && !text.contains("1 s"), "{text}");
        assert_eq!(super::latency(&Status::default()).into_string(), "");
    }

    #[test]
    fn a_servers_hour_shows_how_slow_it_was_and_when_it_was_down() {
        let minute = |rtt, state: &str| ServerMinuteStatus { at: 0, rtt, state: state.to_owned() };
        let history = [minute(Some(0.002), "up"), minute(Some(0.004), "down"), minute(Some(0.004), "up")];
        let text = server_hour(&history).into_string();
        assert!(text.contains("Last hour: round trips up to 4.0 ms, down in 1 minute"), "{text}");
        let bars =
            ["class=\"ok\" x=\"228\" y=\"50\"", "class=\"error\" x=\"232\" y=\"0\"", "class=\"ok\" x=\"236\" y=\"0\""];
        assert!(bars.iter().all(|bar| text.contains(bar)), "{text}");
        assert_eq!(server_hour(&[]).into_string(), "");
    }
}
