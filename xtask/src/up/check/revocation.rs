//! Rows about API keys, and about everything that ends: how soon the gateway refuses what the record no longer allows.
//! Both of Envoy's workers must know, each request here being a connection of its own.

use std::time::{Duration, Instant};

use anyhow::Context;
use gatehouse_contract::{Role, header};
use serde_json::{Value, json};

use super::{Seen, Table, World, refused_at_gateway, seen};
use crate::{
    http::{self, Answer},
    report::seconds,
    up::api::{Call, Key},
};

const AGENTS: &str = "/api/v1/registry/agents";
const EXECUTIONS: &str = "/api/v1/runtime/executions";
/// The promise (design §3.1): from the answer of the call that revokes to the last request that passes.
pub(super) const PROMISE: Duration = Duration::from_secs(1);
/// When a row gives up.
const PATIENCE: Duration = Duration::from_secs(20);
/// Two workers are both met by this many connections but once in a thousand times.
const IN_A_ROW: usize = 11;
/// Slow enough for the limits of the tenant.
const PACE: Duration = Duration::from_millis(20);
/// Why the platform acts.
pub(super) const REASON: &str = "cargo xtask up --check";

pub fn rows(world: &World, table: &mut Table) {
    keys(world, table);
    ended_keys(world, table);
    ended_tokens(world, table);
    standing(world, table);
    role(world, table);
}

fn by_key(world: &World, key: &str) -> anyhow::Result<Answer> {
    world.api.send(Call::get(AGENTS).headers(&[(header::API_KEY, key)]))
}

fn by_token(world: &World, token: &str) -> anyhow::Result<Answer> {
    world.api.send(Call::get(AGENTS).token(token))
}

fn path(world: &World, rest: &str) -> String {
    format!("/api/v1/factory/tenants/{}{rest}", world.unsteady.id)
}

/// A viewer's key, once it opens.
fn fresh(world: &World, admin: &str) -> anyhow::Result<Key> {
    let key = world.api.make_key(admin, world.unsteady.id, "check", Role::Viewer)?;
    settles(|| Ok(by_key(world, &key.key)?.status == 200))?;
    Ok(key)
}

/// How long ago the last of the answers was that are not as wanted, once a row of them is; never a time that was slept.
pub(super) fn settles(
    mut as_wanted: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let (mut settled, mut in_a_row) = (Duration::ZERO, 0);
    while in_a_row < IN_A_ROW {
        let asked = began.elapsed();
        if as_wanted()? {
            in_a_row += 1;
        } else {
            in_a_row = 0;
            settled = asked;
        }
        anyhow::ensure!(began.elapsed() < PATIENCE, "not after {PATIENCE:?}");
        std::thread::sleep(PACE);
    }
    Ok(settled)
}

/// Wants this refusal from all workers in time.
fn ends(
    ask: impl Fn() -> anyhow::Result<Answer>,
    status: u16,
    code: &str,
) -> anyhow::Result<String> {
    let took = settles(|| {
        let answer = ask()?;
        // The control API refuses by itself and at once: what counts is that no worker lets it through.
        Ok(answer.status == status && !passed(&answer))
    })?;
    let words = refused_at_gateway(&ask()?, status, code)?;
    anyhow::ensure!(took <= PROMISE, "{words}, but a request passed after {}", seconds(took));
    Ok(format!("{words}, nothing passed after {}", seconds(took)))
}

/// Whether it went through the gateway.
fn passed(answer: &Answer) -> bool {
    answer.header("x-envoy-upstream-service-time").is_some()
}

/// Wants to pass with all workers in time.
fn opens(ask: impl Fn() -> anyhow::Result<Answer>) -> anyhow::Result<String> {
    let took = settles(|| Ok(matches!(ask()?.status, 200 | 201)))?;
    anyhow::ensure!(took <= PROMISE, "refused for {}", seconds(took));
    Ok(format!("back after {}", seconds(took)))
}

