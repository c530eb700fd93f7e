//! One good image, and each way in which it can be wrong.

use super::*;

const TAR: &[u8] = b"not really a tar";

fn descriptor(media_type: &str, bytes: &[u8]) -> Descriptor {
    let size = bytes.len() as u64;
    Descriptor {
        media_type: media_type.to_owned(),
        digest: Digest::of(bytes),
        size,
        platform: None,
    }
}

fn good_config() -> ImageConfig {
    ImageConfig {
        architecture: "amd64".to_owned(),
        os: "linux".to_owned(),
        config: Start {
            entrypoint: Some(vec!["/agent".to_owned()]),
            cmd: Some(vec!["-v".to_owned()]),
            ..Start::default()
        },
        rootfs: RootFs { kind: "layers".to_owned(), diff_ids: vec![Digest::of(TAR)] },
    }
}

fn good_manifest(config: &[u8]) -> Manifest {
    Manifest {
        schema_version: 2,
        media_type: Some(MANIFEST.to_owned()),
        config: descriptor(CONFIG, config),
        layers: vec![descriptor(LAYER_TAR_GZIP, b"packed")],
    }
}

/// Walks from the index to the layers, as the worker does.
fn check(
    change_config: impl FnOnce(&mut ImageConfig),
    change_manifest: impl FnOnce(&mut Manifest),
    change_index: impl FnOnce(&mut Index),
    expected: Result<(), &str>,
) {
    let mut config = good_config();
    change_config(&mut config);
    let config = serde_json::to_vec(&config).unwrap();
    let mut manifest = good_manifest(&config);
    change_manifest(&mut manifest);
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let mut index = Index {
        schema_version: 2,
        media_type: None,
        manifests: vec![descriptor(MANIFEST, b"another"), descriptor(MANIFEST, &manifest)],
    };
    change_index(&mut index);
    let index = serde_json::to_vec(&index).unwrap();
    let walked = find_manifest(&index, Digest::of(&manifest))
        .and_then(|named| read_manifest(&named, &manifest))
        .and_then(|manifest| read_config(&manifest, &config));
    let shown = walked.as_ref().map(|_| ()).map_err(ToString::to_string);
    match (&shown, expected) {
        (Ok(()), Ok(())) => {}
        (Err(message), Err(part)) if message.contains(part) => {}
        _ => panic!("{shown:?}, expected {expected:?}"),
    }
    if let Ok((config, layers)) = walked {
        assert_eq!(config.config.command_line().collect::<Vec<_>>(), ["/agent", "-v"]);
        assert_eq!(layers[0].packing, Packing::TarGzip);
        assert_eq!(layers[0].diff_id, Digest::of(TAR));
    }
}

#[test]
fn a_good_image_is_taken() {
    check(|_| {}, |_| {}, |_| {}, Ok(()));
}

#[test]
fn a_wrong_configuration_is_refused() {
    type Change = fn(&mut ImageConfig);
    let table: [(Change, &str); 6] = [
        (|c| c.architecture = "arm64".to_owned(), "linux/arm64"),
        (|c| c.os = "windows".to_owned(), "windows/amd64"),
        (|c| c.rootfs.kind = "squashfs".to_owned(), "rootfs type"),
        (|c| c.rootfs.diff_ids.clear(), "lists 1 layers, the configuration 0"),
        (|c| c.config = Start::default(), "no entry point"),
        (|c| c.config.working_dir = Some("x".repeat(1 << 20)), "bytes"),
    ];
    for (change, part) in table {
        check(change, |_| {}, |_| {}, Err(part));
    }
}

#[test]
fn a_wrong_manifest_is_refused() {
    type Change = fn(&mut Manifest);
    let zstd = "application/vnd.oci.image.layer.v1.tar+zstd";
    assert_ne!(zstd, LAYER_TAR_GZIP);
    let table: [(Change, &str); 6] = [
        (|m| m.schema_version = 1, "schemaVersion 1"),
        (|m| m.media_type = Some(INDEX.to_owned()), "not supported"),
        (|m| m.config.media_type = "application/json".to_owned(), "not supported"),
        (|m| m.config.digest = Digest::of(b"other"), "the configuration has digest"),
        (|m| m.config.size += 1, "its descriptor says"),
        (|m| m.layers = vec![m.layers[0].clone(); MAX_LAYERS + 1], "65 layers"),
    ];
    for (change, part) in table {
        check(|_| {}, change, |_| {}, Err(part));
    }
    check(|_| {}, |m| m.layers[0].media_type = zstd.to_owned(), |_| {}, Err("tar+zstd"));
}

