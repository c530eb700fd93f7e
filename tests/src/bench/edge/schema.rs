//! What judging a body costs in the module's VM, beside the same crate run natively. In both, the work is what a body of
//! 2 KB under a schema costs more than as many bytes of blanks around `{}` under no rules: in Envoy that leaves out the
//! host, its buffers and the ways into the VM, which both bodies take alike. The native side is a program that judges in a
//! loop, with everything in its caches. By processor time, in turns. Knows no chains.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{
    CONNECTIONS, CORES, GO, WARM_UP,
    envoy::{Chain, Gateway},
};
use crate::{
    bench::{
        cpu,
        load::{Load, Requests},
        pairs::Round,
    },
    env, wait,
};

const BODY_BYTES: usize = 2048;
/// Judgements in a turn of the native side: about as long as a turn of Envoy.
const TIMES: u32 = 2_000;
const NAMES: [&str; 2] = ["full", "blank"];

/// A body of 2 KB as clients send them: a list of items of strings, numbers and words, and a text to fill it.
fn body() -> String {
    let item = |n: usize| {
        let kind = ["diesel", "petrol", "electric"].get(n % 3);
        json!({
            "id": format!("0191d6b0-7c3e-7aaa-8bbb-{n:012}"),
            "kind": kind,
            "litres": 10.5 + n as f64,
            "trips": [n, n + 1, n + 2],
            "site": format!("site-{n}"),
        })
    };
    let items: Vec<Value> = (0..14).map(item).collect();
    let mut body = json!({"name": "fuel-emissions", "items": items, "note": ""});
    let rest = BODY_BYTES.saturating_sub(body.to_string().len());
    if let Some(note) = body.get_mut("note") {
        *note = "n".repeat(rest).into();
    }
    body.to_string()
}

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 63, "pattern": "^[a-z0-9-]+$"},
            "items": {"type": "array", "minItems": 1, "maxItems": 100, "items": {"$ref": "#/$defs/item"}},
            "note": {"type": "string", "maxLength": 2000},
        },
        "required": ["name", "items"],
        "additionalProperties": false,
        "$defs": {"item": {
            "type": "object",
            "properties": {
                "id": {"type": "string", "format": "uuid"},
                "kind": {"enum": ["diesel", "petrol", "electric"]},
                "litres": {"type": "number", "exclusiveMinimum": 0, "maximum": 1000},
                "trips": {"type": "array", "items": {"type": "integer", "minimum": 0}},
                "site": {"type": "string", "pattern": "^site-[0-9]{1,6}$"},
            },
            "required": ["id", "kind", "litres"],
            "additionalProperties": false,
        }},
    })
}

fn both() -> [(&'static str, Value, String); 2] {
    let blank = format!("{}{{}}", " ".repeat(BODY_BYTES - 2));
    let [full, none] = NAMES;
    [(full, schema(), body()), (none, json!({}), blank)]
}

/// One side of the comparison.
pub(super) enum Side {
    Vm { gateway: Gateway, loads: [Load; 2] },
    Native(Native),
}

/// The program that judges natively.
pub(super) struct Native {
    child: Child,
    ask: ChildStdin,
    told: BufReader<ChildStdout>,
}

impl Side {
    /// The module in an Envoy of its own, and the program beside it on the same core.
    pub(super) fn start(dir: &Path) -> Result<[Self; 2]> {
        let folder = dir.join("schema");
        std::fs::create_dir(&folder)?;
        let mut routes = Vec::new();
        for (name, schema, body) in both() {
            ensure!(body.len() == BODY_BYTES, "{name} has {} bytes", body.len());
            std::fs::write(folder.join(format!("{name}.schema.json")), schema.to_string())?;
            std::fs::write(folder.join(format!("{name}.body.json")), body)?;
            routes.push(json!({"method": "POST", "path": format!("/{name}"), "schema": schema}));
        }
        let document = json!({"hold_headers": true, "routes": routes});
        let module = env::path(env::VALIDATE)?.display().to_string();
        let filter = gatehouse_xtask::render::validate::filter(&document, &module);
        let chain = Chain::new("validate", vec![filter], true);
        let gateway = Gateway::start(&folder, &[chain], &[], wait::address()?, CORES)?;
        let to = gateway.address("validate")?;
        let open = |(name, _, body): (&str, Value, String)| {
            Load::open(to, CONNECTIONS, Requests::post(&format!("/{name}"), &body))
        };
        let [full, blank] = both();
        let loads = [open(full)?, open(blank)?];
        let native = cpu::on(CORES.0, CORES.1, || Native::start(&folder))?;
        let mut sides = [Self::Vm { gateway, loads }, Self::Native(native)];
        for side in &mut sides {
            side.go(WARM_UP)?;
        }
        Ok(sides)
    }

    /// What judging one body costs, in µs.
    pub(super) fn turn(&mut self) -> Result<f64> {
        self.go(GO)
    }

    fn go(&mut self, span: Duration) -> Result<f64> {
        let [full, blank] = match self {
            Self::Vm { gateway, loads: [full, blank] } => {
                let process = gateway.process.id();
                let cost = |load: &mut Load| {
                    let before = cpu::spent(process)?;
                    let answered = load.run(span)?;
                    let spent = cpu::spent(process)?.saturating_sub(before);
                    // More requests than a double counts exactly would take years.
                    Ok::<_, anyhow::Error>(spent.as_secs_f64() * 1e6 / answered as f64)
                };
                [cost(full)?, cost(blank)?]
            }
            Self::Native(native) => {
                let [full, blank] = NAMES;
                [native.cost(full)?, native.cost(blank)?]
            }
        };
        Ok(full - blank)
    }
}

impl Native {
    fn start(folder: &Path) -> Result<Self> {
        let program = env::path(env::BIN)?.join("native-judge");
        let mut child = Command::new(&program)
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let ask = child.stdin.take().context("no input")?;
        let told = BufReader::new(child.stdout.take().context("no output")?);
        Ok(Self { child, ask, told })
    }

    fn cost(&mut self, name: &str) -> Result<f64> {
        let before = cpu::spent(self.child.id())?;
        writeln!(self.ask, "{name} {TIMES}")?;
        let mut line = String::new();
        self.told.read_line(&mut line)?;
        ensure!(line == "done\n", "the native side said {line:?}");
        let spent = cpu::spent(self.child.id())?.saturating_sub(before);
        Ok(spent.as_secs_f64() * 1e6 / f64::from(TIMES))
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What is printed beside the figure.
pub(super) fn about(rounds: &[Round]) -> String {
    let middle = |mut costs: Vec<f64>| {
        costs.sort_by(f64::total_cmp);
        costs.get(costs.len() / 2).copied().unwrap_or_default()
    };
    let vm = middle(rounds.iter().map(|round| round.ours).collect());
    let native = middle(rounds.iter().map(|round| round.theirs).collect());
    format!("judging a body of {BODY_BYTES} bytes: in the VM {vm:.1} µs, natively {native:.1} µs")
}
