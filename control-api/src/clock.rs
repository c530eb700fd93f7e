//! The one place where this service reads the time; everything below takes it as an argument.

use std::time::Duration;

use gatehouse_store::OffsetDateTime;

/// The time now.
pub fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

/// A time since the Unix epoch; the epoch itself for times before it.
pub fn since_epoch(at: OffsetDateTime) -> Duration {
    Duration::try_from(at - OffsetDateTime::UNIX_EPOCH).unwrap_or(Duration::ZERO)
}
