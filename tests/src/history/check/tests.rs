//! The checker on histories written by hand: a good one has nothing, each fault is named.

use gatehouse_execution::{ExecutionState, state::Event};
use uuid::Uuid;

use super::{
    super::{EVENTS, Kill, Note, ROWS, Sample, events, notes, plant, rows},
    *,
};

const TENANT: Uuid = Uuid::from_u128(1);

/// Executions as their events: `id: event@ms by subject, …`, one a line; a run is noted for each claim.
fn history(text: &str) -> History {
    let mut history = History { runs: Some(Vec::new()), ..History::default() };
    history.limits.insert(TENANT, 1);
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (id, story) = line.split_once(": ").unwrap();
        let id = Uuid::from_u128(id.parse().unwrap());
        let (mut state, mut epoch) = (ExecutionState::Pending, 0);
        for (event, seq) in story.split(", ").zip(1..) {
            let (kind, rest) = event.split_once('@').unwrap();
            let (at, subject) = rest.split_once(' ').unwrap();
            let step = super::super::step(&format!("execution.{kind}")).unwrap();
            state = step.and_then(|step| state.after(step).ok()).unwrap_or(state);
            let note = |epoch, began| Note { worker: "w".into(), execution: id, epoch, began };
            let runs = history.runs.as_mut().unwrap();
            if step == Some(Event::Claim) {
                epoch += 1;
                runs.push(note(epoch, true));
            }
            if matches!(step, Some(Event::Complete | Event::TimeOut)) {
                runs.push(note(epoch, false));
            }
            let at = at.parse::<i64>().unwrap() * 1000;
            let subject = subject.to_owned();
            history.events.push(Told { tenant: TENANT, execution: id, seq, at, step, subject });
        }
        history.rows.push(Row { tenant: TENANT, id, state, epoch, reason: String::new() });
        history.submitted.push(Submitted { id, ends: state });
    }
    history
}

const GOOD: &str = "
    10: submitted@0 c, queued@1 feeder, started@2 worker:a, lost@9 sweep, unqueued@10 sweep, queued@11 feeder, started@20 worker:b, completed@30 worker:b
    11: submitted@0 c, queued@1 feeder, started@10 worker:a, retried@12 worker:a, queued@13 feeder, started@30 worker:a, completed@31 worker:a
    12: submitted@0 c, cancelled@5 c";

fn wrongs(history: &History) -> Vec<Wrong> {
    let mut wrongs: Vec<Wrong> = check(history).iter().map(|found| found.wrong).collect();
    wrongs.dedup();
    wrongs
}

#[test]
fn a_good_history_has_nothing_and_every_planted_fault_is_named() {
    let good = history(GOOD);
    assert_eq!(check(&good), []);
    assert_eq!(plant::missed(&good), [""; 0]);
    // Without a completion nothing can be planted beside it: that is said, not passed over.
    assert!(plant::missed(&history("12: submitted@0 c, cancelled@5 c")).len() > 4);
}

#[test]
fn each_promise_is_judged() {
    let of = |text: &str| wrongs(&history(text));
    // Without an end; without its first events; a second end; an end by another; a step that there is none of.
    assert_eq!(of("10: submitted@0 c, queued@1 feeder"), [Wrong::Lost]);
    let mut gap = history(GOOD);
    gap.events.remove(1);
    assert!(wrongs(&gap).contains(&Wrong::Lost));
    let ended = "10: submitted@0 c, queued@1 f, started@2 worker:a, completed@3 worker:a";
    assert_eq!(of(ended), []);
    assert_eq!(of(&format!("{ended}, cancelled@4 c")), [Wrong::SecondEnd]);
    assert_eq!(of(&format!("{ended}, completed@4 worker:a")), [Wrong::SecondEnd, Wrong::Doubled]);
    assert_eq!(
        of(&ended.replace("completed@3 worker:a", "completed@3 worker:b")),
        [Wrong::Doubled]
    );
    let start = |id: u128| format!("worker:a-{}", Uuid::from_u128(id));
    let kept = |by: String| {
        ended
            .replace("started@2 worker:a", &format!("started@2 {}", start(1)))
            .replace("completed@3 worker:a", &format!("completed@3 {by}"))
    };
    assert_eq!(of(&kept(start(2))), []);
    assert_eq!(of(&kept(start(2).replace(":a-", ":b-"))), [Wrong::Doubled]);
    assert_eq!(of("10: submitted@0 c, started@2 worker:a, cancelled@3 c"), [Wrong::Illegal]);
    // Two at once where one may; the end of one and the begin of the next at the same instant are not.
    let two = |at: u32| {
        format!("{ended}\n11: submitted@0 c, queued@1 f, started@{at} worker:b, failed@9 worker:b")
    };
    assert_eq!(of(&two(2)), [Wrong::OverLimit]);
    assert_eq!(of(&two(3)), []);
    let mut seen = history(ended);
    seen.samples.push(Sample { tenant: TENANT, running: 1 });
    assert_eq!(wrongs(&seen), []);
    seen.samples.push(Sample { tenant: TENANT, running: 2 });
    assert_eq!(wrongs(&seen), [Wrong::OverLimit]);
}

