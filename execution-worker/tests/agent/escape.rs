//! Attempts to get out of the sandbox. Each looks and does not destroy: it opens for writing what it would write, takes
//! hold of what it would change and lets go of it. Whoever runs it has laid out what it looks for and names it.
//! Knows nothing of what keeps it in.

use std::{
    ffi::{CStr, CString, c_char, c_int, c_long},
    fs::{self, File, OpenOptions},
    io::{self, Read},
    mem::size_of_val,
    net::{SocketAddr, TcpStream},
    os::{
        fd::AsRawFd,
        linux::net::SocketAddrExt,
        unix::{fs::OpenOptionsExt, net},
    },
    process::Command,
    time::Duration,
};

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
    fn mknod(path: *const c_char, mode: u32, device: u64) -> c_int;
}

/// What lies outside: `name=value` from the command line.
pub struct Outside<'a>(&'a [String]);

/// What was got hold of, or why not.
type Tried = Result<String, String>;

impl Outside<'_> {
    fn get(&self, name: &str) -> &str {
        let mut pairs = self.0.iter().filter_map(|arg| arg.split_once('='));
        pairs.find(|(known, _)| *known == name).map(|(_, value)| value).expect("a named thing")
    }

    fn number(&self, name: &str) -> c_long {
        self.get(name).parse().expect("a number")
    }
}

/// A system call. Every answer but an error is a success.
macro_rules! call {
    ($number:expr $(, $arg:expr)* $(,)?) => {
        // SAFETY: what is a pointer among the arguments points to memory that outlives the call.
        match unsafe { syscall($number as c_long $(, $arg)*) } {
            -1 => Err(said(&io::Error::last_os_error())),
            answer => Ok::<c_long, String>(answer),
        }
    };
}

/// An argument that is no pointer: as wide as a register.
const fn n(number: c_long) -> c_long {
    number
}

/// The error under its usual name.
fn said(error: &io::Error) -> String {
    let name = match error.raw_os_error() {
        Some(1) => "EPERM",
        Some(2) => "ENOENT",
        Some(3) => "ESRCH",
        Some(6) => "ENXIO",
        Some(8) => "ENOEXEC",
        Some(9) => "EBADF",
        Some(13) => "EACCES",
        Some(19) => "ENODEV",
        Some(22) => "EINVAL",
        Some(30) => "EROFS",
        Some(38) => "ENOSYS",
        Some(94) => "ESOCKTNOSUPPORT",
        Some(95) => "EOPNOTSUPP",
        Some(97) => "EAFNOSUPPORT",
        Some(101) => "ENETUNREACH",
        Some(111) => "ECONNREFUSED",
        Some(113) => "EHOSTUNREACH",
        Some(other) => return format!("errno {other}"),
        None => return format!("{:?}", error.kind()),
    };
    name.to_owned()
}

fn text(text: &str) -> CString {
    CString::new(text).expect("no NUL")
}

fn io<T>(result: io::Result<T>) -> Result<T, String> {
    result.map_err(|error| said(&error))
}

