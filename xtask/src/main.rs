//! `cargo xtask`: the commands of this repository. Parses the command line and nothing else.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use gatehouse_xtask::{bench, ci, codegen, fresh, fuzz, mutate, report, test, tidy, up, wasm};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Builds, starts, checks and tests Gatehouse on this machine",
    after_help = "Examples:\n  cargo xtask up              start everything, print the endpoints, Ctrl-C stops it\n  cargo xtask up --check      walk the whole path and print a table\n  cargo xtask test            every test, on real parts\n  cargo xtask bench edge      the gateway's figures beside Envoy's own filters\n  cargo xtask ci              the gates: fmt, clippy, deny, tidy, codegen, wasm, docs"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Starts the whole system on this machine, seeded with demo tenants.
    Up(up::Args),
    /// Runs every test on real Envoy, PostgreSQL, Redis and gVisor.
    Test(test::Args),
    /// Runs the gates: fmt, clippy, per-crate check, deny, tidy, codegen, wasm, docs.
    Ci(ci::Args),
    /// Measures what was promised, beside what others do.
    Bench(bench::Args),
    /// Runs the fuzz targets over mutations of their committed seeds.
    Fuzz(fuzz::Args),
    /// Takes the guards out one at a time and sees a test go red for each.
    Mutate(mutate::Args),
    /// Builds the filters for Envoy and Kong; strips exports, checks size and imports.
    Wasm(wasm::Args),
    /// Checks the house rules: layers, files named in docs, the specification's lines.
    Tidy(tidy::Args),
    /// Renders what is generated and committed (manifests, schemas, tables).
    Codegen(codegen::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Up(args) => up::run(&args),
        Command::Test(args) if args.fresh => fresh::run(),
        Command::Test(args) => test::run(&args),
        Command::Ci(args) => ci::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Mutate(args) => mutate::run(&args),
        Command::Wasm(args) => wasm::run(&args),
        Command::Tidy(args) => tidy::run(&args),
        Command::Codegen(args) => codegen::run(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) => ExitCode::from(report::complain(&error)),
    }
}
