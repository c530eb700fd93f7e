//! The escape suite (PIS-005): what a hostile agent tries from inside, under the driver with both versions of runsc, and,
//! as the control that shows that each attempt bites, under plain runc. The table of all that is part of
//! `docs/sandbox.md`, which this test compares; `UPDATE_GOLDEN=1` writes it.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::Write as _,
    net::TcpListener,
    os::{linux::net::SocketAddrExt, unix::net},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use gatehouse_execution::{EndReason, Limits, outcome::Run};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use serde_json::Value;
use tempfile::TempDir;
use uuid::Uuid;

use crate::{
    control,
    support::{Bench, limits, part, runsc},
};

/// What is tried, and what it would mean: the attempt's name in the agent, and for people.
const ATTEMPTS: &[(&str, &str)] = &[
    ("mount", "mount a file system"),
    ("write_image", "write into the image, or remount it for that"),
    ("release_agent", "have the host run a program when a control group is empty"),
    ("core_pattern", "have the host run a program when a process crashes"),
    ("sysrq", "`/proc/sysrq-trigger`"),
    ("host_path", "read a file of the host by its path"),
    ("dotdot", "the same from the mount of the bundle, by `..`"),
    ("proc_root", "the same through `/proc/<a process>/root`"),
    ("other_tenant", "read another tenant's input"),
    ("file_handle", "open the host's root by its file handle"),
    ("host_mounts", "enter the host's mount namespace"),
    ("host_processes", "see a process of the host"),
    ("signal", "send it a signal"),
    ("ptrace", "trace it"),
    ("foreign_memory", "read its memory"),
    ("foreign_file", "take a file that it has open"),
    ("kmsg", "make and read the device of the host's log"),
    ("mem", "the same with `/dev/mem`"),
    ("kvm", "the same with `/dev/kvm`"),
    ("disk", "the same with the host's disk"),
    ("raw_socket", "a raw socket"),
    ("packet_socket", "a packet socket"),
    ("vsock", "a socket to the hypervisor"),
    ("metadata", "ask the cloud's metadata at 169.254.169.254"),
    ("host_service", "ask a service of the host's loopback"),
    ("abstract_socket", "connect to an abstract socket of the host"),
    ("bpf", "`bpf`"),
    ("keyring", "the kernel's keyring"),
    ("perf", "`perf_event_open` on every process"),
    ("module", "load a module of the kernel"),
    ("kexec", "boot another kernel"),
    ("reboot", "restart the machine"),
    ("kernel_log", "read the log of the host's kernel"),
    ("host_kernel", "talk to the host's kernel at all"),
    ("io_uring", "`io_uring`"),
    ("setuid", "become root by a setuid program of the image"),
    ("capabilities", "take `CAP_SYS_ADMIN`"),
    (
        "user_namespace",
        "image, input, host, devices, groups as the root of a user namespace of its own",
    ),
    ("namespaced_packet", "a raw socket as the same"),
    ("raise_limits", "raise its own limits"),
    ("change_input", "change its input"),
];

/// Other things than a file in the place of the result.
const RESULTS: &[(&str, &str)] = &[
    ("link", "a link to a file of the host as the result"),
    ("pipe", "a pipe as the result, for the worker to wait at"),
    ("device", "a device without an end as the result"),
    ("directory", "a directory as the result"),
];

/// Of what a bomb takes too much: its name, how much that is, what the reason may be, and for people.
const BOMBS: &[(&str, usize, &[EndReason], &str)] = &[
    ("processes", 100, &[EndReason::Failed, EndReason::Pids], "100 processes where 64 are allowed"),
    ("files", 1200, &[EndReason::Failed], "1200 open files where 1024 are allowed"),
    ("memory", 160, &[EndReason::OomKilled], "160 MiB where 128 are allowed"),
    ("sparse", 160, &[EndReason::OomKilled], "the same, a page here and there of 1 TiB"),
    ("page_cache", 160, &[EndReason::OomKilled], "the same as files that are read again"),
    ("scratch", 48, &[EndReason::DiskFull], "48 MiB of scratch space where 32 are allowed"),
    ("exchange", 24, &[EndReason::DiskFull], "24 MiB beside the result where 16 are allowed"),
    ("inodes", 70_000, &[EndReason::DiskFull], "70 000 files where 65 536 are allowed"),
];

/// Where the control holds too, or may, and why.
const EXCUSES: &[(&str, &str)] = &[
    ("host_path", "runc moves the root as well"),
    ("dotdot", "runc moves the root as well"),
    ("directory", "who reads a directory is refused"),
    ("sysrq", "where the kernel has it"),
    ("mem", "where the kernel has it"),
    ("module", "where the kernel loads modules"),
    ("kexec", "where the kernel has it"),
    ("disk", "where the machine lets its root"),
    ("kvm", "where the machine has it"),
    ("vsock", "where the kernel has it"),
    ("namespaced_packet", "its network is the host's, over which its own root has no right"),
];

