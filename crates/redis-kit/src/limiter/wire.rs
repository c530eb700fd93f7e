//! How takes, returns and declarations are written as arguments of the Redis function, and how its answers are read
//! (`ratelimit/calls.lua` has the other side). Knows no connection.

use std::{borrow::Borrow, time::Duration};

use gatehouse_contract::TenantId;
use gatehouse_ratelimit::{
    Algorithm, Decision, Declaration, Name, Refused, Return, Rule, Run, Standing, Take, Taken,
    Timestamp, keys,
};
use redis::{Cmd, cmd};

/// About what an argument takes: keys have some 60 bytes.
const ARGUMENT_BYTES: usize = 64;

/// What the function answered to one call.
pub(super) type Answers = Vec<Result<Taken, Refused>>;

/// One call for takes that know the same run.
pub(super) fn take<T: Borrow<Take>>(function: &str, run: Option<Run>, takes: &[T]) -> Cmd {
    let takes = || takes.iter().map(Borrow::borrow);
    let keys: usize = takes().map(|take| take.rules.len()).sum();
    let arguments = 4 + keys + 2 * takes().count();
    let mut call = Cmd::with_capacity(arguments, ARGUMENT_BYTES * arguments);
    call.arg("FCALL").arg(function).arg(keys);
    takes().for_each(|take| with_keys(&mut call, take.tenant, &take.rules));
    call.arg(run.map_or(0, |run| run.0));
    for take in takes() {
        call.arg(shape(&take.rules));
        let numbers =
            [take.cost, take.waiting.max(1), take.ahead, take.divisor.max(1), millis(take.hold)];
        let mut ask = [0; 21];
        let bytes = numbers.into_iter().flat_map(u32::to_be_bytes);
        for (place, byte) in ask.iter_mut().zip(bytes.chain([u8::from(take.forced)])) {
            *place = byte;
        }
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
pub(super) fn answers<T: Borrow<Take>>(takes: &[T], reply: &[u8]) -> Option<Answers> {
    let (now, rest) = reply.split_first_chunk::<6>()?;
    let (run, rest) = rest.split_first_chunk::<8>()?;
    let (state, rest) = rest.split_first()?;
    let [a, b, c, d, e, f] = *now;
    let at = Timestamp::from_ms(u64::from_be_bytes([0, 0, a, b, c, d, e, f]));
    let run = Run(u64::from_be_bytes(*run));
    match state {
        0 => {}
        1 => return Some(vec![Err(Refused::Anew(run)); takes.len()]),
        2 => return Some(vec![Err(Refused::Settling(run)); takes.len()]),
        _ => return None,
    }
    let mut numbers = Numbers(rest);
    let read = takes.iter().map(|take| {
        let take = take.borrow();
        let (waiting, ahead) = (numbers.next()?, numbers.next()?);
        let allowed = waiting == take.waiting.max(1);
        let mut standings = Vec::with_capacity(take.rules.len());
        for _ in take.rules.iter() {
            let (used, free_in) = (numbers.next()?, wait(numbers.next()?));
            let pass_in = if allowed { Some(Duration::ZERO) } else { wait(numbers.next()?) };
            standings.push(Standing { used, free_in, pass_in });
        }
        let decision = Decision { allowed, standings };
        Some(Ok(Taken { waiting, ahead, decision, at, run }))
    });
    let read = read.collect::<Option<_>>()?;
    numbers.0.is_empty().then_some(read)
}

/// Numbers of four bytes.
struct Numbers<'a>(&'a [u8]);

impl Numbers<'_> {
    fn next(&mut self) -> Option<u32> {
        let (number, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*number))
    }
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

/// A wait; the greatest number is never.
fn wait(ms: u32) -> Option<Duration> {
    (ms < u32::MAX).then(|| Duration::from_millis(ms.into()))
}
