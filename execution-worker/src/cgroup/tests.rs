//! Version 2 against a folder that looks like its tree, version 1 against the kernel of this machine where it
//! has it. What the limits do to a real sandbox is tested with runsc.

use std::fs;

use super::*;

fn limits() -> Limits {
    Limits { cpu_millis: 500, memory_bytes: 64 << 20, host_pids: 99, ..Limits::default() }
}

/// A folder in which groups look like the kernel's: files appear by being written.
fn fake_v2() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("cgroup.controllers"), "cpuset cpu io memory pids\n").unwrap();
    root
}

#[test]
fn version_2_gets_its_limits_in_its_own_files() {
    let root = fake_v2();
    let groups = Groups::open(root.path(), "w1").unwrap();
    assert_eq!(groups.version(), 2);
    let group = groups.create("run", &limits()).unwrap();
    assert_eq!(group.runtime_path(), "/gatehouse/w1/run");
    for (file, value) in [
        ("cgroup.subtree_control", "+memory +cpu +pids"),
        ("gatehouse/cgroup.subtree_control", "+memory +cpu +pids"),
        ("gatehouse/w1/cgroup.subtree_control", "+memory +cpu +pids"),
        ("gatehouse/w1/run/memory.max", "67108864"),
        ("gatehouse/w1/run/cpu.max", "50000 100000"),
        ("gatehouse/w1/run/pids.max", "99"),
    ] {
        assert_eq!(fs::read_to_string(root.path().join(file)).unwrap(), value, "{file}");
    }
    // The group itself hands nothing down: it holds processes.
    assert!(!root.path().join("gatehouse/w1/run/cgroup.subtree_control").exists());
    assert_eq!(groups.left().unwrap(), ["run"]);
}

#[test]
fn version_2_counts_come_from_its_own_files() {
    let root = fake_v2();
    let groups = Groups::open(root.path(), "w1").unwrap();
    let group = groups.create("run", &limits()).unwrap();
    assert_eq!(group.usage(), Usage::default());
    for (file, value) in [
        ("memory.events", "low 0\nhigh 0\nmax 12\noom 2\noom_kill 1\noom_group_kill 1\n"),
        ("pids.events", "max 3\n"),
        ("cpu.stat", "usage_usec 4500\nuser_usec 4000\n"),
        ("memory.peak", "67108864\n"),
    ] {
        fs::write(root.path().join("gatehouse/w1/run").join(file), value).unwrap();
    }
    let expected = Usage {
        oom_kills: 1,
        pids_refused: 3,
        cpu_us: 4500,
        memory_peak_bytes: 64 << 20,
        ..Usage::default()
    };
    assert_eq!(group.usage(), expected);
}

#[test]
fn a_tree_without_the_controllers_is_refused() {
    let empty = tempfile::tempdir().unwrap();
    let refused = Groups::open(empty.path(), "w1");
    assert!(matches!(refused, Err(Error::Unsupported(_))), "{refused:?}");
    fs::write(empty.path().join("cgroup.controllers"), "cpuset io\n").unwrap();
    let refused = Groups::open(empty.path(), "w1");
    assert!(matches!(refused, Err(Error::Unsupported(_))), "{refused:?}");
}

#[tokio::test]
async fn a_group_of_this_kernel_is_made_limited_and_removed() {
    let worker = format!("test-{}", uuid::Uuid::new_v4());
    let groups = Groups::open(Path::new(ROOT), &worker).unwrap();
    let group = groups.create("run", &limits()).unwrap();
    assert_eq!(groups.left().unwrap(), ["run"]);
    let other = groups.create("other", &limits()).unwrap();
    group.kill(Duration::from_secs(1)).await.unwrap();
    group.remove(Duration::from_secs(1)).await.unwrap();
    assert_eq!(groups.left().unwrap(), ["other"]);
    other.remove(Duration::from_secs(1)).await.unwrap();
    groups.close().unwrap();
    let family = Path::new(ROOT).join("pids").join(FAMILY).join(&worker);
    assert!(!family.exists() && !Path::new(ROOT).join(FAMILY).join(&worker).exists());
}
