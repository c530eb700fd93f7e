//! What the events of an execution add up to. Which may follow which is decided by the table in `gatehouse_execution`.
//! Knows nothing of where an execution is stored.

use gatehouse_contract::{AgentId, AgentVersionId};
use gatehouse_execution::{EndReason, ExecutionState, state::Event as Step};
use serde::Serialize;
use serde_json::Value;
use time::{OffsetDateTime, serde::rfc3339};

use crate::{Event, Illegal, event::ExecutionEnded};

/// An execution after its events.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Execution {
    /// The agent.
    pub agent_id: AgentId,
    /// The version that runs.
    pub version_id: AgentVersionId,
    /// Where it stands.
    pub state: ExecutionState,
    /// 1 is the first; 0 before that.
    pub attempt: u32,
    /// The fencing token of the last claim.
    pub lease_epoch: u64,
    /// Who has it, or had it last.
    pub worker: Option<String>,
    /// What the agent reads.
    pub input: Value,
    /// What it wrote.
    pub output: Option<Value>,
    /// Why the last attempt ended.
    pub end_reason: Option<EndReason>,
    /// The same for people.
    pub error: Option<String>,
    /// When it was submitted.
    #[serde(with = "rfc3339")]
    pub created_at: OffsetDateTime,
    /// When the last attempt started.
    #[serde(with = "rfc3339::option")]
    pub started_at: Option<OffsetDateTime>,
    /// When it ended.
    #[serde(with = "rfc3339::option")]
    pub completed_at: Option<OffsetDateTime>,
}

/// What stands in `error` of an execution whose worker was lost.
pub const LOST: &str = "the worker was lost";

impl Execution {
    /// The execution after one more event; `None` is the one that is not there yet.
    ///
    /// # Errors
    /// [`Illegal`] for an event of something else, or one that the table of states does not have.
    pub fn after(before: Option<Self>, event: Event) -> Result<Self, Illegal> {
        let illegal = Illegal { kind: event.kind() };
        let Some(mut now) = before else {
            let Event::ExecutionSubmitted(new) = event else { return Err(illegal) };
            return Ok(Self {
                agent_id: new.agent_id,
                version_id: new.version_id,
                state: ExecutionState::Pending,
                attempt: 0,
                lease_epoch: 0,
                worker: None,
                input: new.input,
                output: None,
                end_reason: None,
                error: None,
                created_at: new.created_at,
                started_at: None,
                completed_at: None,
            });
        };
        let step = |state: ExecutionState, step| state.after(step).map_err(|_| illegal);
        match event {
            Event::ExecutionQueued(_) => now.state = step(now.state, Step::Enqueue)?,
            Event::ExecutionUnqueued(_) => now.state = step(now.state, Step::Unqueue)?,
            Event::ExecutionStarted(claim) => {
                now.state = step(now.state, Step::Claim)?;
                now.worker = Some(claim.worker);
                now.lease_epoch = claim.lease_epoch;
                now.attempt = claim.attempt;
                now.started_at = Some(claim.started_at);
                now.end_reason = None;
                now.error = None;
            }
            Event::ExecutionReleased(_) => {
                now.state = step(now.state, Step::Release)?;
                now.attempt = now.attempt.saturating_sub(1);
                now.started_at = None;
            }
            Event::ExecutionLost(lost) => {
                let next = match lost.state {
                    ExecutionState::Queued => Step::Release,
                    ExecutionState::DeadLetter => Step::GiveUp,
                    _ => return Err(illegal),
                };
                now.state = step(now.state, next)?;
                now.end_reason = Some(EndReason::Lost);
                now.error = Some(LOST.to_owned());
                now.completed_at = lost.completed_at;
            }
            Event::ExecutionCompleted(how) => now = now.ended(Step::Complete, how, illegal)?,
            Event::ExecutionFailed(how) => now = now.ended(Step::Fail, how, illegal)?,
            Event::ExecutionTimedOut(how) => now = now.ended(Step::TimeOut, how, illegal)?,
            Event::ExecutionRetried(how) => now = now.ended(Step::Retry, how, illegal)?,
            Event::ExecutionGivenUp(how) => now = now.ended(Step::GiveUp, how, illegal)?,
            Event::ExecutionCancelled(how) => now = now.ended(Step::Cancel, how, illegal)?,
            Event::ExecutionReplayed(_) => {
                now.state = step(now.state, Step::Replay)?;
                now.attempt = 0;
                now.end_reason = None;
                now.error = None;
                now.started_at = None;
                now.completed_at = None;
            }
            Event::ExecutionTimeRunsOut(of) => {
                let runs = now.state == ExecutionState::Running;
                if !runs || now.lease_epoch != of.lease_epoch {
                    return Err(illegal);
                }
            }
            Event::ExecutionSubmitted(_)
            | Event::AgentCreated(_)
            | Event::AgentUpdated(_)
            | Event::AgentDeleted(_)
            | Event::VersionPublished(_)
            | Event::VersionPromoted(_)
            | Event::VersionDeprecated(_)
            | Event::QuotaThresholdReached(_)
            | Event::TenantErased(_)
            | Event::AuditRecorded(_) => return Err(illegal),
        }
        Ok(now)
    }

