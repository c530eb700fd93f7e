//! The sidecar of a gate: the real one, in front of [`super::outside`]. Its limits are far away unless a plan says
//! otherwise.

use std::{net::SocketAddr, process::Command};

use gatehouse_tests::{env, http::serve::Server, process::Process, wait};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{ISSUER, Plan};

/// A running sidecar.
pub struct Running {
    pub process: Process,
    pub listen: SocketAddr,
    admin: SocketAddr,
}

impl Running {
    /// The sum of the counters whose names begin so; 0 where none was counted.
    pub fn count(&self, name: &str) -> anyhow::Result<u64> {
        let url = format!("http://{}/metrics", self.admin);
        let text = ureq::get(&url).call()?.body_mut().read_to_string()?;
        let found = text.lines().filter(|line| line.starts_with(name));
        let values = found.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
        Ok(values.sum())
    }
}

pub(super) fn start(
    dir: &TempDir,
    providers: &Server,
    record: &Server,
    plan: &Plan,
) -> anyhow::Result<Running> {
    let (listen, admin) = (wait::address().unwrap(), wait::address().unwrap());
    let issuers: Vec<Value> = [ISSUER.to_owned()]
        .iter()
        .chain(&plan.issuers)
        .map(|issuer| {
            let place = issuer.replace(':', "%3A").replace('/', "%2F");
            json!({"issuer": issuer, "jwks": format!("http://{}/keys/{place}", providers.address)})
        })
        .collect();
    let peppers = dir.path().join("peppers.json");
    let pepper = json!({"current": "p1", "peppers": {"p1": "5a".repeat(32)}});
    std::fs::write(&peppers, pepper.to_string()).unwrap();
    let mut config = json!({
        "peppers_file": peppers,
        "listen": listen,
        "admin_listen": admin,
        "store": {"kind": "memory", "sidecars": 1},
        "issuers": issuers,
        "control_api": {"internal": format!("http://{}", record.address)},
        "limits": {
            "tiers": {"free": 1_000_000, "pro": 1_000_000, "enterprise": 1_000_000},
            "endpoints": [],
            "endpoint_default": 1_000_000,
            "burst_multiplier": 0,
        },
    });
    merge(&mut config, &plan.sidecar);
    let file = dir.path().join("sidecar.json");
    std::fs::write(&file, format!("{config:#}")).unwrap();
    let mut command =
        Command::new(env::path(env::BIN).unwrap().join("gatehouse-ratelimit-sidecar"));
    command.arg("serve").arg("--config").arg(&file);
    let mut process = Process::start("sidecar", dir.path(), command).unwrap();
    let livez = format!("http://{admin}/livez");
    process.wait_ready(|| wait::is_ok(&livez) && wait::accepts(listen))?;
    Ok(Running { process, listen, admin })
}

/// RFC 7396: members of `patch` replace those of `target`, objects member by member, null removes.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(members) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let Value::Object(known) = target else { return };
    for (name, value) in members {
        match value {
            Value::Null => drop(known.remove(name)),
            value => merge(known.entry(name).or_insert(Value::Null), value),
        }
    }
}
