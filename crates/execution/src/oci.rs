//! The documents of an OCI image layout (image specification 1.1) that we accept, and their checks as functions
//! over bytes. A document is read only after its digest and size have been checked against who names it.
//! Knows no files: whoever reads bounds the size by [`MAX_DOCUMENT_BYTES`].

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::image::Digest;

/// Largest index, manifest or configuration that is read.
pub const MAX_DOCUMENT_BYTES: u64 = 1 << 20;
/// Most layers of an image.
pub const MAX_LAYERS: usize = 64;
/// Media type of a manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of an image's configuration.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Media type of a layer that is a plain tar.
pub const LAYER_TAR: &str = "application/vnd.oci.image.layer.v1.tar";
/// Media type of a layer that is a gzipped tar.
pub const LAYER_TAR_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// What Docker calls a manifest, an index, a configuration and a gzipped layer of the same form.
pub const DOCKER: [&str; 4] = [
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.container.image.v1+json",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
];
/// The version that the file `oci-layout` must state.
pub const LAYOUT_VERSION: &str = "1.0.0";

/// What this worker runs.
const OURS: (&str, &str) = ("linux", "amd64");

/// Why an image is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The bytes are not what their name says.
    #[error("{what} has digest {actual}, its reference says {expected}")]
    DigestMismatch {
        /// Which document or layer.
        what: &'static str,
        /// Named by the reference.
        expected: Digest,
        /// Of the bytes.
        actual: Digest,
    },
    /// The size is not what the descriptor says.
    #[error("{what} has {actual} bytes, its descriptor says {expected}")]
    SizeMismatch {
        /// Which document or layer.
        what: &'static str,
        /// Named by the descriptor.
        expected: u64,
        /// Of the bytes.
        actual: u64,
    },
    /// The document does not parse, or a field has a value outside of the specification.
    #[error("{what} is malformed: {cause}")]
    Malformed {
        /// Which document.
        what: &'static str,
        /// The parser's words.
        cause: String,
    },
    /// The layout's index does not list the manifest.
    #[error("the layout does not list manifest {0}")]
    NotListed(Digest),
    /// A feature that we do not take.
    #[error("{what} has media type \"{media_type}\", which is not supported")]
    MediaType {
        /// Which document or layer.
        what: &'static str,
        /// The type that was found.
        media_type: String,
    },
    /// Not for this kind of machine.
    #[error("the image is for {0}, this worker runs linux/amd64")]
    Platform(String),
    /// More layers than [`MAX_LAYERS`].
    #[error("the image has {0} layers, at most {MAX_LAYERS} are allowed")]
    TooManyLayers(usize),
    /// Manifest and configuration disagree about the layers.
    #[error("the manifest lists {manifest} layers, the configuration {config}")]
    LayerCount {
        /// In the manifest.
        manifest: usize,
        /// In the configuration.
        config: usize,
    },
    /// Neither entry point nor command.
    #[error("the image names no entry point")]
    NoEntrypoint,
}

/// `oci-layout`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutFile {
    /// Must be [`LAYOUT_VERSION`].
    #[serde(rename = "imageLayoutVersion")]
    pub version: String,
}

/// Names a blob by digest and size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    /// What the blob is.
    #[serde(rename = "mediaType")]
    pub media_type: String,
    /// Of the blob's bytes.
    pub digest: Digest,
    /// Of the blob, in bytes.
    pub size: u64,
    /// In an index: for which kind of machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

/// A kind of machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// `amd64`.
    pub architecture: String,
    /// `linux`.
    pub os: String,
}

/// `index.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// Must be 2.
    #[serde(rename = "schemaVersion")]
    pub schema_version: u32,
    /// [`INDEX`] where stated.
    #[serde(rename = "mediaType", default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The images of the layout.
    pub manifests: Vec<Descriptor>,
}

/// An image: a configuration and layers, lowest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Must be 2.
    #[serde(rename = "schemaVersion")]
    pub schema_version: u32,
    /// [`MANIFEST`] where stated.
    #[serde(rename = "mediaType", default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
}

/// What runs, and on what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// `amd64`.
    pub architecture: String,
    /// `linux`.
    pub os: String,
    /// How to start it.
    #[serde(default)]
    pub config: Start,
    /// Digests of the layers as plain tar, lowest first.
    pub rootfs: RootFs,
}

/// How an image is started. The user is not ours to take from an image: see [`crate::sandbox`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Start {
    /// The user that the image asks for; ignored, every agent runs as the same unprivileged one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// `NAME=value` pairs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<String>>,
    /// First part of the command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Second part of the command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// Absolute directory to start in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
}

