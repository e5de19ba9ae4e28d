//! The one place that reads the time. Everyone else is given it.

use std::{
    sync::OnceLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// A moment on the monotonic clock, counted from an origin before the process began, so that what a snapshot brings
/// along from an earlier life has a moment too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(Duration);

/// Ten years: older than anything a cache may hold.
const ORIGIN: Duration = Duration::from_hours(24 * 3650);

static START: OnceLock<Instant> = OnceLock::new();

impl Moment {
    /// Now.
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn now() -> Self {
        Self(ORIGIN + START.get_or_init(Instant::now).elapsed())
    }

    /// A moment at `since_origin`, for tests and for arithmetic.
    pub const fn at(since_origin: Duration) -> Self {
        Self(since_origin)
    }

    /// Whole seconds since the origin; fits 32 bits for 126 years of running.
    pub fn seconds(self) -> u32 {
        u32::try_from(self.0.as_secs()).unwrap_or(u32::MAX)
    }

    /// Microseconds since the origin.
    pub fn micros(self) -> u64 {
        u64::try_from(self.0.as_micros()).unwrap_or(u64::MAX)
    }

    /// The moment `micros` microseconds after the origin.
    pub const fn from_micros(micros: u64) -> Self {
        Self(Duration::from_micros(micros))
    }

    /// The time from `earlier` to this moment, zero if it is not earlier.
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl std::ops::Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

impl std::ops::Sub<Duration> for Moment {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(duration))
    }
}

/// The wall clock, as time since 1970-01-01T00:00:00Z.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
