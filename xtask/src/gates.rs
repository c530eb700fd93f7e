//! Runs checks one after the other, each timed, and prints what was red in full and a table at the end.
//! Knows nothing of the checks.

use std::{
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use crate::{
    command,
    report::{BOLD, GREEN, RED, Report, colours, paint, seconds},
};

/// What was done so far.
#[derive(Debug)]
pub struct Gates {
    report: Report,
    done: Vec<Gate>,
    began: Instant,
}

#[derive(Debug)]
struct Gate {
    name: String,
    took: Duration,
    /// What it said, if it was red.
    red: Option<String>,
}

impl Gates {
    /// `count` checks are to come.
    pub fn new(count: usize) -> Self {
        let mut report = Report::new();
        report.expect(count);
        Self { report, done: Vec::new(), began: Instant::now() }
    }

    /// The progress, for steps that are no checks.
    pub fn report(&mut self) -> &mut Report {
        &mut self.report
    }

    /// Runs one check. Its error is kept, and the next one still runs: one round shows all that is red.
    /// Only Ctrl-C ends everything.
    pub fn check(
        &mut self,
        name: &str,
        work: impl FnOnce(&mut String) -> anyhow::Result<()>,
    ) -> anyhow::Result<bool> {
        let began = Instant::now();
        let result = self.report.step(name, work);
        if command::interrupted() {
            result?;
            return Err(crate::report::Faults::interrupted().into());
        }
        let red = result.err().map(|error| format!("{error:#}"));
        let green = red.is_none();
        self.done.push(Gate { name: name.to_owned(), took: began.elapsed(), red });
        Ok(green)
    }

    /// Prints what was red, the table and the verdict.
    pub fn close(self, title: &str) -> ExitCode {
        let on = colours(&std::io::stdout());
        let width = self.done.iter().map(|gate| gate.name.chars().count()).max().unwrap_or(0);
        for gate in &self.done {
            if let Some(said) = &gate.red {
                println!(
                    "\n{}\n{}",
                    paint(on, BOLD, &format!("── {} ──", gate.name)),
                    said.trim_end()
                );
            }
        }
        println!();
        for gate in &self.done {
            let verdict = match gate.red {
                None => paint(on, GREEN, "green"),
                Some(_) => paint(on, RED, "RED  "),
            };
            println!("{:width$}  {verdict}  {:>12}", gate.name, seconds(gate.took));
        }
        let red = self.done.iter().filter(|gate| gate.red.is_some()).count();
        let took = seconds(self.began.elapsed());
        if red == 0 {
            println!("{title}: all {} green in {took}", self.done.len());
            ExitCode::SUCCESS
        } else {
            println!("{title}: {red} of {} red, {took}", self.done.len());
            ExitCode::FAILURE
        }
    }
}

/// Runs `command` within `limit`; what it said in full is the error where it fails.
pub fn run(command: &mut Command, what: &str, limit: Duration) -> anyhow::Result<()> {
    let done = command::output(command, what, limit)?;
    if done.status.success() {
        return Ok(());
    }
    anyhow::bail!("{}{}{what}: {}", done.stdout, done.stderr, command::ending(done.status))
}
