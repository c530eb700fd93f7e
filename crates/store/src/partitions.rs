//! The months of the tables that grow without end: the job that makes them ahead and drops old ones, and how long each is
//! kept. The making is one function of the owner's that takes nothing (`migrations/0012_tenancy.sql`); this calls it.
//! Knows no table.

use crate::{AdminTx, Error, SystemTx, members::Changed};

/// What the job did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Maintained {
    /// Made ahead.
    pub made: Vec<String>,
    /// Dropped, with every row that they had.
    pub dropped: Vec<String>,
}

/// How long a table's months are kept.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Retention {
    /// The table.
    pub parent: String,
    /// Whole months after a partition's own; `None` is for ever.
    pub keep_months: Option<i32>,
}

impl SystemTx {
    /// Partitions: sees to it that this month and the three after it can take rows, and drops those whose time is over.
    /// A second run at the same time waits and finds nothing to do; one that cannot have its locks within 3 s is
    /// [`Error::Unavailable`], and its next turn does it.
    pub async fn maintain_partitions(&mut self) -> Result<Maintained, Error> {
        let rows: Vec<(String, bool)> =
            sqlx::query_as("SELECT partition_name, was_made FROM maintain_partitions()")
                .fetch_all(self.connection())
                .await?;
        let mut maintained = Maintained::default();
        for (name, was_made) in rows {
            let list = if was_made { &mut maintained.made } else { &mut maintained.dropped };
            list.push(name);
        }
        for month in maintained.dropped.iter().filter_map(|name| name.strip_prefix("executions_")) {
            // What was stored in a month goes with it; the first partition has every month before the next one's.
            sqlx::query(
                "DELETE FROM usage_counters WHERE quota = 'storage_bytes' AND day <= CASE $1 WHEN 'p0' THEN (
                    SELECT coalesce(min(to_date(right(c.relname, 7), 'YYYY_MM')), now()::date) - 1
                    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                    WHERE i.inhparent = 'executions'::regclass AND c.relname ~ '_[0-9]{4}_[0-9]{2}$')
                 ELSE to_date($1, 'YYYY_MM') END",
            )
            .bind(month)
            .execute(self.connection())
            .await?;
        }
        Ok(maintained)
    }
}

impl AdminTx<'_> {
    /// How long each table's months are kept.
    pub async fn retention(&mut self) -> Result<Vec<Retention>, Error> {
        sqlx::query_as("SELECT parent, keep_months FROM partition_rules ORDER BY parent")
            .fetch_all(self.connection())
            .await
            .map_err(Into::into)
    }

    /// Keeps a table's months so long: 1 to 1200, else [`Error::Statement`]. The job's next turn drops what is older.
    pub async fn set_retention(
        &mut self,
        parent: &str,
        keep_months: Option<i32>,
    ) -> Result<Changed, Error> {
        let before: Option<Option<i32>> = sqlx::query_scalar(
            "SELECT keep_months FROM partition_rules WHERE parent = $1 FOR NO KEY UPDATE",
        )
        .bind(parent)
        .fetch_optional(self.connection())
        .await?;
        match before {
            None => return Ok(Changed::Missing),
            Some(before) if before == keep_months => return Ok(Changed::No),
            Some(_) => {}
        }
        sqlx::query("UPDATE partition_rules SET keep_months = $2 WHERE parent = $1")
            .bind(parent)
            .bind(keep_months)
            .execute(self.connection())
            .await?;
        let tenant = self.parts().1.tenant;
        self.audit(tenant, "retention.change", "table", parent).await?;
        Ok(Changed::Yes)
    }
}
