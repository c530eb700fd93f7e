//! Reading and writing the small files of a control group. Knows none of them by name.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::Error;

fn failed(what: &'static str, path: PathBuf) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { what, path, source }
}

/// Writes `value`. The kernel judges it: an error is its refusal.
pub fn write(group: &Path, file: &str, value: impl ToString) -> Result<(), Error> {
    let path = group.join(file);
    fs::write(&path, value.to_string()).map_err(failed("writing", path))
}

/// As [`write`], for a file that this kernel may not offer.
pub fn write_where_offered(group: &Path, file: &str, value: impl ToString) -> Result<(), Error> {
    if group.join(file).exists() { write(group, file, value) } else { Ok(()) }
}

/// The whole file; empty where it is missing.
pub fn read(group: &Path, file: &str) -> String {
    fs::read_to_string(group.join(file)).unwrap_or_default()
}

/// A file that holds one number; 0 where it is missing.
pub fn number(group: &Path, file: &str) -> u64 {
    read(group, file).trim().parse().unwrap_or_default()
}

/// The number behind `name` in a file of `name number` lines; 0 where it is missing.
pub fn field(group: &Path, file: &str, name: &str) -> u64 {
    read(group, file)
        .lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or_default()
}

/// Makes the folder `group`; there already is fine.
pub fn make(group: &Path) -> Result<(), Error> {
    match fs::create_dir(group) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(failed("making", group.to_owned())),
    }
}

/// Removes the folder `group` and the groups below it; gone already is fine.
pub fn remove(group: &Path) -> Result<(), Error> {
    for child in children(group)? {
        remove(&group.join(child))?;
    }
    match fs::remove_dir(group) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(failed("removing", group.to_owned())),
    }
}

/// The names of the groups directly below `group`; none where it is missing.
pub fn children(group: &Path) -> Result<Vec<String>, Error> {
    let entries = match fs::read_dir(group) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed("listing", group.to_owned()))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed("listing", group.to_owned()))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            names.extend(entry.file_name().into_string());
        }
    }
    Ok(names)
}
