//! Builds OCI image layouts of the sample agents and publishes them into a layout store.
//! The same binary always gives the same bytes, hence the same digest.
//! Knows neither the control API nor the worker: a store is a folder.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context;
use flate2::{Compression, write::GzEncoder};
use gatehouse_contract::TenantId;
use gatehouse_execution::{
    Digest, ImageName, ImageRef,
    oci::{
        self, Descriptor, ImageConfig, Index, LAYER_TAR_GZIP, LAYOUT_VERSION, LayoutFile, Manifest,
        RootFs, Start,
    },
};
use serde::Serialize;

use crate::command;

const TARGET: &str = "x86_64-unknown-linux-gnu";
const PACKAGE: &str = "gatehouse-fuel-emissions";
const BUILD: Duration = Duration::from_secs(600);

/// Builds the fuel-emissions agent of the workspace at `repo` as a static binary and writes its image layout to
/// `out`, replacing what is there. Returns the manifest's digest.
///
/// It has a target folder of its own, since its flags would otherwise rebuild the workspace.
pub fn build(repo: &Path, out: &Path) -> anyhow::Result<Digest> {
    let target = repo.join("target/agent");
    // No path of this machine in the image: the digest does not depend on where the sources lie.
    let flags = format!(
        "-C target-feature=+crt-static -C strip=symbols --remap-path-prefix={}=/src{}",
        repo.display(),
        cargo_home()
            .map(|home| format!(" --remap-path-prefix={}=/cargo", home.display()))
            .unwrap_or_default(),
    );
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(repo)
        .args(["build", "--release", "--locked", "--target", TARGET, "-p", PACKAGE])
        .env("CARGO_TARGET_DIR", &target)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("RUSTFLAGS", flags);
    command::run(&mut cargo, "building the sample agent", BUILD)?;
    let binary = target.join(TARGET).join("release").join(PACKAGE);
    let binary = fs::read(&binary).with_context(|| format!("reading {}", binary.display()))?;
    layout(&binary, out)
}

/// Writes the layout of an image whose only file is `binary` as `/agent`, replacing what is at `out`.
pub fn layout(binary: &[u8], out: &Path) -> anyhow::Result<Digest> {
    if out.exists() {
        fs::remove_dir_all(out).with_context(|| format!("removing {}", out.display()))?;
    }
    fs::create_dir_all(out.join("blobs/sha256"))
        .with_context(|| format!("making {}", out.display()))?;
    let plain = archive(binary).context("packing the agent")?;
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    std::io::Write::write_all(&mut packed, &plain)?;
    let layer = blob(out, LAYER_TAR_GZIP, &packed.finish()?)?;
    let config = ImageConfig {
        architecture: "amd64".to_owned(),
        os: "linux".to_owned(),
        config: Start {
            user: Some("1000:1000".to_owned()),
            entrypoint: Some(vec!["/agent".to_owned()]),
            ..Start::default()
        },
        rootfs: RootFs { kind: "layers".to_owned(), diff_ids: vec![Digest::of(&plain)] },
    };
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(oci::MANIFEST.to_owned()),
        config: blob(out, oci::CONFIG, &serde_json::to_vec(&config)?)?,
        layers: vec![layer],
    };
    let manifest = blob(out, oci::MANIFEST, &serde_json::to_vec(&manifest)?)?;
    let digest = manifest.digest;
    json(&out.join("oci-layout"), &LayoutFile { version: LAYOUT_VERSION.to_owned() })?;
    json(&out.join("index.json"), &index(vec![manifest]))?;
    Ok(digest)
}

/// Copies every image of `layout` into the store as `<store>/<tenant>/<name>`, beside the images that are there
/// under this name, and returns the references to them.
pub fn publish(
    layout: &Path,
    store: &Path,
    tenant: TenantId,
    name: &ImageName,
) -> anyhow::Result<Vec<ImageRef>> {
    let [of_tenant, of_name] = name.layout_parts(tenant);
    let to = store.join(of_tenant).join(of_name);
    let blobs = to.join("blobs/sha256");
    fs::create_dir_all(&blobs).with_context(|| format!("making {}", blobs.display()))?;
    for blob in fs::read_dir(layout.join("blobs/sha256"))? {
        let blob = blob?;
        let there = blobs.join(blob.file_name());
        if !there.exists() {
            replace(&there, &fs::read(blob.path())?)?;
        }
    }
    let new: Index = serde_json::from_slice(&fs::read(layout.join("index.json"))?)
        .context("reading the layout's index")?;
    let references = new
        .manifests
        .iter()
        .map(|manifest| ImageRef { name: name.clone(), digest: manifest.digest })
        .collect();
    let index_file = to.join("index.json");
    let mut manifests = match fs::read(&index_file) {
        Ok(bytes) => serde_json::from_slice::<Index>(&bytes)?.manifests,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    for manifest in new.manifests {
        if !manifests.contains(&manifest) {
            manifests.push(manifest);
        }
    }
    json(&to.join("oci-layout"), &LayoutFile { version: LAYOUT_VERSION.to_owned() })?;
    // Last, so that nobody finds a manifest whose blobs are not there yet.
    json(&index_file, &index(manifests))?;
    Ok(references)
}

fn index(manifests: Vec<Descriptor>) -> Index {
    Index { schema_version: 2, media_type: Some(oci::INDEX.to_owned()), manifests }
}

/// One file, owned by root, without a time.
fn archive(binary: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(binary.len() as u64);
    header.set_mode(0o555);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    archive.append_data(&mut header, "agent", binary)?;
    archive.into_inner()
}

fn blob(layout: &Path, media_type: &str, bytes: &[u8]) -> anyhow::Result<Descriptor> {
    let digest = Digest::of(bytes);
    let path = digest.blob_parts().iter().fold(layout.to_owned(), |path, part| path.join(part));
    replace(&path, bytes)?;
    Ok(Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size: bytes.len() as u64,
        platform: None,
    })
}

