//! `gatehouse`: the command line for people who configure the gateway. It runs the gateway's own code over files:
//! what it says of a document, a token or a request is what the filter would say.
//! Parses arguments and prints; judges nothing itself.

mod completions;
mod convert;
mod explain;
mod finding;
mod lint;
mod outcome;
mod schema;
mod source;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::outcome::{EXIT_USAGE, Outcome};

const EXAMPLES: &str = "\
Examples:
  gatehouse lint examples/gateway/suite.json
  gatehouse lint istio/base/wasmplugin.yaml kong/kong.yaml
  gatehouse convert kong.yaml > suite.json
  gatehouse verify token --jwks jwks.json < token.txt
  gatehouse verify audit audit.jsonl --jwks jwks.json
  gatehouse verify execution execution.json
  gatehouse explain --config suite.json POST /api/v1/registry/agents --role viewer

Exit codes: 0 good, 1 refused, 64 wrong usage, 66 a file cannot be read or used.";

const VERIFY_EXAMPLES: &str = "\
Examples:
  gatehouse verify token --jwks jwks.json < token.txt
  gatehouse verify audit audit.jsonl --jwks jwks.json
  gatehouse verify execution execution.json";

#[derive(Parser)]
#[command(
    name = "gatehouse",
    version,
    about = "Checks edge documents and tokens as the gateway does"
)]
#[command(after_help = EXAMPLES)]
struct Cli {
    /// Say it as one JSON object on stdout
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compiles edge documents, also within manifests, and lists every mistake and warning
    Lint(lint::Args),
    /// Checks signed things offline
    #[command(subcommand, after_help = VERIFY_EXAMPLES)]
    Verify(Verify),
    /// Says what the gateway does with a request, and which rule decides
    Explain(explain::Args),
    /// Makes an edge document of Kong's and Envoy's own plugins
    Convert(convert::Args),
    /// Prints the JSON Schema of the edge document
    Schema(schema::Args),
    /// Prints a script by which a shell completes
    Completions(completions::Args),
}

#[derive(Subcommand)]
enum Verify {
    /// Judges an access token from stdin against a key set
    Token(verify::Args),
    /// Checks an export of a tenant's audit: its chain, its signed head, and each row
    Audit(verify::audit::Args),
    /// Checks that a result came from what its provenance says
    Execution(verify::execution::Args),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // `--help` and `--version` arrive here too, for stdout. If nobody reads, there is nobody to tell.
            let _unread = error.print();
            return ExitCode::from(if error.use_stderr() { EXIT_USAGE } else { 0 });
        }
    };
    let outcome: Outcome = match cli.command {
        Command::Lint(args) => lint::run(&args),
        Command::Verify(Verify::Token(args)) => verify::run(&args),
        Command::Verify(Verify::Audit(args)) => verify::audit::run(&args),
        Command::Verify(Verify::Execution(args)) => verify::execution::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Schema(args) => schema::run(&args),
        Command::Completions(args) => completions::run::<Cli>(&args),
    };
    outcome.print(cli.json)
}
