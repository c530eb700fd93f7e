//! Images: from a version's reference and the tenant that owns it to a root file system on this machine.
//!
//! The tenant's own layout, or its own repository at the registry, must have the manifest and every layer; only the
//! bytes are shared, found by the digests of their layers. Knows neither sandboxes nor who asks.

pub mod cache;
pub mod choice;
mod flight;
mod layout;
pub mod registry;
mod tree;
mod unpack;

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use gatehouse_contract::TenantId;
use gatehouse_execution::{
    Digest, ImageRef,
    oci::{self, Descriptor, ImageConfig, Layer},
    sandbox::MOUNT_POINTS,
};
use tokio::time::Instant;

use cache::{Cache, Held, Standing};
use flight::Flights;
use layout::Layout;
use registry::{Registry, Repository};

pub use choice::Choice;
pub use unpack::Bounds;

/// How long a registry's word that a tenant has an image counts. After that it is asked again; where it is away, nothing
/// more is started of it.
const WORD: Duration = Duration::from_secs(300);
/// What is kept where nothing else is said: 20 GiB.
pub const DEFAULT_BUDGET: u64 = 20 << 30;
/// The most words that are remembered.
const WORDS: usize = 4096;

/// Why there is no root file system for a reference.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The tenant has no such image. The same for missing and for another tenant's.
    #[error("the image {0} does not exist")]
    Missing(ImageRef),
    /// The registry cannot be asked. Later it may be.
    #[error("the registry of images cannot be asked: {0}")]
    Away(String),
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
        source: Arc<io::Error>,
    },
}

/// An image that can be started. Its files stay for as long as this value, or a clone of it, lives.
#[derive(Debug, Clone)]
pub struct Image {
    /// How to start it.
    pub config: ImageConfig,
    /// Where its files are.
    pub rootfs: PathBuf,
    #[expect(dead_code, reason = "held, never read")]
    held: Held,
}

/// Where images come from.
#[derive(Debug)]
pub enum Source {
    /// A folder of layouts, `<tenant>/<name>`.
    Store(PathBuf),
    /// A registry of repositories, `<tenant>/<name>`.
    Registry(Registry),
}

/// Where images come from, and what this worker keeps of them.
#[derive(Debug)]
pub struct Images {
    source: Source,
    cache: Cache,
    bounds: Bounds,
    unpacking: Flights<Digest, (PathBuf, Held)>,
    pulling: Flights<Digest, ()>,
    /// Until when the source's word counts that a tenant has what it names; of a layout only its layers' bytes.
    words: Mutex<BTreeMap<(TenantId, String), Word>>,
    counts: Counts,
}

#[derive(Debug, Clone)]
struct Word {
    known: Option<Known>,
    layers: Vec<Layer>,
    until: Instant,
}

type Known = (ImageConfig, Vec<Layer>);

#[derive(Debug, Default)]
struct Counts {
    found: AtomicU64,
    unpacked: AtomicU64,
    failed: AtomicU64,
    bytes: AtomicU64,
}

/// What was done for images since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Told {
    /// Runs whose image was there.
    pub found: u64,
    /// Images that were unpacked.
    pub unpacked: u64,
    /// Runs that had no image.
    pub failed: u64,
    /// Bytes of layers that came from the registry.
    pub bytes: u64,
    /// What is kept.
    pub standing: Standing,
}

impl From<PathBuf> for Source {
    fn from(store: PathBuf) -> Self {
        Self::Store(store)
    }
}

impl From<Registry> for Source {
    fn from(registry: Registry) -> Self {
        Self::Registry(registry)
    }
}

/// A tenant's image at its source.
enum Place<'a> {
    Layout(Layout),
    Repository(Repository<'a>),
}

// === impl Images ===

impl Images {
    /// Images of `source`, of which `cache`, this worker's own folder, keeps what [`DEFAULT_BUDGET`] has room for.
    pub fn new(source: impl Into<Source>, cache: PathBuf, bounds: Bounds) -> Self {
        Self {
            source: source.into(),
            cache: Cache::new(cache, DEFAULT_BUDGET),
            bounds,
            unpacking: Flights::default(),
            pulling: Flights::default(),
            words: Mutex::default(),
            counts: Counts::default(),
        }
    }

