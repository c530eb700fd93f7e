//! Where the primary stands in its write-ahead log, and whether a replica has replayed that.
//! Knows nothing of what is read.

use std::fmt;

use sqlx::{PgConnection, PgPool};

/// A position is a byte of the log's page; in its first bytes stands the page's own header: 24, or 40 where a segment begins.
const PAGE_HEADER_BYTES: u64 = 40;

/// What the primary had when it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Primary {
    cluster: i64,
    database: i64,
    timeline: u32,
    /// What has been replayed up to here shows everything that anybody saw on the primary.
    pub(super) position: u64,
}

/// What a server says of itself that should be its replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub(super) struct Standing {
    recovering: bool,
    cluster: i64,
    database: i64,
    /// Of the last restart point.
    timeline: i32,
    /// Of what was replayed since and is on the disk; 0 or less where that is not known.
    replayed_timeline: i32,
    replayed: Option<i64>,
}

/// Why a server is no replica of the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    NotRecovering,
    OtherCluster,
    OtherDatabase,
    OtherHistory,
}

#[derive(sqlx::FromRow)]
struct Told {
    position: i64,
    timeline: String,
    page_bytes: i64,
    cluster: i64,
    database: i64,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotRecovering => "is not in recovery: it was promoted, or never was a replica",
            Self::OtherCluster => "leads to another cluster than the app URL",
            Self::OtherDatabase => "leads to another database than the app URL",
            Self::OtherHistory => {
                "follows another timeline than the primary, or has no restart point on it yet"
            }
        })
    }
}

impl Primary {
    /// Asks.
    ///
    /// The position is that of insertion: a transaction that commits asynchronously is seen by others before its commit
    /// is written or flushed, so that neither of those positions covers it.
    pub(super) async fn asked(pool: &PgPool) -> Result<Self, sqlx::Error> {
        let told: Told = sqlx::query_as(
            "SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint AS position,
                left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) AS timeline,
                current_setting('wal_block_size')::bigint AS page_bytes,
                s.system_identifier AS cluster, d.oid::bigint AS database
             FROM pg_control_system() s, pg_database d WHERE d.datname = current_database()",
        )
        .fetch_one(pool)
        .await?;
        let broken = |what| sqlx::Error::Decode(format!("{what} is not understood").into());
        let number = |told: i64| u64::try_from(told).map_err(|_| broken("a position"));
        Ok(Self {
            cluster: told.cluster,
            database: told.database,
            timeline: u32::from_str_radix(&told.timeline, 16).map_err(|_| broken("a timeline"))?,
            position: reachable(number(told.position)?, number(told.page_bytes)?),
        })
    }
}

/// The same position as the end of a record, which is what a replica tells. After a record that fills its page the position
/// of insertion is behind the next page's header, where no record ends: on a primary at rest it would never be reached.
/// No record is shorter than 24 bytes, so that within a header no other one ends.
fn reachable(position: u64, page_bytes: u64) -> u64 {
    match position.checked_rem(page_bytes) {
        Some(within @ 1..=PAGE_HEADER_BYTES) => position - within,
        _ => position,
    }
}

impl Standing {
    /// Asks on the connection that is to be read on: another one of the same address may be another server's.
    pub(super) async fn of(connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
        sqlx::query_as(
            "SELECT pg_is_in_recovery() AS recovering, s.system_identifier AS cluster, d.oid::bigint AS database,
                c.timeline_id AS timeline, r.min_recovery_end_timeline AS replayed_timeline,
                (pg_last_wal_replay_lsn() - '0/0'::pg_lsn)::bigint AS replayed
             FROM pg_control_system() s, pg_control_checkpoint() c, pg_control_recovery() r, pg_database d
             WHERE d.datname = current_database()",
        )
        .fetch_one(connection)
        .await
    }

    /// Whether positions of the two can be compared at all.
    pub(super) fn judge(&self, primary: &Primary) -> Result<(), Refusal> {
        if self.cluster != primary.cluster {
            return Err(Refusal::OtherCluster);
        }
        if self.database != primary.database {
            return Err(Refusal::OtherDatabase);
        }
        if !self.recovering {
            return Err(Refusal::NotRecovering);
        }
        // After a promotion two servers have the same positions with other contents.
        let same = |timeline: i32| u32::try_from(timeline).is_ok_and(|one| one == primary.timeline);
        if !same(self.timeline) || (self.replayed_timeline > 0 && !same(self.replayed_timeline)) {
            return Err(Refusal::OtherHistory);
        }
        Ok(())
    }

    /// How many bytes of the log it has still to replay; 0 where it shows all that the primary did.
    pub(super) fn behind(&self, primary: &Primary) -> u64 {
        let replayed = self.replayed.and_then(|at| u64::try_from(at).ok()).unwrap_or(0);
        primary.position.saturating_sub(replayed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIMARY: Primary = Primary { cluster: 7, database: 5, timeline: 2, position: 1000 };
    const REPLICA: Standing = Standing {
        recovering: true,
        cluster: 7,
        database: 5,
        timeline: 2,
        replayed_timeline: 2,
        replayed: Some(1000),
    };

    #[test]
    fn a_stranger_is_told_by_what_differs() {
        let check = |standing: Standing, expected| {
            assert_eq!(standing.judge(&PRIMARY), expected, "{standing:?}");
        };
        check(REPLICA, Ok(()));
        check(Standing { replayed_timeline: 0, ..REPLICA }, Ok(()));
        check(Standing { recovering: false, ..REPLICA }, Err(Refusal::NotRecovering));
        check(Standing { cluster: 8, ..REPLICA }, Err(Refusal::OtherCluster));
        check(Standing { database: 6, ..REPLICA }, Err(Refusal::OtherDatabase));
        check(Standing { timeline: 1, ..REPLICA }, Err(Refusal::OtherHistory));
        check(Standing { timeline: 3, ..REPLICA }, Err(Refusal::OtherHistory));
        check(Standing { replayed_timeline: 3, ..REPLICA }, Err(Refusal::OtherHistory));
    }

    #[test]
    fn it_is_behind_until_the_last_byte() {
        for (replayed, expected) in [(Some(1001), 0), (Some(1000), 0), (Some(999), 1), (None, 1000)]
        {
            assert_eq!(Standing { replayed, ..REPLICA }.behind(&PRIMARY), expected);
        }
    }

    #[test]
    fn a_position_within_a_pages_header_is_the_end_of_the_page_before() {
        for (position, expected) in [
            (8192, 8192),
            (8192 + 24, 8192),
            (8192 + 40, 8192),
            (8192 + 48, 8192 + 48),
            (16383, 16383),
            (0, 0),
        ] {
            assert_eq!(reachable(position, 8192), expected, "{position}");
        }
        assert_eq!(reachable(100, 0), 100);
    }
}