/// The layers as plain tar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Must be `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Lowest first.
    pub diff_ids: Vec<Digest>,
}

/// How a layer is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// [`LAYER_TAR`].
    Tar,
    /// [`LAYER_TAR_GZIP`].
    TarGzip,
}

/// One layer of a checked image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer {
    /// Of the blob as stored.
    pub blob: Digest,
    /// Of the blob as stored, in bytes.
    pub blob_bytes: u64,
    /// How it is packed.
    pub packing: Packing,
    /// Of the plain tar.
    pub diff_id: Digest,
}

/// Compares bytes with the digest and size that a descriptor names.
///
/// # Errors
/// [`Refused::SizeMismatch`], [`Refused::DigestMismatch`].
pub fn check_blob(what: &'static str, named: &Descriptor, bytes: &[u8]) -> Result<(), Refused> {
    check_size(what, named.size, bytes.len() as u64)?;
    check_digest(what, named.digest, Digest::of(bytes))
}

/// Compares the size of a blob with the one that names it.
///
/// # Errors
/// [`Refused::SizeMismatch`].
pub const fn check_size(what: &'static str, expected: u64, actual: u64) -> Result<(), Refused> {
    if expected == actual {
        return Ok(());
    }
    Err(Refused::SizeMismatch { what, expected, actual })
}

/// Compares the digest of a blob with the one that names it.
///
/// # Errors
/// [`Refused::DigestMismatch`].
pub fn check_digest(what: &'static str, expected: Digest, actual: Digest) -> Result<(), Refused> {
    if expected == actual {
        return Ok(());
    }
    Err(Refused::DigestMismatch { what, expected, actual })
}

/// Checks the file `oci-layout`.
///
/// # Errors
/// [`Refused::Malformed`].
pub fn check_layout_file(bytes: &[u8]) -> Result<(), Refused> {
    const WHAT: &str = "the file oci-layout";
    let file: LayoutFile = document(WHAT, bytes)?;
    if file.version == LAYOUT_VERSION {
        return Ok(());
    }
    Err(malformed(WHAT, format!("version \"{}\"", file.version)))
}

/// Finds the manifest `digest` in a layout's `index.json`. This is also the whole test for "the image exists".
///
/// # Errors
/// [`Refused::NotListed`], [`Refused::MediaType`] (an index within the index), [`Refused::Malformed`].
pub fn find_manifest(index: &[u8], digest: Digest) -> Result<Descriptor, Refused> {
    const WHAT: &str = "the layout's index";
    let index: Index = document(WHAT, index)?;
    check_header(WHAT, index.schema_version, index.media_type.as_deref(), INDEX)?;
    let found = index.manifests.into_iter().find(|manifest| manifest.digest == digest);
    let found = found.ok_or(Refused::NotListed(digest))?;
    expect_type("the manifest", &found.media_type, MANIFEST)?;
    if found.size > MAX_DOCUMENT_BYTES {
        return Err(malformed("the manifest", format!("{} bytes", found.size)));
    }
    Ok(found)
}

/// Whether a document that a registry keeps under a digest is an index: images of one name for several machines.
pub fn is_index(bytes: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Kind {
        #[serde(rename = "mediaType")]
        media_type: Option<String>,
        manifests: Option<serde::de::IgnoredAny>,
    }
    serde_json::from_slice(bytes).is_ok_and(|kind: Kind| match kind.media_type.as_deref() {
        Some(media_type) => media_type == INDEX || media_type == docker_for(INDEX),
        None => kind.manifests.is_some(),
    })
}

/// Finds this machine's manifest in an index whose bytes are what `named` says.
///
/// # Errors
/// A digest that differs, no manifest for linux/amd64, an unsupported media type, [`Refused::Malformed`].
pub fn find_platform(named: Digest, index: &[u8]) -> Result<Descriptor, Refused> {
    const WHAT: &str = "the index";
    check_digest(WHAT, named, Digest::of(index))?;
    let index: Index = document(WHAT, index)?;
    check_header(WHAT, index.schema_version, index.media_type.as_deref(), INDEX)?;
    let ours = |platform: &Platform| (&*platform.os, &*platform.architecture) == OURS;
    let mut others = Vec::new();
    for manifest in index.manifests {
        match &manifest.platform {
            Some(platform) if ours(platform) => {
                expect_type("the manifest", &manifest.media_type, MANIFEST)?;
                return Ok(manifest);
            }
            Some(platform) => others.push(format!("{}/{}", platform.os, platform.architecture)),
            None => {}
        }
    }
    Err(Refused::Platform(others.join(", ")))
}

