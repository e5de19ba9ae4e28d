//! Shares and times out of the fates of questions.

use std::time::Duration;

use crate::client::Fate;

/// Later than this, somebody notices.
pub(crate) const LATE: Duration = Duration::from_millis(100);

/// The share of which this is true.
pub(crate) fn share(fates: &[Fate], is: impl Fn(&Fate) -> bool) -> String {
    let count = fates.iter().filter(|fate| is(fate)).count();
    format!("{:.2} %", count as f64 / fates.len() as f64 * 100.0)
}

/// The time within which this share of all questions was answered.
pub(crate) fn quantile(fates: &[Fate], share: f64) -> String {
    let mut times: Vec<Duration> = fates.iter().map(|fate| fate.took.unwrap_or(Duration::MAX)).collect();
    times.sort_unstable();
    // Shares of thousandths are enough.
    let thousandths = (0..1_000).take_while(|n| f64::from(*n) / 1_000.0 < share).count();
    let at = (times.len() * thousandths).div_ceil(1_000).clamp(1, times.len()) - 1;
    match times[at] {
        Duration::MAX => "never".to_owned(),
        time => format!("{:.1} ms", time.as_secs_f64() * 1_000.0),
    }
}

/// Answered late, or not at all.
pub(crate) fn is_late(fate: &Fate) -> bool {
    fate.took.is_none_or(|took| took > LATE)
}
