//! Neighbours that stop answering, at the socket: frozen, not ended, so that connections stay open and silent.

use std::{fs, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use gatehouse_contract::{Role, Tier};
use gatehouse_tests::{
    http::{Connection, Request},
    wait,
    world::World,
};

use super::{AGENTS, refusal};

/// A process that is stopped until this is dropped.
struct Frozen(u32);

impl Frozen {
    fn new(id: u32) -> Result<Self> {
        signal("-STOP", id)?;
        let frozen = Self(id);
        // The signal is taken, but each thread stops in its own time.
        wait::until("every thread is stopped", Duration::from_secs(10), || {
            let mut tasks = fs::read_dir(format!("/proc/{id}/task"))?.flatten();
            let stopped = tasks.all(|task| {
                let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
                stat.rsplit_once(") ").is_some_and(|(_, fields)| fields.starts_with('T'))
            });
            Ok(stopped.then_some(()))
        })?;
        Ok(frozen)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if let Err(error) = signal("-CONT", self.0) {
            eprintln!("{} stays stopped: {error:#}", self.0);
        }
    }
}

fn signal(name: &str, id: u32) -> Result<()> {
    // The shell's own: a minimal Debian has no program of this name.
    let script = r#"kill "$0" "$1""#;
    let status = Command::new("sh").args(["-c", script, name, &id.to_string()]).status()?;
    ensure!(status.success(), "kill {name} {id}: {status}");
    Ok(())
}

/// While the sidecar cannot be asked the gateway refuses, as its document says.
pub fn the_sidecar_away_is_503_until_it_is_back(world: &World) -> Result<()> {
    let (_, _, token) = world.caller(Tier::Enterprise, Role::Viewer)?;
    let (_, _, unseen) = world.caller(Tier::Enterprise, Role::Viewer)?;
    let send = |token: &str| Request::new("GET", AGENTS).bearer(token).send(world.gateway);
    // One connection is one worker of Envoy's, whose VM knows the caller by the second request.
    let mut kept = Connection::open(world.gateway)?;
    let known = Request::new("GET", AGENTS).bearer(&token).bytes();
    kept.send(&known)?;
    ensure!(kept.response()?.status()? == 200, "before");
    let frozen = Frozen::new(world.sidecar.id())?;
    kept.send(&known)?;
    let answer = kept.response()?;
    assert_eq!(refusal(&answer), "503 limiter_unavailable");
    assert_eq!(answer.headers.all("retry-after"), ["1"]);
    // Whoever is new is not let pass either, whatever it is that cannot be asked.
    assert_eq!(send(&unseen)?.status()?, 503);
    // Public routes go on.
    let keys = Request::new("GET", "/.well-known/jwks.json").send(world.gateway)?;
    assert_eq!(keys.status()?, 200);
    drop(frozen);
    wait::until("requests pass again", Duration::from_secs(30), || {
        let answer = send(&token)?;
        ensure!(answer.status()? == 200, "{answer:?}");
        Ok(Some(()))
    })?;
    assert_eq!(send(&unseen)?.status()?, 200);
    Ok(())
}

/// While Redis cannot be asked the sidecar decides by its share, and every response says so.
pub fn redis_away_is_decided_by_shares_and_said_so(world: &World) -> Result<()> {
    let Some(redis) = &world.redis else { anyhow::bail!("this world has no Redis") };
    let (_, _, token) = world.caller(Tier::Enterprise, Role::Viewer)?;
    let (_, _, unseen) = world.caller(Tier::Enterprise, Role::Viewer)?;
    let send = |token: &str| Request::new("GET", AGENTS).bearer(token).send(world.gateway);
    let degraded = |token: &str| {
        let answer = send(token)?;
        ensure!(answer.status()? == 200, "{answer:?}");
        Ok::<_, anyhow::Error>(answer.headers.one("x-ratelimit-degraded").is_some())
    };
    ensure!(!degraded(&token)?, "before");
    let frozen = Frozen::new(redis.process.id())?;
    // Passes that were taken along are good for their time: they were charged before.
    wait::until("the share decides", Duration::from_secs(10), || {
        Ok(degraded(&token)?.then_some(()))
    })?;
    // The record is the control API's, which needs no Redis.
    assert!(degraded(&unseen)?);
    drop(frozen);
    wait::until("the store decides again", Duration::from_secs(30), || {
        Ok((!degraded(&token)?).then_some(()))
    })
}

pub fn no_vm_was_lost(world: &World) -> Result<()> {
    assert_eq!(world.envoy.stat("wasm.suite.vm_reload_success")?, 0);
    assert_eq!(world.envoy.stat("wasm.suite.vm_reload_failure")?, 0);
    Ok(())
}

pub fn a_stopped_worker_leaves_nothing_behind(world: &World) -> Result<()> {
    let mut worker = world.worker.lock().unwrap().take().context("this world has no worker")?;
    let dir = world.dir().display().to_string();
    let id = worker.id();
    let status = worker.stop()?;
    assert!(status.success(), "{status}: {}", worker.log());
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let left: Vec<&str> = mounts.lines().filter(|line| line.contains(&dir)).collect();
    assert_eq!(left, [""; 0]);
    // Sandboxes name the worker's folder on their command lines; Redis and Envoy are none of them.
    let left: Vec<String> = fs::read_dir("/proc")?
        .flatten()
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains("runsc") && line.contains(&dir))
        .collect();
    assert_eq!(left, [""; 0], "after worker {id}");
    Ok(())
}
