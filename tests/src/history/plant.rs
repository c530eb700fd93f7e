//! Faults planted in a recorded history, one of each kind: a checker that does not report them proves nothing by its
//! silence. Knows where a fault must be to be one, not how it is found.

use gatehouse_execution::{ExecutionState, state::Event};

use super::{
    History, Kill, Told,
    check::{Wrong, check, most_running},
};

type Plant = fn(&mut History) -> Option<()>;

/// Each fault that can be planted, and what must be reported.
const ALL: &[(&str, Wrong, Plant)] = &[
    ("an execution that is gone", Wrong::Lost, loss),
    ("an execution that never ends", Wrong::Lost, unended),
    ("a second completion", Wrong::Doubled, double),
    ("a second run under one claim", Wrong::Doubled, rerun),
    ("a second end", Wrong::SecondEnd, second_end),
    ("one more running than may", Wrong::OverLimit, over_limit),
    ("a slot that is kept", Wrong::SlotKept, kept),
];

/// Which planted faults a check of `history` does not report. A history without runs cannot have one of them doubled.
pub fn missed(history: &History) -> Vec<&'static str> {
    let wanted =
        ALL.iter().filter(|(name, ..)| history.runs.is_some() || !name.contains("run under"));
    wanted
        .filter(|(_, wrong, plant)| {
            let mut planted = history.clone();
            plant(&mut planted).is_none()
                || !check(&planted).iter().any(|finding| finding.wrong == *wrong)
        })
        .map(|(name, ..)| *name)
        .collect()
}

/// A completion, and where it is.
fn completion(history: &History) -> Option<(usize, Told)> {
    let at = history.events.iter().position(|told| told.step == Some(Event::Complete))?;
    Some((at, history.events.get(at)?.clone()))
}

fn loss(history: &mut History) -> Option<()> {
    let (_, told) = completion(history)?;
    history.rows.retain(|row| row.id != told.execution);
    history.events.retain(|other| other.execution != told.execution);
    Some(())
}

fn unended(history: &mut History) -> Option<()> {
    let (at, told) = completion(history)?;
    history.events.remove(at);
    let row = history.rows.iter_mut().find(|row| row.id == told.execution)?;
    row.state = ExecutionState::Running;
    Some(())
}

/// As if two workers had each been believed.
fn double(history: &mut History) -> Option<()> {
    let (_, told) = completion(history)?;
    let again = Told { seq: told.seq + 1, at: told.at + 1, subject: "worker:other".into(), ..told };
    history.events.push(again);
    Some(())
}

fn rerun(history: &mut History) -> Option<()> {
    let runs = history.runs.as_mut()?;
    let note = runs.iter().find(|note| note.began)?.clone();
    runs.push(note);
    Some(())
}

fn second_end(history: &mut History) -> Option<()> {
    let (_, told) = completion(history)?;
    let step = Some(Event::Cancel);
    history.events.push(Told { seq: told.seq + 1, at: told.at + 1, step, ..told });
    Some(())
}

/// The limit is said to be one less than ran at once.
fn over_limit(history: &mut History) -> Option<()> {
    let (tenant, most) = most_running(history).into_iter().find(|(_, most)| *most > 0)?;
    history.limits.insert(tenant, most - 1);
    Some(())
}

/// A worker that is said to have been killed right behind a claim whose next event comes much later.
fn kept(history: &mut History) -> Option<()> {
    let (_, told) = completion(history)?;
    let claim = history
        .events
        .iter()
        .filter(|other| other.execution == told.execution && other.step == Some(Event::Claim));
    let claim = claim.max_by_key(|claim| claim.seq)?.clone();
    let later = claim.at + 31_000_000;
    let after = |other: &Told| other.execution == claim.execution && other.seq > claim.seq;
    history
        .events
        .iter_mut()
        .filter(|other| after(other))
        .for_each(|other| other.at += later - claim.at);
    history.kills.push(Kill { at: claim.at, subject: claim.subject, aim: ExecutionState::Running });
    Some(())
}
