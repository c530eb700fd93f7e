//! The cargo tools that the gates and the tests use, pinned, from the PATH or under `.gatehouse/tools`.
//! Knows how they are installed, not what they check.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context;

use crate::{
    command, paths, repo,
    report::{Faults, Report, exit},
};

/// A tool that cargo installs from source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tool {
    /// The package, which is also the program's name.
    pub name: &'static str,
    /// The version that is installed.
    pub version: &'static str,
    /// Versions of this line on the PATH do as well.
    line: &'static str,
}

/// Checks dependencies: who wraps what, licences, sources, duplicates.
pub const DENY: Tool = Tool { name: "cargo-deny", version: "0.20.2", line: "0.20." };
/// Runs the tests, each in a process of its own.
pub const NEXTEST: Tool = Tool { name: "cargo-nextest", version: "0.9.143", line: "0.9." };
/// Changes functions one at a time and looks whether a test notices.
pub const MUTANTS: Tool = Tool { name: "cargo-mutants", version: "27.1.0", line: "27." };

/// Four minutes on an idle machine of two cores.
const INSTALL: Duration = Duration::from_secs(30 * 60);

/// The program of `tool`; installed first, as a step of `report`, where it is not there.
pub fn ensure(tool: Tool, report: &mut Report) -> anyhow::Result<PathBuf> {
    let root = paths::home()?.join("tools");
    let ours = root.join("bin").join(tool.name);
    if fits(&ours, tool.version) {
        return Ok(ours);
    }
    let on_path = PathBuf::from(tool.name);
    if fits(&on_path, tool.line) {
        return Ok(on_path);
    }
    let Tool { name, version, .. } = tool;
    report.step(&format!("Install {name} {version}"), |_| {
        let mut cargo = repo::cargo(&repo::root()?);
        cargo.args(["install", "--quiet", "--locked", "--force", "--version", version, "--root"]);
        cargo.arg(&root).arg(name);
        // Its build must not mix with ours.
        cargo.env_remove("CARGO_TARGET_DIR");
        command::run(&mut cargo, &format!("cargo install {name}"), INSTALL).with_context(|| {
            Faults::one(
                exit::UNAVAILABLE,
                format!("{name} {version} cannot be installed; put one on the PATH"),
            )
        })
    })?;
    Ok(ours)
}

fn fits(program: &Path, version: &str) -> bool {
    // As cargo calls it: `cargo-deny deny --version`.
    let subcommand = program
        .file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.strip_prefix("cargo-"))
        .unwrap_or_default();
    let mut ask = Command::new(program);
    ask.args([subcommand, "--version"]);
    command::output(&mut ask, "--version", Duration::from_secs(30)).is_ok_and(|answer| {
        answer.status.success()
            && answer
                .stdout
                .split_whitespace()
                .any(|word| word == version || version.ends_with('.') && word.starts_with(version))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_tool_of_another_version_does_not_fit() {
        let folder = std::env::temp_dir().join(format!("gatehouse-tools-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let program = folder.join("cargo-sample");
        std::fs::write(&program, "#!/bin/sh\n[ \"$1\" = sample ] && echo cargo-sample 0.9.7\n")
            .unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        for (version, expected) in
            [("0.9.7", true), ("0.9.", true), ("0.9.8", false), ("0.9.70", false), ("1.", false)]
        {
            assert_eq!(fits(&program, version), expected, "{version}");
        }
        assert!(!fits(&folder.join("cargo-absent"), "0.9."));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