#[test]
fn what_clients_and_drivers_say_must_fit() {
    let ended = "10: submitted@0 c, queued@1 f, started@2 worker:a, completed@3 worker:a";
    let mut unasked = history(ended);
    unasked.submitted.clear();
    assert_eq!(wrongs(&unasked), [Wrong::Unasked]);
    let mut twice = history(ended);
    twice.submitted.push(twice.submitted[0].clone());
    assert_eq!(wrongs(&twice), [Wrong::Doubled]);
    let mut other = history(ended);
    other.submitted[0].ends = ExecutionState::Failed;
    assert_eq!(wrongs(&other), [Wrong::OtherEnd]);
    other.rows[0].reason = "poison".to_owned();
    assert_eq!(wrongs(&other), []);
    let mut unrun = history(ended);
    unrun.runs = Some(Vec::new());
    assert_eq!(wrongs(&unrun), [Wrong::Unrun]);
    unrun.runs = None;
    assert_eq!(wrongs(&unrun), []);
    let mut unclaimed = history(ended);
    let note = Note { epoch: 2, ..unclaimed.runs.as_ref().unwrap()[0].clone() };
    unclaimed.runs.as_mut().unwrap().push(note);
    assert_eq!(wrongs(&unclaimed), [Wrong::Unrun]);
    // One that a client wanted ended may end so.
    let mut wanted = history("10: submitted@0 c, cancelled@1 c");
    wanted.submitted[0].ends = ExecutionState::Completed;
    assert_eq!(wrongs(&wanted), [Wrong::OtherEnd]);
    wanted.cancelled.insert(wanted.rows[0].id);
    assert_eq!(wrongs(&wanted), []);
}

#[test]
fn a_killed_workers_slot_is_free_in_time_and_a_kill_hits_what_was_there() {
    let killed = |freed: u32| {
        let text = format!(
            "10: submitted@0 c, queued@1 f, started@2 worker:a, lost@{freed} sweep, cancelled@{} c",
            freed + 1
        );
        let mut history = history(&text);
        let kill = Kill { at: 5000, subject: "worker:a".into(), aim: ExecutionState::Running };
        history.kills.push(kill);
        history
    };
    assert_eq!(wrongs(&killed(30_000)), []);
    assert_eq!(wrongs(&killed(30_006)), [Wrong::SlotKept]);
    let hit = |at: i64, subject: &str| {
        let mut history = history(GOOD);
        history.kills.push(Kill { at, subject: subject.into(), aim: ExecutionState::Running });
        let coverage = history.coverage(2000).into_iter();
        coverage.filter(|(_, hits)| *hits > 0).map(|(state, _)| state).collect::<Vec<_>>()
    };
    assert_eq!(hit(2500, "worker:a"), [ExecutionState::Queued, ExecutionState::Running]);
    assert_eq!(hit(2500, "worker:b"), [ExecutionState::Queued]);
    assert_eq!(hit(12_500, "worker:b"), [ExecutionState::Queued, ExecutionState::Retry]);
}

#[test]
fn what_psql_and_journals_say_is_read() {
    let id = Uuid::from_u128(7);
    let read = rows(&format!("{TENANT}|{id}|dead_letter|3|poison")).unwrap();
    assert_eq!((read[0].state, read[0].epoch), (ExecutionState::DeadLetter, 3));
    let told = events(&format!("{TENANT}|{id}|2|17|execution.started|worker:a-1")).unwrap();
    assert_eq!((told[0].step, told[0].at), (Some(Event::Claim), 17));
    assert!(events(&format!("{TENANT}|{id}|2|17|execution.slept|worker:a-1")).is_err());
    assert!(rows("nonsense").is_err());
    let noted = notes("w", &format!("began {id} 1\nended {id} 1\n")).unwrap();
    assert!(noted[0].began && !noted[1].began);
    assert!(ROWS.contains("lease_epoch") && EVENTS.contains("seq"));
}
