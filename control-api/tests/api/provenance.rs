//! Where a result came from, from end to end: run by a real worker in gVisor, served by the API, verified offline by the command
//! line, and by running it again. Any change of any part is found.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use serde_json::{Value, json};

use crate::{
    redis::Redis,
    world::{Tenant, World, free_port, until},
};

const RUNS: &str = "/api/v1/runtime/executions";

fn part(name: &str) -> PathBuf {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run `cargo xtask test`"))
        .into()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// The sample agent, published for the tenant; its reference.
fn published(world: &World, tenant: &Tenant) -> String {
    let to = world.setup.dir.path().join("images").join(&tenant.id).join("fuel-emissions");
    copy(&part("GATEHOUSE_TEST_AGENT"), &to);
    let index: Value = serde_json::from_slice(&fs::read(to.join("index.json")).unwrap()).unwrap();
    format!("fuel-emissions@{}", index["manifests"][0]["digest"].as_str().unwrap())
}

/// A worker's process, which dies with its value.
struct Worker(Child);

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

struct Case {
    world: World,
    redis: Redis,
    worker_config: PathBuf,
    token: String,
    image: String,
}

impl Case {
    fn new() -> Self {
        let world = World::new();
        let dir = world.setup.dir.path().to_owned();
        let redis = Redis::start(&dir);
        let tenant = world.tenant("tenant-a");
        let token = world.member(&tenant, "developer");
        let image = published(&world, &tenant);
        let config = json!({
            "admin_listen": format!("127.0.0.1:{}", free_port()),
            "database": {"app": world.database.url("gatehouse_app"), "system": world.database.url("gatehouse_system")},
            "redis": redis.url("worker"),
            "key_file": dir.join("key"),
            "image_store": dir.join("images"),
            "state_dir": dir.join("worker"),
            "runsc": part("GATEHOUSE_TEST_RUNSC"),
        });
        let worker_config = dir.join("worker.json");
        fs::write(&worker_config, config.to_string()).unwrap();
        Self { world, redis, worker_config, token, image }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.world.setup.dir.path().join(name)
    }

    fn worker(&self) -> Worker {
        let log = fs::File::create(self.path("worker.log")).unwrap();
        let mut command =
            Command::new(part("GATEHOUSE_TEST_BIN").join("gatehouse-execution-worker"));
        command.args(["serve", "--config"]).arg(&self.worker_config);
        Worker(command.stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }

    /// Submits, and returns the id once it has completed.
    fn completed(&self, input: Value) -> String {
        let agent =
            self.world.post(&self.token, "/api/v1/registry/agents", json!({"name": "fuel"}));
        assert_eq!(agent.status, 201, "{}", agent.text);
        let agent = agent.json()["id"].as_str().unwrap().to_owned();
        let path = format!("/api/v1/registry/agents/{agent}/versions");
        let body = json!({"version": "1.0.0", "image": self.image});
        let version = self.world.post(&self.token, &path, body);
        assert_eq!(version.status, 201, "{}", version.text);
        let body = json!({"agent": "fuel", "version": "1.0.0", "input": {"litres": 1_u64 << 53}});
        let refused = self.world.post(&self.token, RUNS, body);
        assert!(
            refused.status / 100 == 4 && refused.text.contains("as a string"),
            "{}",
            refused.text
        );
        let body = json!({"agent": "fuel", "version": "1.0.0", "input": input});
        let made = self.world.post(&self.token, RUNS, body);
        assert_eq!(made.status, 202, "{}", made.text);
        let id = made.json()["id"].as_str().unwrap().to_owned();
        let early = self.world.get(&self.token, &format!("{RUNS}/{id}/provenance"));
        assert_eq!(early.status, 404, "it has no result: {}", early.text);
        until(|| {
            let seen = self.world.get(&self.token, &format!("{RUNS}/{id}")).json();
            let state = seen["state"].as_str().unwrap().to_owned();
            assert!(!["failed", "dead_letter"].contains(&&*state), "{seen} {}", self.log());
            (state == "completed").then_some(())
        });
        id
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("worker.log")).unwrap_or_default()
    }

    fn verify(&self, file: &Path, more: &[&Path]) -> Output {
        let mut command = Command::new(part("GATEHOUSE_TEST_BIN").join("gatehouse"));
        command.args(["verify", "execution"]).arg(file);
        if let [again] = more {
            command.arg("--recomputed").arg(again);
        }
        command.output().unwrap()
    }

    fn recompute(&self, file: &Path) -> Output {
        let mut command =
            Command::new(part("GATEHOUSE_TEST_BIN").join("gatehouse-execution-worker"));
        command.args(["recompute", "--config"]).arg(&self.worker_config).arg(file).output().unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Everything in `value` that is no object and no array, as pointers.
fn leaves(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, inner) in members {
                leaves(inner, &format!("{at}/{name}"), found);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (place, inner) in items.iter().enumerate() {
                leaves(inner, &format!("{at}/{place}"), found);
            }
        }
        _ => found.push(at.to_owned()),
    }
}

#[test]
fn ee42_what_the_api_serves_is_verified_offline_and_by_running_it_again() {
    let case = Case::new();
    let worker = case.worker();
    let id = case.completed(json!({"fuel": "diesel", "litres": 12.5}));
    let path = format!("{RUNS}/{id}/provenance");
    let answer = case.world.get(&case.token, &path);
    assert_eq!(answer.status, 200, "{}", answer.text);
    let served = answer.json();
    assert_eq!(served["input"], json!({"fuel": "diesel", "litres": 12.5}));
    assert_eq!(served["output"]["kg_co2e"], json!(31.409875));
    assert_eq!(served["provenance"]["image"], json!(case.image));
    assert_eq!(served["provenance"]["config"]["driver"], "runsc");
    let told = case.world.get(&case.token, &format!("{RUNS}/{id}/history")).json();
    let completed = told["items"].as_array().unwrap().iter();
    let completed = completed.clone().find(|one| one.to_string().contains("execution.completed"));
    assert!(completed.unwrap().to_string().contains(served["hash"].as_str().unwrap()), "{told}");

    let file = case.path("execution.json");
    fs::write(&file, &answer.text).unwrap();
    let good = case.verify(&file, &[]);
    assert!(good.status.success() && good.stderr.is_empty(), "{good:?}");

    // Any changed part, and any two members of a list in another order.
    let mut pointers = Vec::new();
    leaves(&served, "", &mut pointers);
    assert!(pointers.len() > 25, "{pointers:?}");
    for pointer in &pointers {
        let mut changed = served.clone();
        let leaf = changed.pointer_mut(pointer).unwrap();
        *leaf = match leaf.take() {
            Value::Number(number) => json!(number.as_f64().unwrap() as u64 + 1),
            Value::String(text) => {
                json!(text.replace(|c: char| c.is_ascii_alphanumeric(), "b") + "c")
            }
            Value::Array(_) => json!(["x.example"]),
            other => panic!("{pointer}: {other}"),
        };
        let other = case.path("changed.json");
        fs::write(&other, changed.to_string()).unwrap();
        let refused = case.verify(&other, &[]);
        assert!(!refused.status.success(), "{pointer} was changed unnoticed");
    }

    // Again, beside the worker: the same result.
    let again = case.recompute(&file);
    assert!(again.status.success(), "{} {}", text(&again.stdout), text(&again.stderr));
    let second = case.path("again.json");
    fs::write(&second, &again.stdout).unwrap();
    let both = case.verify(&file, &[&second]);
    assert!(both.status.success(), "{both:?}");
    assert!(text(&both.stdout).contains("recomputed the same output"));

    // A record that says another result than its image comes to: its own hash holds, running it again tells.
    drop(worker);
    let mut forged: gatehouse_execution::provenance::Provenance =
        serde_json::from_value(served["provenance"].clone()).unwrap();
    let output = json!({"kg_co2e": 1});
    forged.output = gatehouse_execution::provenance::digest(&output).unwrap();
    let forged = json!({"provenance": forged, "hash": forged.hash().unwrap(), "input": served["input"], "output": output});
    fs::write(&file, forged.to_string()).unwrap();
    assert!(case.verify(&file, &[]).status.success(), "offline alone it is whole");
    let differs = case.recompute(&file);
    assert_eq!(differs.status.code(), Some(1), "{}", text(&differs.stderr));
    assert!(
        text(&differs.stderr).contains("output: it has the digest"),
        "{}",
        text(&differs.stderr)
    );
    fs::write(&second, &differs.stdout).unwrap();
    assert_eq!(case.verify(&file, &[&second]).status.code(), Some(1));

    let attempts = case.world.get(&case.token, &format!("{RUNS}/{id}/attempts")).json();
    let used = &attempts["items"][0]["used"];
    assert_eq!(attempts["items"][0]["reason"], "completed", "{attempts}");
    assert!(used["cpu_ms"].as_i64().unwrap() > 0 && used["charged"] == true, "{attempts}");
    let _redis = &case.redis;
}
