//! The network of one run: a namespace for its sandbox, another one for the proxy's end, and a pair of virtual links between the two.
//!
//! ```text
//!   sandbox's namespace            proxy's namespace              the machine's
//!   eth0 192.0.2.2/30  ── veth ──  192.0.2.1/30, port 3128  ··· the worker's process ··· the internet
//! ```
//! Nothing leads from the proxy's namespace anywhere else: it has no other link, no route and one listener, whose socket the worker
//! holds. So there is no filter that could be wrong, and no address of the machine's that could be reached. Neither namespace
//! has a name: both are gone with the last process and descriptor in them, after SIGKILL of the worker, too.

use std::{
    fmt::{self, Write as _},
    fs::File,
    io,
    net::{Ipv4Addr, TcpListener},
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::Command,
    sync::Arc,
    thread,
};

use aws_lc_rs::{error::Unspecified, rand};
use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe},
};

use super::netlink::{End, LOOPBACK, Netlink};

/// The proxy's address, the same in every run: each has a network of its own. Of a block that is nobody's (RFC 5737).
pub const PROXY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The proxy's port.
pub const PORT: u16 = 3128;
const AGENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const PREFIX: u8 = 30;
/// Of both links, each in its own namespace.
const INDEX: i32 = 100;
/// The user that clients are told to present.
const USER: &str = "run";
/// What every namespace is told before it has a link. Missing ones are those of parts that the kernel does not have.
const SETTINGS: [(&str, &str); 4] = [
    ("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1"),
    ("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1"),
    ("/proc/sys/net/ipv4/ip_forward", "0"),
    ("/proc/sys/net/ipv4/icmp_echo_ignore_all", "1"),
];

/// The network, made ahead of its run. Opens nothing until its credential is issued ([`super::Egress::open`]).
#[derive(Debug)]
pub struct Network {
    sandbox: Arc<OwnedFd>,
    listener: TcpListener,
    credential: Credential,
}

/// What the run's agent shows the proxy: 256 random bits. Never in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential(String);

impl Network {
    /// Makes one. Needs CAP_NET_ADMIN and CAP_SYS_ADMIN.
    pub async fn make() -> io::Result<Self> {
        // A thread of its own, which is in another namespace when it ends.
        let made = tokio::task::spawn_blocking(|| {
            let thread = thread::Builder::new().name("network".to_owned()).spawn(make)?;
            thread.join().map_err(|_| io::Error::other("the thread of a network ended"))?
        });
        made.await.map_err(io::Error::other)?
    }

    /// The variables that lead common clients to the proxy.
    pub fn environment(&self) -> Vec<String> {
        let url = format!("http://{USER}:{}@{PROXY}:{PORT}", self.credential.0);
        PROXY_VARIABLES.iter().map(|name| format!("{name}={url}")).collect()
    }

    /// Lets `command` start in the sandbox's namespace, with what runsc takes for a sign of the machine's own network out of its sight.
    pub fn join(&self, command: &mut Command) {
        let namespace = Arc::clone(&self.sandbox);
        // SAFETY: between fork and exec `enter` makes system calls and nothing else: no memory is allocated, no lock is taken.
        #[expect(unsafe_code, reason = "the child joins the namespace before it becomes runsc")]
        unsafe {
            command.pre_exec(move || enter(namespace.as_fd()));
        }
    }

    /// The sandbox's namespace.
    pub fn sandbox(&self) -> BorrowedFd<'_> {
        self.sandbox.as_fd()
    }

    pub(super) fn listener(&self) -> io::Result<tokio::net::TcpListener> {
        tokio::net::TcpListener::from_std(self.listener.try_clone()?)
    }

    pub(super) const fn credential(&self) -> &Credential {
        &self.credential
    }
}

/// Lower case as well: curl reads `http_proxy` alone.
pub const PROXY_VARIABLES: [&str; 4] = ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"];

fn make() -> io::Result<Network> {
    let outer = namespace()?;
    let outside = Netlink::open()?;
    let sandbox = namespace()?;
    let inside = Netlink::open()?;
    let (proxy, agent) = (End { name: "proxy", index: INDEX }, End { name: "eth0", index: INDEX });
    outside.pair(proxy, agent, sandbox.as_fd())?;
    for (side, address) in [(&outside, PROXY), (&inside, AGENT)] {
        side.address(INDEX, address, PREFIX)?;
        side.up(INDEX)?;
    }
    inside.up(LOOPBACK)?;
    move_into_link_name_space(outer.as_fd(), Some(LinkNameSpaceType::Network))?;
    // The socket stays in this namespace, and keeps it, whatever thread accepts from it.
    let listener = TcpListener::bind((PROXY, PORT))?;
    listener.set_nonblocking(true)?;
    Ok(Network { sandbox: Arc::new(sandbox), listener, credential: Credential::random()? })
}

/// Moves the thread into a new namespace.
fn namespace() -> io::Result<OwnedFd> {
    // SAFETY: the flag set is NEWNET alone; what makes unsharing unsafe is a file table of one's own.
    #[expect(
        unsafe_code,
        reason = "rustix offers unsharing as unsafe only, because of another flag"
    )]
    unsafe {
        unshare_unsafe(UnshareFlags::NEWNET)?;
    }
    for (path, value) in SETTINGS {
        match std::fs::write(path, value) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(File::open("/proc/thread-self/ns/net")?.into())
}

/// Both versions of runsc take `/proc/sys/net/core/rmem_default` for a sign of the machine's own network, and newer kernels show it in
/// every namespace.
fn enter(namespace: BorrowedFd<'_>) -> io::Result<()> {
    move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))?;
    // SAFETY: the flag set is NEWNS alone; what makes unsharing unsafe is a file table of one's own.
    #[expect(
        unsafe_code,
        reason = "rustix offers unsharing as unsafe only, because of another flag"
    )]
    unsafe {
        unshare_unsafe(UnshareFlags::NEWNS)?;
    }
    // What the worker unmounts is unmounted here, too, and what is mounted here nowhere else.
    mount_change(c"/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(mount(c"none", c"/proc/sys/net/core", c"tmpfs", flags, c"size=4096")?)
}

// === impl Credential ===

impl Credential {
    fn random() -> io::Result<Self> {
        let mut bytes = [0_u8; 32];
        let failed = |_: Unspecified| io::Error::other("no randomness");
        rand::fill(&mut bytes).map_err(failed)?;
        let hex = bytes.iter().fold(String::new(), |mut hex, byte| {
            // Writing into a string cannot fail.
            write!(hex, "{byte:02x}").unwrap_or_default();
            hex
        });
        Ok(Self(hex))
    }

    /// As `Proxy-Authorization` carries it (RFC 7617).
    pub(super) fn basic(&self) -> String {
        use base64::{Engine as _, prelude::BASE64_STANDARD};
        format!("Basic {}", BASE64_STANDARD.encode(format!("{USER}:{}", self.0)))
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential")
    }
}
