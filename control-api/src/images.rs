//! Whether a tenant has an image: an OCI layout under its own prefix of the store that lists the manifest.
//! Knows nothing of what is inside an image; the worker checks that when it unpacks.

use std::{io, path::Path};

use gatehouse_contract::TenantId;
use gatehouse_execution::ImageRef;
use serde::Deserialize;
use tokio::io::AsyncReadExt;

/// An index that lists more than this many bytes of manifests is not read.
const MAX_INDEX_BYTES: u64 = 1024 * 1024;

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
}

/// Whether `tenant` has `image`: its layout's index lists the manifest, and the manifest's blob is there. The path
/// is made of a parsed tenant id and parsed names alone.
///
/// # Errors
/// Where the store cannot be read; a layout that is not there is no error.
pub async fn exists(store: &Path, tenant: TenantId, image: &ImageRef) -> io::Result<bool> {
    let mut layout = store.to_owned();
    layout.extend(image.name.layout_parts(tenant));
    let Some(index) = read(&layout.join("index.json")).await? else { return Ok(false) };
    let Ok(index) = serde_json::from_slice::<Index>(&index) else { return Ok(false) };
    let wanted = image.digest.to_string();
    if !index.manifests.iter().any(|manifest| manifest.digest == wanted) {
        return Ok(false);
    }
    let mut blob = layout;
    blob.extend(image.digest.blob_parts());
    tokio::fs::try_exists(blob).await
}

async fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match tokio::fs::File::open(path).await {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(MAX_INDEX_BYTES).read_to_end(&mut bytes).await?;
    Ok(Some(bytes))
}
