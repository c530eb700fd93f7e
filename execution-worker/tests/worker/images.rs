//! Images from the layout store: the tenant's own only, and only as named.

use std::{fs, path::Path};

use gatehouse_contract::TenantId;
use gatehouse_execution::{Digest, ImageRef, oci::Index};
use gatehouse_execution_worker::image::{Bounds, Image, Images};
use tempfile::TempDir;
use uuid::Uuid;

use crate::support::part;

pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// The sample agent's layout, published for one tenant.
pub struct Published {
    pub store: TempDir,
    pub tenant: TenantId,
    pub reference: ImageRef,
    images: Images,
    _cache: TempDir,
}

impl Published {
    pub fn new() -> Self {
        let (store, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let tenant = TenantId::new(Uuid::new_v4());
        let layout = part("GATEHOUSE_TEST_AGENT");
        let to = store.path().join(tenant.to_string()).join("fuel-emissions");
        copy(Path::new(&layout), &to);
        let index: Index =
            serde_json::from_slice(&fs::read(to.join("index.json")).unwrap()).unwrap();
        let digest = index.manifests[0].digest;
        let reference = ImageRef { name: "fuel-emissions".parse().unwrap(), digest };
        let images =
            Images::new(store.path().to_owned(), cache.path().join("images"), Bounds::default());
        Self { store, tenant, reference, images, _cache: cache }
    }

    fn layout(&self) -> std::path::PathBuf {
        self.store.path().join(self.tenant.to_string()).join("fuel-emissions")
    }

    fn check(&self, tenant: TenantId, reference: &ImageRef, refusal: &str) -> Option<Image> {
        match self.images.fetch(tenant, reference) {
            Ok(image) if refusal.is_empty() => Some(image),
            Err(error) if !refusal.is_empty() && error.to_string().contains(refusal) => None,
            other => panic!("{other:?}, expected {refusal:?}"),
        }
    }
}

#[test]
fn the_tenants_own_image_is_unpacked_once() {
    let published = Published::new();
    let image = published.check(published.tenant, &published.reference, "").unwrap();
    assert!(image.rootfs.join("agent").is_file() && image.rootfs.join("run/agent").is_dir());
    fs::write(image.rootfs.join("marker"), "kept").unwrap();
    let again = published.check(published.tenant, &published.reference, "").unwrap();
    assert_eq!(fs::read_to_string(again.rootfs.join("marker")).unwrap(), "kept");
}

#[test]
fn another_tenants_image_does_not_exist_even_when_it_is_unpacked() {
    let published = Published::new();
    published.check(published.tenant, &published.reference, "");
    let stranger = TenantId::new(Uuid::new_v4());
    published.check(stranger, &published.reference, "does not exist");
    // Not by a link of the store either.
    let home = published.store.path().join(stranger.to_string());
    fs::create_dir(&home).unwrap();
    let target = format!("../{}/fuel-emissions", published.tenant);
    std::os::unix::fs::symlink(target, home.join("fuel-emissions")).unwrap();
    published.check(stranger, &published.reference, "opening the layout");
}

#[test]
fn an_image_that_the_layout_does_not_list_is_refused() {
    let published = Published::new();
    let other = ImageRef { digest: Digest::of(b"other"), ..published.reference.clone() };
    published.check(published.tenant, &other, "does not list");
    let other = ImageRef { name: "other".parse().unwrap(), ..published.reference.clone() };
    published.check(published.tenant, &other, "does not exist");
}

#[test]
fn changed_bytes_are_refused_and_leave_nothing_behind() {
    let published = Published::new();
    let blobs = published.layout().join("blobs/sha256");
    let layer = fs::read_dir(&blobs)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .max_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap();
    let good = fs::read(&layer).unwrap();
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    fs::write(&layer, &bad).unwrap();
    assert!(published.images.fetch(published.tenant, &published.reference).is_err());
    fs::write(&layer, &good[..middle]).unwrap();
    assert!(published.images.fetch(published.tenant, &published.reference).is_err());
    fs::write(&layer, &good).unwrap();
    published.check(published.tenant, &published.reference, "");
    let manifest = blobs.join(published.reference.digest.hex());
    let mut bytes = fs::read(&manifest).unwrap();
    bytes.push(b'\n');
    fs::write(&manifest, bytes).unwrap();
    published.check(published.tenant, &published.reference, "the manifest has");
}
