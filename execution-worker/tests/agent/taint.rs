//! Leaves a mark with the given word wherever an agent can leave one, and says which marks of others it found before.
//! Knows nothing of what should keep them apart.

use std::{
    env,
    ffi::{CString, c_char, c_int, c_long, c_void},
    fs,
    io::{self, Read},
    os::{linux::net::SocketAddrExt, unix::net},
    process::Command,
};

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
    fn shmget(key: c_int, size: usize, flags: c_int) -> c_int;
    fn shmat(id: c_int, address: *const c_void, flags: c_int) -> *mut c_void;
    fn gethostname(name: *mut c_char, length: usize) -> c_int;
}

const ADD_KEY: c_long = 248;
const REQUEST_KEY: c_long = 249;
/// The session's keyring.
const SESSION: c_long = -3;
const SHARED: c_int = 0x6a7e;
const CREATE: c_int = 0o1000 | 0o600;
const PLACES: [&str; 6] = ["/tmp", "/dev/shm", "/run/agent", "/run", "/var/tmp", "/open"];

fn text(word: &str) -> CString {
    CString::new(word).expect("no NUL")
}

/// What others have left, of any word.
fn found() -> Vec<String> {
    let mut found = Vec::new();
    for place in PLACES {
        let entries = fs::read_dir(place).into_iter().flatten().flatten();
        for name in entries.filter_map(|entry| entry.file_name().into_string().ok()) {
            if name.starts_with("mark") {
                found.push(format!("a file in {place}"));
            }
        }
    }
    if env::vars().any(|(name, _)| name.starts_with("MARK")) {
        found.push("a variable".to_owned());
    }
    let me = std::process::id().to_string();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let name = entry.file_name().into_string().unwrap_or_default();
        if name != me && String::from_utf8_lossy(&line).contains("linger") {
            found.push("a process".to_owned());
        }
    }
    let (kind, name) = (text("user"), text("mark"));
    // SAFETY: two texts that end with NUL, and no other memory.
    let key = unsafe { syscall(REQUEST_KEY, kind.as_ptr(), name.as_ptr(), 0, 0) };
    if key >= 0 {
        found.push("a key of the kernel's".to_owned());
    }
    // SAFETY: asks for one page of shared memory and reads its first byte.
    unsafe {
        let id = shmget(SHARED, 4096, 0o600);
        if id >= 0 {
            let page = shmat(id, std::ptr::null(), 0);
            if page as isize != -1 && *page.cast::<u8>() != 0 {
                found.push("shared memory".to_owned());
            }
        }
    }
    let address = net::SocketAddr::from_abstract_name("mark").expect("an address");
    if net::UnixStream::connect_addr(&address).is_ok() {
        found.push("a socket".to_owned());
    }
    // Memory that was somebody's: pages that were asked for and not written are zero.
    let pages = vec![0_u8; 64 << 20];
    if pages.iter().any(|byte| *byte != 0) {
        found.push("memory".to_owned());
    }
    let mut name = [0_u8; 64];
    // SAFETY: as many bytes as there are.
    unsafe { gethostname(name.as_mut_ptr().cast(), name.len()) };
    if String::from_utf8_lossy(&name).contains("mark") {
        found.push("a host name".to_owned());
    }
    found.sort();
    found.dedup();
    found
}

/// Everything that can be left; what cannot be is said, since it is not looked for then.
fn leave() -> Vec<String> {
    let mut left = Vec::new();
    for place in PLACES {
        if fs::write(format!("{place}/mark"), "a mark").is_ok() {
            left.push(format!("a file in {place}"));
        }
    }
    if Command::new("/proc/self/exe").args(["taint", "linger"]).spawn().is_ok() {
        left.push("a process".to_owned());
    }
    let (kind, name) = (text("user"), text("mark"));
    // SAFETY: texts that end with NUL, and a payload of its length.
    let key =
        unsafe { syscall(ADD_KEY, kind.as_ptr(), name.as_ptr(), c"m".as_ptr(), 1_usize, SESSION) };
    if key >= 0 {
        left.push("a key of the kernel's".to_owned());
    }
    // SAFETY: one page, of which the first byte is written.
    unsafe {
        let id = shmget(SHARED, 4096, CREATE);
        let page = if id < 0 { -1_isize as *mut c_void } else { shmat(id, std::ptr::null(), 0) };
        if page as isize != -1 {
            *page.cast::<u8>() = 7;
            left.push("shared memory".to_owned());
        }
    }
    left
}

/// Leaves, looks, and where `twice` is said has another process look, which must find everything: the control.
pub fn taint(what: &str) {
    match what {
        "linger" => {
            let address = net::SocketAddr::from_abstract_name("mark").expect("an address");
            let listener = net::UnixListener::bind_addr(&address);
            std::thread::sleep(std::time::Duration::from_secs(600));
            drop(listener);
        }
        "look" => println!("{:?}", found()),
        _ => {
            let mut input = String::new();
            io::stdin().read_to_string(&mut input).expect("stdin");
            let found = found();
            let left = leave();
            // The lingering process binds its socket.
            let address = net::SocketAddr::from_abstract_name("mark").expect("an address");
            while net::UnixStream::connect_addr(&address).is_err() {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            let after =
                Command::new("/proc/self/exe").args(["taint", "look"]).env("MARK", "x").output();
            let after = String::from_utf8(after.expect("a look").stdout).expect("utf-8");
            println!(
                "{{\"read\":{input},\"found\":{found:?},\"left\":{left:?},\"after\":{}}}",
                after.trim()
            );
        }
    }
}
