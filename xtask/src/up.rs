//! `cargo xtask up`: the whole system on this machine, seeded, until Ctrl-C. `--check` walks the path instead.
//! Knows what a newcomer wants to see, and nothing of how the parts work.

pub mod api;
pub mod check;
pub mod demo;
pub mod seed;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use crate::{
    command,
    elevate::{self, Built},
    install,
    report::{Faults, Report, exit, seconds},
    stack::{self, Options, Stack, instance::Limiter, services},
};

use self::demo::Demo;

/// The options of `cargo xtask up`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask up                       on free ports, until Ctrl-C\n  cargo xtask up --port 8080           the gateway on port 8080\n  cargo xtask up --check               walk the path; against a running instance, else its own\n  cargo xtask up --check --memory-store  the same with limits counted in the sidecar"
)]
pub struct Args {
    /// Walk the whole path as an independent client and print a table; non-zero exit when a row fails.
    #[arg(long)]
    check: bool,
    /// Count limits in the sidecar's memory instead of Redis.
    #[arg(long)]
    memory_store: bool,
    /// The instance's name; several can run side by side.
    #[arg(long, default_value = "default", value_parser = name)]
    name: String,
    /// The gateway's port [default: a free one].
    #[arg(long)]
    port: Option<u16>,
    /// The control API's own port, behind the gateway [default: a free one].
    #[arg(long)]
    control_port: Option<u16>,
    /// PostgreSQL's port [default: a free one].
    #[arg(long)]
    postgres_port: Option<u16>,
    /// Redis' port [default: a free one].
    #[arg(long)]
    redis_port: Option<u16>,
    /// The filter's configuration document [default: examples/gateway/suite.json].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Begin with an empty database and new credentials.
    #[arg(long)]
    reset: bool,
}

fn name(text: &str) -> Result<String, String> {
    let fits = (1..=40).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if fits {
        Ok(text.to_owned())
    } else {
        Err("write 1 to 40 lower-case letters, digits and hyphens".to_owned())
    }
}

impl Args {
    fn options(&self) -> Options {
        Options {
            limiter: if self.memory_store { Limiter::Memory } else { Limiter::Redis },
            gateway_port: self.port,
            control_port: self.control_port,
            postgres_port: self.postgres_port,
            redis_port: self.redis_port,
            document: self.config.clone(),
            reset: self.reset,
            ..Options::new(&self.name)
        }
    }
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    command::catch_signals()?;
    if let Some(code) = elevate::again_as_root(build)? {
        return Ok(code);
    }
    if args.check { check(args) } else { up(args) }
}

/// Everything that is built, by the user who owns the checkout.
fn build() -> anyhow::Result<Built> {
    let mut report = Report::new();
    report.expect(3);
    install::ensure(install::Part::OF_FILTERS, &mut report)?;
    let bin = report.step("Build the services", |_| services::build())?;
    let suite = report.step("Build the filter", |_| stack::build_filter())?;
    let agent = report.step("Build the sample agent", |_| seed::build_agent())?;
    Ok(vec![
        ("GATEHOUSE_TEST_BIN", bin),
        ("GATEHOUSE_TEST_SUITE", suite),
        ("GATEHOUSE_TEST_AGENT", agent),
    ])
}

fn up(args: &Args) -> anyhow::Result<ExitCode> {
    let mut report = Report::new();
    report.expect(1);
    let mut stack = Stack::start(&args.options(), &mut report)?;
    let demo = Demo::ensure(&stack.instance, &mut report)?;
    print!("{}", demo.welcome(&stack.instance)?);
    println!("Ready after {}.", seconds(report.elapsed()));
    while !command::interrupted() {
        if let Some(error) = stack.broken() {
            stack.stop()?;
            return Err(error);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    command::forget_interrupt();
    report.expect(1);
    report.step("Stop everything", |_| stack.stop())?;
    Ok(ExitCode::SUCCESS)
}

fn check(args: &Args) -> anyhow::Result<ExitCode> {
    if let Some(instance) = stack::running(&args.name)? {
        // Without the flag the instance is taken as it is.
        if args.memory_store && instance.limiter != Limiter::Memory {
            let line = format!(
                "the running instance {} counts limits in Redis; leave --memory-store out, end it first, or choose another with --name",
                args.name
            );
            return Err(Faults::one(exit::USAGE, line).into());
        }
        return check::run(&instance);
    }
    // Its own, beside whatever else there is.
    let mut report = Report::new();
    let options = Options { name: format!("{}-check", args.name), reset: true, ..args.options() };
    let mut stack = Stack::start(&options, &mut report)?;
    let code = check::run(&stack.instance)?;
    if let Some(error) = stack.broken() {
        eprintln!("xtask: {error:#}");
    }
    report.expect(1);
    if code == ExitCode::SUCCESS {
        report.step("Stop everything and remove it", |_| stack.discard())?;
    } else {
        eprintln!("The logs stay in {}", stack.instance.dir.join("log").display());
        report.step("Stop everything", |_| stack.stop())?;
    }
    Ok(code)
}