/// The attempts by name.
const ATTEMPTS: &[(&str, fn(&Outside<'_>) -> Tried)] = &[
    ("mount", |_| mount_somewhere("/tmp/mounted")),
    ("write_image", |_| write_image()),
    ("release_agent", |_| release_agent()),
    ("core_pattern", |_| opens("/proc/sys/kernel/core_pattern")),
    ("sysrq", |_| opens("/proc/sysrq-trigger")),
    ("host_path", |outside| reads(outside.get("secret"), outside)),
    ("dotdot", |outside| {
        reads(&format!("/run/agent{}{}", "/..".repeat(40), outside.get("secret")), outside)
    }),
    ("proc_root", |outside| through_proc("secret", outside)),
    ("other_tenant", |outside| through_proc("other", outside)),
    ("file_handle", file_handle),
    ("host_mounts", host_mounts),
    ("host_processes", |outside| {
        let line = format!("/proc/{}/cmdline", outside.number("victim"));
        shows(&line, outside.get("marker"))
    }),
    ("signal", |outside| {
        call!(62, outside.number("victim"), n(0)).map(|_| "may signal it".to_owned())
    }),
    ("ptrace", |outside| {
        call!(101, n(0x4206), outside.number("victim"), n(0), n(0)).map(|_| "attached".to_owned())
    }),
    ("foreign_memory", foreign_memory),
    ("foreign_file", foreign_file),
    ("kmsg", |_| device(0o020_000, 1, 11)),
    ("mem", |_| device(0o020_000, 1, 1)),
    ("kvm", |_| device(0o020_000, 10, 232)),
    ("disk", |outside| device(0o060_000, outside.number("major"), outside.number("minor"))),
    ("raw_socket", |_| call!(41, n(2), n(3), n(1)).map(|_| "a raw socket".to_owned())),
    ("packet_socket", |_| call!(41, n(17), n(3), n(0x0300)).map(|_| "a packet socket".to_owned())),
    ("vsock", |_| call!(41, n(40), n(1), n(0)).map(|_| "a socket to the hypervisor".to_owned())),
    ("metadata", |_| connects("169.254.169.254:80")),
    ("host_service", |outside| connects(outside.get("service"))),
    ("abstract_socket", abstract_socket),
    // The next id of a loaded program: only asked for.
    ("bpf", |_| {
        let attr = [0_u32; 16];
        judged(call!(321, n(11), attr.as_ptr(), n(size_of_val(&attr) as c_long)))
    }),
    ("keyring", |_| {
        let key = call!(248, c"user".as_ptr(), c"escape".as_ptr(), c"x".as_ptr(), n(1), n(-2))?;
        Ok(format!("key {key}"))
    }),
    ("perf", |_| {
        // The software clock of every process on the first processor.
        let mut attr = [0_u64; 16];
        attr[0] = 1 | (128 << 32);
        call!(298, attr.as_ptr(), n(-1), n(0), n(-1), n(0)).map(|_| "its clock".to_owned())
    }),
    ("module", |_| judged(call!(175, c"".as_ptr(), n(0), c"".as_ptr()))),
    // Flags, and magic numbers, that do not exist: refused after the right was judged.
    ("kexec", |_| judged(call!(246, n(0), n(0), n(0), n(0xff00)))),
    ("reboot", |_| judged(call!(169, n(1), n(2), n(3), n(0)))),
    ("kernel_log", kernel_log),
    ("host_kernel", |outside| shows("/proc/version", outside.get("release"))),
    ("io_uring", |outside| {
        let params = [0_u8; 120];
        call!(425, n(1), params.as_ptr())?;
        shows("/proc/version", outside.get("release"))
    }),
    ("setuid", |_| run_setuid()),
    ("capabilities", |_| capabilities()),
    ("user_namespace", user_namespace),
    ("namespaced_packet", namespaced_packet),
    ("raise_limits", |_| raise_limits()),
    ("change_input", |_| opens("/run/agent/input.json")),
];

/// Tries all, each in a process of its own, and tells of each.
pub fn all(args: &[String]) {
    let mut told = Vec::new();
    for (name, _) in ATTEMPTS {
        let output = Command::new("/agent").arg("attempt").arg(name).args(args).output();
        let output = output.expect("a process");
        let said = String::from_utf8_lossy(&output.stdout);
        let said =
            said.lines().last().map_or_else(|| format!("held: {}", output.status), str::to_owned);
        told.push(format!("{name:?}:{said:?}"));
    }
    println!("{{{}}}", told.join(","));
}

/// Tries the one that the first argument names.
pub fn one(args: &[String]) {
    let (name, rest) = args.split_first().expect("a name");
    let (_, attempt) = ATTEMPTS.iter().find(|(known, _)| known == name).expect("an attempt");
    match attempt(&Outside(rest)) {
        Ok(got) => println!("through: {got}"),
        Err(said) => println!("held: {said}"),
    }
}

/// A call that was made to fail by what it asks for: only a refusal of the right to ask holds.
fn judged(answer: Result<c_long, String>) -> Tried {
    match answer {
        Err(said) if matches!(&*said, "EPERM" | "EACCES" | "ENOSYS") => Err(said),
        Err(said) => Ok(format!("judged: {said}")),
        Ok(_) => Ok("done".to_owned()),
    }
}

fn opens(path: &str) -> Tried {
    io(OpenOptions::new().write(true).open(path)).map(|_| "open for writing".to_owned())
}

fn reads(path: &str, outside: &Outside<'_>) -> Tried {
    shows(path, outside.get("proof"))
}

fn shows(path: &str, proof: &str) -> Tried {
    let mut bytes = Vec::new();
    io(File::open(path).and_then(|file| file.take(4096).read_to_end(&mut bytes)))?;
    if String::from_utf8_lossy(&bytes).contains(proof) {
        return Ok("read".to_owned());
    }
    Err("another one".to_owned())
}

/// By the root of the first process, or of one that is known to be the host's.
fn through_proc(what: &str, outside: &Outside<'_>) -> Tried {
    let of =
        |process: c_long| reads(&format!("/proc/{process}/root{}", outside.get(what)), outside);
    of(1).or_else(|_| of(outside.number("victim")))
}

fn mount_at(source: &CStr, place: &str, kind: &CStr, data: &CStr) -> Result<(), String> {
    fs::create_dir_all(place).map_err(|error| said(&error))?;
    let place = text(place);
    call!(165, source.as_ptr(), place.as_ptr(), kind.as_ptr(), n(0), data.as_ptr()).map(drop)
}

fn unmount(place: &str) {
    let place = text(place);
    drop(call!(166, place.as_ptr(), n(0)));
}

fn mount_somewhere(place: &str) -> Tried {
    mount_at(c"none", place, c"tmpfs", c"size=65536")?;
    unmount(place);
    Ok("mounted".to_owned())
}

/// As it is, and then as it is after the root was mounted anew.
fn write_image() -> Tried {
    let write = || io(fs::write("/open/escape", "x")).map(|()| "written".to_owned());
    write().or_else(|first| {
        // MS_REMOUNT | MS_BIND.
        let again = call!(165, c"none".as_ptr(), c"/".as_ptr(), n(0), n(32 | 4096), n(0));
        again.map_err(|second| format!("{first}, {second}")).and_then(|_| write())
    })
}

/// The way out of containers with version 1 of control groups: a program that the host runs when a group is empty.
fn release_agent() -> Tried {
    let place = "/tmp/groups";
    mount_at(c"none", place, c"cgroup", c"pids")?;
    let opened = opens(&format!("{place}/release_agent"));
    unmount(place);
    opened
}

/// The root directory of the file system that holds the image, by its number (CAP_DAC_READ_SEARCH).
fn file_handle(outside: &Outside<'_>) -> Tried {
    #[repr(C)]
    struct Handle {
        bytes: u32,
        kind: c_int,
        inode: u32,
        generation: u32,
    }
    let image = io(File::open("/"))?;
    let handle = Handle { bytes: 8, kind: 1, inode: 2, generation: 0 };
    let fd = call!(304, n(image.as_raw_fd().into()), &raw const handle, n(0))?;
    reads(&format!("/proc/self/fd/{fd}{}", outside.get("secret")), outside)
}

fn host_mounts(outside: &Outside<'_>) -> Tried {
    let of = |process: c_long| io(File::open(format!("/proc/{process}/ns/mnt")));
    let namespace = of(1).or_else(|_| of(outside.number("victim")))?;
    call!(308, n(namespace.as_raw_fd().into()), n(0x0002_0000))?;
    reads(outside.get("secret"), outside)
}

fn foreign_memory(outside: &Outside<'_>) -> Tried {
    let victim = outside.number("victim");
    let maps = io(fs::read_to_string(format!("/proc/{victim}/maps")))?;
    let address = maps.split('-').next().and_then(|hex| usize::from_str_radix(hex, 16).ok());
    let mut bytes = [0_u8; 4];
    let local = [bytes.as_mut_ptr() as usize, bytes.len()];
    let remote = [address.ok_or("no address")?, bytes.len()];
    call!(310, victim, local.as_ptr(), n(1), remote.as_ptr(), n(1), n(0))?;
    Ok(format!("read {:?}", String::from_utf8_lossy(&bytes[1..])))
}

fn foreign_file(outside: &Outside<'_>) -> Tried {
    let victim = call!(434, outside.number("victim"), n(0))?;
    call!(438, victim, n(0), n(0)).map(|_| "its standard input".to_owned())
}

/// Makes a device, or takes one that is there, and reads of it.
fn device(kind: u32, major: c_long, minor: c_long) -> Tried {
    let path = format!("/tmp/device-{kind}-{major}-{minor}");
    let made = text(&path);
    // SAFETY: the path is a string of ours.
    if unsafe { mknod(made.as_ptr(), kind | 0o600, ((major << 8) | minor) as u64) } != 0 {
        return Err(said(&io::Error::last_os_error()));
    }
    let nonblocking = 0o4000;
    let opened = io(OpenOptions::new().read(true).custom_flags(nonblocking).open(&path));
    let answer = opened.map(|mut file| match file.read(&mut [0; 512]) {
        Ok(count) => format!("read {count} bytes"),
        Err(_) => "opened".to_owned(),
    });
    drop(fs::remove_file(&path));
    answer
}

fn connects(address: &str) -> Tried {
    let address: SocketAddr = address.parse().expect("an address");
    let mut stream = io(TcpStream::connect_timeout(&address, Duration::from_millis(500)))?;
    let mut greeting = String::new();
    io(stream.set_read_timeout(Some(Duration::from_secs(2))))?;
    io(stream.read_to_string(&mut greeting))?;
    Ok(format!("heard {:?}", greeting.trim()))
}

fn abstract_socket(outside: &Outside<'_>) -> Tried {
    let address = io(net::SocketAddr::from_abstract_name(outside.get("abstract")))?;
    io(net::UnixStream::connect_addr(&address)).map(|_| "connected".to_owned())
}

fn kernel_log(outside: &Outside<'_>) -> Tried {
    let mut log = vec![0_u8; 1 << 20];
    let count = call!(103, n(3), log.as_mut_ptr(), n(log.len() as c_long))?;
    let log = String::from_utf8_lossy(&log[..usize::try_from(count).unwrap_or(0)]);
    let own = log.contains("gVisor") && !log.contains(outside.get("release"));
    if own { Err("the sandbox's own".to_owned()) } else { Ok(format!("read {count} bytes")) }
}

fn drop_to_nobody() -> Result<(), String> {
    call!(117, n(1000), n(1000), n(1000)).map(drop)
}

/// A file of root's with its setuid bit.
fn run_setuid() -> Tried {
    drop_to_nobody()?;
    let output = io(Command::new("/suid").arg("whoami").output())?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if said == "0" { Ok("root".to_owned()) } else { Err(format!("uid {said}")) }
}

fn capabilities() -> Tried {
    let header = [0x2008_0522_u32, 0];
    // CAP_SYS_ADMIN: effective, permitted, inheritable.
    let admin = [1_u32 << 21, 1 << 21, 0, 0, 0, 0];
    call!(126, header.as_ptr(), admin.as_ptr()).map(|_| "CAP_SYS_ADMIN".to_owned())
}

fn become_namespaced_root() -> Result<(), String> {
    let uid = call!(102)?;
    // NEWUSER | NEWNS.
    call!(272, n(0x1000_0000 | 0x0002_0000))?;
    // Whoever is nobody there has the capabilities all the same.
    drop(fs::write("/proc/self/uid_map", format!("0 {uid} 1")));
    Ok(())
}

/// A packet of our own making to a service of the host, from a network whose root we have become.
fn namespaced_packet(outside: &Outside<'_>) -> Tried {
    become_namespaced_root()?;
    let socket = call!(41, n(2), n(3), n(1))?;
    let own = shows("/proc/version", outside.get("release"));
    own.map(|_| format!("a raw socket ({socket})"))
        .map_err(|_| "in gVisor's own network".to_owned())
}

/// As the root of a user namespace of its own, which has all capabilities there: is any of this nearer now?
fn user_namespace(outside: &Outside<'_>) -> Tried {
    become_namespaced_root()?;
    let tried: [Tried; 6] = [
        write_image(),
        release_agent(),
        through_proc("secret", outside),
        host_mounts(outside),
        device(0o020_000, 1, 11),
        opens("/run/agent/input.json"),
    ];
    let mut held = Vec::new();
    for tried in tried {
        held.push(match tried {
            Ok(got) => return Ok(got),
            Err(said) => said,
        });
    }
    Err(held.join(", "))
}

fn raise_limits() -> Tried {
    let more = [4096_u64, 4096];
    // RLIMIT_NPROC.
    call!(302, n(0), n(6), more.as_ptr(), n(0)).map(|_| "raised".to_owned())
}

/// Leaves something else than a file where the result is expected.
pub fn result(kind: &str, secret: &str) {
    let place = "/run/agent/output.json";
    let made = match kind {
        "link" => io(std::os::unix::fs::symlink(secret, place)),
        "pipe" | "device" => {
            let (mode, device) =
                if kind == "pipe" { (0o010_000, 0) } else { (0o020_000, (1 << 8) | 5) };
            let path = text(place);
            // SAFETY: the path is a string of ours.
            let made = unsafe { mknod(path.as_ptr(), mode | 0o666, device) };
            if made == 0 { Ok(()) } else { Err(said(&io::Error::last_os_error())) }
        }
        "directory" => io(fs::create_dir(place)),
        other => panic!("unknown result {other}"),
    };
    match made {
        Ok(()) => eprintln!("made"),
        Err(said) => eprintln!("held: {said}"),
    }
}

/// Who runs this, after its bits were honoured or not.
pub fn whoami() {
    // SAFETY: asks for a number.
    println!("{}", unsafe { syscall(107) });
}
