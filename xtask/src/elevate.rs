//! Runs a command again as root. Sandboxes, their control groups and databases under a user of their own need it;
//! building does not, and what root builds in a checkout its user cannot replace. So the user builds first, and
//! root finds it built. Knows nothing of the command.

use std::{
    ffi::OsString,
    io::IsTerminal,
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
};

use anyhow::Context;

use crate::{
    command,
    install::on_path,
    report::{Faults, exit},
};

/// What root needs to see of the user's environment: the toolchain, the network, and what was asked of xtask.
const KEPT: &[&str] = &[
    "PATH",
    "HOME",
    "CARGO",
    "CARGO_HOME",
    "CARGO_MANIFEST_DIR",
    "CARGO_TARGET_DIR",
    "RUSTUP_HOME",
    "RUSTUP_TOOLCHAIN",
    "GATEHOUSE_HOME",
    "NO_COLOR",
    "RUST_LOG",
    "PIP_CERT",
    "PIP_INDEX_URL",
    "PIP_FIND_LINKS",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// Names of what was built, with where it is: for the environment of the command that follows.
pub type Built = Vec<(&'static str, PathBuf)>;

/// Runs this very command again through sudo, after `build`, and returns its exit code. `None`: it is root already.
pub fn again_as_root(
    build: impl FnOnce() -> anyhow::Result<Built>,
) -> anyhow::Result<Option<ExitCode>> {
    if rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    if let Some(obstacle) = obstacle() {
        let line = format!("sandboxes and their limits need root, and {obstacle}; run it as root");
        return Err(Faults::one(exit::UNAVAILABLE, line).into());
    }
    let mut variables: Vec<OsString> =
        KEPT.iter().filter_map(|name| Some(joined(name, &std::env::var_os(name)?))).collect();
    variables.extend(build()?.iter().map(|(name, path)| joined(name, path.as_os_str())));
    let own = std::env::current_exe().context("finding this program")?;
    // sudo hands Ctrl-C on, and ends with the code of what it ran.
    let status = Command::new("sudo")
        .args(["--", "env"])
        .args(variables)
        .arg(own)
        .args(std::env::args_os().skip(1))
        .status()
        .context("starting sudo")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(Some(ExitCode::from(code.unwrap_or(exit::INTERRUPTED))))
}

fn joined(name: &str, value: &std::ffi::OsStr) -> OsString {
    let mut variable = OsString::from(name);
    variable.push("=");
    variable.push(value);
    variable
}

/// Why sudo is no way, if so.
fn obstacle() -> Option<&'static str> {
    if on_path("sudo").is_none() {
        return Some("there is no sudo");
    }
    if std::io::stdin().is_terminal() {
        // It may ask for the password.
        return None;
    }
    let mut try_it = Command::new("sudo");
    try_it.args(["-n", "true"]).stdin(Stdio::null());
    let allowed = command::run(&mut try_it, "sudo -n true", std::time::Duration::from_secs(30));
    allowed.is_err().then_some("sudo asks for a password")
}
