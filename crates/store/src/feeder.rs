//! The feeder's rows: who has something waiting, how much of it may be offered, and the rows themselves, kept until what was
//! pushed is marked. Whose turn it is, is decided by `gatehouse_execution::fair`.
//! Knows nothing of Redis: what is offered to workers is pushed by the caller, between reading and marking.

use std::{
    collections::{BTreeMap, VecDeque},
    num::NonZeroU32,
    time::Duration,
};

use gatehouse_contract::{ExecutionId, TenantId, Tier};
use gatehouse_execution::fair::{Chosen, Class, LEVELS, Pick, Share, Waiting};
use uuid::Uuid;

use crate::{Error, SystemTx, attempts::slots, events::tell};

/// Tenants of one priority that are looked at in a round.
pub const WINDOW: u32 = 64;
/// Executions of one tenant and priority that are counted, and so offered, in a round.
pub const EACH: u32 = 64;

/// An execution to offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// Whose.
    pub tenant: TenantId,
    /// Which.
    pub execution: ExecutionId,
    /// To which stream: 0 is the most urgent, 3 the least. More urgent than its own priority where it has waited long.
    pub stream: u8,
}

/// From which tenant of each priority on a round looks: from the first, unless there are more than a round sees.
#[derive(Debug, Clone, Copy, Default)]
pub struct Places([Uuid; LEVELS]);

impl Places {
    /// For [`SystemTx::who_waits`].
    pub const fn after(self) -> [Uuid; LEVELS] {
        self.0
    }

    /// Goes on to where the next round begins: with the last one who had a turn, or behind all who were seen where none of
    /// them could have one.
    pub fn went(&mut self, waiting: &Waiting, chosen: &Chosen) {
        for (priority, place) in (0_u8..).zip(&mut self.0) {
            let seen = waiting.classes.iter().filter(|class| class.priority == priority);
            let last_seen = seen.clone().next_back().map(|class| class.tenant);
            let more = u32::try_from(seen.count()).is_ok_and(|seen| seen >= WINDOW);
            let picks = chosen.order.iter().rev().filter_map(|at| chosen.picks.get(*at));
            let mut own = picks.filter(|pick| (pick.priority, pick.stream) == (priority, priority));
            let last = own.next().map(|pick| pick.tenant).or(last_seen);
            *place = match (more, last) {
                (true, Some(tenant)) => tenant.as_uuid(),
                _ => Uuid::nil(),
            };
        }
    }
}

#[derive(sqlx::FromRow)]
struct ClassRow {
    priority: i16,
    tenant_id: Uuid,
    first: i64,
    again: i64,
    waited_s: f64,
    tier: String,
    own_slots: Option<i64>,
    running: i64,
    queued: Vec<i64>,
}

/// A tenant's part where all have something waiting.
const fn weight(tier: Tier) -> NonZeroU32 {
    match tier {
        Tier::Free => NonZeroU32::MIN,
        Tier::Pro => NonZeroU32::MIN.saturating_add(1),
        Tier::Enterprise => NonZeroU32::MIN.saturating_add(3),
    }
}

impl SystemTx {
    /// Feeder: whether this transaction is the only feeder's. What it marks counts under this lock alone, so that one that
    /// was taken for dead and comes back has marked nothing.
    ///
    /// What the policies leave of a table the planner takes for next to nothing, whatever they leave; it would read and sort
    /// all that waits. Here everything comes in the order of an index; what looks dear for it is not compiled.
    pub async fn leads(&mut self) -> Result<bool, Error> {
        let lock = "SELECT pg_try_advisory_xact_lock(hashtextextended('gatehouse feeder', 0))
            AND set_config('enable_sort', 'off', true) = 'off' AND set_config('enable_seqscan', 'off', true) = 'off'
            AND set_config('enable_bitmapscan', 'off', true) = 'off' AND set_config('jit', 'off', true) = 'off'";
        Ok(sqlx::query_scalar(lock).fetch_one(self.connection()).await?)
    }

