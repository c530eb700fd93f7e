//! Bombs: each takes more and more of one thing, up to a little more than it may have, and says whether it was given all
//! of it. None is without an end: where nothing holds it, it stops by itself and lets go.

use std::{
    ffi::{c_int, c_void},
    fs::{self, File},
    io::Write,
    os::unix::process::CommandExt,
    process::{Command, exit},
    ptr,
    time::{Duration, Instant},
};

unsafe extern "C" {
    fn mmap(
        at: *mut c_void,
        len: usize,
        prot: c_int,
        flags: c_int,
        fd: c_int,
        offset: i64,
    ) -> *mut c_void;
    fn fork() -> c_int;
    fn setsid() -> c_int;
}

const MIB: usize = 1 << 20;
const PAGE: usize = 4096;

/// Takes `most` of what is called `what`.
pub fn bomb(what: &str, most: usize) {
    let got = match what {
        "processes" => processes(most),
        "files" => open_files(most),
        "memory" => memory(most),
        "sparse" => sparse(most),
        "page_cache" => page_cache(most),
        "scratch" => fill("/tmp", most),
        "exchange" => fill("/run/agent", most),
        "inodes" => inodes(most),
        other => panic!("unknown bomb {other}"),
    };
    // What is full must not keep the answer from being told; and an agent that was refused has failed.
    println!("{{\"got\":{got},\"most\":{most}}}");
    exit(i32::from(got < most));
}

fn processes(most: usize) -> usize {
    let mut held = Vec::new();
    while held.len() < most {
        match Command::new("/agent").arg("sleep").spawn() {
            Ok(child) => held.push(child),
            Err(_) => break,
        }
    }
    for child in &mut held {
        drop(child.kill());
        drop(child.wait());
    }
    held.len()
}

fn open_files(most: usize) -> usize {
    let mut held = Vec::new();
    while held.len() < most {
        match File::open("/proc/self/status") {
            Ok(file) => held.push(file),
            Err(_) => break,
        }
    }
    held.len()
}

fn memory(most: usize) -> usize {
    let mut held = Vec::new();
    while held.len() < most {
        held.push(vec![1_u8; MIB]);
    }
    held.len()
}

/// One page of each MiB of an address space that is far larger than the machine; as many pages as `most` MiB hold.
fn sparse(most: usize) -> usize {
    let len = 1 << 40;
    // MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE.
    // SAFETY: new memory at an address of the kernel's choice.
    let start = unsafe { mmap(ptr::null_mut(), len, 3, 0x2 | 0x20 | 0x4000, -1, 0) };
    if start as isize == -1 {
        return 0;
    }
    for page in 0..most * (MIB / PAGE) {
        // SAFETY: within what was just mapped: most × 256 MiB is less than 2⁴⁰ for all that the tests ask for.
        unsafe { start.cast::<u8>().add(page * MIB).write_volatile(1) };
    }
    most
}

/// A file that is written, and then read through memory: what the kernel keeps of it must be somebody's.
fn page_cache(most: usize) -> usize {
    for part in 0..most {
        let path = format!("/tmp/cache-{}", part / 64);
        let written = File::options().create(true).append(true).open(&path);
        let written = written.and_then(|mut file| file.write_all(&vec![1_u8; MIB]));
        if written.and_then(|()| fs::read(&path)).is_err() {
            return part;
        }
    }
    most
}

fn fill(place: &str, most: usize) -> usize {
    for part in 0..most {
        if fs::write(format!("{place}/part-{part}"), vec![1_u8; MIB]).is_err() {
            return part;
        }
    }
    most
}

fn inodes(most: usize) -> usize {
    for part in 0..most {
        if File::create(format!("/tmp/{part}")).is_err() {
            return part;
        }
    }
    most
}

/// Forks daemons that fork daemons, none of which listens to SIGTERM; fills the disk; and then does what `end` says.
pub fn everything(end: &str) {
    super::ignore_term();
    for _ in 0..4 {
        daemon();
    }
    fill("/tmp", 4096);
    match end {
        "exit" => exit(1),
        "memory" => drop(memory(1 << 20)),
        _ => loop {
            std::thread::sleep(Duration::from_secs(3600));
        },
    }
}

/// A daemon in the way of its kind: forks, leaves its session, forks again, and goes on forking.
fn daemon() {
    // SAFETY: this process has one thread.
    if unsafe { fork() } != 0 {
        return;
    }
    // SAFETY: takes no pointer.
    unsafe { setsid() };
    // SAFETY: this process has one thread.
    if unsafe { fork() } != 0 {
        exit(0);
    }
    let until = Instant::now() + Duration::from_secs(3600);
    while Instant::now() < until {
        drop(Command::new("/agent").arg("deaf").process_group(0).spawn());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Sleeps and does not listen.
pub fn deaf() {
    super::ignore_term();
    std::thread::sleep(Duration::from_secs(3600));
}
