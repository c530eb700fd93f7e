//! As whom the databases run, and where such a user can keep its data. PostgreSQL refuses root, and a checkout
//! often lies where no other user can reach it.

use std::{
    fs,
    os::unix::{
        fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;

use super::instance::tag;

/// Users without rights that a machine has, the best fitting first.
const CANDIDATES: &[&str] = &["postgres", "nobody"];
/// Where data goes that cannot lie in the instance's own directory. Not /var/tmp, which is swept by age.
const ELSEWHERE: &str = "/var/lib";

/// An unprivileged user: `None` ids mean that xtask is not root and runs everything as itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    ids: Option<(u32, u32)>,
}

impl User {
    /// The one to run databases as.
    pub fn unprivileged() -> anyhow::Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self { ids: None });
        }
        let table = fs::read_to_string("/etc/passwd").context("reading /etc/passwd")?;
        let ids = CANDIDATES
            .iter()
            .find_map(|name| ids_of(&table, name))
            .context("this machine has neither a user postgres nor nobody; add one")?;
        Ok(Self { ids: Some(ids) })
    }

    /// `program`, run as this user.
    pub fn command(self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if let Some((uid, gid)) = self.ids {
            // std drops the supplementary groups together with the uid.
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Makes `dir` for this user alone.
    pub fn make_dir(self, dir: &Path) -> anyhow::Result<()> {
        let made = fs::DirBuilder::new().mode(0o700).recursive(true).create(dir);
        made.with_context(|| format!("making {}", dir.display()))?;
        self.own(dir)
    }

    /// Gives `path` to this user.
    pub fn own(self, path: &Path) -> anyhow::Result<()> {
        let Some((uid, gid)) = self.ids else { return Ok(()) };
        chown(path, Some(uid), Some(gid))
            .with_context(|| format!("giving {} to user {uid}", path.display()))
    }

    /// A directory for data of the instance at `run`: within it where this user can get there.
    pub fn data_dir(self, run: &Path) -> anyhow::Result<PathBuf> {
        let within = run.join("data");
        if self.ids.is_none() || reachable(run) {
            fs::create_dir_all(&within).with_context(|| format!("making {}", within.display()))?;
            return Ok(within);
        }
        let dir = data_elsewhere(run);
        match fs::DirBuilder::new().mode(0o711).create(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("making {}", dir.display()));
            }
            _ => {}
        }
        // Root will write there: it must be a directory of root's and of nobody else.
        let meta = fs::symlink_metadata(&dir).context("reading the data directory")?;
        anyhow::ensure!(
            meta.is_dir() && meta.uid() == 0 && meta.permissions().mode() & 0o022 == 0,
            "{} belongs to somebody else; remove it",
            dir.display()
        );
        Ok(dir)
    }
}

/// Where the data of the instance at `run` is when its user cannot reach `run`.
pub fn data_elsewhere(run: &Path) -> PathBuf {
    Path::new(ELSEWHERE).join(format!("gatehouse-{}", tag(run)))
}

fn ids_of(table: &str, name: &str) -> Option<(u32, u32)> {
    table.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next() == Some(name);
        let (uid, gid) = (fields.nth(1)?, fields.next()?);
        if found { Some((uid.parse().ok()?, gid.parse().ok()?)) } else { None }
    })
}

/// Whether a user without rights may pass through every directory down to `dir`.
fn reachable(dir: &Path) -> bool {
    dir.ancestors()
        .all(|dir| fs::metadata(dir).is_ok_and(|meta| meta.permissions().mode() & 0o001 != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_from_the_user_table() {
        let table = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65533:n:/:/bin/false\nbroken\n";
        assert_eq!(ids_of(table, "nobody"), Some((65534, 65533)));
        assert_eq!(ids_of(table, "nobod"), None);
    }

    #[test]
    fn a_directory_below_a_closed_one_is_not_reachable() {
        let dir = std::env::temp_dir().join(format!("gatehouse-reach-{}", std::process::id()));
        let below = dir.join("below");
        fs::create_dir_all(&below).unwrap();
        assert!(reachable(&below));
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
        assert!(!reachable(&below));
        fs::remove_dir_all(dir).unwrap();
    }
}
