//! Good layers, and what a hostile one tries.

use std::{fs, io::Write, path::Path};

use flate2::{Compression, write::GzEncoder};

use super::*;

type Add = fn(&mut tar::Builder<Vec<u8>>);

fn entry(
    archive: &mut tar::Builder<Vec<u8>>,
    kind: EntryType,
    path: &str,
    link: &str,
    data: &[u8],
) {
    let mut header = tar::Header::new_gnu();
    // Written by hand: the builder refuses some of the paths that are tried here.
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_size(data.len() as u64);
    header.set_mode(0o4755);
    header.set_uid(1000);
    header.set_gid(1000);
    header.set_mtime(0);
    header.set_cksum();
    archive.append(&header, data).unwrap();
}

fn file(archive: &mut tar::Builder<Vec<u8>>, path: &str, data: &[u8]) {
    entry(archive, EntryType::Regular, path, "", data);
}

fn link(archive: &mut tar::Builder<Vec<u8>>, path: &str, target: &str) {
    entry(archive, EntryType::Symlink, path, target, b"");
}

fn archive(add: Add) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    add(&mut archive);
    archive.into_inner().unwrap()
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(plain).unwrap();
    packed.finish().unwrap()
}

fn named(blob: &[u8], plain: &[u8], packing: Packing) -> Layer {
    let (blob_bytes, diff_id) = (blob.len() as u64, Digest::of(plain));
    Layer { blob: Digest::of(blob), blob_bytes, packing, diff_id }
}

/// The tree as lines: path, kind, content or target.
fn listing(root: &Path, below: &Path, lines: &mut Vec<String>) {
    let mut entries: Vec<_> = fs::read_dir(below).unwrap().map(|entry| entry.unwrap()).collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let shown = path.strip_prefix(root).unwrap().display().to_string();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            lines.push(format!("{shown}/"));
            listing(root, &path, lines);
        } else if kind.is_symlink() {
            lines.push(format!("{shown} -> {}", fs::read_link(&path).unwrap().display()));
        } else {
            lines.push(format!("{shown}={}", fs::read_to_string(&path).unwrap()));
        }
    }
}

fn unpack(layers: &[Add], bounds: &mut Bounds) -> (Result<(), Error>, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    fs::write(dir.path().join("outside"), "untouched").unwrap();
    let tree = Tree::open(&root).unwrap();
    let result = layers.iter().try_for_each(|add| {
        let plain = archive(*add);
        let blob = gzip(&plain);
        layer(&named(&blob, &plain, Packing::TarGzip), blob.as_slice(), &tree, bounds)
    });
    let mut lines = Vec::new();
    listing(&root, &root, &mut lines);
    assert_eq!(fs::read_to_string(dir.path().join("outside")).unwrap(), "untouched");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "something new lies outside");
    (result, lines)
}

