//! What this worker keeps of images: packed layers by their digest and unpacked root file systems by the digests of their
//! layers, each once, whoever's they are. Bounded: what was used longest ago goes first, and never what is in use.
//! Knows neither tenants nor registries.
//!
//! Everything is made aside and renamed into its place when it is whole, so that what has a place is whole, after a crash,
//! too. What lies aside at a start is removed.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::SystemTime,
};

use gatehouse_execution::Digest;
use tracing::{info, warn};
use uuid::Uuid;

/// Beside an unpacked root file system: how many bytes it takes.
const SIZE: &str = "bytes";

/// Kept images of one worker.
#[derive(Debug)]
pub struct Cache {
    home: PathBuf,
    budget: u64,
    kept: Mutex<Kept>,
    evicted: AtomicU64,
}

/// Keeps what it was given with from being evicted.
#[derive(Debug, Clone)]
pub struct Held(#[expect(dead_code, reason = "counted, never read")] Arc<()>);

/// What is kept, of one kind and name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    Layer(Digest),
    Root(Digest),
}

#[derive(Debug)]
struct Entry {
    bytes: u64,
    used: SystemTime,
    held: Arc<()>,
}

#[derive(Debug, Default)]
struct Kept {
    entries: BTreeMap<Name, Entry>,
    bytes: u64,
}

/// How much is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// Bytes of all that is kept.
    pub bytes: u64,
    /// Bytes that may be kept.
    pub budget: u64,
    /// Layers and root file systems that had to go, since the start.
    pub evicted: u64,
}

impl Cache {
    /// What is kept in `home`, which is this worker's own: nothing until stock is taken.
    pub fn new(home: PathBuf, budget: u64) -> Self {
        Self { home, budget, kept: Mutex::default(), evicted: AtomicU64::new(0) }
    }

    /// Keeps at most so much from the next time on that something is kept.
    pub fn set_budget(&mut self, bytes: u64) {
        self.budget = bytes;
    }

    /// Finds what is there from an earlier start. Removes what is not whole, and what is too much.
    pub fn stock(&self) -> io::Result<()> {
        remove(&self.home.join("aside"))?;
        self.furnish()?;
        for entry in fs::read_dir(&self.home)? {
            let entry = entry?;
            // Roots of earlier versions, which lay here.
            if !matches!(entry.file_name().to_str(), Some("aside" | "layers" | "roots")) {
                remove(&entry.path())?;
            }
        }
        self.count()
    }

    fn furnish(&self) -> io::Result<()> {
        let folders = ["aside", "layers", "roots"];
        folders.iter().try_for_each(|folder| fs::create_dir_all(self.home.join(folder)))
    }

    fn count(&self) -> io::Result<()> {
        let mut kept = self.lock();
        *kept = Kept::default();
        for folder in ["layers", "roots"] {
            for entry in fs::read_dir(self.home.join(folder))? {
                let entry = entry?;
                let (path, meta) = (entry.path(), entry.metadata()?);
                let hex = path.file_name().and_then(|hex| hex.to_str()).unwrap_or_default();
                let bytes = if meta.is_dir() {
                    fs::read_to_string(path.join(SIZE)).ok().and_then(|text| text.parse().ok())
                } else {
                    Some(meta.len())
                };
                match (format!("sha256:{hex}").parse(), bytes) {
                    (Ok(digest), Some(bytes)) => {
                        let name = if folder == "layers" { Name::Layer } else { Name::Root };
                        kept.put(name(digest), bytes, meta.modified()?);
                    }
                    _ => remove(&path)?,
                }
            }
        }
        let gone = self.make_room(&mut kept, 0);
        drop(kept);
        gone.and_then(|gone| gone.iter().try_for_each(|path| remove(path)))
    }

    /// How much is kept.
    pub fn standing(&self) -> Standing {
        Standing {
            bytes: self.lock().bytes,
            budget: self.budget,
            evicted: self.evicted.load(Relaxed),
        }
    }

    /// A new name for something that is not whole yet.
    pub fn aside(&self) -> io::Result<PathBuf> {
        self.furnish()?;
        Ok(self.home.join("aside").join(Uuid::new_v4().to_string()))
    }

