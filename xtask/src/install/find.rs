//! Finds programs that are there already, in a version that fits. Changes nothing.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::command;

/// Where Debian puts PostgreSQL 15, which is not on the PATH.
const DEBIAN_POSTGRES: &str = "/usr/lib/postgresql/15/bin";

/// The first program `name` on the PATH (and in the system's own directories, which a user's PATH may lack).
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/bin", "/usr/sbin", "/bin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// The directory of PostgreSQL 15's programs.
pub fn postgres() -> Option<PathBuf> {
    let on_path = on_path("postgres").and_then(|file| file.parent().map(Path::to_owned));
    [Some(PathBuf::from(DEBIAN_POSTGRES)), on_path].into_iter().flatten().find(|dir| {
        ["initdb", "pg_isready", "psql"].iter().all(|program| dir.join(program).is_file())
            && says(&dir.join("postgres"), &["--version"], " 15.")
    })
}

/// Whether PostgreSQL 15 has the extension pgTAP.
pub fn pgtap() -> bool {
    // Where its programs are, as Debian and PostgreSQL's own build lay them out.
    let share = |bin: &Path| {
        let version = bin.parent()?;
        Some([
            PathBuf::from("/usr/share/postgresql/15"),
            version.join("share"),
            version.join("share/postgresql"),
        ])
    };
    postgres().as_deref().and_then(share).is_some_and(|places| {
        places.iter().any(|place| place.join("extension/pgtap.control").is_file())
    })
}

/// `redis-server`, version 7.
pub fn redis_server() -> Option<PathBuf> {
    on_path("redis-server").filter(|file| says(file, &["--version"], "v=7."))
}

/// `redis-cli`, version 7.
pub fn redis_cli() -> Option<PathBuf> {
    on_path("redis-cli").filter(|file| says(file, &["--version"], "redis-cli 7."))
}

/// Whether `program` runs and its answer has `text`.
pub fn says(program: &Path, args: &[&str], text: &str) -> bool {
    let what = program.display().to_string();
    command::run(Command::new(program).args(args), &what, Duration::from_secs(30))
        .is_ok_and(|answer| answer.contains(text))
}
