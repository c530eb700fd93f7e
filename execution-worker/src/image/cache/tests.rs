//! What stays, what goes, and what a crash leaves.

use super::*;

fn name(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

fn open(home: &Path, budget: u64) -> Cache {
    let cache = Cache::new(home.to_owned(), budget);
    cache.stock().unwrap();
    cache
}

fn keep_layer(cache: &Cache, text: &str) -> io::Result<()> {
    let aside = cache.aside().unwrap();
    fs::write(&aside, text).unwrap();
    cache.keep_layer(name(text), &aside)
}

fn keep_root(cache: &Cache, text: &str, bytes: u64) -> io::Result<(PathBuf, Held)> {
    let aside = cache.aside().unwrap();
    fs::create_dir_all(aside.join("rootfs")).unwrap();
    fs::write(aside.join("rootfs/file"), text).unwrap();
    cache.keep_root(name(text), bytes, &aside)
}

/// The files below `cache`'s folder, by how many there are of each kind.
fn found(home: &Path) -> [usize; 3] {
    ["layers", "roots", "aside"].map(|folder| fs::read_dir(home.join(folder)).unwrap().count())
}

#[test]
fn what_was_used_longest_ago_goes_and_never_what_is_in_use() {
    let home = tempfile::tempdir().unwrap();
    let cache = open(home.path(), 100);
    let (path, held) = keep_root(&cache, "first", 40).unwrap();
    drop(keep_root(&cache, "second", 40).unwrap());
    keep_layer(&cache, "0123456789").unwrap();
    assert!(cache.layer(name("0123456789")).is_some());
    // The first one is the oldest, and in use: the second goes.
    drop(keep_root(&cache, "third", 40).unwrap());
    assert!(path.join("file").is_file() && cache.root(name("second")).is_none());
    assert_eq!(cache.standing(), Standing { bytes: 90, budget: 100, evicted: 1 });
    // What is just too much for what can go.
    let refused = keep_root(&cache, "large", 61).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
    assert!(path.join("file").is_file());
    drop(held);
    drop(keep_root(&cache, "large", 100).unwrap());
    assert_eq!(cache.standing().bytes, 100);
    assert!(!path.exists());
}

#[test]
fn a_start_finds_what_is_whole_and_removes_what_is_not() {
    let home = tempfile::tempdir().unwrap();
    let cache = open(home.path(), 1000);
    keep_layer(&cache, "layer").unwrap();
    drop(keep_root(&cache, "root", 10).unwrap());
    drop(cache);
    // A crash while one was unpacked, one that lost its size, something of an earlier version.
    fs::create_dir_all(home.path().join("aside/half/rootfs")).unwrap();
    fs::create_dir_all(home.path().join(format!("roots/{}/rootfs", name("other").hex()))).unwrap();
    fs::create_dir_all(home.path().join(name("old").hex()).join("rootfs")).unwrap();
    let cache = open(home.path(), 1000);
    assert_eq!((found(home.path()), cache.standing().bytes), ([1, 1, 0], 15));
    assert!(cache.root(name("other")).is_none() && cache.root(name("root")).is_some());
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 3);
    drop(cache);
    // A smaller budget is kept from the start on.
    let cache = open(home.path(), 12);
    assert!(cache.standing().bytes <= 12, "{:?}", cache.standing());
}

#[test]
fn what_is_kept_twice_is_kept_once() {
    let home = tempfile::tempdir().unwrap();
    let cache = open(home.path(), 1000);
    for _ in 0..2 {
        keep_layer(&cache, "layer").unwrap();
        drop(keep_root(&cache, "root", 10).unwrap());
    }
    assert_eq!((found(home.path()), cache.standing().bytes), ([1, 1, 0], 15));
}
