//! Installs Debian packages without letting their services start. Knows no package by name but those whose
//! start it prevents.

use std::{fs, path::Path, process::Command, time::Duration};

use super::find;
use crate::command;

/// Debian's hook that says whether a package may start its service.
const POLICY: &str = "/usr/sbin/policy-rc.d";
/// What stood there before, for the time of the installation.
const POLICY_KEPT: &str = "/usr/sbin/policy-rc.d.before-gatehouse";
/// 101: "action forbidden by policy" (invoke-rc.d(8)).
const POLICY_TEXT: &str =
    "#!/bin/sh\n# Written by `cargo xtask`, removed when its installation ends.\nexit 101\n";
/// Where postgresql-common looks before it makes a cluster of its own.
const NO_CLUSTER: &str = "/etc/postgresql-common/createcluster.d/gatehouse.conf";

/// Why packages cannot be installed here, if so.
pub fn obstacle() -> Option<&'static str> {
    if find::on_path("apt-get").is_none() {
        Some("there is no apt-get to install it with")
    } else if !rights() {
        Some("installing it needs root or sudo")
    } else {
        None
    }
}

/// Why packages cannot even be downloaded and unpacked here, if so.
pub fn unpack_obstacle() -> Option<&'static str> {
    (find::on_path("apt-get").is_none() || find::on_path("dpkg").is_none())
        .then_some("there is no apt-get to download it with")
}

fn root() -> bool {
    rustix::process::geteuid().is_root()
}

fn rights() -> bool {
    root()
        || find::on_path("sudo").is_some_and(|_| {
            command::run(
                Command::new("sudo").args(["-n", "true"]),
                "sudo -n true",
                Duration::from_secs(30),
            )
            .is_ok()
        })
}

/// `program`, as root.
fn as_root(program: &str) -> Command {
    if root() {
        return Command::new(program);
    }
    let mut sudo = Command::new("sudo");
    sudo.args(["-n", "--", program]);
    sudo
}

/// Installs `packages`. Their services do not start, and PostgreSQL makes no cluster.
pub fn install(packages: &[&str]) -> anyhow::Result<()> {
    let quiet = Quiet::begin()?;
    let first = get(packages);
    let result = match first {
        Ok(()) => Ok(()),
        // No lists yet, or old ones: fetch them and try once more.
        Err(_) => apt_get(&["update"], Duration::from_secs(300)).and_then(|()| get(packages)),
    };
    quiet.end()?;
    result
}

fn get(packages: &[&str]) -> anyhow::Result<()> {
    let mut args = vec!["install", "--yes", "--no-install-recommends"];
    args.extend(packages);
    apt_get(&args, Duration::from_secs(900))
}

fn apt_get(args: &[&str], limit: Duration) -> anyhow::Result<()> {
    let mut command = as_root("env");
    command
        .args(["DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8", "apt-get"])
        .args(["--quiet", "-o", "DPkg::Lock::Timeout=120", "-o", "Dpkg::Options::=--force-confold"])
        .args(args);
    command::run(&mut command, &format!("apt-get {}", args.join(" ")), limit).map(drop)
}

/// Forbids services to start for as long as it lives, and puts back what was there.
struct Quiet {
    made_no_cluster: bool,
}

impl Quiet {
    fn begin() -> anyhow::Result<Self> {
        // An installation that was killed left these: what was there before it comes back first.
        restore_policy()?;
        if Path::new(POLICY).exists() {
            move_file(POLICY, POLICY_KEPT)?;
        }
        let made_no_cluster = !Path::new(NO_CLUSTER).exists();
        let quiet = Self { made_no_cluster };
        write(POLICY, POLICY_TEXT, "0755")?;
        if made_no_cluster {
            write(NO_CLUSTER, "create_main_cluster = false\n", "0644")?;
        }
        Ok(quiet)
    }

    fn end(mut self) -> anyhow::Result<()> {
        self.restore()
    }

    fn restore(&mut self) -> anyhow::Result<()> {
        restore_policy()?;
        if self.made_no_cluster {
            remove(NO_CLUSTER)?;
            self.made_no_cluster = false;
        }
        Ok(())
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // On the good path `end` did it and reported; this is for the early exits.
        drop(self.restore());
    }
}

/// Removes the policy if it is ours, and puts back the one that was there before.
fn restore_policy() -> anyhow::Result<()> {
    if fs::read_to_string(POLICY).is_ok_and(|text| text == POLICY_TEXT) {
        remove(POLICY)?;
    }
    if Path::new(POLICY_KEPT).exists() {
        move_file(POLICY_KEPT, POLICY)?;
    }
    Ok(())
}

const FILE_WORK: Duration = Duration::from_secs(30);

fn move_file(from: &str, to: &str) -> anyhow::Result<()> {
    command::run(as_root("mv").args([from, to]), &format!("moving {from}"), FILE_WORK).map(drop)
}

fn remove(file: &str) -> anyhow::Result<()> {
    command::run(as_root("rm").args(["-f", file]), &format!("removing {file}"), FILE_WORK).map(drop)
}

fn write(file: &str, text: &str, mode: &str) -> anyhow::Result<()> {
    let parent = Path::new(file).parent().unwrap_or(Path::new("/"));
    command::run(
        as_root("install").args(["-d", "-m", "0755"]).arg(parent),
        &format!("making {}", parent.display()),
        FILE_WORK,
    )?;
    command::run_with(as_root("tee").arg(file), &format!("writing {file}"), FILE_WORK, Some(text))?;
    command::run(as_root("chmod").args([mode, file]), &format!("chmod {file}"), FILE_WORK).map(drop)
}
