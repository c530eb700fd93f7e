//! The faults of a run: kills at the moment at which an execution has come into a wanted state, and between them everything
//! else that can happen to workers and stores. Finds its victims by what the database says. Knows nothing of what must come
//! of it.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Write as _,
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use gatehouse_execution::ExecutionState;
use rustix::process::Signal;

use super::{Dice, Run, clients::Clients};
use crate::{
    engine::{
        Engine,
        postgres::{Mode, Observer},
    },
    fleet::Stalled,
    history::Kill,
    wait,
};

/// How long to wait for an execution in a wanted state; then whoever is there is killed, and the coverage tells.
const AIM: Duration = Duration::from_secs(20);
/// How long to look for the one that feeds: it has its lock for a moment of each round.
const FEEDS: Duration = Duration::from_secs(3);

/// What happens between two kills.
#[derive(Debug, Clone, Copy)]
enum Fault {
    WorkerStopped,
    FeederStopped,
    RedisWiped,
    RedisStalled,
    PostgresFast,
    PostgresImmediate,
}

const FAULTS: [Fault; 6] = [
    Fault::WorkerStopped,
    Fault::RedisWiped,
    Fault::PostgresFast,
    Fault::FeederStopped,
    Fault::RedisStalled,
    Fault::PostgresImmediate,
];

impl Fault {
    const fn name(self) -> &'static str {
        match self {
            Self::WorkerStopped => "worker stopped",
            Self::FeederStopped => "feeder stopped",
            Self::RedisWiped => "Redis wiped",
            Self::RedisStalled => "Redis stalled",
            Self::PostgresFast => "PostgreSQL restarted fast",
            Self::PostgresImmediate => "PostgreSQL restarted immediately",
        }
    }
}

