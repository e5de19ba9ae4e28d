//! Charts as SVG, each next to the numbers in words: queries of the last hour, and how long responses took.

use maud::{Markup, html};

use super::quantity::{count, counted, percent, seconds};
use crate::admin::status::{LatencyStatus, MinuteStatus, Status};

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
}
