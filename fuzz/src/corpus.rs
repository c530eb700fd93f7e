//! The committed seeds: `corpus/<target>/`, one input per file. An input that broke something once stays here.
//! Knows folders, no targets.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The folder of a target's seeds.
pub fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

/// The seeds of a target, in the order of their files' names.
pub fn seeds(target: &str) -> io::Result<Vec<Vec<u8>>> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder(target))?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    files.sort();
    files.into_iter().map(fs::read).collect()
}