    /// Feeder: who has something waiting, from the tenant behind `after` of each priority on: at most [`WINDOW`] tenants and
    /// [`EACH`] executions of each, so that what a round costs does not grow with what waits.
    pub async fn who_waits(&mut self, after: [Uuid; LEVELS]) -> Result<Waiting, Error> {
        let rows: Vec<ClassRow> = sqlx::query_as(
            "WITH classes AS MATERIALIZED (
                SELECT s.priority, c.tenant_id
                FROM unnest($1::smallint[], $2::uuid[]) AS s (priority, behind), LATERAL (
                    -- From tenant to tenant, over whatever lies between them: the order of both columns is one index's alone.
                    WITH RECURSIVE step (tenant_id, n) AS (
                        SELECT (SELECT CASE e.priority WHEN s.priority THEN e.tenant_id END FROM executions e
                            WHERE e.state IN ('pending', 'retry') AND (e.priority, e.tenant_id) >= (s.priority, s.behind)
                            ORDER BY e.priority, e.tenant_id LIMIT 1), 1
                        UNION ALL
                        SELECT (SELECT CASE e.priority WHEN s.priority THEN e.tenant_id END FROM executions e
                            WHERE e.state IN ('pending', 'retry')
                            AND (e.priority, e.tenant_id) > (s.priority, step.tenant_id)
                            ORDER BY e.priority, e.tenant_id LIMIT 1), n + 1
                        FROM step WHERE step.tenant_id IS NOT NULL AND n < $3)
                    SELECT tenant_id FROM step WHERE tenant_id IS NOT NULL) c),
             shares AS MATERIALIZED (
                SELECT t.id, t.tier, q.max_concurrent_executions AS own_slots, h.running, h.queued
                FROM (SELECT DISTINCT tenant_id FROM classes) c
                JOIN tenants t ON t.id = c.tenant_id LEFT JOIN tenant_quotas q ON q.tenant_id = t.id, LATERAL (
                    SELECT count(*) FILTER (WHERE e.state = 'running') AS running,
                        ARRAY[count(*) FILTER (WHERE e.state = 'queued' AND e.priority = 0),
                            count(*) FILTER (WHERE e.state = 'queued' AND e.priority = 1),
                            count(*) FILTER (WHERE e.state = 'queued' AND e.priority = 2),
                            count(*) FILTER (WHERE e.state = 'queued' AND e.priority = 3)] AS queued
                    FROM executions e WHERE e.tenant_id = c.tenant_id AND e.state IN ('queued', 'running')) h)
             SELECT c.priority, c.tenant_id, f.n AS first, a.n AS again,
                extract(epoch FROM now() - least(f.oldest, a.oldest, now()))::float8 AS waited_s,
                s.tier, s.own_slots, s.running, s.queued
             FROM classes c JOIN shares s ON s.id = c.tenant_id, LATERAL (
                SELECT count(*) AS n, min(ready) AS oldest FROM (
                    SELECT coalesce(e.due_at, e.created_at) AS ready FROM executions e
                    WHERE e.tenant_id = c.tenant_id AND e.priority = c.priority AND e.state = 'pending'
                    AND coalesce(e.due_at, e.created_at) <= now()
                    ORDER BY coalesce(e.due_at, e.created_at) LIMIT $4) p) f, LATERAL (
                SELECT count(*) AS n, min(ready) AS oldest FROM (
                    SELECT coalesce(e.due_at, e.created_at) AS ready FROM executions e
                    WHERE e.tenant_id = c.tenant_id AND e.priority = c.priority AND e.state = 'retry'
                    AND coalesce(e.due_at, e.created_at) <= now()
                    ORDER BY coalesce(e.due_at, e.created_at) LIMIT $4) r) a
             ORDER BY c.priority, c.tenant_id",
        )
        .bind([0_i16, 1, 2, 3])
        .bind(after)
        .bind(i64::from(WINDOW))
        .bind(i64::from(EACH))
        .fetch_all(self.connection())
        .await?;
        let mut waiting = Waiting::default();
        let mut shares = BTreeMap::new();
        for row in rows {
            let tenant = TenantId::new(row.tenant_id);
            let priority =
                u8::try_from(row.priority).map_err(|_| Error::Unreadable { what: "priority" })?;
            waiting.classes.push(Class {
                tenant,
                priority,
                first: whole(row.first),
                again: whole(row.again),
                waited: Duration::try_from_secs_f64(row.waited_s).unwrap_or_default(),
            });
            let tier: Tier = row.tier.parse().map_err(|_| Error::Unreadable { what: "tier" })?;
            let queued: Vec<u32> = row.queued.into_iter().map(whole).collect();
            shares.insert(
                tenant,
                Share {
                    slots: whole(row.own_slots.unwrap_or_else(|| slots(tier))),
                    weight: weight(tier),
                    running: whole(row.running),
                    queued: queued.try_into().map_err(|_| Error::Unreadable { what: "count" })?,
                },
            );
        }
        waiting.shares = shares;
        Ok(waiting)
    }

    /// Feeder: locks and returns what was chosen, in its order; fewer where some are being changed. Push them,
    /// then [`Self::mark_queued`] those whose push succeeded, then [`Self::commit`]: a worker that is faster waits for the
    /// lock. A crash in between leaves them waiting, and a second offer of the same execution harms nothing.
    pub async fn take(&mut self, chosen: &Chosen) -> Result<Vec<Offer>, Error> {
        let both = || chosen.picks.iter().flat_map(|pick| [(pick, "pending"), (pick, "retry")]);
        let number = |(pick, state): (&Pick, &str)| {
            i64::from(if state == "pending" { pick.first } else { pick.again })
        };
        let rows: Vec<(Uuid, i64)> = sqlx::query_as(
            "SELECT h.id, (p.n - 1) / 2
             FROM unnest($1::uuid[], $2::smallint[], $3::text[], $4::bigint[])
                WITH ORDINALITY AS p (tenant_id, priority, state, most, n), LATERAL (
                SELECT e.id, coalesce(e.due_at, e.created_at) AS ready FROM executions e
                WHERE e.tenant_id = p.tenant_id AND e.priority = p.priority AND e.state = p.state
                AND e.state IN ('pending', 'retry') AND coalesce(e.due_at, e.created_at) <= now()
                ORDER BY coalesce(e.due_at, e.created_at) LIMIT p.most FOR UPDATE SKIP LOCKED) h
             ORDER BY p.n, h.ready",
        )
        .bind(both().map(|(pick, _)| pick.tenant.as_uuid()).collect::<Vec<_>>())
        .bind(both().map(|(pick, _)| i16::from(pick.priority)).collect::<Vec<_>>())
        .bind(both().map(|(_, state)| state).collect::<Vec<_>>())
        .bind(both().map(number).collect::<Vec<_>>())
        .fetch_all(self.connection())
        .await?;
        let mut found: Vec<VecDeque<Uuid>> = vec![VecDeque::new(); chosen.picks.len()];
        for (id, pick) in rows {
            let pick = usize::try_from(pick).ok().and_then(|pick| found.get_mut(pick));
            pick.ok_or(Error::Unreadable { what: "pick" })?.push_back(id);
        }
        let offer = |at: &usize| {
            let (pick, id) = (chosen.picks.get(*at)?, found.get_mut(*at)?.pop_front()?);
            let (tenant, execution) = (pick.tenant, ExecutionId::new(id));
            Some(Offer { tenant, execution, stream: pick.stream })
        };
        Ok(chosen.order.iter().filter_map(offer).collect())
    }

    /// Feeder: marks what was pushed as queued.
    pub async fn mark_queued(&mut self, pushed: &[Offer]) -> Result<(), Error> {
        let tenants: Vec<Uuid> = pushed.iter().map(|offer| offer.tenant.as_uuid()).collect();
        let ids: Vec<Uuid> = pushed.iter().map(|offer| offer.execution.as_uuid()).collect();
        sqlx::query(
            concat!(
                "WITH moved AS (
                UPDATE executions e SET state = 'queued', queued_at = now()
                FROM unnest($1::uuid[], $2::uuid[]) AS pushed (tenant_id, id)
                WHERE e.tenant_id = pushed.tenant_id AND e.id = pushed.id AND e.state IN ('pending', 'retry')
                RETURNING e.tenant_id, e.id, 'execution.queued' AS kind, '{}'::jsonb AS payload, 'feeder' AS job), ",
                tell!(),
                " SELECT FROM moved",
            ),
        )
        .bind(tenants)
        .bind(ids)
        .execute(self.connection())
        .await?;
        Ok(())
    }
}

/// What is beyond the type is as much as it holds.
fn whole(number: i64) -> u32 {
    u32::try_from(number.max(0)).unwrap_or(u32::MAX)
}
