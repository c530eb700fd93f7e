//! Rows about how often: the free tier's limit, seen from outside, and where it was counted.

use std::{
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::Context;
use gatehouse_contract::{Role, header};

use super::{Seen, Table, World, refused_at_gateway, seen};
use crate::{
    http::Answer,
    stack::{instance::Limiter, redis::Client},
    up::api::Call,
};

/// The free tier's limit per minute (design §3.4).
const LIMIT: usize = 60;
const WINDOW_S: u64 = 60;
/// Four requests a second.
const EVERY: Duration = Duration::from_millis(250);

/// What was seen while the limit was used up.
pub struct UsedUp {
    /// Every answer, and how long after the first request it was asked for.
    answers: Vec<(Duration, Answer)>,
    /// The tenant's keys in Redis right afterwards: they end with their window.
    keys: Vec<String>,
    /// How often the limiter's function was called by then.
    calls: u64,
}

/// Begins to use the free tenant's limit up.
pub fn begin(world: &World) -> JoinHandle<anyhow::Result<UsedUp>> {
    let (api, instance, tenant) = (world.api.clone(), world.instance.clone(), world.free.id);
    let client = world.free.client(Role::Viewer).cloned();
    std::thread::spawn(move || {
        let token = api.token(&client?)?;
        let began = Instant::now();
        let mut answers = Vec::with_capacity(LIMIT + 1);
        for n in 0..=LIMIT {
            let at = EVERY * u32::try_from(n).unwrap_or(u32::MAX);
            std::thread::sleep(at.saturating_sub(began.elapsed()));
            let asked = began.elapsed();
            answers.push((asked, api.send(Call::get("/api/v1/registry/agents").token(&token))?));
        }
        let redis = Client {
            program: &instance.redis_cli,
            port: instance.ports.redis,
            secrets: &instance.secrets,
        };
        let keys = redis.ask(&["KEYS", &format!("rl:{{{tenant}}}:*")])?;
        let keys = keys.lines().filter(|key| !key.is_empty()).map(str::to_owned).collect();
        Ok(UsedUp { answers, keys, calls: function_calls(&redis)? })
    })
}

/// Red when the sidecar's configuration gives the free tier 61; when the sidecar is stopped; when the instance says
/// that it counts elsewhere than it does.
pub fn rows(world: &World, used_up: JoinHandle<anyhow::Result<UsedUp>>, table: &mut Table) {
    let used_up = used_up.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the sender broke")));
    let used_up = table.row("the free tenant's 61st request in a minute is 429", || {
        let used_up = used_up?;
        let text = over_the_limit(&used_up.answers)?;
        Ok(Seen { value: used_up, text })
    });
    if let Some(UsedUp { keys, calls, .. }) = used_up {
        table.row("the limit was counted where it should", || match world.instance.limiter {
            Limiter::Memory => {
                anyhow::ensure!(keys.is_empty(), "Redis has {keys:?}");
                Ok(seen("in the sidecar: Redis has no key of this tenant"))
            }
            Limiter::Redis => {
                anyhow::ensure!(!keys.is_empty(), "Redis has no key of this tenant");
                anyhow::ensure!(calls > LIMIT as u64, "the function was called {calls} times");
                Ok(seen(format!("{}; {calls} calls of the function", keys.join(" "))))
            }
        });
    }
    table.row("another tenant's limit is untouched", || {
        let token = world.token(&world.other, Role::Viewer)?;
        let call = Call::get("/api/v1/registry/agents").token(&token);
        let answer = world.api.want(200, call)?;
        Ok(seen(format!("200, remaining {}", number(&answer, header::RATE_REMAINING)?)))
    });
}

fn over_the_limit(answers: &[(Duration, Answer)]) -> anyhow::Result<String> {
    for (n, (_, answer)) in answers.iter().take(LIMIT).enumerate() {
        anyhow::ensure!(answer.status == 200, "request {}: {}", n + 1, answer.status);
        anyhow::ensure!(
            number(answer, header::RATE_LIMIT)? == LIMIT as u64
                && number(answer, header::RATE_REMAINING)? == (LIMIT - 1 - n) as u64,
            "request {}: {:?}",
            n + 1,
            answer.headers
        );
    }
    let (asked, last) = answers.last().context("no answers")?;
    let words = refused_at_gateway(last, 429, "quota_exceeded")?;
    let retry = number(last, "retry-after")?;
    anyhow::ensure!(number(last, header::RATE_LIMIT)? == LIMIT as u64, "{:?}", last.headers);
    anyhow::ensure!(number(last, header::RATE_REMAINING)? == 0, "{:?}", last.headers);
    anyhow::ensure!(number(last, header::RATE_RESET)? == retry, "{:?}", last.headers);
    // The first request leaves the window 60 s after it came; windows are counted in slots of a second.
    let due = WINDOW_S.saturating_sub(asked.as_secs());
    anyhow::ensure!(
        (due.saturating_sub(1)..=due + 1).contains(&retry),
        "Retry-After is {retry}, the first request leaves the window in {due} s"
    );
    Ok(format!(
        "60 × 200 with remaining 59…0, then {words}, retry-after {retry} at second {}",
        asked.as_secs()
    ))
}

fn number(answer: &Answer, name: &str) -> anyhow::Result<u64> {
    let text = answer.header(name).with_context(|| format!("no {name}"))?;
    text.parse().with_context(|| format!("{name} is {text:?}"))
}

fn function_calls(redis: &Client<'_>) -> anyhow::Result<u64> {
    let stats = redis.ask(&["INFO", "commandstats"])?;
    let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_fcall:calls="));
    let calls = line.and_then(|rest| rest.split(',').next()).unwrap_or("0");
    calls.parse().with_context(|| format!("Redis counts {calls:?} calls"))
}