fn check(layers: &[Add], expected: Result<&[&str], &str>) {
    let (result, lines) = unpack(layers, &mut Bounds::default());
    match (result, expected) {
        (Ok(()), Ok(expected)) => assert_eq!(lines, expected),
        (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
        (result, expected) => panic!("{result:?}, expected {expected:?}"),
    }
}

#[test]
fn layers_lie_over_each_other() {
    check(
        &[
            |a| {
                entry(a, EntryType::Directory, "./usr/bin/", "", b"");
                file(a, "./usr/bin/tool", b"1");
                link(a, "bin", "usr/bin");
                file(a, "/etc/name", b"old");
            },
            |a| {
                file(a, "bin/other", b"2");
                file(a, "etc/name", b"new");
                entry(a, EntryType::Link, "etc/same", "usr/bin/tool", b"");
            },
        ],
        Ok(&[
            "bin -> usr/bin",
            "etc/",
            "etc/name=new",
            "etc/same=1",
            "usr/",
            "usr/bin/",
            "usr/bin/other=2",
            "usr/bin/tool=1",
        ]),
    );
}

#[test]
fn whiteouts_hide_what_lies_below() {
    let lower: Add = |a| {
        file(a, "a/one", b"1");
        file(a, "a/deep/two", b"2");
        file(a, "b/three", b"3");
    };
    check(&[lower, |a| file(a, "a/.wh.deep", b"")], Ok(&["a/", "a/one=1", "b/", "b/three=3"]));
    check(
        &[lower, |a| {
            file(a, "a/new", b"n");
            file(a, "a/.wh..wh..opq", b"");
            file(a, "a/later", b"l");
        }],
        Ok(&["a/", "a/later=l", "a/new=n", "b/", "b/three=3"]),
    );
    check(&[lower, |a| file(a, "a/.wh.", b"")], Err("hides no name"));
    check(&[lower, |a| file(a, "a/.wh...", b"")], Err("hides no name"));
    check(&[|a| file(a, ".wh.never-there", b"")], Ok(&[]));
}

#[test]
fn nothing_is_written_outside_of_the_tree() {
    check(&[|a| file(a, "../outside", b"x")], Err("leads upwards"));
    check(&[|a| file(a, "a/../../outside", b"x")], Err("leads upwards"));
    check(
        &[|a| link(a, "up", "../.."), |a| file(a, "up/evil", b"x")],
        Ok(&["evil=x", "up -> ../.."]),
    );
    let absolute: Add = |a| link(a, "etc", "/../../../../tmp");
    check(&[absolute, |a| file(a, "etc/evil", b"x")], Err("/etc/evil"));
    check(&[|a| link(a, "out", "../outside"), |a| file(a, "out", b"x")], Ok(&["out=x"]));
    check(&[|a| entry(a, EntryType::Link, "mine", "../outside", b"")], Err("leads upwards"));
    check(
        &[|a| link(a, "out", "../outside"), |a| entry(a, EntryType::Link, "mine", "out", b"")],
        Err("not a file"),
    );
    check(&[|a| link(a, "d", ".."), |a| file(a, "d/.wh.outside", b"")], Ok(&["d -> .."]));
}

#[test]
fn special_files_refuse_the_image() {
    for add in [
        (|a| entry(a, EntryType::Char, "null", "", b"")) as Add,
        |a| entry(a, EntryType::Block, "disk", "", b""),
        |a| entry(a, EntryType::Fifo, "pipe", "", b""),
    ] {
        check(&[add], Err("are not supported"));
    }
}

#[test]
fn bits_that_give_rights_are_dropped() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let dir = tempfile::tempdir().unwrap();
    let tree = Tree::open(dir.path()).unwrap();
    let plain = archive(|a| file(a, "tool", b"x"));
    let named = named(&plain, &plain, Packing::Tar);
    layer(&named, plain.as_slice(), &tree, &mut Bounds::default()).unwrap();
    let meta = fs::metadata(dir.path().join("tool")).unwrap();
    assert_eq!((meta.permissions().mode() & 0o7777, meta.uid()), (0o755, 1000));
}

#[test]
fn a_layer_that_is_not_the_named_one_is_refused() {
    let plain = archive(|a| file(a, "a", b"good"));
    let other = archive(|a| file(a, "a", b"evil"));
    let (blob, evil) = (gzip(&plain), gzip(&other));
    let good = named(&blob, &plain, Packing::TarGzip);
    let mut longer = blob.clone();
    longer.push(0);
    let cut = &blob[..blob.len() - 9];
    let wrong_archive = Layer { diff_id: Digest::of(b"x"), ..good };
    for (layer_named, bytes, part) in [
        (good, blob.as_slice(), None),
        (good, evil.as_slice(), Some("")),
        (named(&plain, &plain, Packing::Tar), other.as_slice(), Some("a layer has digest")),
        (good, longer.as_slice(), Some("")),
        (good, cut, Some("")),
        (wrong_archive, blob.as_slice(), Some("a layer's archive has digest")),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        let result = layer(&layer_named, bytes, &tree, &mut Bounds::default());
        match (result, part) {
            (Ok(()), None) => {}
            (Err(error), Some(part)) => assert!(error.to_string().contains(part), "{error}"),
            (result, part) => panic!("{result:?}, expected {part:?}"),
        }
    }
}

#[test]
fn an_image_is_bounded_in_bytes_and_entries() {
    let big: Add = |a| file(a, "zeros", &[0; 100_000]);
    let few = Bounds { bytes: 50_000, entries: 10 };
    let (result, _) = unpack(&[big], &mut few.clone());
    assert!(result.unwrap_err().to_string().contains("50000 bytes"));
    let (result, _) = unpack(&[big], &mut Bounds { bytes: 200_000, entries: 10 });
    result.unwrap();
    let (result, _) = unpack(&[big, big], &mut Bounds { bytes: 150_000, entries: 10 });
    assert!(result.is_err());
    let two: Add = |a| {
        file(a, "1", b"");
        file(a, "2", b"");
    };
    unpack(&[two], &mut Bounds { bytes: 100_000, entries: 2 }).0.unwrap();
    let (result, _) = unpack(&[two], &mut Bounds { bytes: 100_000, entries: 1 });
    assert!(result.unwrap_err().to_string().contains("too many entries"));
}
