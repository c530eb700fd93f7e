//! Judges a history: nothing is lost, nothing counts twice, no limit is passed, every slot comes back. Pure: the same
//! history gives the same findings. Knows the table of states and what is promised, nothing of how it is kept.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use gatehouse_execution::{ExecutionState, state::Event};
use uuid::Uuid;

use super::{History, Micros, Note, Row, Submitted, Told, moves};

#[cfg(test)]
mod tests;

/// Within this a slot of a worker that was killed is another's to take (edge case 31).
const FREED: Micros = 30_000_000;

/// A promise that was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wrong {
    /// Accepted and not there, or never ended.
    Lost,
    /// More than one effective completion, a run twice under one claim, or an end by another than who had it.
    Doubled,
    /// Ended, and ended once more.
    SecondEnd,
    /// More of a tenant ran at one instant than may.
    OverLimit,
    /// A killed worker's slot was not free within [`FREED`].
    SlotKept,
    /// A step that the table does not have, or events that do not add up to the row.
    Illegal,
    /// A result without the run that it is of, or a run without a claim.
    Unrun,
    /// There, and submitted by nobody.
    Unasked,
    /// Another end than its script has, without a reason for it.
    OtherEnd,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which promise.
    pub wrong: Wrong,
    /// The execution, or the tenant of a limit.
    pub of: Uuid,
    /// For people.
    pub says: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}: {}", self.wrong, self.of, self.says)
    }
}

/// Everything that is wrong.
pub fn check(history: &History) -> Vec<Finding> {
    let mut found = Vec::new();
    let stories = history.stories();
    let rows: BTreeMap<Uuid, &Row> = history.rows.iter().map(|row| (row.id, row)).collect();
    let mut runs: BTreeMap<Uuid, Vec<&Note>> = BTreeMap::new();
    for note in history.runs.iter().flatten() {
        runs.entry(note.execution).or_default().push(note);
    }
    let mut asked: BTreeMap<Uuid, &Submitted> = BTreeMap::new();
    for submitted in &history.submitted {
        if asked.insert(submitted.id, submitted).is_some() {
            found.push(finding(Wrong::Doubled, submitted.id, "accepted twice".to_owned()));
        }
    }
    for (id, submitted) in &asked {
        let (Some(row), Some(story)) = (rows.get(id), stories.get(id)) else {
            found.push(finding(Wrong::Lost, *id, "accepted, and not there".to_owned()));
            continue;
        };
        found.extend(life(row, story));
        if history.runs.is_some() {
            found.extend(proven(row, story, runs.get(id).map_or(&[], Vec::as_slice)));
        }
        let cancelled = history.cancelled.contains(id) && row.state == ExecutionState::Cancelled;
        let fits = row.state == submitted.ends || cancelled || row.reason == "poison";
        if row.state.is_settled() && !fits {
            let says = format!("ended as {} ({}), not {}", row.state, row.reason, submitted.ends);
            found.push(finding(Wrong::OtherEnd, *id, says));
        }
    }
    let there: BTreeSet<Uuid> =
        rows.keys().chain(stories.keys()).chain(runs.keys()).copied().collect();
    for id in there.iter().filter(|id| !asked.contains_key(id)) {
        found.push(finding(Wrong::Unasked, *id, "there, and accepted from nobody".to_owned()));
    }
    found.extend(limits(history));
    found.extend(slots(history, &stories));
    found
}

fn finding(wrong: Wrong, of: Uuid, says: String) -> Finding {
    Finding { wrong, of, says }
}

/// One execution's events: numbered without gaps, each a step of the table, each end once and by whoever had it.
fn life(row: &Row, story: &[&Told]) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut say = |wrong, says: String| found.push(finding(wrong, row.id, says));
    let mut state = ExecutionState::Pending;
    let (mut holder, mut epoch, mut completed) = (None, 0, 0);
    for (told, seq) in story.iter().zip(1..) {
        if told.seq != seq {
            say(Wrong::Lost, format!("event {seq} is missing"));
            break;
        }
        let Some(step) = told.step else { continue };
        completed += u32::from(step == Event::Complete);
        let Ok(next) = state.after(step) else {
            let end = matches!(
                step,
                Event::Complete | Event::Fail | Event::TimeOut | Event::GiveUp | Event::Cancel
            );
            let wrong = if end && state.is_settled() { Wrong::SecondEnd } else { Wrong::Illegal };
            say(wrong, format!("{step:?} by {} where it was {state}", told.subject));
            continue;
        };
        if step == Event::Claim {
            epoch += 1;
            holder = Some(told.subject.as_str());
        }
        // The sweep takes leases from the dead; else only its holder speaks, or a later start of the same worker, which
        // tells what was kept while the database was away.
        if state == ExecutionState::Running
            && told.subject != "sweep"
            && holder.map(of_worker) != Some(of_worker(&told.subject))
        {
            say(Wrong::Doubled, format!("{step:?} by {}, held by {holder:?}", told.subject));
        }
        state = next;
    }
    if completed > 1 {
        say(Wrong::Doubled, format!("{completed} completions"));
    }
    if state != row.state || epoch != row.epoch {
        let row = format!("the row {} under {}", row.state, row.epoch);
        say(Wrong::Illegal, format!("events say {state} under {epoch}, {row}"));
    }
    if !row.state.is_settled() {
        say(Wrong::Lost, format!("still {}", row.state));
    }
    found
}