/// What lies outside of the sandbox to be found.
struct Grounds {
    secret: PathBuf,
    victim: Child,
    args: Vec<String>,
    _dir: TempDir,
    _abstract: net::UnixListener,
}

/// `through: …` or `held: …` by attempt.
type Said = BTreeMap<String, String>;

impl Grounds {
    /// In a network of the test's own, whose loopback the control shares.
    fn lay_out(other: &Path) -> Self {
        own_network();
        let dir = tempfile::tempdir().unwrap();
        let proof = Uuid::new_v4().simple().to_string();
        let secret = dir.path().join("secret");
        fs::write(&secret, &proof).unwrap();
        fs::write(other, &proof).unwrap();
        let marker = format!("600.{}", Uuid::new_v4().as_u128() % 1_000_000);
        let victim = Command::new("sleep").arg(&marker).stdin(Stdio::null()).spawn().unwrap();
        let service = serve("127.0.0.1:0");
        serve("169.254.169.254:80");
        let name = Uuid::new_v4().to_string();
        let address = net::SocketAddr::from_abstract_name(&name).unwrap();
        let listener = net::UnixListener::bind_addr(&address).unwrap();
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let disk = rustix::fs::stat(dir.path()).unwrap().st_dev;
        let args = [
            ("secret", secret.display().to_string()),
            ("other", other.display().to_string()),
            ("proof", proof),
            ("victim", victim.id().to_string()),
            ("marker", marker),
            ("service", service),
            ("abstract", name),
            ("release", release.trim().to_owned()),
            ("major", rustix::fs::major(disk).to_string()),
            ("minor", rustix::fs::minor(disk).to_string()),
        ];
        let args = args.map(|(name, value)| format!("{name}={value}")).to_vec();
        Self { secret, victim, args, _dir: dir, _abstract: listener }
    }

    fn args<'a>(&'a self, line: &[&'a str]) -> Vec<&'a str> {
        line.iter().copied().chain(self.args.iter().map(String::as_str)).collect()
    }
}

impl Drop for Grounds {
    fn drop(&mut self) {
        drop(self.victim.kill());
        drop(self.victim.wait());
    }
}

/// This thread's network becomes one of its own, with a loopback that has the address of the cloud's metadata, too.
fn own_network() {
    // SAFETY: NEWNET does not un-share the file table, which is what makes unsharing unsafe.
    #[expect(
        unsafe_code,
        reason = "rustix offers unsharing as unsafe only, because of another flag"
    )]
    unsafe {
        unshare_unsafe(UnshareFlags::NEWNET).unwrap();
    }
    for line in ["link set lo up", "address add 169.254.169.254/32 dev lo"] {
        assert!(Command::new("ip").args(line.split(' ')).status().unwrap().success(), "ip {line}");
    }
}

/// Greets whoever connects, until the test is over.
fn serve(at: &str) -> String {
    let listener = TcpListener::bind(at).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            drop((&stream).write_all(b"a service of the host"));
        }
    });
    address
}

fn small() -> Limits {
    Limits { memory_bytes: 128 << 20, scratch_bytes: 32 << 20, ..limits() }
}

/// Everything, under the driver.
async fn driven(runsc: &Path, grounds: &Grounds) -> Said {
    let bench = Bench::with_runsc(runsc).await;
    let run = bench.run(&grounds.args(&["escape"]), &limits()).await;
    let output = run.outcome().output.unwrap_or_else(|| panic!("{run:?}"));
    let mut said = read(&output);
    for (kind, _) in RESULTS {
        let secret = grounds.secret.to_str().unwrap();
        let run = bench.run(&["result", kind, secret], &limits()).await;
        let taken = run.result_file.as_ref().map_or(0, |file| file.bytes.len());
        let reason = run.outcome().reason;
        let verdict =
            if taken == 0 && reason == EndReason::OutputInvalid { "held" } else { "through" };
        said.insert((*kind).to_owned(), format!("{verdict}: {reason}"));
    }
    for (what, most, reasons, _) in BOMBS {
        let limits = match *what {
            "page_cache" | "inodes" => {
                Limits { scratch_bytes: 256 << 20, memory_bytes: 128 << 20, ..limits() }
            }
            _ => small(),
        };
        let run = bench.run(&["bomb", what, &most.to_string()], &limits).await;
        let peak = run.usage.memory_peak_bytes;
        assert!(peak <= limits.memory_bytes, "{what} took {peak} bytes of the machine");
        said.insert(format!("bomb {what}"), judge(&run, reasons));
    }
    said
}

