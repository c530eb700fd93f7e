//! What happened in a fault run of the execution engine, as three that do not know each other wrote it down: the clients
//! (what was accepted), the runs themselves (what a driver began and ended), and PostgreSQL (rows and events). Read here,
//! judged in [`check`]. Knows nothing of how it was brought about, and no clock.

pub mod check;
pub mod plant;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use gatehouse_execution::{ExecutionState, state::Event};
use uuid::Uuid;

pub use check::{Finding, Wrong};

/// Microseconds since the epoch by the database's clock.
pub type Micros = i64;

/// All of it.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// What clients were told is accepted.
    pub submitted: Vec<Submitted>,
    /// Executions that a client asked to be cancelled, whatever was answered.
    pub cancelled: BTreeSet<Uuid>,
    /// What drivers began and ended, in each worker's order; `None` where the driver writes nothing down.
    pub runs: Option<Vec<Note>>,
    /// The executions' rows at the end.
    pub rows: Vec<Row>,
    /// The events of executions.
    pub events: Vec<Told>,
    /// How many of a tenant may run at once.
    pub limits: BTreeMap<Uuid, u64>,
    /// How many of a tenant ran, counted at one instant by an observer.
    pub samples: Vec<Sample>,
    /// Workers that were killed.
    pub kills: Vec<Kill>,
}

/// An execution that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submitted {
    /// Its id, from the answer.
    pub id: Uuid,
    /// How its script ends, where nothing else comes first.
    pub ends: ExecutionState,
}

/// A driver's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// In whose journal.
    pub worker: String,
    /// Which.
    pub execution: Uuid,
    /// Under which claim.
    pub epoch: u64,
    /// Whether the run began, or ended.
    pub began: bool,
}

/// An execution's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Whose.
    pub tenant: Uuid,
    /// Which.
    pub id: Uuid,
    /// Where it stands.
    pub state: ExecutionState,
    /// The epoch of its last claim.
    pub epoch: u64,
    /// Why the last attempt ended.
    pub reason: String,
}

/// An event of an execution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Whose.
    pub tenant: Uuid,
    /// Of which.
    pub execution: Uuid,
    /// Its number there.
    pub seq: u64,
    /// When it was written: before the commit of its transaction, and behind every lock that it waited for.
    pub at: Micros,
    /// `None` for the submit, and for what changes no state.
    pub step: Option<Event>,
    /// Who wrote it: `worker:` and an incarnation, a job, a client.
    pub subject: String,
}

/// A count of an observer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Whose.
    pub tenant: Uuid,
    /// How many.
    pub running: u64,
}

/// A worker that was killed (SIGKILL).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kill {
    /// When: read before the signal was sent.
    pub at: Micros,
    /// As events name it.
    pub subject: String,
    /// At which state it was aimed.
    pub aim: ExecutionState,
}

impl History {
    /// The events of each execution, in order.
    pub fn stories(&self) -> BTreeMap<Uuid, Vec<&Told>> {
        let mut stories: BTreeMap<Uuid, Vec<&Told>> = BTreeMap::new();
        for told in &self.events {
            stories.entry(told.execution).or_default().push(told);
        }
        stories.values_mut().for_each(|story| story.sort_by_key(|told| told.seq));
        stories
    }

    /// How many kills hit each state: an execution had come into it at most `within` before the kill and had not left it; of
    /// a running one, the killed worker had it.
    pub fn coverage(&self, within: Micros) -> BTreeMap<ExecutionState, usize> {
        let mut hits: BTreeMap<ExecutionState, usize> =
            ExecutionState::ALL.into_iter().map(|state| (state, 0)).collect();
        let stories = self.stories();
        for kill in &self.kills {
            let mut hit = BTreeSet::new();
            for story in stories.values() {
                let mut state = ExecutionState::Pending;
                let mut since = None;
                for told in moves(story).take_while(|told| told.at <= kill.at) {
                    let Some(next) = told.step.map_or(Some(state), |step| state.after(step).ok())
                    else {
                        break;
                    };
                    (state, since) = (next, Some(told));
                }
                let Some(since) = since else { continue };
                let fresh = kill.at - since.at <= within;
                let theirs = state == ExecutionState::Running && since.subject == kill.subject;
                if theirs || (fresh && state != ExecutionState::Running) {
                    hit.insert(state);
                }
            }
            for state in hit {
                *hits.entry(state).or_default() += 1;
            }
        }
        hits
    }