/// Red when the sidecar compares keys without their pepper, or the filter takes the first credential that it finds.
fn keys(world: &World, table: &mut Table) {
    table.row("an API key works, within its role", || {
        let admin = world.token(&world.unsteady, Role::Admin)?;
        let key = fresh(world, &admin)?;
        let body = json!({"name": "not-allowed"});
        let headers = [(header::API_KEY, key.key.as_str())];
        let answer = world.api.send(Call::post(AGENTS, &body).headers(&headers))?;
        let words = refused_at_gateway(&answer, 403, "permission_denied")?;
        let at = path(world, &format!("/api-keys/{}", key.id));
        let began = Instant::now();
        let used = loop {
            let record = world.api.want(200, Call::get(&at).token(&admin))?;
            anyhow::ensure!(!record.body.contains(&key.key), "the key is shown again");
            if !record.text("/last_used_at").is_empty() {
                break record.text("/last_used_at");
            }
            anyhow::ensure!(began.elapsed() < PATIENCE, "its use is not recorded");
            std::thread::sleep(Duration::from_millis(100));
        };
        Ok(seen(format!("200; {words} on writing; last used {used}")))
    });
    table.row("a key with a wrong secret is refused", || {
        let admin = world.token(&world.unsteady, Role::Admin)?;
        let (one, other) = (fresh(world, &admin)?, fresh(world, &admin)?);
        // The id of one and the secret of the other; the checksum is not that of the whole.
        let (head, _) = one.key.rsplit_once('_').context("a key in another form")?;
        let (_, tail) = other.key.rsplit_once('_').context("a key in another form")?;
        let mut words = Vec::new();
        for wrong in [format!("{head}_{tail}"), format!("{}x", one.key), "gk_".to_owned()] {
            words.push(refused_at_gateway(&by_key(world, &wrong)?, 401, "token_invalid")?);
        }
        words.dedup();
        Ok(seen(words.join("; ")))
    });
    table.row("a token and a key on one request are refused", || {
        let admin = world.token(&world.unsteady, Role::Admin)?;
        let key = &world.unsteady.key.key;
        let headers = [(header::API_KEY, key.as_str())];
        let answer = world.api.send(Call::get(AGENTS).token(&admin).headers(&headers))?;
        refused_at_gateway(&answer, 400, "credential_malformed").map(seen)
    });
}

/// Red when the relay does not project, or a VM goes on with what it remembers.
fn ended_keys(world: &World, table: &mut Table) {
    table.row("a revoked key is refused within a second", || {
        let admin = world.token(&world.unsteady, Role::Admin)?;
        let key = fresh(world, &admin)?;
        let at = path(world, &format!("/api-keys/{}", key.id));
        let call = Call { method: "DELETE", ..Call::get(&at) };
        world.api.want(204, call.token(&admin))?;
        ends(|| by_key(world, &key.key), 401, "token_invalid").map(seen)
    });
    table.row("a rotated key opens beside its successor", || {
        let admin = world.token(&world.unsteady, Role::Admin)?;
        let key = fresh(world, &admin)?;
        let at = path(world, &format!("/api-keys/{}/rotate", key.id));
        let body = json!({"overlap_s": 600});
        let answer = world.api.want(201, Call::post(&at, &body).token(&admin))?;
        let next: Key = serde_json::from_str(&answer.body).context("reading the successor")?;
        settles(|| Ok(by_key(world, &next.key)?.status == 200))?;
        let answer = by_key(world, &key.key)?;
        anyhow::ensure!(answer.status == 200, "the old one: {}: {}", answer.status, answer.body);
        Ok(seen(format!("{} → {}, both 200", key.id, next.id)))
    });
}

