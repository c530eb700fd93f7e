//! `recompute`: runs the image of a result again, in a sandbox, on the recorded input and under the recorded limits, and says
//! whether the same result comes of it. What it prints is what `gatehouse verify execution --recomputed` takes.
//! Needs neither PostgreSQL nor Redis, and may run beside the worker: it has a folder of its own. Knows nothing of who asks.

use std::path::Path;

use gatehouse_execution::{
    Digest, Limits,
    egress::{Host, Hosts},
    json,
    outcome::Outcome,
    provenance::{self, FORM, Provenance},
    sandbox::SandboxId,
};
use gatehouse_service::{Stop as Refused, exit::chain};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{
    config::Config,
    driver::{self, Stop, Task, Watch},
    reload::InEffect,
    state_dir::StateDir,
};

/// Exit code where another result comes of it.
const DIFFERS: u8 = 1;

/// A result, and where it came from.
struct Recorded {
    document: Provenance,
    input: Value,
}

/// Runs what `file` records again and prints what came of it, as one JSON object.
///
/// # Errors
/// The lines that say which of image, input and output is not as recorded, with the exit code 1; what is no record, with 64.
pub async fn run(config: &Config, effect: &InEffect, file: &Path) -> Result<(), Refused> {
    let recorded = read(file)?;
    let document = &recorded.document;
    let state = StateDir::take(&config.state_dir.join("recompute"))
        .map_err(|error| Refused::unavailable(format!("$.state_dir: {}", chain(&error))))?;
    let driver = driver::open(config, &state).await?;
    let hosts: Result<Hosts, _> =
        document.config.egress.iter().map(|host| host.parse::<Host>()).collect();
    let hosts = hosts
        .map_err(|error| Refused::usage(vec![format!("$.provenance.config.egress: {error}")]))?;
    let (start_timeout, grace) = (effect.live.start, effect.live.grace);
    let limits = Limits { start_timeout, grace, ..document.config.limits() };
    let task = Task {
        // No attempt has this epoch: nothing that is found by it is taken for the run that is recorded.
        id: SandboxId { execution: document.execution, epoch: 0 },
        tenant: document.tenant,
        image: &document.image,
        input: &recorded.input,
        limits: &limits,
        egress: &hosts,
        command: None,
    };
    let (_never, stop) = watch::channel(Stop::No);
    let ran = driver.run(task, Watch { stop, tell: &|_| {}, log: None }).await;
    let found = (driver.name().to_owned(), driver.runtime());
    driver.drain().await;
    driver.close();
    let run = ran.map_err(|error| Refused {
        code: DIFFERS,
        lines: vec![format!("image: {} cannot be run again: {}", document.image, chain(&error))],
    })?;
    judge(document, &found, &effect.version, run.outcome())
}

fn read(file: &Path) -> Result<Recorded, Refused> {
    let name = file.display();
    let refused = |line: String| Refused::usage(vec![format!("{name}: {line}")]);
    let text = std::fs::read(file).map_err(|error| refused(error.to_string()))?;
    let mut answer = json::strict(&text).map_err(|error| refused(error.to_string()))?;
    let mut take = |member: &str| answer.get_mut(member).map(Value::take);
    let document = take("provenance").unwrap_or_default();
    if document.get("form").and_then(Value::as_str) != Some(FORM) {
        return Err(refused(format!("$.provenance.form: this build knows \"{FORM}\"")));
    }
    let document: Provenance = serde_json::from_value(document)
        .map_err(|error| refused(format!("$.provenance: {error}")))?;
    let hash = document.hash().map_err(|error| refused(error.to_string()))?;
    if take("hash") != Some(json!(hash)) {
        return Err(refused(format!(
            "$.hash: the document has the hash {hash}: one of them was changed"
        )));
    }
    let input = take("input").ok_or_else(|| {
        refused("$.input: it is missing; put what the agent read there".to_owned())
    })?;
    let digest =
        provenance::digest(&input).map_err(|error| refused(format!("$.input: {error}")))?;
    if digest != document.input {
        let line = format!(
            "$.input: it has the digest {digest}, and the provenance says {}",
            document.input
        );
        return Err(refused(line));
    }
    Ok(Recorded { document, input })
}

/// Prints what came of the run, and says what is not as recorded.
fn judge(
    document: &Provenance,
    (driver, runtime): &(String, String),
    config_version: &str,
    outcome: Outcome,
) -> Result<(), Refused> {
    let recorded = &document.config;
    // None of these makes a result wrong; where it is another one they may be why.
    let mut lines: Vec<String> = [
        ("driver", recorded.driver.as_str(), driver.as_str()),
        ("runtime", &recorded.runtime, runtime),
        ("worker", &recorded.worker, env!("CARGO_PKG_VERSION")),
        ("config_version", &recorded.config_version, config_version),
    ]
    .into_iter()
    .filter(|(_, then, now)| then != now)
    .map(|(what, then, now)| {
        format!("note: {what}: {} then, {} now", Value::from(then), Value::from(now))
    })
    .collect();
    let digest: Option<Digest> =
        outcome.output.as_ref().and_then(|output| provenance::digest(output).ok());
    println!(
        "{}",
        json!({
            "image": document.image,
            "input": document.input,
            "output": outcome.output,
            "output_digest": digest,
            "end_reason": outcome.reason,
            "driver": driver,
            "runtime": runtime,
            "same": digest == Some(document.output),
        })
    );
    match digest {
        Some(digest) if digest == document.output => {
            lines.iter().for_each(|line| eprintln!("{line}"));
            return Ok(());
        }
        Some(digest) => lines.push(format!(
            "output: it has the digest {digest}, and the provenance says {}",
            document.output
        )),
        None => lines.push(format!(
            "output: there is none ({}: {}), and the provenance says {}",
            outcome.reason,
            Value::from(outcome.message.unwrap_or_default()),
            document.output
        )),
    }
    Err(Refused { code: DIFFERS, lines })
}