    /// The same, keeping at most `bytes`.
    #[must_use]
    pub fn with_budget(mut self, bytes: u64) -> Self {
        self.cache.set_budget(bytes);
        self
    }

    /// Takes stock of what is kept, and removes what an earlier start left half made, or is too much.
    ///
    /// # Errors
    /// Where the folder cannot be used.
    pub fn sweep(&self) -> Result<(), Error> {
        self.cache.stock().map_err(|error| Error::io("taking stock of the kept images", error))
    }

    /// What was done, and what is kept.
    pub fn told(&self) -> Told {
        Told {
            found: self.counts.found.load(Relaxed),
            unpacked: self.counts.unpacked.load(Relaxed),
            failed: self.counts.failed.load(Relaxed),
            bytes: self.counts.bytes.load(Relaxed),
            standing: self.cache.standing(),
        }
    }

    /// The image that `tenant` calls `reference`. Blocks: call it where blocking is allowed, on a thread that does not
    /// drive the runtime.
    ///
    /// # Errors
    /// [`Error`].
    pub fn fetch(&self, tenant: TenantId, reference: &ImageRef) -> Result<Image, Error> {
        let fetched = self.fetched(tenant, reference);
        if fetched.is_err() {
            self.counts.failed.fetch_add(1, Relaxed);
        }
        fetched
    }

    fn fetched(&self, tenant: TenantId, reference: &ImageRef) -> Result<Image, Error> {
        let place = match &self.source {
            Source::Store(store) => Place::Layout(Layout::open(store, tenant, reference)?),
            Source::Registry(registry) => Place::Repository(registry.repository(tenant, reference)),
        };
        let (config, layers) = self.known(tenant, reference, &place)?;
        // Both digests of each: what a configuration says of its layers is nobody's word but its maker's.
        let chain: String =
            layers.iter().map(|layer| layer.blob.hex() + &layer.diff_id.hex()).collect();
        let name = Digest::of(chain.as_bytes());
        if let Some((rootfs, held)) = self.cache.root(name) {
            self.counts.found.fetch_add(1, Relaxed);
            return Ok(Image { config, rootfs, held });
        }
        let (rootfs, held) = self.unpacking.once(name, || {
            // Another flight may have landed since.
            match self.cache.root(name) {
                Some(root) => Ok(root),
                None => self.unpack(name, &layers, &place),
            }
        })?;
        Ok(Image { config, rootfs, held })
    }

    /// The image's configuration and layers, all of which the source has for this tenant.
    fn known(
        &self,
        tenant: TenantId,
        reference: &ImageRef,
        place: &Place<'_>,
    ) -> Result<Known, Error> {
        let whose = (tenant, reference.to_string());
        let word = {
            let words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
            words.get(&whose).filter(|word| word.until > Instant::now()).cloned()
        };
        if let Some(known) = word.as_ref().and_then(|word| word.known.clone()) {
            return Ok(known);
        }
        let known = place.read(reference)?;
        let vouched = word.is_some_and(|word| word.layers == known.1);
        if !vouched {
            known.1.iter().try_for_each(|layer| place.vouches_for(layer))?;
        }
        let word = Word {
            // A layout costs nothing to read, and what it lists no more is gone at once.
            known: matches!(place, Place::Repository(_)).then(|| known.clone()),
            layers: known.1.clone(),
            until: Instant::now() + WORD,
        };
        let mut words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        if words.len() >= WORDS {
            let now = Instant::now();
            words.retain(|_, word| word.until > now);
        }
        if words.len() < WORDS {
            words.insert(whose, word);
        }
        Ok(known)
    }

    /// Unpacks aside, and gives it its place when every layer has proved to be the one that was named.
    fn unpack(
        &self,
        name: Digest,
        layers: &[Layer],
        place: &Place<'_>,
    ) -> Result<(PathBuf, Held), Error> {
        let aside = self.aside()?;
        let unpacked = self.unpack_into(&aside, layers, place).and_then(|bytes| {
            let kept = self.cache.keep_root(name, bytes, &aside);
            kept.map_err(|error| Error::io(format!("keeping {}", aside.display()), error))
        });
        match &unpacked {
            Ok(_) => drop(self.counts.unpacked.fetch_add(1, Relaxed)),
            // What cannot be removed now is at the next start.
            Err(_) => drop(std::fs::remove_dir_all(&aside)),
        }
        unpacked
    }

