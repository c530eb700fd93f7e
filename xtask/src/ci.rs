//! `cargo xtask ci`: the gates, in the order in which a mistake is cheapest to find. All run, all reds are shown.
//! Knows which gates there are and how they are called.

use std::{collections::BTreeSet, path::Path, process::ExitCode, time::Duration};

use anyhow::Context;

use crate::{
    codegen, command,
    gates::{self, Gates},
    install,
    render::{Images, problems},
    repo, tidy, tools, wasm,
};

/// The options of `cargo xtask ci`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run only these gates (fmt, tidy, codegen, clippy, clippy-wasm, alone, deny, wasm, docs).
    pub only: Vec<String>,
}

type Check = fn(&Path) -> anyhow::Result<()>;

/// The gates by name. Compiling ones come after those that need no compiler.
const GATES: &[(&str, Check)] = &[
    ("fmt", fmt),
    ("tidy", tidy_),
    ("codegen", codegen_),
    ("deny", deny),
    ("clippy", clippy),
    ("clippy-wasm", clippy_wasm),
    ("alone", alone),
    ("wasm", wasm_),
    ("docs", docs),
];

/// From an empty target folder on two cores.
const LIMIT: Duration = Duration::from_secs(30 * 60);

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let names: BTreeSet<&str> = GATES.iter().map(|(name, _)| *name).collect();
    if let Some(unknown) = args.only.iter().find(|name| !names.contains(name.as_str())) {
        anyhow::bail!(
            "there is no gate {unknown}; known: {}",
            names.into_iter().collect::<Vec<_>>().join(", ")
        );
    }
    let wanted: Vec<&(&str, Check)> = GATES
        .iter()
        .filter(|(name, _)| args.only.is_empty() || args.only.iter().any(|only| only == name))
        .collect();
    command::catch_signals()?;
    let root = repo::root()?;
    let mut gates = Gates::new(wanted.len());
    install::ensure(install::Part::OF_FILTERS, gates.report())?;
    if wanted.iter().any(|(name, _)| *name == "deny") {
        tools::ensure(tools::DENY, gates.report())?;
    }
    for (name, check) in wanted {
        gates.check(name, |_| check(&root))?;
    }
    Ok(gates.close("ci"))
}

fn fmt(root: &Path) -> anyhow::Result<()> {
    gates::run(repo::cargo(root).args(["fmt", "--all", "--check"]), "cargo fmt", LIMIT)
}

fn tidy_(root: &Path) -> anyhow::Result<()> {
    lines(tidy::check(root)?.iter().map(ToString::to_string).collect(), "to mend")
}

fn codegen_(root: &Path) -> anyhow::Result<()> {
    let rendered = codegen::rendered(root, &Images::unpublished())?;
    let unexplained = problems::mistakes();
    lines(unexplained, "reasons are not explained, or twice")?;
    lines(codegen::differences(root, &rendered), "files differ: run `cargo xtask codegen`")
}

fn lines(lines: Vec<String>, what: &str) -> anyhow::Result<()> {
    anyhow::ensure!(lines.is_empty(), "{}\n{} {what}", lines.join("\n"), lines.len());
    Ok(())
}

/// The advisory database cannot be had without the network: `docs/ADVISORIES.md` is kept by hand.
fn deny(root: &Path) -> anyhow::Result<()> {
    // Offline, cargo must find every package of every platform in its cache.
    gates::run(repo::cargo(root).args(["fetch", "--locked", "--quiet"]), "cargo fetch", LIMIT)?;
    let program = tools::ensure(tools::DENY, &mut crate::report::Report::quiet())?;
    let mut deny = std::process::Command::new(program);
    deny.current_dir(root).args(["--offline", "--log-level", "warn", "check"]);
    deny.args(["--hide-inclusion-graph", "-D", "unmatched-skip", "bans", "licenses", "sources"]);
    gates::run(&mut deny, "cargo deny", LIMIT)
}

fn clippy(root: &Path) -> anyhow::Result<()> {
    let mut cargo = repo::cargo(root);
    cargo.args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--quiet",
        "--",
        "-D",
        "warnings",
    ]);
    gates::run(&mut cargo, "cargo clippy", LIMIT)
}

fn clippy_wasm(root: &Path) -> anyhow::Result<()> {
    let mut cargo = repo::cargo(root);
    cargo.args(["clippy", "--package", "gatehouse-suite", "--target", "wasm32-wasip1"]);
    cargo.args(["--locked", "--quiet", "--", "-D", "warnings"]);
    gates::run(&mut cargo, "cargo clippy for wasm32-wasip1", LIMIT)
}

/// Each library by itself: in the workspace another one's features may cover for a missing one.
fn alone(root: &Path) -> anyhow::Result<()> {
    let mut red = Vec::new();
    for name in libraries(root)? {
        let mut cargo = repo::cargo(root);
        cargo.args(["check", "--lib", "--locked", "--quiet", "--package", &name]);
        if let Err(error) = gates::run(&mut cargo, &format!("cargo check of {name}"), LIMIT) {
            red.push(format!("{error:#}"));
        }
    }
    lines(red, "do not build alone")
}

fn wasm_(root: &Path) -> anyhow::Result<()> {
    wasm::build(root).map(drop)
}

fn docs(root: &Path) -> anyhow::Result<()> {
    let mut cargo = repo::cargo(root);
    cargo.args(["doc", "--no-deps", "--locked", "--quiet"]).env("RUSTDOCFLAGS", "-D warnings");
    for name in libraries(root)? {
        cargo.args(["--package", &name]);
    }
    gates::run(&mut cargo, "cargo doc", LIMIT)
}

/// The packages under `crates/`.
fn libraries(root: &Path) -> anyhow::Result<Vec<String>> {
    let folder = root.join("crates");
    let mut names = Vec::new();
    for entry in
        std::fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?
    {
        let entry = entry?;
        if entry.path().join("Cargo.toml").is_file() {
            names.push(format!("gatehouse-{}", entry.file_name().to_string_lossy()));
        }
    }
    names.sort();
    Ok(names)
}