type Made = (Vec<Kill>, BTreeMap<&'static str, usize>);

/// Makes the faults: `rounds` kills at each state, and more until clients have what they shall have.
pub(super) fn inject(engine: &mut Engine, run: Run, clients: &Clients) -> Result<Made> {
    let mut dice = Dice::new(run.seed);
    let mut observer = engine.postgres.observer();
    let (mut kills, mut faults) = (Vec::new(), BTreeMap::new());
    let mut others = FAULTS.iter().cycle().skip(usize::try_from(run.seed % 6)?);
    let mut log = File::create(engine.dir().join("faults.log"))?;
    let mut round = 0;
    while round < run.rounds || clients.accepted() < run.executions {
        for state in shuffled(&mut dice) {
            let kill = kill(engine, state, &mut dice, &mut observer)?;
            writeln!(log, "{} killed {} at {state}", kill.at, kill.subject)?;
            kills.push(kill);
            *faults.entry("worker killed").or_default() += 1;
            let fault = *others.next().context("no faults")?;
            writeln!(log, "{} {}", now()?, fault.name())?;
            make(engine, fault, &mut dice, &mut observer)?;
            writeln!(log, "{} over, {} accepted", now()?, clients.accepted())?;
            *faults.entry(fault.name()).or_default() += 1;
            if round >= run.rounds && clients.accepted() >= run.executions {
                break;
            }
        }
        round += 1;
    }
    Ok((kills, faults))
}

fn shuffled(dice: &mut Dice) -> Vec<ExecutionState> {
    let mut left = ExecutionState::ALL.to_vec();
    let mut states = Vec::new();
    while let Some(state) = dice.pick(&left).copied() {
        left.retain(|other| *other != state);
        states.push(state);
    }
    states
}

/// Kills a worker as soon as an execution has come into `state`, by its hand where workers bring that about, and begins it
/// again.
fn kill(
    engine: &mut Engine,
    state: ExecutionState,
    dice: &mut Dice,
    observer: &mut Observer,
) -> Result<Kill> {
    let feeds = matches!(state, ExecutionState::Pending | ExecutionState::Queued);
    let feeder = if feeds { feeder(engine, observer) } else { None };
    let subject = aim(state, observer);
    let by = |subject: &String| engine.workers.iter().position(|worker| worker.subject == *subject);
    let any = usize::try_from(dice.between(0, engine.workers.len() as u64))?;
    let at = feeder.or_else(|| subject.as_ref().and_then(by)).unwrap_or(any);
    let worker = engine.workers.get_mut(at).context("no workers")?;
    let kill = Kill { at: now()?, subject: worker.subject.clone(), aim: state };
    worker.process.kill()?;
    worker.again().with_context(|| format!("{} begins again", worker.name))?;
    Ok(kill)
}

/// Who brought an execution into `state` a moment ago.
fn aim(state: ExecutionState, observer: &mut Observer) -> Option<String> {
    let kinds = match state {
        ExecutionState::Pending => "'execution.submitted', 'execution.unqueued'",
        ExecutionState::Queued => "'execution.queued'",
        ExecutionState::Running => "'execution.started'",
        ExecutionState::Completed => "'execution.completed'",
        ExecutionState::Failed => "'execution.failed'",
        ExecutionState::Timeout => "'execution.timed_out'",
        ExecutionState::Retry => "'execution.retried'",
        ExecutionState::Cancelled => "'execution.cancelled'",
        ExecutionState::DeadLetter => "'execution.given_up'",
    };
    let sql = format!(
        "SELECT subject FROM event_store WHERE aggregate_kind = 'execution' AND kind IN ({kinds})
         AND at > clock_timestamp() - interval '60 milliseconds' ORDER BY at DESC LIMIT 1"
    );
    let end = Instant::now() + AIM;
    while Instant::now() < end {
        match observer.ask(&sql) {
            Ok(subject) if !subject.is_empty() => return Some(subject),
            _ => std::thread::sleep(Duration::from_millis(5)),
        }
    }
    None
}

/// The worker whose transaction has the feeder's lock.
fn feeder(engine: &Engine, observer: &mut Observer) -> Option<usize> {
    let sql = "SELECT a.client_port FROM pg_locks l JOIN pg_stat_activity a USING (pid)
        WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
        AND ((l.classid::bigint << 32) | l.objid::bigint) = hashtextextended('gatehouse feeder', 0)";
    let end = Instant::now() + FEEDS;
    while Instant::now() < end {
        let port = observer.ask(sql).ok().and_then(|port| port.parse::<u16>().ok());
        let found = port.and_then(socket).and_then(|socket| {
            engine.workers.iter().position(|worker| has(worker.process.id(), &socket))
        });
        if found.is_some() {
            return found;
        }
    }
    None
}

/// The socket at a local port of this machine, as it is named below `/proc/PID/fd`.
fn socket(port: u16) -> Option<String> {
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    let local = format!(":{port:04X}");
    let line = table.lines().find(|line| {
        line.split_whitespace().nth(1).is_some_and(|address| address.ends_with(&local))
    })?;
    Some(format!("socket:[{}]", line.split_whitespace().nth(9)?))
}

fn has(process: u32, socket: &str) -> bool {
    let Ok(files) = std::fs::read_dir(format!("/proc/{process}/fd")) else { return false };
    files
        .flatten()
        .any(|file| std::fs::read_link(file.path()).is_ok_and(|to| to == Path::new(socket)))
}

fn make(engine: &mut Engine, fault: Fault, dice: &mut Dice, observer: &mut Observer) -> Result<()> {
    let lasts = |dice: &mut Dice, to_ms| Duration::from_millis(dice.between(300, to_ms));
    match fault {
        Fault::WorkerStopped | Fault::FeederStopped => {
            let any = usize::try_from(dice.between(0, engine.workers.len() as u64))?;
            let feeds = matches!(fault, Fault::FeederStopped);
            let at = if feeds { feeder(engine, observer).unwrap_or(any) } else { any };
            let worker = engine.workers.get(at).context("no workers")?;
            // Shorter than its lease, and longer.
            let stopped = Stalled::new(&worker.process)?;
            rest(lasts(dice, 6000));
            drop(stopped);
        }
        Fault::RedisWiped => drop(engine.redis.ask(&["FLUSHALL"])?),
        Fault::RedisStalled => {
            engine.redis.process.signal(Signal::STOP)?;
            rest(lasts(dice, 3000));
            engine.redis.process.signal(Signal::CONT)?;
        }
        Fault::PostgresFast | Fault::PostgresImmediate => {
            let fast = matches!(fault, Fault::PostgresFast);
            engine.postgres.down(if fast { Mode::Fast } else { Mode::Immediate })?;
            rest(lasts(dice, 1500));
            engine.postgres.up()?;
            wait::until("PostgreSQL answers", wait::START, || observer.ask("SELECT 1").map(Some))?;
        }
    }
    Ok(())
}

/// Nothing is waited for but time itself: how long a fault lasts is part of it.
fn rest(span: Duration) {
    wait::until_instant(Instant::now() + span);
}

/// By the clock that the database has.
fn now() -> Result<i64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock")?;
    Ok(i64::try_from(since.as_micros())?)
}
