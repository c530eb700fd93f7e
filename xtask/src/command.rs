//! Runs other programs: always with a bound in time, in a process group of their own (so that Ctrl-C reaches
//! xtask alone, which then stops things in order), and with what they said last in the error.
//! Knows none of the programs.

use std::{
    io::Read,
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::Context;
use rustix::process::{Pid, Signal};

use crate::report::Faults;

/// What a program left.
#[derive(Debug, Clone)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Its stdout.
    pub stdout: String,
    /// Its stderr.
    pub stderr: String,
}

/// Runs `command` within `limit`; `Err` only where it cannot start, hangs, or Ctrl-C comes.
pub fn output(command: &mut Command, what: &str, limit: Duration) -> anyhow::Result<Output> {
    output_with(command, what, limit, None)
}

/// As [`output`], with `input` on its stdin.
pub fn output_with(
    command: &mut Command,
    what: &str,
    limit: Duration,
    input: Option<&str>,
) -> anyhow::Result<Output> {
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    let mut child = command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(|| format!("starting {what}"))?;
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        // A program that ends early closes the pipe: its status says more than the broken pipe.
        drop(std::io::Write::write_all(&mut stdin, input.as_bytes()));
    }
    let ended = wait(&mut child, limit);
    if !matches!(ended, Ok(Some(_))) {
        kill_group(child.id());
        child.wait().with_context(|| format!("waiting for {what}"))?;
    }
    let (stdout, stderr) = (joined(stdout), joined(stderr));
    match ended? {
        Some(status) => Ok(Output { status, stdout, stderr }),
        None => anyhow::bail!(
            "{what} took longer than {} s; its last words: {}",
            limit.as_secs(),
            last_lines(&stderr, 3)
        ),
    }
}

/// Runs `command` and wants success. The answer is its stdout.
pub fn run(command: &mut Command, what: &str, limit: Duration) -> anyhow::Result<String> {
    run_with(command, what, limit, None)
}

/// As [`run`], with `input` on its stdin.
pub fn run_with(
    command: &mut Command,
    what: &str,
    limit: Duration,
    input: Option<&str>,
) -> anyhow::Result<String> {
    let done = output_with(command, what, limit, input)?;
    if done.status.success() {
        return Ok(done.stdout);
    }
    let words = if done.stderr.trim().is_empty() { &done.stdout } else { &done.stderr };
    anyhow::bail!("{what} failed ({}):\n{}", ending(done.status), last_lines(words, 12))
}

/// Waits until `child` ends: `None` after `limit`; an error when Ctrl-C comes first.
pub fn wait(child: &mut Child, limit: Duration) -> anyhow::Result<Option<ExitStatus>> {
    let until = Instant::now() + limit;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if interrupted() {
            return Err(Faults::interrupted().into());
        }
        if Instant::now() >= until {
            return Ok(None);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// How a process ended, in words.
pub fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown end".to_owned(),
    }
}

/// The last `count` lines of `text`, without the empty ones at its end.
pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    let from = lines.len().saturating_sub(count);
    lines.get(from..).unwrap_or_default().join("\n")
}

/// SIGKILL to the process group that `pid` leads.
fn kill_group(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        signal_group(pid, Signal::KILL);
    }
}

/// Sends `signal` to a process group; whether it still had a member.
pub fn signal_group(leader: Pid, signal: Signal) -> bool {
    rustix::process::kill_process_group(leader, signal).is_ok()
}

fn drain<R: Read + Send + 'static>(pipe: Option<R>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read before an error is still worth showing.
            drop(pipe.read_to_end(&mut bytes));
        }
        bytes
    })
}

fn joined(reader: JoinHandle<Vec<u8>>) -> String {
    String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned()
}

static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From here on SIGINT, SIGTERM and SIGHUP are remembered instead of ending the process at once.
pub fn catch_signals() -> anyhow::Result<()> {
    let flag = INTERRUPTED.get_or_init(Arc::default);
    for signal in
        [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP]
    {
        signal_hook::flag::register(signal, Arc::clone(flag))
            .context("registering a signal handler")?;
    }
    Ok(())
}

/// Whether one of those signals came.
pub fn interrupted() -> bool {
    INTERRUPTED.get().is_some_and(|flag| flag.load(Ordering::SeqCst))
}

/// From here on the signals count again: for the clean-up that follows one.
pub fn forget_interrupt() {
    if let Some(flag) = INTERRUPTED.get() {
        flag.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut sh = Command::new("sh");
        sh.args(["-c", script]);
        sh
    }

    #[test]
    fn a_failure_shows_its_last_words() {
        let error =
            run(&mut sh("echo why >&2; exit 3"), "the thing", Duration::from_secs(9)).unwrap_err();
        assert_eq!(error.to_string(), "the thing failed (exit code 3):\nwhy");
        assert_eq!(run(&mut sh("cat"), "cat", Duration::from_secs(9)).unwrap(), "");
        let echoed = run_with(&mut sh("cat"), "cat", Duration::from_secs(9), Some("in")).unwrap();
        assert_eq!(echoed, "in");
    }

    #[test]
    fn a_hanging_program_ends_with_its_children() {
        let error =
            run(&mut sh("sleep 60 & sleep 60"), "sleeper", Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().starts_with("sleeper took longer than 0 s"), "{error}");
    }
}
