//! `cargo xtask test --fresh`: repeats the README's two commands in a root that has nothing but what the README
//! names: a minimal Debian 12, git, curl, build-essential, python3, and Rust. Knows how such a root is made and
//! entered, not what the commands do.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use anyhow::{Context, ensure};

use crate::{
    command, install, paths, repo,
    report::{Faults, Report, exit},
};

/// What the README asks for besides Rust.
const PREREQUISITES: &str = "git,curl,ca-certificates,build-essential,python3";
const SUITE: &str = "bookworm";
/// Becomes process 1 of the new root.
const ENTER: &str = include_str!("fresh/enter.sh");
/// The README's two commands. Both run, so that one round shows all that is red.
const COMMANDS: &str = "\
    status=0\n\
    cargo xtask up --check || status=1\n\
    cargo xtask test || status=1\n\
    exit $status";

const BOOTSTRAP: Duration = Duration::from_secs(20 * 60);
const COPY: Duration = Duration::from_secs(10 * 60);
/// From a clean clone with no tools.
const COMMANDS_LIMIT: Duration = Duration::from_secs(120 * 60);

/// How the machine reaches package archives and registries: the new root does it the same way.
const NETWORK_FILES: &[&str] = &["etc/apt", "etc/hosts", "etc/resolv.conf", "etc/pip.conf"];
const NETWORK_VARIABLES: &[&str] = &[
    "PROXY",
    "proxy",
    "PIP_",
    "SSL_CERT",
    "CA_BUNDLE",
    "SSL_CAINFO",
    "RUSTUP_AUTO",
    "CARGO_HTTP",
    "CARGO_REGISTR",
];
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const CERTIFICATES: &str = "/etc/ssl/certs";