    fn aside(&self) -> Result<PathBuf, Error> {
        self.cache.aside().map_err(|error| Error::io("making room aside", error))
    }

    fn unpack_into(
        &self,
        aside: &std::path::Path,
        layers: &[Layer],
        place: &Place<'_>,
    ) -> Result<u64, Error> {
        let rootfs = aside.join("rootfs");
        std::fs::create_dir_all(&rootfs)
            .map_err(|error| Error::io(format!("making {}", rootfs.display()), error))?;
        let tree = tree::Tree::open(&rootfs)
            .map_err(|error| Error::io(format!("opening {}", rootfs.display()), error))?;
        let mut bounds = self.bounds;
        for layer in layers {
            let blob = self.blob(layer, place)?;
            unpack::layer(layer, blob, &tree, &mut bounds).map_err(|error| match error {
                unpack::Error::Refused(cause) => Error::Layer { layer: layer.blob, cause },
                unpack::Error::Document(refused) => Error::Refused(refused),
                unpack::Error::Io(source) => {
                    Error::io(format!("unpacking layer {}", layer.blob), source)
                }
            })?;
        }
        for point in MOUNT_POINTS {
            tree.make_dirs(point).map_err(|error| Error::Layer {
                layer: layers.last().map_or(Digest::of(b""), |layer| layer.blob),
                cause: format!("its /{point} is not usable as a directory: {error}"),
            })?;
        }
        let entries = self.bounds.entries.saturating_sub(bounds.entries);
        // A block for each entry beside what is in it.
        Ok(self.bounds.bytes.saturating_sub(bounds.bytes).saturating_add(entries << 12))
    }

    /// The packed layer: the layout's own file, or what is kept of the registry's, brought here once for all who want it.
    fn blob(&self, layer: &Layer, place: &Place<'_>) -> Result<std::fs::File, Error> {
        let repository = match place {
            Place::Layout(layout) => return layout.blob(layer.blob),
            Place::Repository(repository) => repository,
        };
        let keeping = |error| Error::io(format!("keeping layer {}", layer.blob), error);
        // Twice: what was just brought can have had to go again before it was opened.
        for _ in 0..2 {
            if let Some(file) = self.cache.layer(layer.blob) {
                return Ok(file);
            }
            self.pulling.once(layer.blob, || {
                if self.cache.layer(layer.blob).is_some() {
                    return Ok(());
                }
                let aside = self.aside()?;
                let pulled = repository
                    .layer(layer, &aside)
                    .and_then(|()| self.cache.keep_layer(layer.blob, &aside).map_err(keeping));
                match &pulled {
                    Ok(()) => drop(self.counts.bytes.fetch_add(layer.blob_bytes, Relaxed)),
                    Err(_) => drop(std::fs::remove_file(&aside)),
                }
                pulled
            })?;
        }
        self.cache.layer(layer.blob).ok_or_else(|| keeping(io::ErrorKind::StorageFull.into()))
    }
}

// === impl Place ===

impl Place<'_> {
    fn read(&self, reference: &ImageRef) -> Result<Known, Error> {
        let (named, bytes) = match self {
            Self::Layout(layout) => layout.manifest()?,
            Self::Repository(repository) => {
                let mut digest = reference.digest;
                let mut bytes = repository.manifest(digest)?;
                if oci::is_index(&bytes) {
                    digest = oci::find_platform(digest, &bytes)?.digest;
                    bytes = repository.manifest(digest)?;
                }
                let (media_type, size) = (oci::MANIFEST.to_owned(), bytes.len() as u64);
                (Descriptor { media_type, digest, size, platform: None }, bytes)
            }
        };
        let manifest = oci::read_manifest(&named, &bytes)?;
        let config = manifest.config.digest;
        let config = match self {
            Self::Layout(layout) => layout.blob_document(config)?,
            Self::Repository(repository) => repository.blob_document(config)?,
        };
        Ok(oci::read_config(&manifest, &config)?)
    }

    fn vouches_for(&self, layer: &Layer) -> Result<(), Error> {
        match self {
            Self::Layout(layout) => layout.vouches_for(layer),
            Self::Repository(repository) => repository.vouches_for(layer.blob),
        }
    }
}

// === impl Error ===

impl Error {
    fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io { what: what.into(), source: Arc::new(source) }
    }
}
