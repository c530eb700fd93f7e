//! The folder that one worker owns: its lock, its lasting name, and where its parts lie.
//! Whatever lies here was left by this worker and nobody else, which is why it may be swept.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use uuid::Uuid;

/// Why a state folder could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another worker runs here.
    #[error("{0} is in use by another worker")]
    Taken(PathBuf),
    /// Something could not be made, read or written.
    #[error("{what} {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// A state folder, held for as long as this value lives.
#[derive(Debug)]
pub struct StateDir {
    root: PathBuf,
    worker: String,
    _lock: File,
}

impl StateDir {
    /// Takes the folder at `root`, making it where it is missing.
    pub fn take(root: &Path) -> Result<Self, Error> {
        let failed = |what, path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { what, path, source }
        };
        for dir in ["", "bundles", "images", "runsc"] {
            let dir = root.join(dir);
            fs::create_dir_all(&dir).map_err(failed("making", &dir))?;
        }
        // Inputs and results of all tenants pass through.
        fs::set_permissions(root, fs::Permissions::from_mode(0o700))
            .map_err(failed("closing", root))?;
        let root = root.canonicalize().map_err(failed("resolving", root))?;
        let path = root.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed("opening", &path))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(Error::Taken(root)),
            Err(error) => return Err(failed("locking", &path)(error.into())),
        }
        let worker = name(&root.join("worker"))?;
        Ok(Self { root, worker, _lock: lock })
    }

    /// The name of this folder's worker: made once, the same after every restart. It names the control groups,
    /// so that two workers on one machine never sweep each other.
    pub fn worker(&self) -> &str {
        &self.worker
    }

    /// One folder per run.
    pub fn bundles(&self) -> PathBuf {
        self.root.join("bundles")
    }

    /// Unpacked images.
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// Where the self-test furnishes its root file system; there only while it runs.
    pub fn selftest(&self) -> PathBuf {
        self.root.join("selftest")
    }

    /// Results that wait for the database.
    pub fn spool(&self) -> PathBuf {
        self.root.join("spool")
    }

    /// What the driver "sim" writes down of its runs.
    pub fn journal(&self) -> PathBuf {
        self.root.join("sim.log")
    }

    /// What runs of an earlier start used, until the database has it.
    pub fn left(&self) -> PathBuf {
        self.root.join("left")
    }

    /// runsc's own state.
    pub fn runsc(&self) -> PathBuf {
        self.root.join("runsc")
    }
}

fn name(path: &Path) -> Result<String, Error> {
    let failed = |what| move |source: io::Error| Error::Io { what, path: path.to_owned(), source };
    if let Ok(text) = fs::read_to_string(path)
        && let Ok(id) = Uuid::try_parse(text.trim())
    {
        return Ok(id.to_string());
    }
    let id = Uuid::new_v4().to_string();
    let mut file = File::create(path).map_err(failed("making"))?;
    file.write_all(id.as_bytes()).and_then(|()| file.sync_all()).map_err(failed("writing"))?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_worker_at_a_time_and_one_name_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let first = StateDir::take(dir.path()).unwrap();
        let name = first.worker().to_owned();
        let second = StateDir::take(dir.path());
        assert!(matches!(second, Err(Error::Taken(_))), "{second:?}");
        drop(first);
        assert_eq!(StateDir::take(dir.path()).unwrap().worker(), name);
    }
}
