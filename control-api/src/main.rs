//! The control API: tenants, who acts in them, agents, executions, and the tokens by which they are reached.
//! Routes -> domain -> store, and a relay that tells sidecars what changed; knows no sandbox.

mod accept;
mod access;
mod bodies;
mod bootstrap;
mod cache;
mod clock;
mod condition;
mod config;
mod deliverer;
mod erasure;
mod federation;
mod images;
mod keyring;
mod months;
mod oidc;
mod once;
mod openapi;
mod paging;
mod parked;
mod peppers;
mod principal;
mod publisher;
mod random;
mod rebuild;
mod relay;
mod reseal;
mod routes;
mod schemas;
mod seal;
mod sealer;
mod serve;
mod session;
mod token;
mod watchers;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use gatehouse_service::{Stop, exit, telemetry};
use gatehouse_store::migrate;

const EXAMPLES: &str = "\
Examples:
  gatehouse-control-api migrate --database postgres://gatehouse_owner:…@127.0.0.1/gatehouse
  gatehouse-control-api bootstrap --config control-api.json --name ops
  gatehouse-control-api serve --config control-api.json
  gatehouse-control-api reseal --config control-api.json
  gatehouse-control-api rebuild --config control-api.json
  gatehouse-control-api events --config control-api.json
  gatehouse-control-api openapi > openapi.json

Exit codes: 0 done, 64 mistakes in arguments or configuration, 69 something cannot be reached or had,
70 a fault of ours, 78 the database is set up in a way that is not safe.";

/// Tenants, agents, executions and tokens over HTTP.
#[derive(Parser)]
#[command(name = "gatehouse-control-api", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until SIGTERM or SIGINT.
    Serve {
        /// The configuration, a JSON document.
        #[arg(long)]
        config: PathBuf,
    },
    /// Apply the migrations that are missing; a second run changes nothing.
    Migrate {
        /// The database, as gatehouse_owner.
        #[arg(long, env = "GATEHOUSE_MIGRATE_DATABASE", hide_env_values = true)]
        database: String,
    },
    /// Print the OpenAPI document of the public listener; it needs no configuration.
    Openapi {
        /// Print the schemas that bodies are judged by instead, as the gateway's module `validate` reads them.
        #[arg(long)]
        bodies: bool,
    },
    /// Seal anew under the first key of the key file what its other keys sealed, and rows from before rows were sealed.
    ///
    /// Runs beside the service; a second run does what is left. Counts go to stderr, the sums to stdout.
    Reseal {
        /// The configuration, a JSON document.
        #[arg(long)]
        config: PathBuf,
    },
    /// Hold every stored agent and execution against what its events add up to, and change nothing.
    ///
    /// What differs goes to stderr, the sums to stdout; exit code 78 where something does.
    Rebuild {
        /// The configuration, a JSON document.
        #[arg(long)]
        config: PathBuf,
    },
    /// List the events that cannot be published and were put aside, one JSON object per line; or act on them.
    Events {
        /// The configuration, a JSON document.
        #[arg(long)]
        config: PathBuf,
        /// Have all of them tried again.
        #[arg(long, conflicts_with = "drop")]
        retry: bool,
        /// Give this one up: it is never published, and what waits behind it goes on.
        #[arg(long, value_name = "EVENT")]
        drop: Option<uuid::Uuid>,
    },
    /// Make the platform's tenant and a client for its operator, and print the client's credentials once.
    Bootstrap {
        /// The configuration, a JSON document.
        #[arg(long)]
        config: PathBuf,
        /// The client's name.
        #[arg(long)]
        name: String,
        /// Give the client that is there another secret; the old one ends.
        #[arg(long)]
        rotate_secret: bool,
    },
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way, too; they are no mistakes.
            let code = if error.use_stderr() { exit::USAGE } else { 0 };
            return match error.print() {
                Ok(()) => ExitCode::from(code),
                Err(_) => ExitCode::from(exit::SOFTWARE),
            };
        }
    };
    telemetry::init();
    exit::run("control-api", async {
        match cli.command {
            Command::Serve { config } => serve::run(&config).await,
            Command::Migrate { database } => apply(&database).await,
            Command::Reseal { config } => reseal::run(&config).await,
            Command::Rebuild { config } => rebuild::run(&config).await,
            Command::Events { config, retry, drop } => {
                let what = match drop {
                    Some(event) => parked::What::Drop(event),
                    None if retry => parked::What::Retry,
                    None => parked::What::Tell,
                };
                parked::run(&config, what).await
            }
            Command::Openapi { bodies } => print(bodies),
            Command::Bootstrap { config, name, rotate_secret } => {
                bootstrap::run(&config, &name, rotate_secret).await
            }
        }
    })
}

fn print(bodies: bool) -> Result<(), Stop> {
    let endpoints = routes::table::endpoints();
    let document = match bodies {
        true => openapi::bodies(&endpoints),
        false => openapi::document(&endpoints).map_err(|error| Stop::software(&error))?,
    };
    print!("{}", openapi::written(&document));
    Ok(())
}

async fn apply(database: &str) -> Result<(), Stop> {
    match migrate::run(database).await {
        Ok(count) => {
            println!("{{\"migrations\":{count}}}");
            Ok(())
        }
        Err(error @ migrate::Error::Unreachable(_)) => Err(Stop::unavailable(format!(
            "--database: {}; check the address, the password and that PostgreSQL runs",
            exit::chain(&error)
        ))),
        Err(error @ migrate::Error::Role(_)) => {
            Err(Stop::refused(format!("--database: {error}; name gatehouse_owner in the URL")))
        }
        Err(error @ migrate::Error::Failed(_)) => Err(Stop::software(&error)),
    }
}