    /// The layer with this digest, where it is kept. Once open it can be read, whatever happens to its name.
    pub fn layer(&self, digest: Digest) -> Option<File> {
        let mut kept = self.lock();
        kept.held(Name::Layer(digest))?;
        let path = self.place(Name::Layer(digest));
        touch(&path);
        File::open(path).ok()
    }

    /// The root file system with this name, where it is kept. It stays for as long as it is held.
    pub fn root(&self, name: Digest) -> Option<(PathBuf, Held)> {
        let held = self.lock().held(Name::Root(name))?;
        let path = self.place(Name::Root(name));
        touch(&path);
        Some((path.join("rootfs"), held))
    }

    /// Keeps the layer that is whole at `aside`, whose bytes have been seen to have this digest.
    pub fn keep_layer(&self, digest: Digest, aside: &Path) -> io::Result<()> {
        let bytes = fs::metadata(aside)?.len();
        self.keep(Name::Layer(digest), bytes, aside).map(drop)
    }

    /// Keeps what is unpacked in `aside`/rootfs.
    pub fn keep_root(&self, name: Digest, bytes: u64, aside: &Path) -> io::Result<(PathBuf, Held)> {
        fs::write(aside.join(SIZE), bytes.to_string())?;
        let held = self.keep(Name::Root(name), bytes, aside)?;
        Ok((self.place(Name::Root(name)).join("rootfs"), held))
    }

    fn keep(&self, name: Name, bytes: u64, aside: &Path) -> io::Result<Held> {
        let place = self.place(name);
        let mut kept = self.lock();
        if let Some(held) = kept.held(name) {
            drop(kept);
            remove(aside)?;
            return Ok(held);
        }
        let gone = self.make_room(&mut kept, bytes)?;
        fs::rename(aside, place)?;
        kept.put(name, bytes, SystemTime::now());
        let held = kept.held(name).ok_or(io::ErrorKind::NotFound)?;
        drop(kept);
        gone.iter().try_for_each(|path| remove(path))?;
        Ok(held)
    }

    /// Takes away the names of what was used longest ago until `more` bytes fit. What is returned is to be removed.
    fn make_room(&self, kept: &mut Kept, more: u64) -> io::Result<Vec<PathBuf>> {
        let mut gone = Vec::new();
        while kept.bytes.saturating_add(more) > self.budget {
            let Some(name) = kept.oldest() else {
                // At a start nothing is in use: then nothing is left, either.
                let text = format!("the images in use leave no room for {more} bytes more");
                warn!(bytes = kept.bytes, budget = self.budget, "{text}");
                return Err(io::Error::new(io::ErrorKind::StorageFull, text));
            };
            let aside = self.aside()?;
            fs::rename(self.place(name), &aside)?;
            kept.take(name);
            self.evicted.fetch_add(1, Relaxed);
            info!(name = ?name, "evicted from the kept images");
            gone.push(aside);
        }
        Ok(gone)
    }

    fn place(&self, name: Name) -> PathBuf {
        match name {
            Name::Layer(digest) => self.home.join("layers").join(digest.hex()),
            Name::Root(digest) => self.home.join("roots").join(digest.hex()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Whoever dies while it holds this has changed either nothing or all of it.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn put(&mut self, name: Name, bytes: u64, used: SystemTime) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.entries.insert(name, Entry { bytes, used, held: Arc::default() });
    }

    fn take(&mut self, name: Name) {
        if let Some(entry) = self.entries.remove(&name) {
            self.bytes = self.bytes.saturating_sub(entry.bytes);
        }
    }

    fn held(&mut self, name: Name) -> Option<Held> {
        let entry = self.entries.get_mut(&name)?;
        entry.used = SystemTime::now();
        Some(Held(Arc::clone(&entry.held)))
    }

    /// What is in no use and was used longest ago.
    fn oldest(&self) -> Option<Name> {
        let free = self.entries.iter().filter(|(_, entry)| Arc::strong_count(&entry.held) == 1);
        free.min_by_key(|(_, entry)| entry.used).map(|(name, _)| *name)
    }
}

/// For the order after a restart; nothing depends on it.
fn touch(path: &Path) {
    let now = rustix::fs::Timestamps {
        last_access: rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW },
        last_modification: rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW },
    };
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    if let Err(error) = rustix::fs::utimensat(rustix::fs::CWD, path, &now, flags) {
        warn!(path = %path.display(), error = %error, "could not note a use");
    }
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests;
