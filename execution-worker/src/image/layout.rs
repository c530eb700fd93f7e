//! One tenant's image layout on this machine (OCI image layout 1.0), published by its operator. No link within the store is
//! followed, so that no name leads to another tenant's. Knows nothing of what is kept.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use std::os::fd::OwnedFd;

use gatehouse_contract::TenantId;
use gatehouse_execution::{
    Digest, ImageRef,
    oci::{self, Descriptor, Layer},
};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use sha2::{Digest as _, Sha256};

use super::Error;

/// One tenant's layout of one name.
pub struct Layout {
    dir: OwnedFd,
    reference: ImageRef,
}

impl Layout {
    /// The layout of what `tenant` calls `reference`.
    pub fn open(store: &Path, tenant: TenantId, reference: &ImageRef) -> Result<Self, Error> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, store, flags | OFlags::RDONLY, Mode::empty())
            .map_err(|error| Error::io(format!("opening {}", store.display()), error.into()))?;
        let path: PathBuf = reference.name.layout_parts(tenant).iter().collect();
        let dir = openat2(&root, &path, flags | OFlags::PATH, Mode::empty(), INSIDE);
        let dir = dir.map_err(|error| missing_or(error, reference, "opening the layout"))?;
        Ok(Self { dir, reference: reference.clone() })
    }

    fn file(&self, path: &Path) -> Result<File, Error> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = openat2(&self.dir, path, flags, Mode::empty(), INSIDE);
        let what = self.reading(path);
        file.map(File::from).map_err(|error| missing_or(error, &self.reference, &what))
    }

    fn reading(&self, path: &Path) -> String {
        format!("reading {} of {}", path.display(), self.reference)
    }

    fn document(&self, path: impl AsRef<Path>) -> Result<Vec<u8>, Error> {
        let path = path.as_ref();
        let mut bytes = Vec::new();
        // One byte more than allowed, so that the check sees what is too long.
        self.file(path)?
            .take(oci::MAX_DOCUMENT_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| Error::io(self.reading(path), error))?;
        Ok(bytes)
    }

    /// The manifest that the layout lists under the reference's digest.
    pub fn manifest(&self) -> Result<(Descriptor, Vec<u8>), Error> {
        oci::check_layout_file(&self.document("oci-layout")?)?;
        let named = oci::find_manifest(&self.document("index.json")?, self.reference.digest)?;
        let bytes = self.blob_document(named.digest)?;
        Ok((named, bytes))
    }

    /// Sees that the layout has the layer whole: without its bytes nothing that is kept is this tenant's.
    pub fn vouches_for(&self, layer: &Layer) -> Result<(), Error> {
        let mut hash = Sha256::new();
        let blob = self.blob(layer.blob)?.take(layer.blob_bytes.saturating_add(1));
        let size = std::io::copy(&mut std::io::BufReader::new(blob), &mut hash)
            .map_err(|error| Error::io(format!("reading layer {}", layer.blob), error))?;
        oci::check_size("a layer", layer.blob_bytes, size)?;
        oci::check_digest("a layer", layer.blob, Digest::from_bytes(hash.finalize().into()))?;
        Ok(())
    }

    /// A small blob; whoever reads it compares its digest.
    pub fn blob_document(&self, digest: Digest) -> Result<Vec<u8>, Error> {
        self.document(digest.blob_parts().iter().collect::<PathBuf>())
    }

    /// A layer; whoever reads it compares its digest.
    pub fn blob(&self, digest: Digest) -> Result<File, Error> {
        self.file(&digest.blob_parts().iter().collect::<PathBuf>())
    }
}

const INSIDE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

fn missing_or(error: rustix::io::Errno, reference: &ImageRef, what: &str) -> Error {
    match error {
        rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR => Error::Missing(reference.clone()),
        other => Error::io(what, other.into()),
    }
}
