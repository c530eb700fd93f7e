//! Three requests to the kernel's routing tables (rtnetlink(7)): a pair of virtual links, an address, a link that is up. Written by
//! hand, since that is all that is asked. Knows nothing of what the links are for.

use std::{
    io,
    net::Ipv4Addr,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

use rustix::{
    io::Errno,
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with},
};

/// The index of a network namespace's own loopback.
pub const LOOPBACK: i32 = 1;

const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const ERROR: u16 = 2;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;
const FAMILY_ANY: u8 = 0;
const FAMILY_V4: u8 = 2;
const UP: u32 = 1;
const IFLA_NAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NAMESPACE: u16 = 28;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const VETH_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// Of a message: length, type, flags, sequence, port.
const HEADER: usize = 16;

/// The routing tables of the network namespace in which it was opened.
#[derive(Debug)]
pub struct Netlink(OwnedFd);

/// One end of a pair.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    pub name: &'a str,
    pub index: i32,
}

impl Netlink {
    /// Of the calling thread's namespace.
    pub fn open() -> io::Result<Self> {
        // Protocol 0 is NETLINK_ROUTE.
        let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
        Ok(Self(socket_with(family, kind, SocketFlags::CLOEXEC, None)?))
    }

    /// Makes a pair of links: `here`, and `there` in another namespace. Both are down.
    pub fn pair(&self, here: End<'_>, there: End<'_>, namespace: BorrowedFd<'_>) -> io::Result<()> {
        let mut message = Message::new(NEW_LINK, CREATE | EXCLUSIVE);
        message.link(here.index, 0);
        message.attribute(IFLA_NAME, &name(here.name));
        message.nested(IFLA_LINKINFO, |info| {
            info.attribute(INFO_KIND, b"veth");
            info.nested(INFO_DATA, |data| {
                data.nested(VETH_PEER, |peer| {
                    peer.link(there.index, 0);
                    peer.attribute(IFLA_NAME, &name(there.name));
                    peer.attribute(IFLA_NAMESPACE, &namespace.as_raw_fd().to_ne_bytes());
                });
            });
        });
        self.ask(message)
    }

    /// Gives the link `index` an address.
    pub fn address(&self, index: i32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let mut message = Message::new(NEW_ADDRESS, CREATE | EXCLUSIVE);
        message.0.extend([FAMILY_V4, prefix, 0, 0]);
        message.0.extend(index.to_ne_bytes());
        message.attribute(IFA_LOCAL, &address.octets());
        message.attribute(IFA_ADDRESS, &address.octets());
        self.ask(message)
    }

    /// Takes the link `index` up.
    pub fn up(&self, index: i32) -> io::Result<()> {
        let mut message = Message::new(NEW_LINK, 0);
        message.link(index, UP);
        self.ask(message)
    }

    fn ask(&self, message: Message) -> io::Result<()> {
        send(&self.0, &message.whole()?, SendFlags::empty())?;
        let mut answer = [0_u8; 4096];
        let (length, _) = recv(&self.0, &mut answer, RecvFlags::empty())?;
        verdict(answer.get(..length).unwrap_or_default())
    }
}

/// What the kernel's acknowledgement says: an error's number, or zero.
fn verdict(answer: &[u8]) -> io::Result<()> {
    let kind = answer.get(4..6).and_then(|kind| kind.try_into().ok()).map(u16::from_ne_bytes);
    let code = answer.get(HEADER..HEADER + 4).and_then(|code| code.try_into().ok());
    match (kind, code.map(i32::from_ne_bytes)) {
        (Some(ERROR), Some(0)) => Ok(()),
        (Some(ERROR), Some(code)) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        _ => Err(Errno::BADMSG.into()),
    }
}

fn name(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

// === impl Message ===

/// A request that grows.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((REQUEST | ACK | flags).to_ne_bytes());
        bytes.resize(HEADER, 0);
        Self(bytes)
    }

    /// `struct ifinfomsg`, with these flags set and no other touched.
    fn link(&mut self, index: i32, flags: u32) {
        self.0.extend([FAMILY_ANY, 0, 0, 0]);
        self.0.extend(index.to_ne_bytes());
        self.0.extend(flags.to_ne_bytes());
        self.0.extend(flags.to_ne_bytes());
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.nested(kind, |message| message.0.extend(value));
    }

    /// An attribute whose value `fill` writes: length and type before it, padding behind it.
    fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let begin = self.0.len();
        self.0.extend([0, 0]);
        self.0.extend(kind.to_ne_bytes());
        fill(self);
        let length = u16::try_from(self.0.len() - begin).unwrap_or(u16::MAX);
        if let Some(place) = self.0.get_mut(begin..begin + 2) {
            place.copy_from_slice(&length.to_ne_bytes());
        }
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn whole(mut self) -> io::Result<Vec<u8>> {
        let length = u32::try_from(self.0.len()).map_err(io::Error::other)?;
        if let Some(place) = self.0.get_mut(..4) {
            place.copy_from_slice(&length.to_ne_bytes());
        }
        Ok(self.0)
    }
}
