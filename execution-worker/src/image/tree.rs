//! A directory tree that is written by a stranger's archive. Every path is resolved by the kernel with the tree
//! as its root (`openat2`, `RESOLVE_IN_ROOT`): a link in one layer can send a later entry to another place of
//! the tree, never out of it. Knows nothing of archives.

use std::{ffi::CStr, fs::File, io, os::fd::OwnedFd, path::Path};

use rustix::{
    fs::{
        AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, chmodat, chownat,
        linkat, mkdirat, openat, openat2, statat, symlinkat, unlinkat,
    },
    io::Errno,
};

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);

/// The tree's root.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
}

/// A directory within the tree.
#[derive(Debug)]
pub struct Place {
    dir: OwnedFd,
}

/// Owner and permissions. Bits beyond `rwx` are dropped: nothing in a sandbox gains rights by a file.
#[derive(Debug, Clone, Copy)]
pub struct Access {
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
}

impl Tree {
    pub fn open(path: &Path) -> io::Result<Self> {
        let root = openat(CWD, path, DIRECTORY | OFlags::RDONLY, Mode::empty())?;
        Ok(Self { root })
    }

    /// The directory at `path`, relative to the tree's root, links resolved within the tree.
    pub fn place(&self, path: &str) -> io::Result<Place> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let path = if path.is_empty() { "." } else { path };
        let dir = openat2(&self.root, path, DIRECTORY | OFlags::RDONLY, Mode::empty(), resolve)?;
        Ok(Place { dir })
    }

    /// As [`Self::place`], making what is missing.
    pub fn make_dirs(&self, path: &str) -> io::Result<Place> {
        if let Ok(place) = self.place(path) {
            return Ok(place);
        }
        let mut done = String::new();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let parent = self.place(&done)?;
            if !done.is_empty() {
                done.push('/');
            }
            done.push_str(part);
            match mkdirat(&parent.dir, part, Mode::from_raw_mode(0o755)) {
                Err(error) if error != Errno::EXIST => return Err(error.into()),
                _ => {}
            }
        }
        self.place(path)
    }
}

impl Place {
    /// Makes the directory `name`, or keeps the one that is there.
    pub fn directory(&self, name: &str, access: Access) -> io::Result<()> {
        if self.kind(name)? != Some(FileType::Directory) {
            self.remove(name)?;
            mkdirat(&self.dir, name, Mode::from_raw_mode(0o755))?;
        }
        self.grant(name, access)
    }

    /// Makes the file `name` anew.
    pub fn file(&self, name: &str, access: Access) -> io::Result<File> {
        self.remove(name)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let file = openat(&self.dir, name, flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o600))?;
        self.grant(name, access)?;
        Ok(file.into())
    }

    /// Makes the symbolic link `name`. Where it points does not matter: it is followed in the sandbox only.
    pub fn symlink(&self, name: &str, target: &str, access: Access) -> io::Result<()> {
        self.remove(name)?;
        symlinkat(target, &self.dir, name)?;
        let (uid, gid) = (Uid::from_raw(access.uid), Gid::from_raw(access.gid));
        Ok(chownat(&self.dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Makes `name` another name of the regular file `other` in `there`.
    pub fn hard_link(&self, name: &str, there: &Self, other: &str) -> io::Result<()> {
        if there.kind(other)? != Some(FileType::RegularFile) {
            return Err(io::Error::other("a hard link to what is not a file"));
        }
        self.remove(name)?;
        Ok(linkat(&there.dir, other, &self.dir, name, AtFlags::empty())?)
    }

    /// Removes `name` and all below it, where it is there.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match self.kind(name)? {
            None => Ok(()),
            Some(FileType::Directory) => {
                let inner = self.down(name)?;
                for child in inner.names()? {
                    inner.remove(&child)?;
                }
                Ok(unlinkat(&self.dir, name, AtFlags::REMOVEDIR)?)
            }
            Some(_) => Ok(unlinkat(&self.dir, name, AtFlags::empty())?),
        }
    }

    /// The names in this directory.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.dir)? {
            let entry = entry?;
            if !is_dot(entry.file_name()) {
                names.push(text(entry.file_name())?);
            }
        }
        Ok(names)
    }

    fn down(&self, name: &str) -> io::Result<Self> {
        let flags = DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW;
        Ok(Self { dir: openat(&self.dir, name, flags, Mode::empty())? })
    }

    fn kind(&self, name: &str) -> io::Result<Option<FileType>> {
        match statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Never for a link: the entry was just made or seen to be a directory, and nobody else writes here.
    fn grant(&self, name: &str, access: Access) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(access.uid), Gid::from_raw(access.gid));
        chownat(&self.dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        let mode = Mode::from_raw_mode(access.mode & 0o777);
        Ok(chmodat(&self.dir, name, mode, AtFlags::empty())?)
    }
}

fn is_dot(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

fn text(name: &CStr) -> io::Result<String> {
    name.to_str()
        .map(str::to_owned)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a name that is not UTF-8"))
}