/// Red when the filter looks at the deny list only where it verifies a token.
fn ended_tokens(world: &World, table: &mut Table) {
    table.row("a revoked token is refused within a second, and no other", || {
        let client = world.unsteady.client(Role::Operator)?;
        let (token, other) = (world.api.token(client)?, world.api.token(client)?);
        for token in [&token, &other] {
            settles(|| Ok(by_token(world, token)?.status == 200))?;
        }
        let form = format!(
            "token={token}&client_id={}&client_secret={}",
            client.client_id, client.client_secret
        );
        let url = format!("{}/oauth2/revoke", world.instance.gateway());
        let kind = [("content-type", "application/x-www-form-urlencoded")];
        let answer = http::send("POST", &url, &kind, form.as_bytes())?;
        anyhow::ensure!(answer.status == 200, "{}: {}", answer.status, answer.body);
        let words = ends(|| by_token(world, &token), 401, "token_invalid")?;
        let answer = by_token(world, &other)?;
        anyhow::ensure!(answer.status == 200, "the other: {}: {}", answer.status, answer.body);
        Ok(seen(words))
    });
    table.row("all tokens of a member end within a second, new ones open", || {
        let client = world.unsteady.client(Role::Operator)?;
        let admin = world.token(&world.unsteady, Role::Admin)?;
        let token = world.api.token(client)?;
        settles(|| Ok(by_token(world, &token)?.status == 200))?;
        let at = path(world, &format!("/clients/{}/revoke-tokens", client.client_id));
        let call = Call { method: "POST", ..Call::get(&at) };
        world.api.want(204, call.token(&admin))?;
        let words = ends(|| by_token(world, &token), 401, "token_invalid")?;
        let began = Instant::now();
        // A token of the very second in which the others ended is among them.
        while by_token(world, &world.api.token(client)?)?.status != 200 {
            anyhow::ensure!(began.elapsed() < PATIENCE, "no new token opens");
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(seen(words))
    });
}

/// Red when the feed does not carry the change, or the filter does not look at what the record says.
fn standing(world: &World, table: &mut Table) {
    table.row("a suspended member is refused within a second, and comes back", || {
        let client = world.unsteady.client(Role::Viewer)?;
        let admin = world.token(&world.unsteady, Role::Admin)?;
        let token = world.api.token(client)?;
        settles(|| Ok(by_token(world, &token)?.status == 200))?;
        let change = |verb: &str| {
            let at = path(world, &format!("/clients/{}/{verb}", client.client_id));
            world.api.want(200, Call { method: "POST", ..Call::get(&at) }.token(&admin))
        };
        change("suspend")?;
        let ended = ends(|| by_token(world, &token), 403, "principal_inactive")?;
        change("resume")?;
        Ok(seen(format!("{ended}; {}", opens(|| by_token(world, &token))?)))
    });
    table.row("a suspended tenant is refused within a second, and comes back", || {
        let token = world.token(&world.unsteady, Role::Viewer)?;
        let key = &world.unsteady.key.key;
        settles(
            || Ok(by_token(world, &token)?.status == 200 && by_key(world, key)?.status == 200),
        )?;
        let reason = [(header::IMPERSONATION_REASON, REASON)];
        let change = |verb: &str| {
            let at = path(world, &format!("/{verb}"));
            let call = Call { method: "POST", ..Call::get(&at) };
            world.api.want(202, call.token(&world.platform).headers(&reason))
        };
        let begun = change("suspend")?;
        let ended = ends(|| by_token(world, &token), 403, "tenant_inactive");
        let key_ended = ends(|| by_key(world, key), 403, "tenant_inactive");
        change("resume")?;
        let (ended, key_ended) = (ended?, key_ended?);
        let back = opens(|| by_token(world, &token))?;
        opens(|| by_key(world, key))?;
        let operation = begun.header("location").unwrap_or_default().to_owned();
        let succeeded = settles(|| {
            let read = Call::get(&operation).token(&world.platform).headers(&reason);
            Ok(world
                .api
                .want(200, read)?
                .json()
                .pointer("/state")
                .is_some_and(|s| s == "succeeded"))
        })?;
        Ok(seen(format!(
            "{ended}; its key: {key_ended}; {back}; its operation succeeded ({} s)",
            succeeded.as_secs()
        )))
    });
}

/// Red when a VM keeps roles for as long as it keeps a principal.
fn role(world: &World, table: &mut Table) {
    table.row("a role change is visible within a second", || {
        let client = world.unsteady.client(Role::Viewer)?;
        let admin = world.token(&world.unsteady, Role::Admin)?;
        let token = world.api.token(client)?;
        // Refused by the filter without the role, and by the control API as broken with it: nothing is made.
        let write = || world.api.send(Call::post(EXECUTIONS, &Value::Null).token(&token));
        refused_at_gateway(&write()?, 403, "permission_denied")?;
        let at = path(world, &format!("/clients/{}/roles/operator", client.client_id));
        let call = |method| Call { method, ..Call::get(&at) };
        world.api.want(204, call("PUT").token(&admin))?;
        let given = settles(|| Ok(passed(&write()?)))?;
        world.api.want(204, call("DELETE").token(&admin))?;
        let taken = settles(|| Ok(!passed(&write()?)))?;
        refused_at_gateway(&write()?, 403, "permission_denied")?;
        let slowest = given.max(taken);
        anyhow::ensure!(slowest <= PROMISE, "after {}", seconds(slowest));
        let text = format!("given after {}, taken after {}", seconds(given), seconds(taken));
        Ok(Seen { value: (), text })
    });
}
