//! An agent from its image to its result: published, versioned, submitted, run in gVisor, read.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use gatehouse_contract::{Role, Tier};
use gatehouse_tests::{
    env,
    http::Request,
    wait,
    world::{Tenant, World},
};
use serde_json::{Value, json};

use super::{AGENTS, refusal, without_request_id};

const EXECUTIONS: &str = "/api/v1/runtime/executions";
const NAME: &str = "fuel-emissions";
/// What a first sandbox start may take on a busy machine.
const RUN: Duration = Duration::from_secs(120);

/// Puts the sample agent's layout where the tenant's images are; the reference to it.
fn publish(world: &World, tenant: &Tenant) -> Result<String> {
    let layout = env::path(env::AGENT)?;
    copy(&layout, &world.images.join(&tenant.id).join(NAME))?;
    let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json"))?)?;
    let digest = index["manifests"][0]["digest"].as_str().context("no manifest")?.to_owned();
    Ok(format!("{NAME}@{digest}"))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let place = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &place)?;
        } else {
            fs::copy(entry.path(), place)?;
        }
    }
    Ok(())
}

struct Caller<'a> {
    world: &'a World,
    token: String,
}

impl Caller<'_> {
    fn post(&self, path: &str, body: &Value, status: u16) -> Result<(Value, String)> {
        let request = Request::new("POST", path).bearer(&self.token).json(body);
        let answer = request.send(self.world.gateway)?;
        ensure!(answer.status()? == status, "POST {path}: {} {}", answer.start, answer.json()?);
        Ok((answer.json()?, answer.header("location")))
    }

    fn get(&self, path: &str) -> Result<gatehouse_tests::http::Message> {
        Request::new("GET", path).bearer(&self.token).send(self.world.gateway)
    }

    /// An agent with a version; its id.
    fn agent(&self, tenant: &Tenant) -> Result<String> {
        let image = publish(self.world, tenant)?;
        let (agent, _) = self.post(AGENTS, &json!({"name": NAME}), 201)?;
        let id = agent["id"].as_str().context("no agent id")?.to_owned();
        let version = json!({"version": "1.0.0", "image": image});
        self.post(&format!("{AGENTS}/{id}/versions"), &version, 201)?;
        Ok(id)
    }

    fn submit(&self) -> Result<String> {
        let body = json!({
            "agent": NAME, "version": "1.0.0",
            "input": {"fuel": "diesel", "litres": 100},
        });
        let (made, location) = self.post(EXECUTIONS, &body, 202)?;
        let id = made["id"].as_str().context("no execution id")?.to_owned();
        ensure!(location.ends_with(&format!("{EXECUTIONS}/{id}")), "Location: {location}");
        Ok(id)
    }
}

fn caller<'a>(world: &'a World, role: Role) -> Result<(Tenant, Caller<'a>)> {
    let (tenant, _, token) = world.caller(Tier::Enterprise, role)?;
    Ok((tenant, Caller { world, token }))
}

pub fn an_agent_runs_in_gvisor(world: &World) -> Result<()> {
    let (tenant, caller) = caller(world, Role::Developer)?;
    caller.agent(&tenant)?;
    let id = caller.submit()?;
    let path = format!("{EXECUTIONS}/{id}");
    let done = wait::until("the execution ends", RUN, || {
        let execution = caller.get(&path)?.json()?;
        match execution["state"].as_str() {
            Some("pending" | "queued" | "running") => Ok(None),
            _ => Ok(Some(execution)),
        }
    })?;
    assert_eq!(done["state"], "completed", "{done:#}");
    assert_eq!(done["attempt"], 1, "{done:#}");
    let output = &done["output"];
    assert!(output["kg_co2e"].as_f64().is_some_and(|kg| kg > 200.0), "{output:#}");
    // The guest saw gVisor's kernel and not the machine's.
    let kernel = output["kernel"].as_str().context("no kernel line")?;
    let host = fs::read_to_string("/proc/version")?;
    assert!(kernel.starts_with("Linux version "), "{kernel}");
    assert_ne!(kernel, host.trim_end(), "the host's own kernel");
    assert!(kernel.contains("Linux version 4.4.0 #1 SMP Sun Jan 10 15:06:54 PST 2016"), "{kernel}");
    // The row is the tenant's: its role sees it under its own tenant only.
    let rows = |tenant: &str| {
        world.database.read(
            "app",
            &format!(
                "BEGIN; SET LOCAL app.current_tenant_id = '{tenant}'; \
                 SELECT state FROM executions WHERE id = '{id}'; COMMIT"
            ),
        )
    };
    assert_eq!(rows(&tenant.id)?, "completed");
    assert_eq!(rows(&uuid::Uuid::new_v4().to_string())?, "");
    Ok(())
}

pub fn another_tenant_s_execution_is_a_missing_one(world: &World) -> Result<()> {
    let (tenant, owner) = caller(world, Role::Developer)?;
    let agent = owner.agent(&tenant)?;
    let id = owner.submit()?;
    let (_, stranger) = caller(world, Role::Admin)?;
    let missing = uuid::Uuid::new_v4();
    for (theirs, none) in [
        (format!("{EXECUTIONS}/{id}"), format!("{EXECUTIONS}/{missing}")),
        (format!("{AGENTS}/{agent}"), format!("{AGENTS}/{missing}")),
        (format!("{AGENTS}/{agent}/versions"), format!("{AGENTS}/{missing}/versions")),
    ] {
        assert_eq!(owner.get(&theirs)?.status()?, 200, "{theirs}");
        let theirs = stranger.get(&theirs)?;
        let none = stranger.get(&none)?;
        assert_eq!(refusal(&theirs), "404 not_found");
        assert_eq!(refusal(&none), "404 not_found");
        assert_eq!(without_request_id(&theirs), without_request_id(&none));
        // R9: what the upstream refuses carries the limit, too; which of the two is the tightest depends on the passes
        // that were taken along.
        let limit = theirs.headers.all("x-ratelimit-limit");
        assert!(limit == ["1000"] || limit == ["6000"], "{limit:?}");
    }
    // Nor may the stranger use the other's image, or a path instead of one.
    let (own, _) = stranger.post(AGENTS, &json!({"name": NAME}), 201)?;
    let versions = format!("{AGENTS}/{}/versions", own["id"].as_str().context("no id")?);
    let image = publish_reference()?;
    stranger.post(&versions, &json!({"version": "1.0.0", "image": image}), 404)?;
    for path in [format!("../{}/{image}", tenant.id), format!("/etc/{image}")] {
        stranger.post(&versions, &json!({"version": "1.0.0", "image": path}), 422)?;
    }
    Ok(())
}

/// The sample agent's reference, published or not.
fn publish_reference() -> Result<String> {
    let index: Value =
        serde_json::from_slice(&fs::read(env::path(env::AGENT)?.join("index.json"))?)?;
    let digest = index["manifests"][0]["digest"].as_str().context("no manifest")?;
    Ok(format!("{NAME}@{digest}"))
}