    fn ended(mut self, step: Step, how: ExecutionEnded, illegal: Illegal) -> Result<Self, Illegal> {
        self.state = self.state.after(step).map_err(|_| illegal)?;
        self.output = how.output;
        self.end_reason = Some(how.end_reason);
        self.error = how.error;
        self.completed_at = how.completed_at;
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use time::macros::datetime;
    use uuid::Uuid;

    use super::*;
    use crate::event::{ExecutionLost, ExecutionStarted, ExecutionSubmitted, Nothing};

    const AT: OffsetDateTime = datetime!(2026-11-23 12:00:00 UTC);

    fn submitted() -> Event {
        Event::ExecutionSubmitted(ExecutionSubmitted {
            agent_id: AgentId::new(Uuid::from_u128(1)),
            version_id: AgentVersionId::new(Uuid::from_u128(2)),
            input: json!({"litres": 1}),
            created_at: AT,
        })
    }

    fn started(attempt: u32) -> Event {
        Event::ExecutionStarted(ExecutionStarted {
            worker: "w1".to_owned(),
            lease_epoch: u64::from(attempt),
            attempt,
            started_at: AT,
        })
    }

    fn ended(state: ExecutionState, reason: EndReason) -> Event {
        let how = ExecutionEnded {
            end_reason: reason,
            output: None,
            error: None,
            completed_at: None,
            provenance_hash: None,
        };
        Event::ended(state, how).unwrap()
    }

    fn queued() -> Event {
        Event::ExecutionQueued(Nothing {})
    }

    fn check(events: &[Event], expected: Option<(ExecutionState, u32)>) {
        let rebuilt = events.iter().try_fold(None, |one, event| {
            // Each event is what it is after a way through the store.
            let stored = event.payload().unwrap();
            let kind = event.kind();
            let event = Event::read(kind, kind.schema_version(), stored).unwrap();
            Execution::after(one, event).map(Some)
        });
        let found = rebuilt.ok().flatten().map(|one: Execution| (one.state, one.attempt));
        assert_eq!(found, expected, "{events:?}");
    }

    #[test]
    fn events_follow_the_table_of_states() {
        use ExecutionState::{Completed, DeadLetter, Pending, Queued, Retry, Running};
        let lost = |state| Event::ExecutionLost(ExecutionLost { state, completed_at: None });
        let done = || ended(Completed, EndReason::Completed);
        let retry = || ended(Retry, EndReason::RetryAsked);
        check(&[submitted(), queued(), started(1)], Some((Running, 1)));
        check(&[submitted(), queued(), started(1), done()], Some((Completed, 1)));
        check(
            &[submitted(), queued(), started(1), retry(), queued(), started(2)],
            Some((Running, 2)),
        );
        let released = Event::ExecutionReleased(Nothing {});
        check(&[submitted(), queued(), started(1), released], Some((Queued, 0)));
        check(&[submitted(), queued(), started(1), lost(Queued)], Some((Queued, 1)));
        check(&[submitted(), queued(), started(1), lost(DeadLetter)], Some((DeadLetter, 1)));
        let replayed = || Event::ExecutionReplayed(Nothing {});
        let given_up = || ended(DeadLetter, EndReason::Poison);
        check(&[submitted(), queued(), started(3), given_up(), replayed()], Some((Pending, 0)));
        for bad in [
            vec![queued()],
            vec![submitted(), submitted()],
            vec![submitted(), started(1)],
            vec![submitted(), queued(), started(1), lost(Completed)],
            vec![submitted(), queued(), started(1), done(), retry()],
            vec![submitted(), queued(), started(1), done(), replayed()],
        ] {
            check(&bad, None);
        }
    }

    #[test]
    fn a_payload_of_a_later_build_is_refused() {
        let event = submitted();
        let stored = event.payload().unwrap();
        assert!(Event::read(event.kind(), 2, stored.clone()).is_err());
        assert!(Event::read(event.kind(), 1, json!({})).is_err());
        assert_eq!(Event::read(event.kind(), 1, stored), Ok(event));
    }
}
