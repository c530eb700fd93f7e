//! The rate limit as a client meets it. Knows nothing of where the windows are kept: the same function runs with
//! either store.

use std::time::{Duration, Instant};

use anyhow::Result;
use gatehouse_contract::{Role, Tier};
use gatehouse_tests::{
    http::{Message, Request},
    wait,
    world::World,
};

use super::{AGENTS, refusal};

/// The free tier's promise.
const LIMIT: u32 = 60;
/// Four a second.
const PACE: Duration = Duration::from_millis(250);

struct Standing {
    limit: u32,
    remaining: u32,
    reset_s: u64,
}

/// The rate headers: each once, each a number.
#[track_caller]
fn standing(answer: &Message) -> Standing {
    let number =
        |name: &str| answer.headers.one(name).unwrap_or_else(|| panic!("{name}: {answer:?}"));
    Standing {
        limit: number("x-ratelimit-limit").parse().unwrap(),
        remaining: number("x-ratelimit-remaining").parse().unwrap(),
        reset_s: number("x-ratelimit-reset").parse().unwrap(),
    }
}

pub fn the_61st_request_of_a_free_tenant_is_429(world: &World) -> Result<()> {
    let (_, _, token) = world.caller(Tier::Free, Role::Viewer)?;
    let send = || Request::new("GET", AGENTS).bearer(&token).send(world.gateway);
    let start = Instant::now();
    for sent in 1..=LIMIT {
        let begun = Instant::now();
        let answer = send()?;
        assert_eq!(answer.status()?, 200, "request {sent}: {answer:?}");
        let Standing { limit, remaining, reset_s } = standing(&answer);
        assert_eq!((limit, remaining), (LIMIT, LIMIT - sent), "request {sent}");
        assert!(reset_s <= 60, "request {sent}: reset {reset_s}");
        assert_eq!(answer.headers.all("retry-after"), [""; 0]);
        // After this one, not after the first: a machine that stood still must not make a burst of the next ones.
        wait::until_instant(begun + PACE);
    }
    let refused = Instant::now();
    assert!(refused - start < Duration::from_secs(60), "too slow to say anything about a window");
    let answer = send()?;
    assert_eq!(refusal(&answer), "429 quota_exceeded");
    let Standing { limit, remaining, reset_s } = standing(&answer);
    assert_eq!((limit, remaining), (LIMIT, 0));
    let retry_after: u64 = answer.header("retry-after").parse()?;
    assert!(retry_after >= 1 && retry_after >= reset_s, "{retry_after} and {reset_s}");
    // The first request leaves the window 60 s after it came, give or take a sub-bucket and rounding up.
    let due = Duration::from_secs(60) - (refused - start);
    let told = Duration::from_secs(retry_after);
    assert!(
        told + Duration::from_secs(1) >= due && told <= due + Duration::from_secs(7),
        "told {told:?}, the window moves on in {due:?}"
    );
    assert_eq!(answer.headers.all("cache-control"), ["no-store"]);
    assert_eq!(answer.headers.all("x-ratelimit-limit").len(), 1);

    // Refused requests are not charged: after the told time one passes, however often was asked meanwhile.
    for _ in 0..20 {
        assert_eq!(refusal(&send()?), "429 quota_exceeded");
    }
    wait::until_instant(refused + told / 2);
    assert_eq!(refusal(&send()?), "429 quota_exceeded", "half of the told time");
    wait::until_instant(refused + told);
    let answer = send()?;
    assert_eq!(answer.status()?, 200, "after the told time: {answer:?}");
    Ok(())
}

pub fn decisions_are_keys_of_redis(world: &World) -> Result<()> {
    let (tenant, _, token) = world.caller(Tier::Pro, Role::Viewer)?;
    let Some(redis) = &world.redis else { anyhow::bail!("this world has no Redis") };
    let keys = || redis.ask(&["--scan", "--pattern", &format!("rl:{{{}}}:*", tenant.id)]);
    assert_eq!(keys()?, "");
    let answer = Request::new("GET", AGENTS).bearer(&token).send(world.gateway)?;
    assert_eq!(answer.status()?, 200);
    let keys = keys()?;
    assert!(keys.lines().count() >= 2, "a key for the tenant and one for the endpoint: {keys}");
    for key in keys.lines() {
        let ttl: i64 = redis.ask(&["PTTL", key])?.parse()?;
        assert!((1..=180_000).contains(&ttl), "{key} lives for {ttl} ms");
    }
    Ok(())
}