/// Reads a manifest whose descriptor was found in the index.
///
/// # Errors
/// A digest or size that differs, an unsupported media type, too many layers.
pub fn read_manifest(named: &Descriptor, bytes: &[u8]) -> Result<Manifest, Refused> {
    const WHAT: &str = "the manifest";
    check_blob(WHAT, named, bytes)?;
    let manifest: Manifest = document(WHAT, bytes)?;
    check_header(WHAT, manifest.schema_version, manifest.media_type.as_deref(), MANIFEST)?;
    expect_type("the configuration", &manifest.config.media_type, CONFIG)?;
    if manifest.config.size > MAX_DOCUMENT_BYTES {
        return Err(malformed("the configuration", format!("{} bytes", manifest.config.size)));
    }
    if manifest.layers.len() > MAX_LAYERS {
        return Err(Refused::TooManyLayers(manifest.layers.len()));
    }
    Ok(manifest)
}

/// Reads the configuration that `manifest` names and pairs its layers with their digests as plain tar.
///
/// # Errors
/// A digest or size that differs, another platform, layers that do not pair, no entry point.
pub fn read_config(
    manifest: &Manifest,
    bytes: &[u8],
) -> Result<(ImageConfig, Vec<Layer>), Refused> {
    const WHAT: &str = "the configuration";
    check_blob(WHAT, &manifest.config, bytes)?;
    let config: ImageConfig = document(WHAT, bytes)?;
    if (config.os.as_str(), config.architecture.as_str()) != OURS {
        return Err(Refused::Platform(format!("{}/{}", config.os, config.architecture)));
    }
    if config.rootfs.kind != "layers" {
        return Err(malformed(WHAT, format!("rootfs type \"{}\"", config.rootfs.kind)));
    }
    let (in_manifest, in_config) = (manifest.layers.len(), config.rootfs.diff_ids.len());
    if in_manifest != in_config {
        return Err(Refused::LayerCount { manifest: in_manifest, config: in_config });
    }
    if config.config.command_line().next().is_none() {
        return Err(Refused::NoEntrypoint);
    }
    let layers = manifest.layers.iter().zip(&config.rootfs.diff_ids).map(|(layer, diff_id)| {
        let packing = match layer.media_type.as_str() {
            LAYER_TAR => Packing::Tar,
            packed if packed == LAYER_TAR_GZIP || packed == docker_for(LAYER_TAR_GZIP) => {
                Packing::TarGzip
            }
            other => {
                let media_type = other.to_owned();
                return Err(Refused::MediaType { what: "a layer", media_type });
            }
        };
        Ok(Layer { blob: layer.digest, blob_bytes: layer.size, packing, diff_id: *diff_id })
    });
    let layers = layers.collect::<Result<_, _>>()?;
    Ok((config, layers))
}

// === impl Start ===

impl Start {
    /// Entry point and command, joined as the image specification says.
    pub fn command_line(&self) -> impl Iterator<Item = &str> {
        [&self.entrypoint, &self.cmd].into_iter().flatten().flatten().map(String::as_str)
    }
}

// === helpers ===

fn malformed(what: &'static str, cause: impl Into<String>) -> Refused {
    Refused::Malformed { what, cause: cause.into() }
}

fn document<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, Refused> {
    if bytes.len() as u64 > MAX_DOCUMENT_BYTES {
        return Err(malformed(what, format!("more than {MAX_DOCUMENT_BYTES} bytes")));
    }
    serde_json::from_slice(bytes).map_err(|error| malformed(what, error.to_string()))
}

/// Docker's name of the same thing; of what it has no name for, the name itself.
fn docker_for(media_type: &str) -> &str {
    let at = [MANIFEST, INDEX, CONFIG, LAYER_TAR_GZIP].iter().position(|ours| *ours == media_type);
    at.and_then(|at| DOCKER.get(at)).copied().unwrap_or(media_type)
}

fn expect_type(what: &'static str, found: &str, expected: &str) -> Result<(), Refused> {
    if found == expected || found == docker_for(expected) {
        return Ok(());
    }
    Err(Refused::MediaType { what, media_type: found.to_owned() })
}

fn check_header(
    what: &'static str,
    version: u32,
    media_type: Option<&str>,
    expected: &str,
) -> Result<(), Refused> {
    if version != 2 {
        return Err(malformed(what, format!("schemaVersion {version}")));
    }
    expect_type(what, media_type.unwrap_or(expected), expected)
}

#[cfg(test)]
mod tests;