    /// How often each transition of the table was made.
    pub fn transitions(&self) -> BTreeMap<(ExecutionState, String), usize> {
        let mut made = BTreeMap::new();
        for story in self.stories().values() {
            let mut state = ExecutionState::Pending;
            for step in story.iter().filter_map(|told| told.step) {
                *made.entry((state, format!("{step:?}"))).or_default() += 1;
                state = state.after(step).unwrap_or(state);
            }
        }
        made
    }
}

/// The submit and what changed the state since.
pub(crate) fn moves<'s>(story: &'s [&'s Told]) -> impl Iterator<Item = &'s Told> {
    story.iter().copied().filter(|told| told.step.is_some() || told.seq == 1)
}

/// The step that an event of this kind tells of; `None` for the submit, and for what changes no state.
///
/// # Errors
/// It is no kind of an execution's event.
pub fn step(kind: &str) -> Result<Option<Event>> {
    let kind = kind.strip_prefix("execution.").with_context(|| format!("the kind {kind}"))?;
    Ok(match kind {
        "submitted" | "time_runs_out" => None,
        "queued" => Some(Event::Enqueue),
        "unqueued" => Some(Event::Unqueue),
        "started" => Some(Event::Claim),
        "released" | "lost" => Some(Event::Release),
        "completed" => Some(Event::Complete),
        "failed" => Some(Event::Fail),
        "timed_out" => Some(Event::TimeOut),
        "retried" => Some(Event::Retry),
        "given_up" => Some(Event::GiveUp),
        "cancelled" => Some(Event::Cancel),
        "replayed" => Some(Event::Replay),
        other => anyhow::bail!("the kind execution.{other}"),
    })
}

/// The columns of a line, all of them.
fn columns<const N: usize>(line: &str) -> Result<[&str; N]> {
    let columns: Vec<&str> = line.split('|').collect();
    columns.try_into().map_err(|_| anyhow::anyhow!("not {N} columns: {line}"))
}

/// Rows as [`ROWS`] has them.
pub fn rows(text: &str) -> Result<Vec<Row>> {
    let row = |line: &str| -> Result<Row> {
        let [tenant, id, state, epoch, reason] = columns(line)?;
        let (tenant, id) = (tenant.parse()?, id.parse()?);
        let (state, epoch) = (state.parse()?, epoch.parse()?);
        Ok(Row { tenant, id, state, epoch, reason: reason.to_owned() })
    };
    text.lines().map(row).collect()
}

/// Events as [`EVENTS`] has them.
pub fn events(text: &str) -> Result<Vec<Told>> {
    let told = |line: &str| -> Result<Told> {
        let [tenant, execution, seq, at, kind, subject] = columns(line)?;
        let (tenant, execution) = (tenant.parse()?, execution.parse()?);
        let (seq, at, subject) = (seq.parse()?, at.parse()?, subject.to_owned());
        Ok(Told { tenant, execution, seq, at, step: step(kind)?, subject })
    };
    text.lines().map(told).collect()
}

/// What the driver of `worker` wrote down.
pub fn notes(worker: &str, text: &str) -> Result<Vec<Note>> {
    let note = |line: &str| -> Result<Note> {
        let mut words = line.split(' ');
        let mut next = || words.next().with_context(|| format!("the note {line}"));
        let began = next()? == "began";
        let (execution, epoch) = (next()?.parse()?, next()?.parse()?);
        Ok(Note { worker: worker.to_owned(), execution, epoch, began })
    };
    text.lines().map(note).collect()
}

/// Asks for what [`rows`] reads.
pub const ROWS: &str =
    "SELECT tenant_id, id, state, lease_epoch, coalesce(end_reason, '') FROM executions";

/// Asks for what [`events`] reads.
pub const EVENTS: &str =
    "SELECT tenant_id, aggregate_id, seq, (extract(epoch FROM at) * 1000000)::bigint, kind, subject
    FROM event_store WHERE aggregate_kind = 'execution'";