fn json(path: &Path, value: &impl Serialize) -> anyhow::Result<()> {
    replace(path, &serde_json::to_vec(value)?)
}

/// Writes a file so that a reader sees the old or the new one.
fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".{}", std::process::id()));
    let aside = PathBuf::from(aside);
    fs::write(&aside, bytes)
        .and_then(|()| fs::rename(&aside, path))
        .with_context(|| format!("writing {}", path.display()))
}

fn cargo_home() -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo"));
    std::env::var_os("CARGO_HOME").map(PathBuf::from).or(home)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(name: &str) -> PathBuf {
        let dir =
            std::env::temp_dir().join(format!("gatehouse-image-{}-{name}", uuid::Uuid::new_v4()));
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// Walks a layout as the worker does.
    fn check(layout: &Path, digest: Digest) {
        let read = |parts: [String; 3]| {
            fs::read(parts.iter().fold(layout.to_owned(), |path, part| path.join(part))).unwrap()
        };
        oci::check_layout_file(&fs::read(layout.join("oci-layout")).unwrap()).unwrap();
        let index = fs::read(layout.join("index.json")).unwrap();
        let named = oci::find_manifest(&index, digest).unwrap();
        let manifest = oci::read_manifest(&named, &read(digest.blob_parts())).unwrap();
        let config = read(manifest.config.digest.blob_parts());
        let (config, layers) = oci::read_config(&manifest, &config).unwrap();
        assert_eq!(config.config.command_line().collect::<Vec<_>>(), ["/agent"]);
        oci::check_digest(
            "a layer",
            layers[0].blob,
            Digest::of(&read(layers[0].blob.blob_parts())),
        )
        .unwrap();
    }

    #[test]
    fn the_same_binary_gives_the_same_digest() {
        let (one, two, other) = (dir("one"), dir("two"), dir("other"));
        let digest = layout(b"binary", &one).unwrap();
        check(&one, digest);
        assert_eq!(layout(b"binary", &two).unwrap(), digest);
        assert_ne!(layout(b"Binary", &other).unwrap(), digest);
        for dir in [one, two, other] {
            fs::remove_dir_all(dir).unwrap();
        }
    }

    /// Whether a 64-bit ELF file has a program header of type `PT_INTERP`.
    fn wants_interpreter(elf: &[u8]) -> bool {
        let number = |at: usize, bytes: usize| {
            elf[at..at + bytes].iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
        };
        let (first, size, count) = (number(32, 8), number(54, 2), number(56, 2));
        (0..count).any(|header| number(first + header * size, 4) == 3)
    }

    #[test]
    fn the_agent_is_one_static_file_that_runs() {
        let (out, again) = (dir("built"), dir("again"));
        let repo = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let digest = build(repo, &out).unwrap();
        check(&out, digest);
        assert_eq!(build(repo, &again).unwrap(), digest);
        let binary = repo.join("target/agent").join(TARGET).join("release").join(PACKAGE);
        let bytes = fs::read(&binary).unwrap();
        assert!(!wants_interpreter(&bytes), "not static: the image has no dynamic linker");
        assert!(wants_interpreter(&fs::read("/proc/self/exe").unwrap()));
        let repo = repo.to_str().unwrap().as_bytes();
        assert!(!bytes.windows(repo.len()).any(|part| part == repo), "names this machine's paths");
        let input = r#"{"fuel":"diesel","litres":12.5}"#;
        let ran = command::run_with(&mut Command::new(binary), "the agent", BUILD, Some(input));
        assert!(ran.unwrap().contains(r#""kg_co2e":31.409875"#));
        for dir in [out, again] {
            fs::remove_dir_all(dir).unwrap();
        }
    }

    #[test]
    fn publishing_adds_to_the_tenants_own_name() {
        let (first, second, store) = (dir("first"), dir("second"), dir("store"));
        let tenant: TenantId = "0191d6b0-7c3e-7aaa-8bbb-0123456789ab".parse().unwrap();
        let name: ImageName = "fuel".parse().unwrap();
        let digests = [layout(b"1", &first).unwrap(), layout(b"2", &second).unwrap()];
        for (layout, digest) in [(&first, digests[0]), (&second, digests[1]), (&first, digests[0])]
        {
            let references = publish(layout, &store, tenant, &name).unwrap();
            assert_eq!(references, [ImageRef { name: name.clone(), digest }]);
        }
        let to = store.join("0191d6b0-7c3e-7aaa-8bbb-0123456789ab/fuel");
        for digest in digests {
            check(&to, digest);
        }
        let index: Index =
            serde_json::from_slice(&fs::read(to.join("index.json")).unwrap()).unwrap();
        assert_eq!(index.manifests.len(), 2);
        for dir in [first, second, store] {
            fs::remove_dir_all(dir).unwrap();
        }
    }
}