/// Which worker a subject is: an incarnation is its name, a dash and an id.
fn of_worker(subject: &str) -> &str {
    let name = subject.len().checked_sub(37).and_then(|at| subject.split_at_checked(at));
    match name {
        Some((name, id)) if id.starts_with('-') => name,
        _ => subject,
    }
}

/// What the driver wrote down: a run for each result, and none that nobody claimed.
fn proven(row: &Row, story: &[&Told], notes: &[&Note]) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut say = |wrong, says: String| found.push(finding(wrong, row.id, says));
    let (mut began, mut ended) = (BTreeMap::new(), BTreeSet::new());
    for note in notes {
        if note.began {
            *began.entry(note.epoch).or_insert(0_u32) += 1;
        } else {
            ended.insert(note.epoch);
        }
    }
    for (epoch, times) in &began {
        if *times > 1 {
            say(Wrong::Doubled, format!("{times} runs under epoch {epoch}"));
        }
        if *epoch > row.epoch {
            say(Wrong::Unrun, format!("a run under epoch {epoch}, which nobody claimed"));
        }
    }
    let mut epoch = 0;
    for told in story {
        match told.step {
            Some(Event::Claim) => epoch += 1,
            Some(Event::Complete | Event::TimeOut) if !ended.contains(&epoch) => {
                say(Wrong::Unrun, format!("a result under epoch {epoch} without a run"));
            }
            _ => {}
        }
    }
    found
}

/// Never more running than may: by events, and by an observer's counts.
///
/// A claim's event is written behind the lock under which it counted, an end's before its commit: at every instant this
/// counts at most as many as held a slot, and every claim that did not count another one.
fn limits(history: &History) -> Vec<Finding> {
    let mut found = Vec::new();
    let over = |tenant: &Uuid, most: u64| {
        let limit = history.limits.get(tenant).copied().unwrap_or_default();
        (most > limit).then(|| format!("{most} at once, {limit} may"))
    };
    for (tenant, most) in &most_running(history) {
        found.extend(over(tenant, *most).map(|says| finding(Wrong::OverLimit, *tenant, says)));
    }
    for sample in &history.samples {
        let over = over(&sample.tenant, sample.running);
        found.extend(over.map(|says| finding(Wrong::OverLimit, sample.tenant, says + " (seen)")));
    }
    found
}

/// How many of each tenant ran at once, by events.
pub(super) fn most_running(history: &History) -> BTreeMap<Uuid, u64> {
    let mut states: BTreeMap<Uuid, ExecutionState> = BTreeMap::new();
    let mut steps: Vec<(Micros, bool, Uuid)> = Vec::new();
    for told in history.stories().values().flatten() {
        let state = states.entry(told.execution).or_insert(ExecutionState::Pending);
        let Some(next) = told.step.and_then(|step| state.after(step).ok()) else { continue };
        let (was, is) = (*state == ExecutionState::Running, next == ExecutionState::Running);
        if was != is {
            steps.push((told.at, is, told.tenant));
        }
        *state = next;
    }
    // Of one instant the ends first.
    steps.sort_unstable();
    let mut running: BTreeMap<Uuid, u64> = BTreeMap::new();
    let mut most: BTreeMap<Uuid, u64> = BTreeMap::new();
    for (_, begins, tenant) in steps {
        let now = running.entry(tenant).or_default();
        *now = if begins { *now + 1 } else { now.saturating_sub(1) };
        let most = most.entry(tenant).or_default();
        *most = (*most).max(*now);
    }
    most
}

/// What a killed worker ran is somebody else's, or ended, soon after.
fn slots(history: &History, stories: &BTreeMap<Uuid, Vec<&Told>>) -> Vec<Finding> {
    let mut found = Vec::new();
    for kill in &history.kills {
        for (id, story) in stories {
            let story: Vec<&Told> = moves(story).collect();
            let last = story.iter().rposition(|told| told.at <= kill.at);
            let Some((last, told)) = last.and_then(|at| Some((at, story.get(at)?))) else {
                continue;
            };
            if told.step != Some(Event::Claim) || told.subject != kill.subject {
                continue;
            }
            let left = story.get(last + 1).map(|next| next.at - kill.at);
            if left.is_none_or(|after| after > FREED) {
                let says = format!("held {left:?} µs after {} was killed", kill.subject);
                found.push(finding(Wrong::SlotKept, *id, says));
            }
        }
    }
    found
}
