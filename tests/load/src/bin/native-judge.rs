//! Judges one body again and again by the crate that the module `validate` is made of: what the same work costs outside
//! a VM. For each line on its input, `NAME TIMES`, it judges the body in the file of that name so often and writes a line.
//! Who measures reads its processor time. Knows no clocks.

use std::{
    collections::BTreeMap,
    fs,
    hint::black_box,
    io::{self, BufRead, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Parser;
use gatehouse_validate::Schema;

/// What to judge.
#[derive(Debug, Parser)]
struct Options {
    /// The folder: `NAME.schema.json` beside `NAME.body.json`.
    folder: PathBuf,
}

fn main() -> Result<()> {
    let Options { folder } = Options::parse();
    let mut bodies = BTreeMap::new();
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let line = line?;
        let (name, times) = line.split_once(' ').context("NAME TIMES")?;
        if !bodies.contains_key(name) {
            bodies.insert(name.to_owned(), load(&folder, name)?);
        }
        let (schema, body) = bodies.get(name).context("no such body")?;
        for _ in 0..times.parse::<u64>()? {
            ensure!(schema.judge(black_box(body)).is_ok(), "{name} does not fit");
        }
        writeln!(out, "done")?;
        out.flush()?;
    }
    Ok(())
}

/// Compiled and read once, at the first line of that name.
fn load(folder: &Path, name: &str) -> Result<(Schema, Vec<u8>)> {
    let read = |kind: &str| {
        let path = folder.join(format!("{name}.{kind}.json"));
        fs::read(&path).with_context(|| format!("reading {}", path.display()))
    };
    let schema = Schema::compile(&serde_json::from_slice(&read("schema")?)?)
        .map_err(|mistakes| anyhow!(mistakes.join("; ")))?;
    Ok((schema, read("body")?))
}
