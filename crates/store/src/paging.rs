//! A page of a list: how many rows, and behind which one. Lists are read from the newest to the oldest; a row's place is
//! its time and its id, so that rows that come or go meanwhile move no other.
//! Knows no table.

use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time};
use uuid::Uuid;

/// Where a row stands in its list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// When it was made, to the microsecond.
    pub created_at: OffsetDateTime,
    /// Its id.
    pub id: Uuid,
}

/// Which rows of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// The row behind which it begins.
    pub after: Place,
    /// At most so many rows.
    pub limit: i64,
}

impl Place {
    /// Before every row. A value and not its absence: the statement, and with it the plan, is the same for every page.
    pub const FIRST: Self = Self {
        created_at: match Date::from_calendar_date(9999, Month::December, 31) {
            Ok(day) => PrimitiveDateTime::new(day, Time::MIDNIGHT).assume_utc(),
            Err(_) => OffsetDateTime::UNIX_EPOCH,
        },
        id: Uuid::max(),
    };
}

impl Page {
    /// The newest `limit` rows.
    pub const fn first(limit: i64) -> Self {
        Self { after: Place::FIRST, limit }
    }
}
