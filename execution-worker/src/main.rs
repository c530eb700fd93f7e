//! `gatehouse-execution-worker`: reads the command line and the configuration, and serves.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use gatehouse_execution_worker::{enter, process, recompute, reload, selftest, worker};
use gatehouse_service::{Shutdown, Stop, exit, telemetry};

#[derive(Parser)]
#[command(
    name = "gatehouse-execution-worker",
    version,
    about = "Claims executions and runs them in gVisor",
    after_help = "Examples:\n  gatehouse-execution-worker serve --config worker.json\n  \
        gatehouse-execution-worker recompute --config worker.json execution.json\n\n\
        worker.json:\n  {\"admin_listen\": \"127.0.0.1:8093\",\n   \
        \"database\": {\"app\": \"postgres://gatehouse_app:PASSWORD@127.0.0.1:5432/gatehouse\",\n                \
        \"system\": \"postgres://gatehouse_system:PASSWORD@127.0.0.1:5432/gatehouse\"},\n   \
        \"redis\": \"redis://worker:PASSWORD@127.0.0.1:6379\",\n   \
        \"image_store\": \"/var/lib/gatehouse/images\", \"state_dir\": \"/var/lib/gatehouse/worker\",\n   \
        \"runsc\": \"/usr/bin/runsc\", \"concurrency\": 2, \"worker_id\": \"worker\",\n   \
        \"drain_s\": 30, \"lease_s\": 15, \"start_s\": 60, \"grace_s\": 10}\n\n\
        A changed file is live within half a second: concurrency, drain_s, start_s, grace_s; others need a restart.\n\
        SIGTERM drains for drain_s, then hands executions back; a second SIGTERM does so at once."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the worker until SIGTERM or SIGINT.
    Serve {
        /// The configuration document (JSON).
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Runs what a provenance records again, in a sandbox, and compares the outputs: exit code 0 where they are the same, 1
    /// where not. Prints what `gatehouse verify execution --recomputed` takes. May run beside a worker.
    #[command(
        after_help = "Example:\n  curl …/api/v1/runtime/executions/ID/provenance > execution.json\n  \
        gatehouse-execution-worker recompute --config worker.json execution.json > again.json\n  \
        gatehouse verify execution execution.json --recomputed again.json"
    )]
    Recompute {
        /// The worker's configuration document (JSON): its driver, image_store and state_dir are used.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The provenance with hash and input, as the API serves it.
        #[arg(value_name = "EXECUTION")]
        file: PathBuf,
    },
    /// Tries to pass the limits of the sandbox that it is in; called by the worker itself when it starts.
    #[command(hide = true)]
    Probe {
        /// Which.
        what: String,
    },
    /// Becomes the agent of a bundle; called by the worker itself for its driver "process".
    #[command(hide = true)]
    Enter {
        /// The bundle's folder.
        #[arg(long)]
        bundle: PathBuf,
        /// Where to say why it could not begin.
        #[arg(long)]
        log: PathBuf,
        /// The files of the control groups to join.
        tasks: Vec<PathBuf>,
    },
}

fn main() -> ExitCode {
    let (config, again) = match Cli::parse().command {
        Command::Serve { config } => (config, None),
        Command::Recompute { config, file } => (config, Some(file)),
        Command::Probe { what } => return ExitCode::from(selftest::probe(&what)),
        Command::Enter { bundle, log, tasks } => {
            return ExitCode::from(enter::enter(&bundle, &log, &tasks));
        }
    };
    // Before the runtime starts its threads; its errors are told after the configuration's.
    let prepared = process::own_mounts().and_then(|()| process::adopt_orphans());
    exit::run("execution-worker", async move {
        let (config, file) = reload::File::open(&config)?;
        prepared.map_err(|error| {
            Stop::unavailable(format!("no mount namespace: {error}; run the worker as root"))
        })?;
        telemetry::init();
        if let Some(again) = again {
            let effect = file.in_effect().borrow().clone();
            return recompute::run(&config, &effect, &again).await;
        }
        let (_trigger, shutdown) = Shutdown::on_signals()?;
        worker::serve(config, file, shutdown).await
    })
}
