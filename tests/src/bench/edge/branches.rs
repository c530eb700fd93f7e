//! Counts which way the fused module's branches go while requests of every common kind pass through everything that it
//! does, for the hints that `cargo xtask wasm` gives to hosts (ADR 0042). Knows no clocks: what is counted is the same
//! on every machine.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use gatehouse_xtask::{
    command, repo,
    wasm::branches::{self, Branches, Counted, counted},
};

use super::{
    PATH,
    cases::{ACCEPTED, FULL, Kit, UNVERSIONED},
    costs::{self, Exchange, TEXT},
};
use crate::{
    env,
    vm::{Filter, Surroundings, Vm},
};

/// Tokens that are new at first and known then.
const TOKENS: usize = 8;
/// Requests of each kind per token.
const AGAIN: usize = 4;

/// Counts and writes; nothing is measured.
pub fn run() -> Result<()> {
    command::catch_signals()?;
    let dir = tempfile::Builder::new().prefix("gatehouse-branches-").tempdir()?;
    let kit = Kit::new(dir.path(), SystemTime::now())?;
    let module = std::fs::read(env::path(env::SUITE)?).context("reading the module")?;
    let counting = counted(&module)?;
    let (variable, value) = Kit::environment();
    let around = Surroundings {
        targets: vec!["gatehouse-sidecar".to_owned()],
        environment: vec![(variable.to_owned(), value)],
        ..Surroundings::at(kit.now)
    };
    let mut vm = Vm::start(&Filter::compile(&counting.module)?, &around)?;
    let documents = kit.documents()?;
    let (_, document) =
        documents.iter().find(|(name, _)| *name == FULL).context("no full document")?;
    ensure!(vm.configure(&document.to_string())?, "refused: {:?}", vm.take_log());
    // The feed begins to speak, keys, members and passes come: what happens once is not what is typical.
    vm.advance(Duration::from_millis(500))?;
    costs::answer_all(&mut vm, &kit)?;
    let tokens = kit.tokens(TOKENS)?;
    let (first, later) = tokens.split_first().context("no tokens")?;
    let kinds = [
        Exchange { path: PATH, accept: "application/json", response: TEXT, body: b"text" },
        Exchange { path: PATH, accept: "application/json", response: JSON, body: b"{\"id\":1}" },
        Exchange { path: UNVERSIONED, accept: ACCEPTED, response: JSON, body: b"{\"id\":1}" },
    ];
    for _ in 0..TOKENS {
        costs::exchange(&mut vm, &kit, first, &kinds[0])?;
    }
    let place = counting.range();
    vm.memory()?.get_mut(place.clone()).context("no room for counts")?.fill(0);
    for token in later {
        for kind in kinds.iter().cycle().take(kinds.len() * AGAIN) {
            costs::exchange(&mut vm, &kit, token, kind)?;
        }
    }
    let counts = Counted::read(vm.memory()?.get(place).context("no counts")?);
    let file = branches::file(&repo::root()?);
    std::fs::write(&file, Branches::of(&module, &counts)?.text())
        .with_context(|| format!("writing {}", file.display()))?;
    println!("written to {}; `cargo xtask wasm` builds with it", file.display());
    Ok(())
}

/// An answer that goes into an envelope.
const JSON: &[(&str, &str)] = &[(":status", "200"), ("content-type", "application/json")];
