//! Images: from a version's reference and the tenant that owns it to a root file system on this machine.
//!
//! The tenant's own layout must list the manifest, every time; only the unpacked files are shared, found by the
//! digests of their plain layers. Knows neither sandboxes nor who asks.

mod tree;
mod unpack;

use std::{
    fs::File,
    io::{self, Read},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use gatehouse_contract::TenantId;
use gatehouse_execution::{
    Digest, ImageRef,
    oci::{self, ImageConfig, Layer},
    sandbox::MOUNT_POINTS,
};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};

pub use unpack::Bounds;

/// Why there is no root file system for a reference.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The tenant has no such image. The same for missing and for another tenant's.
    #[error("the image {0} does not exist")]
    Missing(ImageRef),
    /// A document of the image is not acceptable.
    #[error(transparent)]
    Refused(#[from] oci::Refused),
    /// A layer is not acceptable.
    #[error("layer {layer} is refused: {cause}")]
    Layer {
        /// The layer's blob.
        layer: Digest,
        /// What is wrong with it.
        cause: String,
    },
    /// This machine could not read or write; no fault of the image.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// An image that can be started.
#[derive(Debug, Clone)]
pub struct Image {
    /// How to start it.
    pub config: ImageConfig,
    /// Where its files are.
    pub rootfs: PathBuf,
}

/// The layout store, and the unpacked images of this worker.
#[derive(Debug)]
pub struct Images {
    store: PathBuf,
    cache: PathBuf,
    bounds: Bounds,
    /// One image is unpacked at a time, so that two runs of one image do not unpack it twice.
    unpacking: std::sync::Mutex<()>,
}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let what = what.into();
    move |source| Error::Io { what, source }
}

// === impl Images ===

impl Images {
    /// `store` holds `<tenant>/<name>` layouts; `cache` is this worker's own folder.
    pub fn new(store: PathBuf, cache: PathBuf, bounds: Bounds) -> Self {
        Self { store, cache, bounds, unpacking: std::sync::Mutex::default() }
    }

    /// Removes what an earlier start left half unpacked.
    pub fn sweep(&self) -> Result<(), Error> {
        let aside = self.aside();
        match std::fs::remove_dir_all(&aside) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(io_error(format!("removing {}", aside.display()))),
        }
    }

    /// The image that `tenant` calls `reference`. Blocks: call it where blocking is allowed.
    pub fn fetch(&self, tenant: TenantId, reference: &ImageRef) -> Result<Image, Error> {
        let layout = Layout::open(&self.store, tenant, reference)?;
        oci::check_layout_file(&layout.document("oci-layout")?)?;
        let named = oci::find_manifest(&layout.document("index.json")?, reference.digest)?;
        let manifest = oci::read_manifest(&named, &layout.blob_document(named.digest)?)?;
        let (config, layers) =
            oci::read_config(&manifest, &layout.blob_document(manifest.config.digest)?)?;
        let chain: String = layers.iter().map(|layer| layer.diff_id.hex()).collect();
        let home = self.cache.join(Digest::of(chain.as_bytes()).hex());
        let rootfs = home.join("rootfs");
        // A poisoned lock means that an earlier unpacking died: what it left lies aside.
        let _one = self.unpacking.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !rootfs.is_dir() {
            self.unpack(&layout, &layers, &home)?;
        }
        Ok(Image { config, rootfs })
    }

    fn aside(&self) -> PathBuf {
        self.cache.join("unpacking")
    }

    /// Unpacks aside and moves into place when every layer has proved to be the one that was named.
    fn unpack(&self, layout: &Layout, layers: &[Layer], home: &Path) -> Result<(), Error> {
        self.sweep()?;
        let aside = self.aside();
        let rootfs = aside.join("rootfs");
        let make = |path: &Path| {
            std::fs::create_dir_all(path).map_err(io_error(format!("making {}", path.display())))
        };
        make(&rootfs)?;
        let tree =
            tree::Tree::open(&rootfs).map_err(io_error(format!("opening {}", rootfs.display())))?;
        let mut bounds = self.bounds;
        for layer in layers {
            let blob = layout.blob(layer.blob)?;
            unpack::layer(layer, blob, &tree, &mut bounds).map_err(|error| match error {
                unpack::Error::Refused(cause) => Error::Layer { layer: layer.blob, cause },
                unpack::Error::Document(refused) => Error::Refused(refused),
                unpack::Error::Io(source) => {
                    Error::Io { what: format!("unpacking layer {}", layer.blob), source }
                }
            })?;
        }
        for point in MOUNT_POINTS {
            tree.make_dirs(point).map_err(|error| Error::Layer {
                layer: layers.last().map_or(Digest::of(b""), |layer| layer.blob),
                cause: format!("its /{point} is not usable as a directory: {error}"),
            })?;
        }
        std::fs::rename(&aside, home).map_err(io_error(format!("making {}", home.display())))
    }
}

/// One tenant's layout of one name. No link within the store is followed.
struct Layout {
    dir: OwnedFd,
    reference: ImageRef,
}

impl Layout {
    fn open(store: &Path, tenant: TenantId, reference: &ImageRef) -> Result<Self, Error> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, store, flags | OFlags::RDONLY, Mode::empty())
            .map_err(|error| io_error(format!("opening {}", store.display()))(error.into()))?;
        let path: PathBuf = reference.name.layout_parts(tenant).iter().collect();
        let dir = openat2(&root, &path, flags | OFlags::PATH, Mode::empty(), INSIDE);
        let dir = dir.map_err(|error| missing_or(error, reference, "opening the layout"))?;
        Ok(Self { dir, reference: reference.clone() })
    }

    fn file(&self, path: &Path) -> Result<File, Error> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = openat2(&self.dir, path, flags, Mode::empty(), INSIDE);
        let what = format!("reading {} of {}", path.display(), self.reference);
        file.map(File::from).map_err(|error| missing_or(error, &self.reference, &what))
    }

    fn document(&self, path: impl AsRef<Path>) -> Result<Vec<u8>, Error> {
        let path = path.as_ref();
        let mut bytes = Vec::new();
        // One byte more than allowed, so that the check sees what is too long.
        self.file(path)?
            .take(oci::MAX_DOCUMENT_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(io_error(format!("reading {} of {}", path.display(), self.reference)))?;
        Ok(bytes)
    }

    fn blob_document(&self, digest: Digest) -> Result<Vec<u8>, Error> {
        self.document(digest.blob_parts().iter().collect::<PathBuf>())
    }

    fn blob(&self, digest: Digest) -> Result<File, Error> {
        self.file(&digest.blob_parts().iter().collect::<PathBuf>())
    }
}

const INSIDE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

fn missing_or(error: rustix::io::Errno, reference: &ImageRef, what: &str) -> Error {
    match error {
        rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR => Error::Missing(reference.clone()),
        other => io_error(what)(other.into()),
    }
}
