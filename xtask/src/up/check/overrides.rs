//! Rows about a tenant's own limits: what its headers say, that they tell the truth, and how soon a change acts. The
//! tenant is the enterprise one, which otherwise only looks on.

use std::time::Duration;

use anyhow::Context;
use gatehouse_contract::{Role, header};
use serde_json::{Value, json};

use super::{
    Seen, Table, World, refused_at_gateway,
    revocation::{PROMISE, REASON, settles},
    seen,
};
use crate::{http::Answer, report::seconds, up::api::Call};

const AGENTS: &str = "/api/v1/registry/agents";
/// Requests in a row before a row gives up to use something up.
const MOST: usize = 60;
/// The part of a day's quota from which on is warned, of ten.
const WARNED_FROM: usize = 8;

/// Red when the filter leaves a header out; when Retry-After is a second short; when the relay is stopped; when the
/// sidecar forgets the day.
pub fn rows(world: &World, table: &mut Table) {
    let token = table.row("a viewer of the enterprise tenant has a token", || {
        Ok(Seen {
            value: world.token(&world.other, Role::Viewer)?,
            text: "by its client".to_owned(),
        })
    });
    let Some(token) = token else { return };
    let ask = || world.api.send(Call::get(AGENTS).token(&token));
    table.row("every answer says where its limits stand", || standing(&ask()?));
    table.row("a 429 says when to come back, and then it succeeds", || {
        // A tenth of a hundredth of a minute: so many in any second.
        put(world, &json!({"per_window": 600, "burst_multiplier": 1}))?;
        settles(|| Ok(window(&ask()?) == Some(600)))?;
        let mut answer = ask()?;
        for _ in 0..MOST {
            if answer.status != 200 {
                break;
            }
            answer = ask()?;
        }
        let words = refused_at_gateway(&answer, 429, "quota_exceeded")?;
        let after: u64 = number(&answer, "retry-after")?;
        anyhow::ensure!(
            (1..=2).contains(&after),
            "Retry-After is {after} within a burst of a second"
        );
        std::thread::sleep(Duration::from_secs(after));
        let again = ask()?;
        anyhow::ensure!(again.status == 200, "{} after {after} s", again.status);
        Ok(seen(format!("{words}, retry-after {after}, then 200")))
    });
    table.row("the platform's change of a tenant's limit acts within a second", || {
        put(world, &json!({"per_window": 0}))?;
        let blocked = settles(|| Ok(ask()?.status == 429))?;
        put(world, &json!({"per_window": 100_000}))?;
        let raised = settles(|| Ok(ask()?.status == 200))?;
        for (what, took) in [("blocked", blocked), ("raised", raised)] {
            anyhow::ensure!(took <= PROMISE, "{what} only after {}", seconds(took));
        }
        Ok(seen(format!("429 after {}, 200 again after {}", seconds(blocked), seconds(raised))))
    });
    table.row("from 80 % of a day's calls on the answers warn", || {
        put(world, &json!({"per_window": 100_000, "burst_multiplier": 0, "per_day": 1000}))?;
        let warns = |answer: &Answer| answer.header("x-ratelimit-warning").map(str::to_owned);
        settles(|| Ok(day(&ask()?)))?;
        let mut warned = None;
        for n in 1..=1000 {
            let answer = ask()?;
            anyhow::ensure!(answer.status == 200, "{} at {n}", answer.status);
            if let Some(text) = warns(&answer) {
                warned = Some((n, text));
                break;
            }
        }
        let (n, text) = warned.context("1000 calls without a warning")?;
        let used: usize = text
            .strip_prefix("\"day\";used=")
            .and_then(|used| used.parse().ok())
            .with_context(|| format!("X-RateLimit-Warning is {text:?}"))?;
        anyhow::ensure!(used == 10 * WARNED_FROM, "the first warning says {used} %");
        Ok(seen(format!("{text} after {n} more calls of a quota of 1000")))
    });
    table.row("the tenant is back to its tier's limits", || {
        let path = path(world);
        let call = Call { method: "DELETE", ..Call::get(&path) };
        world.api.want(
            204,
            call.token(&world.platform).headers(&[(header::IMPERSONATION_REASON, REASON)]),
        )?;
        let took = settles(|| Ok(window(&ask()?) == Some(6000) || ask()?.status != 200))?;
        Ok(seen(format!("after {}", seconds(took))))
    });
}

fn path(world: &World) -> String {
    format!("/api/v1/factory/tenants/{}/limits", world.other.id)
}

fn put(world: &World, limits: &Value) -> anyhow::Result<()> {
    let path = path(world);
    let call = Call { method: "PUT", ..Call::post(&path, limits) };
    let reason = [(header::IMPERSONATION_REASON, REASON), ("if-match", "*")];
    world.api.want(200, call.token(&world.platform).headers(&reason)).map(drop)
}

fn standing(answer: &Answer) -> anyhow::Result<Seen> {
    anyhow::ensure!(answer.status == 200, "{}", answer.status);
    let limit = number(answer, header::RATE_LIMIT)?;
    let left = number(answer, header::RATE_REMAINING)?;
    let reset = number(answer, header::RATE_RESET)?;
    anyhow::ensure!(left < limit && reset <= 60, "{left} of {limit}, reset {reset}");
    let policy = answer.header("ratelimit-policy").context("no RateLimit-Policy")?;
    let tightest = answer.header("ratelimit").context("no RateLimit")?;
    anyhow::ensure!(policy.contains("\"tenant\";q=6000;w=60"), "RateLimit-Policy is {policy}");
    anyhow::ensure!(
        tightest.contains(&format!(";r={left};")),
        "RateLimit is {tightest}, X-RateLimit-Remaining {left}"
    );
    Ok(seen(format!("{left} of {limit}; {policy}")))
}

/// The limit of the tenant's window, by the policy header.
fn window(answer: &Answer) -> Option<u64> {
    let (_, rest) = answer.header("ratelimit-policy")?.split_once("\"tenant\";q=")?;
    rest.split(';').next()?.parse().ok()
}

/// Whether a day's quota is among the limits.
fn day(answer: &Answer) -> bool {
    answer.header("ratelimit-policy").is_some_and(|policy| policy.contains("\"day\";"))
}

fn number(answer: &Answer, name: &str) -> anyhow::Result<u64> {
    let text = answer.header(name).with_context(|| format!("no {name}"))?;
    text.parse().with_context(|| format!("{name} is {text:?}"))
}
