//! The control of the escape suite: the same attempts in a container that keeps little back, to see that each of them
//! bites. Plain runc, root with all capabilities, a writable root, every device, the processes and the network of whoever
//! starts it. What the machine must not lose is bounded all the same: memory, tasks, time, disk.

use std::{
    fs,
    io::Read,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::mpsc,
    time::Duration,
};

use gatehouse_execution::Limits;
use gatehouse_execution_worker::cgroup::{Groups, ROOT};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{part, rootfs};

/// More than any attempt needs.
const MEMORY_BYTES: u64 = 640 << 20;
const TASKS: u32 = 400;
const SECONDS: &str = "60";
/// Of each place that is written to; more than a run of ours may have.
const PLACE: &str = "size=192m,nr_inodes=200000,mode=1777";

/// What a run of the control left.
pub struct Ended {
    pub output: Output,
    /// The result file, as somebody reads it who thinks no evil.
    pub result: Option<Vec<u8>>,
}

/// A place that is unmounted when it is not needed any more.
struct Place(PathBuf);

impl Place {
    fn make(path: PathBuf) -> Self {
        fs::create_dir(&path).unwrap();
        let status =
            Command::new("mount").args(["-t", "tmpfs", "-o", PLACE, "none"]).arg(&path).status();
        assert!(status.unwrap().success(), "no tmpfs at {}", path.display());
        Self(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(&self.0).status());
    }
}

/// Runs the agent with `args` in the control.
pub async fn run(args: &[&str]) -> Ended {
    let dir = tempfile::tempdir().unwrap();
    let (root, id) = (dir.path().join("root"), format!("control-{}", Uuid::new_v4()));
    furnish(&root);
    let (exchange, scratch) =
        (Place::make(dir.path().join("agent")), Place::make(dir.path().join("scratch")));
    fs::write(exchange.0.join("input.json"), "{}").unwrap();
    let groups = Groups::open(Path::new(ROOT), &id).unwrap();
    let limits = Limits {
        memory_bytes: MEMORY_BYTES,
        host_pids: TASKS,
        cpu_millis: 1000,
        ..Limits::default()
    };
    let group = groups.create("run", &limits).unwrap();
    let document = document(&root, &exchange.0, &scratch.0, &group.runtime_path(), args);
    fs::write(dir.path().join("config.json"), document.to_string()).unwrap();
    let output = tokio::process::Command::new("timeout")
        .args(["--signal=KILL", SECONDS])
        .arg(part("GATEHOUSE_TEST_RUNC"))
        .arg("--root")
        .arg(dir.path().join("state"))
        .args(["run", "--bundle"])
        .arg(dir.path())
        .arg(&id)
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    group.kill(Duration::from_secs(10)).await.unwrap();
    group.remove(Duration::from_secs(10)).await.unwrap();
    groups.close().unwrap();
    let result = read_trustingly(&exchange.0.join("output.json"));
    Ended { output, result }
}

/// A root of its own, since the agent may write there.
fn furnish(root: &Path) {
    for name in ["proc", "dev", "sys", "tmp", "run/agent", "open"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    for name in ["agent", "suid"] {
        fs::copy(rootfs().join(name), root.join(name)).unwrap();
    }
    fs::set_permissions(root.join("suid"), fs::Permissions::from_mode(0o4755)).unwrap();
}

fn document(root: &Path, exchange: &Path, scratch: &Path, group: &str, args: &[&str]) -> Value {
    let all = capabilities();
    let args: Vec<&str> = [&["/agent"], args].concat();
    let bind = |to: &str, from: &Path| json!({"destination": to, "type": "bind", "source": from, "options": ["bind", "rw"]});
    json!({
        "ociVersion": "1.0.2",
        "root": {"path": root, "readonly": false},
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": args,
            "env": ["PATH=/"],
            "cwd": "/",
            "noNewPrivileges": false,
            "capabilities": {
                "bounding": all, "effective": all, "inheritable": all, "permitted": all,
                "ambient": all,
            },
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["size=65536"]},
            bind("/tmp", scratch),
            bind("/run/agent", exchange),
        ],
        "linux": {
            "cgroupsPath": group,
            "namespaces": [{"type": "mount"}],
            "resources": {"devices": [{"allow": true, "access": "rwm"}]},
        },
    })
}

/// Follows links, waits for whoever writes into a pipe, reads whatever a device gives, up to 1 MiB.
fn read_trustingly(path: &Path) -> Option<Vec<u8>> {
    fs::symlink_metadata(path).ok()?;
    let (done, result) = mpsc::channel();
    let at = path.to_owned();
    let reading = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = fs::File::open(at).map(|file| file.take(1 << 20).read_to_end(&mut bytes));
        drop(read);
        done.send(bytes)
    });
    let found = result.recv_timeout(Duration::from_millis(500));
    if found.is_err() {
        // It waits for a writer: here is one, which says how long it would have waited.
        drop(fs::OpenOptions::new().write(true).custom_flags(0o4000).open(path));
        drop(reading.join());
        return Some(b"waited for ever".to_vec());
    }
    found.ok()
}

/// Of those that the test has itself, which need not be all.
fn capabilities() -> Vec<String> {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let own = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    let own = u64::from_str_radix(own.trim(), 16).unwrap();
    let names = CAPABILITIES.split_whitespace().enumerate();
    names.filter(|(bit, _)| own >> bit & 1 == 1).map(|(_, name)| format!("CAP_{name}")).collect()
}

/// In the order of their numbers (capabilities(7)).
const CAPABILITIES: &str = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE \
    NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO \
    SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG \
    MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG \
    WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE";
