//! What runs inside of the self-test's sandboxes: tries to pass the limits and says which it could not.
//! Uses nothing but the standard library: it is a stranger in there.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::egress::{PORT, PROXY};

/// More than any of the limits that the self-test sets.
const MANY: usize = 200;
const MIB: usize = 1 << 20;
/// How long something that is there may take to answer.
const REACH: Duration = Duration::from_secs(2);

/// Tries what is called `what`.
pub fn probe(what: &str) -> u8 {
    match what {
        "inside" => inside(),
        "outside" => outside(),
        "memory" => memory(),
        "cpu" => cpu(),
        "pids" => drop(processes()),
        "sleep" => thread::sleep(Duration::from_secs(60)),
        _ => return 64,
    }
    0
}

fn inside() {
    let lines = [
        ("network", no_network()),
        ("read-only root", File::create("/probe-was-here").is_err()),
        ("user", is_nobody()),
        ("scratch", scratch()),
        ("open files", open_files()),
        ("processes", processes() < MANY),
    ];
    let said: Vec<String> = lines.iter().map(|(name, held)| format!("\"{name}\":{held}")).collect();
    let said = format!("{{{}}}", said.join(","));
    if let Err(error) = fs::write("/run/agent/output.json", said) {
        eprintln!("the result: {error}");
    }
    // Last, since it kills.
    if let Ok(mut file) = File::create("/run/agent/large") {
        for _ in 0..4 {
            if let Err(error) = file.write_all(&vec![1; MIB]) {
                eprintln!("a large file: {error}");
            }
        }
    }
}

/// Only the loopback, and no way out.
fn no_network() -> bool {
    let links = fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let others = links
        .lines()
        .filter_map(|line| Some(line.split_once(':')?.0.trim()))
        .filter(|name| *name != "lo")
        .count();
    let metadata = SocketAddr::from(([169, 254, 169, 254], 80));
    let reached = TcpStream::connect_timeout(&metadata, Duration::from_millis(200));
    let refused_at_once = reached.err().is_some_and(|error| error.kind() != ErrorKind::TimedOut);
    others == 0 && refused_at_once
}

/// The proxy, which takes no request without the run's credential, and nothing but it.
fn outside() {
    let ask = || -> io::Result<bool> {
        let mut proxy = TcpStream::connect_timeout(&(PROXY, PORT).into(), REACH)?;
        proxy.set_read_timeout(Some(REACH))?;
        proxy.write_all(
            b"GET http://selftest.invalid/ HTTP/1.1\r\nhost: selftest.invalid\r\n\r\n",
        )?;
        let mut answer = [0; 12];
        proxy.read_exact(&mut answer)?;
        Ok(answer == *b"HTTP/1.1 407")
    };
    let proxy = ask().unwrap_or_else(|error| {
        eprintln!("the proxy: {error}");
        false
    });
    let others = [
        SocketAddr::from((PROXY, 22)),
        ([127, 0, 0, 1], PORT).into(),
        ([169, 254, 169, 254], 80).into(),
        ([1, 1, 1, 1], 443).into(),
    ];
    let reached = |at: &SocketAddr| TcpStream::connect_timeout(at, REACH).is_ok();
    let alone = !others.iter().any(reached);
    let said = format!("{{\"proxy\":{proxy},\"nothing else\":{alone}}}");
    if let Err(error) = fs::write("/run/agent/output.json", said) {
        eprintln!("the result: {error}");
    }
}

fn is_nobody() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        Some(line.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>())
    };
    let uids = field("Uid:").unwrap_or_default();
    let caps = field("CapEff:").unwrap_or_default();
    !uids.is_empty()
        && uids.iter().all(|uid| uid != "0")
        && caps.iter().all(|caps| caps.bytes().all(|digit| digit == b'0'))
}

fn scratch() -> bool {
    let mut full = false;
    for n in 0..16 {
        if let Err(error) = fs::write(format!("/tmp/{n}"), vec![1; MIB]) {
            full = error.kind() == ErrorKind::StorageFull;
            break;
        }
    }
    full
}

fn open_files() -> bool {
    let mut held = Vec::new();
    while held.len() < MANY {
        match File::open("/proc/self/status") {
            Ok(file) => held.push(file),
            Err(_) => return true,
        }
    }
    false
}

/// How many processes could be started, at most [`MANY`].
fn processes() -> usize {
    let mut held = Vec::new();
    while held.len() < MANY {
        // The loader, which was told to run this program.
        match Command::new("/proc/self/exe").args(["/probe", "probe", "sleep"]).spawn() {
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

fn memory() {
    let mut held = Vec::new();
    while held.len() < 64 {
        held.push(vec![1_u8; 8 * MIB]);
    }
    eprintln!("{} chunks", held.len());
}

fn cpu() {
    let until = Instant::now() + Duration::from_millis(700);
    let spin = move || {
        while Instant::now() < until {
            std::hint::spin_loop();
        }
    };
    let other = thread::spawn(spin);
    spin();
    drop(other.join());
}
