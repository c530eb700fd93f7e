//! One program of a Debian package, pinned and unpacked under `.gatehouse/debs`: the system's own packages and package
//! lists stay as they are, and no root is needed. The archive's address is the one that the machine itself is configured
//! with. Knows no package.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context;

use super::find;
use crate::{command, paths};

/// A package, and the program that it is unpacked for.
#[derive(Debug, Clone, Copy)]
pub struct Deb {
    /// Its name.
    pub package: &'static str,
    /// Of which suite.
    pub suite: &'static str,
    /// Which version.
    pub version: &'static str,
    /// Where in the package the program is.
    pub folder: &'static str,
    /// The program's name.
    pub program: &'static str,
    /// The version as `--version` says it; names the folder, too.
    pub says: &'static str,
}

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

impl Deb {
    fn unpacked(&self) -> anyhow::Result<PathBuf> {
        Ok(paths::home()?.join("debs").join(format!("{}-{}", self.package, self.says)))
    }

    /// The program in this version: ours, else one on the PATH.
    pub fn find(&self) -> Option<PathBuf> {
        let ours = self.unpacked().ok()?.join(self.folder).join(self.program);
        if ours.is_file() {
            return Some(ours);
        }
        find::on_path(self.program).filter(|file| find::says(file, &["--version"], self.says))
    }

    /// Downloads the pinned package through private apt directories and unpacks it.
    pub fn install(&self) -> anyhow::Result<()> {
        let Self { package, suite, version, folder, program, says } = *self;
        let debs = paths::home()?.join("debs");
        let apt = debs.join("apt");
        for dir in ["state/lists/partial", "cache/archives/partial", "download"] {
            let dir = apt.join(dir);
            fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        }
        let archive = archive()?;
        let trust = if Path::new(KEYRING).is_file() {
            format!("[signed-by={KEYRING}] ")
        } else {
            String::new()
        };
        let sources = apt.join("sources.list");
        fs::write(&sources, format!("deb {trust}{archive} {suite} main\n"))
            .with_context(|| format!("writing {}", sources.display()))?;

        apt_get(&apt, &["update"])?;
        let download = apt.join("download");
        apt_get(&apt, &["download", &format!("{package}={version}")])?;
        let file = fs::read_dir(&download)
            .context("reading the download folder")?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .context("apt-get download left no package")?;

        // Unpack beside and rename, so that a half-unpacked one is never found.
        let beside = debs.join("unpacking");
        if beside.exists() {
            fs::remove_dir_all(&beside)
                .with_context(|| format!("removing {}", beside.display()))?;
        }
        command::run(
            Command::new("dpkg").arg("-x").arg(&file).arg(&beside),
            &format!("dpkg -x {package}"),
            Duration::from_secs(120),
        )?;
        anyhow::ensure!(
            find::says(&beside.join(folder).join(program), &["--version"], says),
            "the unpacked {program} does not say that it is {says}"
        );
        fs::rename(&beside, self.unpacked()?).context("moving what was unpacked into place")?;
        fs::remove_dir_all(&apt).context("removing the private apt directories")
    }
}

/// The address of the machine's own Debian archive.
pub fn archive() -> anyhow::Result<String> {
    let targets = command::run(
        Command::new("apt-get").args([
            "indextargets",
            "--format",
            "$(REPO_URI) $(RELEASE) $(COMPONENT)",
            "Created-By: Packages",
        ]),
        "apt-get indextargets",
        Duration::from_secs(60),
    )?;
    targets
        .lines()
        .find_map(|line| line.strip_suffix(" bookworm main"))
        .map(str::to_owned)
        .context("this machine's apt knows no archive of Debian bookworm")
}

fn apt_get(apt: &Path, args: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new("apt-get");
    for (option, value) in [
        ("Dir::State", apt.join("state")),
        ("Dir::Cache", apt.join("cache")),
        ("Dir::Etc::SourceList", apt.join("sources.list")),
        ("Dir::Etc::SourceParts", PathBuf::from("/dev/null")),
        // The sandbox user of apt may not reach a checkout under root's home.
        ("APT::Sandbox::User", PathBuf::from("")),
    ] {
        command.arg("-o").arg(format!("{option}={}", value.display()));
    }
    command.arg("--quiet").args(args).current_dir(apt.join("download"));
    command::run(&mut command, &format!("apt-get {}", args.join(" ")), Duration::from_secs(300))
        .map(drop)
}