/// Runs it.
pub fn run() -> anyhow::Result<ExitCode> {
    command::catch_signals()?;
    if !rustix::process::geteuid().is_root() {
        return Err(Faults::one(
            exit::UNAVAILABLE,
            "making a root needs root: run it again with sudo",
        )
        .into());
    }
    let home = paths::home()?.join("fresh");
    let base = home.join("base");
    let root = home.join("root");
    let mut report = Report::new();
    report.expect(3);
    report.step("A minimal Debian 12", |note| {
        if base.join("etc/debian_version").is_file() {
            note.push_str("kept from before");
            return Ok(());
        }
        bootstrap(&base)
    })?;
    report.step("A root of its own", |_| {
        remove(&root)?;
        // Reflinks where the file system has them.
        let mut copy = Command::new("cp");
        copy.args(["--archive", "--reflink=auto"]).arg(&base).arg(&root);
        command::run(&mut copy, "copying the root", COPY)?;
        network(&root)
    })?;
    let commit = report.step("A clone of this repository", |note| {
        let commit = clone(&repo::root()?, &root.join("src/gatehouse"))?;
        note.push_str(&commit);
        Ok(commit)
    })?;
    let status = enter(&root)?;
    if status {
        remove(&root)?;
        println!("fresh: green at {commit}");
    } else {
        println!("fresh: RED at {commit}; {} stays for a look", root.display());
    }
    Ok(if status { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Makes the root whole or not at all.
fn bootstrap(base: &Path) -> anyhow::Result<()> {
    if !["/usr/sbin/debootstrap", "/sbin/debootstrap"].iter().any(|file| Path::new(file).is_file())
    {
        install::apt::install(&["debootstrap"])?;
    }
    let half = base.with_extension("half");
    remove(&half)?;
    if let Some(folder) = half.parent() {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    let mut debootstrap = Command::new("debootstrap");
    debootstrap.args(["--variant=minbase", "--include", PREREQUISITES, SUITE]).arg(&half);
    debootstrap.arg(install::deb::archive()?);
    command::run(&mut debootstrap, "debootstrap", BOOTSTRAP)?;
    fs::rename(&half, base).context("moving the new root into place")
}

/// A root from an earlier run has no mounts of ours: they ended with their namespace.
fn remove(root: &Path) -> anyhow::Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("reading the mounts")?;
    let within = |line: &str| {
        line.split(' ').nth(1).is_some_and(|target| Path::new(target).starts_with(root))
    };
    ensure!(
        !mounts.lines().any(within),
        "something is mounted under {}; unmount it before it is removed",
        root.display()
    );
    match fs::remove_dir_all(root) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", root.display()))
        }
        _ => Ok(()),
    }
}

fn network(root: &Path) -> anyhow::Result<()> {
    for file in NETWORK_FILES {
        let from = Path::new("/").join(file);
        if !from.exists() {
            continue;
        }
        let to = root.join(file);
        remove_any(&to)?;
        let mut copy = Command::new("cp");
        copy.args(["--recursive", "--dereference"]).arg(&from).arg(&to);
        command::run(&mut copy, &format!("copying {}", from.display()), COPY)?;
    }
    Ok(())
}

fn remove_any(path: &Path) -> anyhow::Result<()> {
    let removed = match path.symlink_metadata() {
        Err(_) => return Ok(()),
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    };
    removed.with_context(|| format!("removing {}", path.display()))
}

/// What is committed, and nothing else: a file that was never added would be missed only elsewhere.
fn clone(from: &Path, to: &Path) -> anyhow::Result<String> {
    let mut git = Command::new("git");
    git.args(["clone", "--quiet", "--no-hardlinks"]).arg(from).arg(to);
    command::run(&mut git, "git clone", COPY)?;
    let mut head = Command::new("git");
    head.current_dir(to).args(["rev-parse", "--short", "HEAD"]);
    Ok(command::run(&mut head, "git rev-parse", COPY)?.trim().to_owned())
}

/// Runs the commands inside; whether both were green.
fn enter(root: &Path) -> anyhow::Result<bool> {
    let rustup = folder("RUSTUP_HOME", ".rustup")?;
    let cargo = folder("CARGO_HOME", ".cargo")?;
    let mut unshare = Command::new("unshare");
    unshare
        .args(["--mount", "--pid", "--fork", "--kill-child", "--propagation", "private", "--"])
        .args(["sh", "-c", ENTER, "enter"])
        .args([root, &rustup, &cargo, Path::new(CERTIFICATES)])
        .args(["/bin/bash", "-c", COMMANDS])
        .env_clear()
        .envs(carried(std::env::vars_os()))
        .env("PATH", format!("{}/bin:{PATH}", cargo.display()))
        .env("HOME", "/root")
        .env("LC_ALL", "C.UTF-8")
        .env("RUSTUP_HOME", &rustup)
        .env("CARGO_HOME", &cargo)
        .stdin(Stdio::null());
    let mut child = unshare.spawn().context("starting unshare")?;
    let ended = command::wait(&mut child, COMMANDS_LIMIT);
    if !matches!(ended, Ok(Some(_))) {
        // With it, its process 1 and everything inside end.
        child.kill().context("ending the commands")?;
        child.wait().context("waiting for the end")?;
    }
    let status = ended?.with_context(|| {
        let limit = COMMANDS_LIMIT.as_secs() / 60;
        Faults::one(exit::UNAVAILABLE, format!("the two commands took longer than {limit} min"))
    })?;
    Ok(status.success())
}

fn carried(all: impl Iterator<Item = (OsString, OsString)>) -> Vec<(OsString, OsString)> {
    all.filter(|(name, _)| {
        name.to_str().is_some_and(|name| NETWORK_VARIABLES.iter().any(|part| name.contains(part)))
    })
    .collect()
}

fn folder(variable: &str, default: &str) -> anyhow::Result<PathBuf> {
    let folder = match std::env::var_os(variable) {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(&std::env::var_os("HOME").context("HOME is not set")?).join(default),
    };
    ensure!(folder.is_dir(), "{} is not there; Rust must come from rustup", folder.display());
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_leads_to_the_network_is_carried_along() {
        let given = [
            "https_proxy",
            "HTTP_PROXY",
            "PIP_CERT",
            "SSL_CERT_FILE",
            "HOME",
            "CI",
            "GATEHOUSE_HOME",
        ];
        let carried: Vec<String> = carried(given.iter().map(|name| ((*name).into(), "x".into())))
            .into_iter()
            .map(|(name, _)| name.to_string_lossy().into_owned())
            .collect();
        assert_eq!(carried, ["https_proxy", "HTTP_PROXY", "PIP_CERT", "SSL_CERT_FILE"]);
    }
}
