//! Points in time with microseconds, the forms in which services print them, and a clock that tests can turn.

use jiff::{Timestamp as Instant, tz::TimeZone};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

/// Microseconds since 1970 in UTC: the form in which times are stored and compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// `2026-11-20T08:15:30Z`: nova, glance and neutron.
    pub fn seconds(self) -> String {
        self.format("%Y-%m-%dT%H:%M:%SZ")
    }

    /// `2026-11-20T08:15:30.123456Z`: keystone.
    pub fn micros_z(self) -> String {
        self.format("%Y-%m-%dT%H:%M:%S.%6fZ")
    }

    /// `2026-11-20T08:15:30.123456`: cinder and parts of nova.
    pub fn micros(self) -> String {
        self.format("%Y-%m-%dT%H:%M:%S.%6f")
    }

    /// Any `strftime` form, in UTC.
    pub fn format(self, form: &str) -> String {
        let instant = Instant::from_microsecond(self.0).unwrap_or(Instant::UNIX_EPOCH);
        instant.to_zoned(TimeZone::UTC).strftime(form).to_string()
    }

    /// Reads ISO 8601 with or without fraction and zone (none means UTC).
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let instant = text.parse::<Instant>().ok().or_else(|| {
            let civil: jiff::civil::DateTime = text.parse().ok()?;
            Some(civil.to_zoned(TimeZone::UTC).ok()?.timestamp())
        })?;
        Some(Self(instant.as_microsecond()))
    }

    pub fn unix_seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    pub fn from_unix_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000_000))
    }

    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span.as_micros() as i64))
    }

    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(span.as_micros() as i64))
    }

    /// How long after `earlier` this is; zero when it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0).max(0) as u64)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.micros_z())
    }
}

/// The time of day. Tests hold a clone and advance it; the real clock cannot be turned back.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<AtomicI64>>);

impl Clock {
    pub fn real() -> Self {
        Self(None)
    }

    /// A clock that stands still until [`Clock::advance`].
    pub fn test(start: Timestamp) -> Self {
        Self(Some(Arc::new(AtomicI64::new(start.0))))
    }

    pub fn now(&self) -> Timestamp {
        match &self.0 {
            None => Timestamp(Instant::now().as_microsecond()),
            Some(turned) => Timestamp(turned.load(Ordering::SeqCst)),
        }
    }

    /// Turns a test clock forward; the real clock is left alone.
    pub fn advance(&self, span: Duration) {
        if let Some(turned) = &self.0 {
            turned.fetch_add(span.as_micros() as i64, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let time = Timestamp::parse("2026-11-20T08:15:30.123456Z").unwrap();
        assert_eq!(time.seconds(), "2026-11-20T08:15:30Z");
        assert_eq!(time.micros(), "2026-11-20T08:15:30.123456");
        assert_eq!(time.micros_z(), "2026-11-20T08:15:30.123456Z");
        assert_eq!(Timestamp::parse("2026-11-20T08:15:30.123456"), Some(time));
        assert_eq!(Timestamp::parse("2026-11-20 08:15:30").map(Timestamp::seconds), Some(time.seconds()));
        assert_eq!(Timestamp::parse("yesterday"), None);
    }

    #[test]
    fn a_test_clock_moves_only_when_told() {
        let clock = Clock::test(Timestamp(5));
        let held = clock.clone();
        clock.advance(Duration::from_secs(2));
        assert_eq!(held.now(), Timestamp(2_000_005));
    }
}
