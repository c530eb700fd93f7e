//! How takes, returns and declarations are written as arguments of the Redis function, and how its answers are read
//! (`ratelimit/calls.lua` has the other side). Knows no connection.

use std::{borrow::Borrow, time::Duration};

use gatehouse_contract::TenantId;
use gatehouse_ratelimit::{
    Algorithm, Decision, Declaration, Name, Refused, Return, Rule, Run, Standing, Take, Taken,
    Timestamp, keys,
};
use redis::{Cmd, cmd};

/// What the function answered to one call.
pub(super) type Answers = Vec<Result<Taken, Refused>>;

/// One call for takes that know the same run.
pub(super) fn take<T: Borrow<Take>>(function: &str, run: Option<Run>, takes: &[T]) -> Cmd {
    let takes = || takes.iter().map(Borrow::borrow);
    let mut call = cmd("FCALL");
    call.arg(function).arg(takes().map(|take| take.rules.len()).sum::<usize>());
    takes().for_each(|take| with_keys(&mut call, take.tenant, &take.rules));
    call.arg(run.map_or(0, |run| run.0));
    for take in takes() {
        call.arg(shape(&take.rules));
        let mut ask = [0; 21];
        let numbers =
            [take.cost, take.waiting.max(1), take.ahead, take.divisor.max(1), millis(take.hold)];
        put(&mut ask, &numbers.map(u32::to_be_bytes).concat(), 0);
        put(&mut ask, &[u8::from(take.forced)], 20);
        call.arg(ask.as_slice());
    }
    call
}

/// One call for returns to the same run.
pub(super) fn give_back<T: Borrow<Return>>(function: &str, run: Run, gives: &[T]) -> Cmd {
    let gives = || gives.iter().map(Borrow::borrow);
    let mut call = cmd("FCALL");
    call.arg(function).arg(gives().map(|give| give.rules.len()).sum::<usize>());
    gives().for_each(|give| with_keys(&mut call, give.tenant, &give.rules));
    call.arg(run.0);
    for give in gives() {
        call.arg(shape(&give.rules));
        let mut what = [0; 18];
        put(&mut what, &[give.cost, give.passes].map(u32::to_be_bytes).concat(), 0);
        put(&mut what, &six(give.at), 8);
        put(&mut what, &millis(give.hold).to_be_bytes(), 14);
        call.arg(what.as_slice());
    }
    call
}

/// One call for declarations to the same run.
pub(super) fn declare<T: Borrow<Declaration>>(function: &str, run: Run, all: &[T]) -> Cmd {
    let all = || all.iter().map(Borrow::borrow);
    let mut call = cmd("FCALL");
    call.arg(function).arg(2 * all().count());
    for one in all() {
        let window = key(one.tenant, &one.rule);
        call.arg(&window).arg(window + keys::DECLARED);
    }
    call.arg(run.0);
    for one in all() {
        call.arg(shape(std::slice::from_ref(&one.rule)));
        let charges = one
            .charges
            .iter()
            .flat_map(|(at, amount)| six(*at).into_iter().chain(amount.to_be_bytes()));
        call.arg(charges.collect::<Vec<u8>>());
    }
    call
}

/// Reads the answer to [`take`].
pub(super) fn answers<T: Borrow<Take>>(takes: &[T], reply: &[i64]) -> Option<Answers> {
    let (head, mut rest) = reply.split_at_checked(3)?;
    let [now, run, state] = head else { return None };
    let (at, run) = (Timestamp::from_ms(u64::try_from(*now).ok()?), Run(u64::try_from(*run).ok()?));
    match state {
        0 => {}
        1 => return Some(vec![Err(Refused::Anew(run)); takes.len()]),
        2 => return Some(vec![Err(Refused::Settling(run)); takes.len()]),
        _ => return None,
    }
    let read = takes.iter().map(|take| {
        let take = take.borrow();
        let (head, tail) = rest.split_at_checked(2)?;
        let [waiting, ahead] = head else { return None };
        let (waiting, ahead) = (u32::try_from(*waiting).ok()?, u32::try_from(*ahead).ok()?);
        let allowed = waiting == take.waiting.max(1);
        let each = if allowed { 2 } else { 3 };
        let (standings, tail) = tail.split_at_checked(each * take.rules.len())?;
        rest = tail;
        let standings = standings.chunks_exact(each).map(|standing| match standing {
            [used, free_in] => Some(Standing {
                used: u32::try_from(*used).ok()?,
                free_in: wait(*free_in),
                pass_in: Some(Duration::ZERO),
            }),
            [used, free_in, pass_in] => Some(Standing {
                used: u32::try_from(*used).ok()?,
                free_in: wait(*free_in),
                pass_in: wait(*pass_in),
            }),
            _ => None,
        });
        let decision = Decision { allowed, standings: standings.collect::<Option<_>>()? };
        Some(Ok(Taken { waiting, ahead, decision, at, run }))
    });
    let read = read.collect::<Option<_>>()?;
    rest.is_empty().then_some(read)
}

/// A window's key.
fn key(tenant: TenantId, rule: &Rule) -> String {
    let mut key = String::with_capacity(128);
    keys::write(&mut key, tenant, rule.key_tail());
    key
}

fn with_keys(call: &mut Cmd, tenant: TenantId, rules: &[Rule]) {
    let mut key = String::with_capacity(128);
    for rule in rules {
        key.clear();
        keys::write(&mut key, tenant, rule.key_tail());
        call.arg(&key);
    }
}

/// 13 bytes per rule.
fn shape(rules: &[Rule]) -> Vec<u8> {
    let mut shape = Vec::with_capacity(13 * rules.len());
    for rule in rules {
        shape.push(match rule.algorithm() {
            Algorithm::SubBuckets if rule.name == Name::Burst => 1,
            Algorithm::SubBuckets => 0,
            Algorithm::Ring => 2,
            Algorithm::SortedSet => 3,
            Algorithm::Gcra => 4,
            Algorithm::Day => 5,
        });
        let narrow = |ms: u64| u32::try_from(ms).unwrap_or(u32::MAX).to_be_bytes();
        shape.extend(rule.max.to_be_bytes());
        shape.extend(narrow(rule.span.slot_ms()));
        shape.extend(narrow(rule.span.ms()));
    }
    shape
}

fn put(out: &mut [u8], bytes: &[u8], at: usize) {
    for (out, byte) in out.iter_mut().skip(at).zip(bytes) {
        *out = *byte;
    }
}

/// A moment in six bytes: enough until the year 10889.
fn six(at: Timestamp) -> [u8; 6] {
    let [_, _, bytes @ ..] = at.as_ms().to_be_bytes();
    bytes
}

fn millis(hold: Duration) -> u32 {
    u32::try_from(hold.as_millis()).unwrap_or(u32::MAX)
}

/// A wait; negative is never.
fn wait(ms: i64) -> Option<Duration> {
    u64::try_from(ms).ok().map(Duration::from_millis)
}