#[test]
fn a_manifest_that_the_index_does_not_list_is_refused() {
    type Change = fn(&mut Index);
    let table: [(Change, &str); 5] = [
        (|i| i.manifests.truncate(1), "does not list"),
        (|i| i.schema_version = 1, "schemaVersion 1"),
        (|i| i.manifests[1].media_type = INDEX.to_owned(), "not supported"),
        (|i| i.manifests[1].size += 1, "its descriptor says"),
        (|i| i.manifests[1].size = MAX_DOCUMENT_BYTES + 1, "malformed"),
    ];
    for (change, part) in table {
        check(|_| {}, |_| {}, change, Err(part));
    }
}

#[test]
fn changed_bytes_are_refused() {
    let named = descriptor(LAYER_TAR, TAR);
    assert_eq!(check_blob("a layer", &named, TAR), Ok(()));
    let mut changed = TAR.to_vec();
    changed[0] ^= 1;
    let refused = check_blob("a layer", &named, &changed);
    assert!(matches!(refused, Err(Refused::DigestMismatch { .. })), "{refused:?}");
}

#[test]
fn the_layout_file_states_its_version() {
    assert_eq!(check_layout_file(br#"{"imageLayoutVersion":"1.0.0"}"#), Ok(()));
    for bad in [&br#"{"imageLayoutVersion":"2.0.0"}"#[..], b"{}", b""] {
        assert!(check_layout_file(bad).is_err());
    }
}

#[test]
fn of_an_index_this_machines_manifest_is_taken() {
    let of = |os: &str, architecture: &str, bytes: &[u8]| Descriptor {
        platform: Some(Platform { architecture: architecture.to_owned(), os: os.to_owned() }),
        ..descriptor(MANIFEST, bytes)
    };
    let index = |manifests: Vec<Descriptor>, media_type: Option<&str>| {
        let media_type = media_type.map(str::to_owned);
        serde_json::to_vec(&Index { schema_version: 2, media_type, manifests }).unwrap()
    };
    let all = vec![
        of("linux", "arm64", b"arm"),
        of("linux", "amd64", b"ours"),
        descriptor(MANIFEST, b"none"),
    ];
    for media_type in [None, Some(INDEX), Some(DOCKER[1])] {
        let bytes = index(all.clone(), media_type);
        assert!(is_index(&bytes), "{media_type:?}");
        assert_eq!(find_platform(Digest::of(&bytes), &bytes).unwrap().digest, Digest::of(b"ours"));
        let other = find_platform(Digest::of(b"another"), &bytes).unwrap_err();
        assert!(matches!(other, Refused::DigestMismatch { .. }), "{other}");
    }
    let bytes = index(vec![of("linux", "arm64", b"arm"), of("windows", "amd64", b"win")], None);
    let refused = find_platform(Digest::of(&bytes), &bytes).unwrap_err().to_string();
    assert!(refused.contains("linux/arm64, windows/amd64"), "{refused}");
    let bytes = index(vec![of("linux", "amd64", b"x")], Some(MANIFEST));
    assert!(!is_index(&bytes) && find_platform(Digest::of(&bytes), &bytes).is_err());
    let manifest = serde_json::to_vec(&good_manifest(b"{}")).unwrap();
    assert!(!is_index(&manifest) && !is_index(b"no json"));
}

#[test]
fn dockers_names_of_the_same_things_are_taken() {
    let config = serde_json::to_vec(&good_config()).unwrap();
    let mut manifest = good_manifest(&config);
    manifest.media_type = Some(DOCKER[0].to_owned());
    manifest.config.media_type = DOCKER[2].to_owned();
    manifest.layers[0].media_type = DOCKER[3].to_owned();
    let bytes = serde_json::to_vec(&manifest).unwrap();
    let read = read_manifest(&descriptor(DOCKER[0], &bytes), &bytes).unwrap();
    assert_eq!(read_config(&read, &config).unwrap().1[0].packing, Packing::TarGzip);
}