fn judge(run: &Run, reasons: &[EndReason]) -> String {
    if !reasons.contains(&run.outcome().reason) {
        return format!("through: {run:?}");
    }
    let reasons: Vec<String> = reasons.iter().map(|reason| format!("`{reason}`")).collect();
    format!("held: {}", reasons.join(" or "))
}

/// Everything, in the control.
async fn controlled(grounds: &Grounds) -> Said {
    let ended = control::run(&grounds.args(&["escape"])).await;
    let text = String::from_utf8_lossy(&ended.output.stdout).into_owned();
    let line = text.lines().last().unwrap_or_else(|| panic!("{:?}", ended.output));
    let mut said = read(&serde_json::from_str(line).unwrap());
    let proof = fs::read(&grounds.secret).unwrap();
    for (kind, _) in RESULTS {
        let ended = control::run(&["result", kind, grounds.secret.to_str().unwrap()]).await;
        let taken = ended.result.unwrap_or_default();
        let verdict = match *kind {
            "link" if taken == proof => "through: the secret",
            "pipe" if taken == b"waited for ever" => "through: waited for ever",
            "device" if taken.len() == 1 << 20 => "through: no end",
            _ => "held",
        };
        said.insert((*kind).to_owned(), verdict.to_owned());
    }
    for (what, most, ..) in BOMBS {
        let ended = control::run(&["bomb", what, &most.to_string()]).await;
        let verdict = if ended.output.status.success() { "through" } else { "held" };
        said.insert(format!("bomb {what}"), format!("{verdict}: {:?}", ended.output));
    }
    said
}

fn read(output: &Value) -> Said {
    let told = output.as_object().unwrap();
    told.iter().map(|(name, said)| (name.clone(), said.as_str().unwrap().to_owned())).collect()
}

/// All rows: the name in what was said, and for people.
fn rows() -> Vec<(String, &'static str)> {
    let bombs = BOMBS.iter().map(|(what, _, _, people)| (format!("bomb {what}"), *people));
    let plain = ATTEMPTS.iter().chain(RESULTS).map(|(name, people)| ((*name).to_owned(), *people));
    plain.chain(bombs).collect()
}

fn table(of_2024: &Said, of_2022: &Said) -> String {
    let mut text =
        String::from("| attempt | runsc 2024 | runsc 2022 | runc |\n| --- | --- | --- | --- |\n");
    for (name, people) in rows() {
        let cell = |said: &Said| match said[&name].split_once(": ") {
            Some(("held", why)) => format!("held ({why})"),
            _ => said[&name].clone(),
        };
        let bare = match EXCUSES.iter().find(|(excused, _)| *excused == name) {
            Some((_, why)) => why.to_string(),
            None => "**through**".to_owned(),
        };
        writeln!(text, "| {people} | {} | {} | {bare} |", cell(of_2024), cell(of_2022)).unwrap();
    }
    text
}

/// Compares the page's table with `table`, or writes it.
fn compare(table: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/sandbox.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once("<!-- the attempts -->\n").expect("the table's beginning");
    let (found, after) = rest.split_once("<!-- their end -->").expect("the table's end");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let page = format!("{before}<!-- the attempts -->\n{table}<!-- their end -->{after}");
        fs::write(path, page).unwrap();
        return;
    }
    assert_eq!(found, table, "docs/sandbox.md says otherwise: UPDATE_GOLDEN=1 writes it");
}

#[tokio::test]
async fn pis5_ee24_nothing_gets_out_of_gvisor_and_all_of_it_bites_in_runc() {
    let other = tempfile::tempdir().unwrap();
    let bundle = other.path().join("bundles/another/agent");
    fs::create_dir_all(&bundle).unwrap();
    let grounds = Grounds::lay_out(&bundle.join("input.json"));
    let of_2024 = driven(&runsc(), &grounds).await;
    let of_2022 = driven(Path::new(&part("GATEHOUSE_TEST_RUNSC_2022")), &grounds).await;
    let control = controlled(&grounds).await;
    let mut faults = Vec::new();
    for (name, _) in rows() {
        for (engine, said) in [("runsc 2024", &of_2024), ("runsc 2022", &of_2022)] {
            let said = said.get(&name).map_or("nothing", String::as_str);
            if !said.starts_with("held") {
                faults.push(format!("{name}: {engine}: {said}"));
            }
        }
        let bites = control.get(&name).is_some_and(|said| said.starts_with("through"));
        let excused = EXCUSES.iter().any(|(excused, _)| *excused == name);
        if !bites && !excused {
            faults.push(format!("{name}: the control holds: {:?}", control.get(&name)));
        }
        let runc: String = control[&name].chars().take(50).collect();
        println!("{name:18}{:40}{:40}{runc}", of_2024[&name], of_2022[&name]);
    }
    assert_eq!(of_2024.len(), rows().len(), "the agent tries what is not in the table");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    compare(&table(&of_2024, &of_2022));
}
