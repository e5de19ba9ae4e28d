//! The only module that reads the time. All others get it as an argument.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::time::{ClockId, clock_gettime};

/// A moment on the clock that also runs while the machine sleeps (CLOCK_BOOTTIME). It counts from an origin before the
/// boot, so that entries of a snapshot from before the boot have a moment too.
///
/// In nanoseconds, which last for 584 years: half of what a `Duration` takes, and a query that waits has many of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(u64);

const NANOS_A_SECOND: u64 = 1_000_000_000;

/// Ten years: longer than any cache entry lives.
const ORIGIN: Duration = Duration::from_hours(24 * 3650);

/// Seconds by which the wall clock has jumped ahead since the start: time for which a virtual machine was halted.
static MISSED: AtomicU64 = AtomicU64::new(0);

impl Moment {
    /// Now.
    pub fn now() -> Self {
        Self::at(ORIGIN + since_boot())
    }

    /// A moment at `since_origin`, for tests and for arithmetic.
    pub const fn at(since_origin: Duration) -> Self {
        Self(nanos(since_origin))
    }

    /// Seconds since the origin for the age of answers: missed seconds included. Fits 32 bits for 126 years.
    pub fn seconds(self) -> u32 {
        self.seconds_with(Duration::from_secs(MISSED.load(Ordering::Relaxed)))
    }

    /// [`Self::seconds`] when this much time was missed.
    pub(crate) fn seconds_with(self, missed: Duration) -> u32 {
        u32::try_from(self.0 / NANOS_A_SECOND + missed.as_secs()).unwrap_or(u32::MAX)
    }

    /// Whole seconds since the origin.
    pub fn whole_seconds(self) -> u32 {
        u32::try_from(self.0 / NANOS_A_SECOND).unwrap_or(u32::MAX)
    }

    /// Microseconds since the origin.
    pub fn micros(self) -> u64 {
        self.0 / 1000
    }

    /// The moment `micros` microseconds after the origin.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros.saturating_mul(1000))
    }

    /// The time from `earlier` to this moment, zero if it is not earlier.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }
}

impl std::ops::Sub<Duration> for Moment {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(duration)))
    }
}

/// The nanoseconds of a duration, as many as fit.
const fn nanos(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(NANOS_A_SECOND).saturating_add(duration.subsec_nanos() as u64)
}

/// The wall clock, as time since 1970-01-01T00:00:00Z.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn since_boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Compares the wall clock with the boot clock from time to time. A halted virtual machine misses time on every clock
/// except the wall clock, once that is corrected; answers then age by the missed time. Setting the wall clock back
/// makes nothing younger.
#[derive(Debug, Default)]
pub struct WallWatch {
    ahead: Option<Duration>,
}

impl WallWatch {
    /// How far the wall clock may gain between two checks without counting as a jump.
    const JUMP: Duration = Duration::from_secs(1);

    /// Compares the two clocks; call it on the same value each time.
    pub fn look(&mut self) {
        let missed = self.compare(wall(), since_boot());
        MISSED.fetch_add(missed.as_secs(), Ordering::Relaxed);
    }

    /// The time that the wall clock jumped ahead since the last look.
    pub(crate) fn compare(&mut self, wall: Duration, since_boot: Duration) -> Duration {
        let ahead = wall.saturating_sub(since_boot);
        let before = self.ahead.replace(ahead).unwrap_or(ahead);
        Some(ahead.saturating_sub(before)).filter(|jump| *jump >= Self::JUMP).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_of_the_wall_clock_ages_and_never_rejuvenates() {
        let mut watch = WallWatch::default();
        let millis = Duration::from_millis;
        for (wall, since_boot, missed) in [
            (9_000_000, 100_000, 0),
            (9_002_100, 102_000, 0),
            // An hour was missed.
            (12_604_100, 104_000, 3600),
            (12_606_100, 106_000, 0),
            // Set back, and right again.
            (9_008_000, 108_000, 0),
            (12_610_000, 110_000, 3600),
        ] {
            let jump = watch.compare(millis(wall), millis(since_boot));
            assert_eq!(jump.as_secs(), missed, "{wall} {since_boot}");
        }
    }

    /// In a time namespace the clocks may differ as they do after a suspend.
    #[test]
    fn time_for_which_the_machine_slept_counts() {
        const INSIDE: &str = "TIDEGATE_TEST_BEFORE_THE_SUSPEND";
        let slept = Duration::from_hours(24);
        if let Ok(before) = std::env::var(INSIDE) {
            let before = Moment::from_micros(before.parse().unwrap());
            assert!(Moment::now().since(before) >= slept);
            return;
        }
        let before = Moment::now().micros().to_string();
        let output = std::process::Command::new("unshare")
            .args(["--time", "--boottime", &slept.as_secs().to_string(), "--fork"])
            .arg(std::env::current_exe().unwrap())
            .args(["clock::tests::time_for_which_the_machine_slept_counts", "--exact"])
            .env(INSIDE, before)
            .output()
            .expect("unshare runs; install it with: apt-get install util-linux");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(
            !err.contains("Operation not permitted"),
            "this test makes a time namespace, which needs root (or CAP_SYS_ADMIN): {err}"
        );
        assert!(output.status.success() && out.contains("1 passed"), "{out}\n{err}");
    }

    #[test]
    fn time_goes_on() {
        let before = Moment::now();
        let after = Moment::now();
        assert!(after >= before && after.since(before) < Duration::from_secs(60));
    }
}
