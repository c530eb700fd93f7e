//! Unpacks one layer of an image, checking its digests while it is read. The archive is a stranger's: it is
//! bounded in bytes and entries, and what it may contain is listed here; everything else refuses the image.
//! Knows nothing of layouts.

use std::{
    collections::BTreeSet,
    io::{self, Read},
    path::Path,
};

use flate2::read::MultiGzDecoder;
use gatehouse_execution::{
    Digest,
    oci::{self, Layer, Packing},
};
use sha2::{Digest as _, Sha256};
use tar::{Archive, Entry, EntryType};

use super::tree::{Access, Place, Tree};

const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";
const MAX_PATH_BYTES: usize = 4096;

/// What an image may bring along, all layers together.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes of the plain layers.
    pub bytes: u64,
    /// Files, directories and links.
    pub entries: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { bytes: 4 << 30, entries: 200_000 }
    }
}

/// Why a layer was not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The layer's fault.
    #[error("{0}")]
    Refused(String),
    /// The layer is not the one that was named.
    #[error(transparent)]
    Document(#[from] oci::Refused),
    /// This machine's fault.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Unpacks `blob` into `tree` and subtracts what it brought from `bounds`.
///
/// On an error `tree` holds a part of it: throw it away.
pub fn layer(
    layer: &Layer,
    blob: impl Read,
    tree: &Tree,
    bounds: &mut Bounds,
) -> Result<(), Error> {
    // One byte more than named, so that a longer blob is seen as such.
    let mut packed = Hashed::new(blob.take(layer.blob_bytes.saturating_add(1)));
    let diff_id = match layer.packing {
        Packing::Tar => plain(&mut packed, tree, bounds)?,
        Packing::TarGzip => plain(&mut MultiGzDecoder::new(&mut packed), tree, bounds)?,
    };
    io::copy(&mut packed, &mut io::sink())?;
    let (digest, size) = packed.finish();
    oci::check_size("a layer", layer.blob_bytes, size)?;
    oci::check_digest("a layer", layer.blob, digest)?;
    Ok(oci::check_digest("a layer's archive", layer.diff_id, diff_id)?)
}

/// Unpacks the plain archive and returns its digest.
fn plain(reader: &mut dyn Read, tree: &Tree, bounds: &mut Bounds) -> Result<Digest, Error> {
    let most = bounds.bytes;
    let mut hashed = Hashed::new(reader.take(most.saturating_add(1)));
    let unpacked = entries(&mut hashed, tree, bounds);
    let (digest, read) = hashed.finish();
    // Before the archive's own error: an archive that was cut off here looks damaged.
    bounds.bytes = most
        .checked_sub(read)
        .ok_or_else(|| Error::Refused(format!("it unpacks to more than {most} bytes")))?;
    unpacked.map(|()| digest)
}

fn entries(hashed: &mut impl Read, tree: &Tree, bounds: &mut Bounds) -> Result<(), Error> {
    let mut archive = Archive::new(&mut *hashed);
    let mut seen = BTreeSet::new();
    for entry in archive.entries().map_err(broken)? {
        bounds.entries = bounds
            .entries
            .checked_sub(1)
            .ok_or_else(|| Error::Refused("it has too many entries".to_owned()))?;
        one(&mut entry.map_err(broken)?, tree, &mut seen)?;
    }
    // The digest covers what follows the archive's end, too.
    io::copy(hashed, &mut io::sink()).map_err(broken)?;
    Ok(())
}

/// Errors of the archive's reader: damaged data is the layer's fault.
fn broken(error: io::Error) -> Error {
    Error::Refused(format!("it cannot be read: {error}"))
}

fn one<R: Read>(
    entry: &mut Entry<'_, R>,
    tree: &Tree,
    seen: &mut BTreeSet<String>,
) -> Result<(), Error> {
    let path = inner(&entry.path().map_err(broken)?)?;
    let Some((parent, name)) = split(&path) else {
        return Ok(());
    };
    let refused = |cause: &str| Error::Refused(format!("/{path}: {cause}"));
    let at = |error: io::Error| refused(&error.to_string());
    let place = tree.make_dirs(parent).map_err(at)?;
    if name == OPAQUE {
        return hide_lower(&place, parent, seen).map_err(at);
    }
    if let Some(hidden) = name.strip_prefix(WHITEOUT) {
        if split(hidden) != Some(("", hidden)) || hidden == ".." || hidden == "." {
            return Err(refused("a whiteout that hides no name"));
        }
        return place.remove(hidden).map_err(at);
    }
    let access = access(entry).map_err(broken)?;
    match entry.header().entry_type() {
        EntryType::Regular | EntryType::Continuous => {
            let mut file = place.file(name, access).map_err(at)?;
            io::copy(entry, &mut file).map_err(at)?;
        }
        EntryType::Directory => place.directory(name, access).map_err(at)?,
        EntryType::Symlink => {
            let target = target(entry)?.ok_or_else(|| refused("a link without a target"))?;
            place.symlink(name, &target, access).map_err(at)?;
        }
        EntryType::Link => {
            let target = target(entry)?.ok_or_else(|| refused("a link without a target"))?;
            let target = inner(Path::new(&target))?;
            let (there, other) = split(&target).ok_or_else(|| refused("a link to the root"))?;
            let there = tree.place(there).map_err(at)?;
            place.hard_link(name, &there, other).map_err(at)?;
        }
        EntryType::XGlobalHeader => {}
        kind => return Err(refused(&format!("entries of type {kind:?} are not supported"))),
    }
    seen.insert(path);
    Ok(())
}

/// Removes what lower layers put into `place`, keeping what this layer did.
fn hide_lower(place: &Place, path: &str, seen: &BTreeSet<String>) -> io::Result<()> {
    for name in place.names()? {
        let whole = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
        let below = format!("{whole}/");
        let ours = seen.contains(&whole)
            || seen.range(below.clone()..).next().is_some_and(|first| first.starts_with(&below));
        if !ours {
            place.remove(&name)?;
        }
    }
    Ok(())
}

/// The path within the tree: without a leading `/` or `./`. A `..` refuses the image.
fn inner(path: &Path) -> Result<String, Error> {
    let text = path
        .to_str()
        .filter(|text| text.len() <= MAX_PATH_BYTES && !text.contains('\0'))
        .ok_or_else(|| Error::Refused("a path that is too long or not UTF-8".to_owned()))?;
    let parts: Vec<&str> = text.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.contains(&"..") {
        return Err(Error::Refused(format!("the path {text:?} leads upwards")));
    }
    Ok(parts.join("/"))
}

fn split(path: &str) -> Option<(&str, &str)> {
    match path.rsplit_once('/') {
        _ if path.is_empty() => None,
        Some(parts) => Some(parts),
        None => Some(("", path)),
    }
}

fn target<R: Read>(entry: &Entry<'_, R>) -> Result<Option<String>, Error> {
    let target = entry.link_name().map_err(broken)?;
    Ok(target.and_then(|path| path.to_str().map(str::to_owned)).filter(|text| !text.is_empty()))
}

fn access<R: Read>(entry: &Entry<'_, R>) -> io::Result<Access> {
    let header = entry.header();
    let id = |id: u64| {
        u32::try_from(id).map_err(|_| io::Error::other("a user or group id that is too large"))
    };
    Ok(Access { uid: id(header.uid()?)?, gid: id(header.gid()?)?, mode: header.mode()? })
}

/// Counts and digests what passes.
struct Hashed<R> {
    inner: R,
    hash: Sha256,
    bytes: u64,
}

impl<R: Read> Hashed<R> {
    fn new(inner: R) -> Self {
        Self { inner, hash: Sha256::new(), bytes: 0 }
    }

    fn finish(self) -> (Digest, u64) {
        (Digest::from_bytes(self.hash.finalize().into()), self.bytes)
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(buffer.get(..count).unwrap_or_default());
        self.bytes += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
