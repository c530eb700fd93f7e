//! Images of a real registry: the tenant's own only, each byte as named, brought once, kept within a budget.

pub mod tls;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use gatehouse_contract::{Document, TenantId, document};
use gatehouse_execution::{
    Digest, ImageRef,
    oci::{self, Descriptor, Index, Manifest, Platform},
};
use gatehouse_execution_worker::image::{self, Bounds, Error, Images, choice};
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use crate::{
    support::{part, publish},
    system::{PATIENCE, Process, free_port, get},
};

/// A registry of the test's own, on loopback, with its files below a folder of the test's own.
pub struct Registry {
    pub dir: TempDir,
    pub port: u16,
    /// Its certificate and key, where it speaks TLS.
    pub tls: Option<[PathBuf; 2]>,
    /// The file of those who may ask, where not everybody may.
    pub users: Option<PathBuf>,
    process: Option<Process>,
}

impl Registry {
    pub fn start() -> Self {
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
        let mut registry = Self { dir, port, tls: None, users: None, process: None };
        registry.restart();
        registry
    }

    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Ends it, if it runs, and starts it as it is to be by now.
    pub fn restart(&mut self) {
        self.process = None;
        let config = self.dir.path().join("config.yml");
        let mut document = json!({
            "version": 0.1, "log": {"level": "info"}, "http": {"addr": format!("127.0.0.1:{}", self.port)},
            "storage": {"filesystem": {"rootdirectory": self.dir.path().join("files")}},
        });
        if let Some([certificate, key]) = &self.tls {
            document["http"]["tls"] = json!({"certificate": certificate, "key": key});
        }
        if let Some(users) = &self.users {
            document["auth"] = json!({"htpasswd": {"realm": "images", "path": users}});
        }
        // JSON is YAML.
        fs::write(&config, document.to_string()).unwrap();
        let log = fs::File::options().create(true).append(true).open(self.log()).unwrap();
        let child = Command::new(part("GATEHOUSE_TEST_REGISTRY"))
            .arg("serve")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("docker-registry starts");
        self.process = Some(Process(child));
        let deadline = std::time::Instant::now() + PATIENCE;
        // One that speaks TLS says so; one that wants a password says that.
        while !get(self.port, "/v2/").starts_with("HTTP/1.") {
            assert!(std::time::Instant::now() < deadline, "the registry does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// How often `part` was asked for with `method`.
    pub fn asked(&self, method: &str, part: &str) -> usize {
        let log = fs::read_to_string(self.log()).unwrap();
        let line = |line: &&str| line.contains(&format!("\"{method} /v2/")) && line.contains(part);
        log.lines().filter(line).count()
    }

    /// Pushes the layout at `layout` as `tenant`'s `name`.
    pub fn push(&self, layout: &Path, tenant: TenantId, name: &str) -> ImageRef {
        let index: Index = read(&layout.join("index.json"));
        let manifest = &index.manifests[0];
        let bytes = blob(layout, manifest.digest);
        let parsed: Manifest = serde_json::from_slice(&bytes).unwrap();
        let repository = format!("{tenant}/{name}");
        for part in parsed.layers.iter().chain([&parsed.config]) {
            self.push_blob(&repository, &blob(layout, part.digest));
        }
        self.push_manifest(&repository, oci::MANIFEST, &bytes);
        ImageRef { name: name.parse().unwrap(), digest: manifest.digest }
    }

    fn push_blob(&self, repository: &str, bytes: &[u8]) {
        let begun =
            self.curl(&["-X", "POST", "-D", "-"], &format!("/v2/{repository}/blobs/uploads/"), b"");
        let line = begun.lines().find_map(|line| line.strip_prefix("Location: ")).expect("a place");
        let place = line.trim().trim_start_matches(&self.url()).to_owned();
        let end = format!("{place}&digest={}", Digest::of(bytes));
        self.curl(&["-X", "PUT", "-H", "content-type: application/octet-stream"], &end, bytes);
    }

    fn push_manifest(&self, repository: &str, media_type: &str, bytes: &[u8]) {
        let path = format!("/v2/{repository}/manifests/{}", Digest::of(bytes));
        self.curl(&["-X", "PUT", "-H", &format!("content-type: {media_type}")], &path, bytes);
    }

    fn curl(&self, args: &[&str], path: &str, bytes: &[u8]) -> String {
        let body = self.dir.path().join("body");
        fs::write(&body, bytes).unwrap();
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--fail", "--data-binary"])
            .arg(format!("@{}", body.display()))
            .args(args)
            .arg(format!("{}{path}", self.url()))
            .output()
            .expect("curl runs");
        assert!(output.status.success(), "{path}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The file in which the registry keeps a blob.
    pub fn file(&self, digest: Digest) -> PathBuf {
        let hex = digest.hex();
        let blobs = self.dir.path().join("files/docker/registry/v2/blobs/sha256");
        blobs.join(&hex[..2]).join(hex).join("data")
    }

    /// A worker's images of this registry.
    fn images(&self, cache: &Path, budget: u64) -> Arc<Images> {
        images_of(&json!({"url": self.url()}), cache, budget)
    }
}

/// A worker's images of the registry that is configured so.
fn images_of(registry: &Value, cache: &Path, budget: u64) -> Arc<Images> {
    let text = json!({"image_registry": registry}).to_string();
    let read = |doc: &Document<'_>| choice::read(doc);
    let source = document::read(&text, read).unwrap_or_else(|m| panic!("{m:?}")).open();
    let images = Images::new(source, cache.to_owned(), Bounds::default()).with_budget(budget);
    images.sweep().unwrap();
    Arc::new(images)
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> T {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn blob(layout: &Path, digest: Digest) -> Vec<u8> {
    fs::read(layout.join(digest.blob_parts().iter().collect::<PathBuf>())).unwrap()
}

fn tenant() -> TenantId {
    TenantId::new(Uuid::new_v4())
}

async fn fetch(
    images: &Arc<Images>,
    tenant: TenantId,
    reference: &ImageRef,
) -> Result<image::Image, Error> {
    let (images, reference) = (Arc::clone(images), reference.clone());
    tokio::task::spawn_blocking(move || images.fetch(tenant, &reference)).await.unwrap()
}

/// The layer of an image of one layer.
pub fn layer_of(layout: &Path) -> Descriptor {
    let index: Index = read(&layout.join("index.json"));
    let manifest: Manifest =
        serde_json::from_slice(&blob(layout, index.manifests[0].digest)).unwrap();
    manifest.layers[0].clone()
}

const ROOMY: u64 = 1 << 30;

#[tokio::test]
async fn the_tenants_own_image_is_pulled_once_and_nobody_elses_is_told() {
    let registry = Registry::start();
    let (layout, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    publish(layout.path(), &["print", "1"]);
    let (ours, theirs) = (tenant(), tenant());
    let reference = registry.push(layout.path(), ours, "agent");
    let images = registry.images(cache.path(), ROOMY);
    let all = futures(&images, ours, &reference, 8).await;
    for image in &all {
        assert!(image.as_ref().unwrap().rootfs.join("agent").is_file());
    }
    let layer = layer_of(layout.path()).digest;
    assert_eq!(registry.asked("GET", &layer.to_string()), 1, "pulled more than once");
    assert_eq!(images.told().unpacked, 1);
    // Another tenant's, though every byte of it is here.
    let stranger = fetch(&images, theirs, &reference).await.unwrap_err();
    assert!(matches!(stranger, Error::Missing(_)), "{stranger}");
    let other = ImageRef { digest: Digest::of(b"other"), ..reference.clone() };
    let missing = fetch(&images, ours, &other).await.unwrap_err();
    assert_eq!(
        stranger.to_string().replace(&reference.to_string(), ""),
        missing.to_string().replace(&other.to_string(), "")
    );
    // The same bytes under the other's own prefix are its own, and are not brought again.
    let own = registry.push(layout.path(), theirs, "copy");
    let shared = fetch(&images, theirs, &own).await.unwrap();
    assert_eq!(shared.rootfs, all[0].as_ref().unwrap().rootfs);
    assert_eq!(registry.asked("GET", &layer.to_string()), 1);
}

async fn futures(
    images: &Arc<Images>,
    tenant: TenantId,
    reference: &ImageRef,
    count: usize,
) -> Vec<Result<image::Image, Error>> {
    let mut set = tokio::task::JoinSet::new();
    for _ in 0..count {
        let (images, reference) = (Arc::clone(images), reference.clone());
        set.spawn(async move { fetch(&images, tenant, &reference).await });
    }
    set.join_all().await
}

#[tokio::test]
async fn a_configuration_that_claims_anothers_layers_leads_to_nobodys_files() {
    let registry = Registry::start();
    let dir = tempfile::tempdir().unwrap();
    let cache = tempfile::tempdir().unwrap();
    let (theirs, mine) = (dir.path().join("theirs"), dir.path().join("mine"));
    publish(&theirs, &["print", "1"]);
    let (victim, thief) = (tenant(), tenant());
    let reference = registry.push(&theirs, victim, "agent");
    let images = registry.images(cache.path(), ROOMY);
    let secret = fetch(&images, victim, &reference).await.unwrap();
    // The thief's own layer under the victim's plain digest, which is no secret.
    publish(&mine, &["print", "1"]);
    let index: Index = read(&mine.join("index.json"));
    let mut manifest: Manifest =
        serde_json::from_slice(&blob(&mine, index.manifests[0].digest)).unwrap();
    let layer = b"no archive, but there";
    manifest.layers = vec![Descriptor {
        digest: Digest::of(layer),
        size: layer.len() as u64,
        ..manifest.layers[0].clone()
    }];
    let repository = format!("{thief}/agent");
    registry.push_blob(&repository, layer);
    registry.push_blob(&repository, &blob(&mine, manifest.config.digest));
    let bytes = serde_json::to_vec(&manifest).unwrap();
    registry.push_manifest(&repository, oci::MANIFEST, &bytes);
    let forged = ImageRef { digest: Digest::of(&bytes), ..reference.clone() };
    match fetch(&images, thief, &forged).await {
        Err(Error::Layer { .. } | Error::Refused(_)) => {}
        other => panic!("{other:?} beside {secret:?}"),
    }
}

#[tokio::test]
async fn of_an_index_this_machines_image_is_pulled() {
    let registry = Registry::start();
    let (layout, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    publish(layout.path(), &["print", "1"]);
    let ours = tenant();
    registry.push(layout.path(), ours, "agent");
    let mut index: Index = read(&layout.path().join("index.json"));
    let platform = Platform { architecture: "amd64".to_owned(), os: "linux".to_owned() };
    index.manifests[0].platform = Some(platform);
    index.media_type = Some(oci::INDEX.to_owned());
    let bytes = serde_json::to_vec(&index).unwrap();
    registry.push_manifest(&format!("{ours}/agent"), oci::INDEX, &bytes);
    let reference = ImageRef { name: "agent".parse().unwrap(), digest: Digest::of(&bytes) };
    let images = registry.images(cache.path(), ROOMY);
    assert!(fetch(&images, ours, &reference).await.unwrap().rootfs.join("agent").is_file());
}

#[tokio::test]
async fn changed_and_cut_bytes_are_refused_and_leave_nothing_behind() {
    let registry = Registry::start();
    let (layout, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    publish(layout.path(), &["print", "1"]);
    let ours = tenant();
    let reference = registry.push(layout.path(), ours, "agent");
    let images = registry.images(cache.path(), ROOMY);
    let file = registry.file(layer_of(layout.path()).digest);
    let good = fs::read(&file).unwrap();
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    for bytes in [&bad[..], &[&good[..], b"more"].concat(), &good[..good.len() - 1]] {
        fs::write(&file, bytes).unwrap();
        let refused = fetch(&images, ours, &reference).await.unwrap_err();
        assert!(matches!(refused, Error::Refused(_)), "{refused}");
        let left = ["aside", "layers", "roots"]
            .map(|kind| fs::read_dir(cache.path().join(kind)).unwrap().count());
        assert_eq!(left, [0; 3]);
    }
    fs::write(&file, &good).unwrap();
    fetch(&images, ours, &reference).await.unwrap();
}

#[tokio::test]
async fn a_registry_that_is_away_is_told_from_an_image_that_is_not_there() {
    let mut registry = Registry::start();
    let (layout, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    publish(layout.path(), &["print", "1"]);
    let ours = tenant();
    let reference = registry.push(layout.path(), ours, "agent");
    let images = registry.images(cache.path(), ROOMY);
    registry.stop();
    let away = fetch(&images, ours, &reference).await.unwrap_err();
    assert!(matches!(away, Error::Away(_)), "{away}");
    registry.restart();
    fetch(&images, ours, &reference).await.unwrap();
    // Its word counts for a while; somebody else's does not.
    registry.stop();
    fetch(&images, ours, &reference).await.unwrap();
    let away = fetch(&images, tenant(), &reference).await.unwrap_err();
    assert!(matches!(away, Error::Away(_)), "{away}");
}

#[tokio::test]
async fn what_is_kept_fits_the_budget_and_what_is_in_use_stays() {
    let registry = Registry::start();
    let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ours = tenant();
    let push = |name: &str| {
        let layout = dir.path().join(name);
        // The layers' bytes differ: the agent's name in the archive does.
        crate::support::publish_as(&layout, &["print", "1"], name);
        registry.push(&layout, ours, name)
    };
    let (first, second, third) = (push("first"), push("second"), push("third"));
    let one = registry.images(cache.path(), ROOMY);
    let used = fetch(&one, ours, &first).await.unwrap();
    let size = one.told().standing.bytes;
    drop((used, one));
    // Room for two and a half.
    let images = registry.images(cache.path(), size * 5 / 2);
    assert_eq!(images.told().standing.bytes, size, "an earlier start's was not found");
    let used = fetch(&images, ours, &first).await.unwrap();
    drop(fetch(&images, ours, &second).await.unwrap());
    drop(fetch(&images, ours, &third).await.unwrap());
    let told = images.told();
    assert!(told.standing.bytes <= told.standing.budget && told.standing.evicted > 0, "{told:?}");
    assert!(used.rootfs.join("first").is_file(), "evicted while in use");
    // In use, and no room beside it.
    drop(images);
    let images = registry.images(cache.path(), size * 5 / 4);
    let used = fetch(&images, ours, &first).await.unwrap();
    let full = fetch(&images, ours, &second).await.unwrap_err();
    assert!(
        matches!(&full, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull),
        "{full:?}"
    );
    assert!(used.rootfs.join("first").is_file());
}
