//! What an agent does with a network: asks through its proxy as common clients do, and looks for a way around it.

use std::{
    env,
    ffi::{c_int, c_void},
    io::{Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    process::exit,
    time::Duration,
};

unsafe extern "C" {
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn sendto(
        fd: c_int,
        bytes: *const c_void,
        len: usize,
        flags: c_int,
        to: *const c_void,
        to_len: u32,
    ) -> isize;
    fn recv(fd: c_int, bytes: *mut c_void, len: usize, flags: c_int) -> isize;
    fn setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void, len: u32) -> c_int;
}

const REACH: Duration = Duration::from_millis(300);

/// Asks each address; says how each was answered, and fails where one was not with success.
pub fn ask(urls: &[String]) {
    ask_by(&env::var("HTTP_PROXY").expect("HTTP_PROXY"), urls);
}

/// The same by `proxy`, whose ever it is.
pub fn ask_by(proxy: &str, urls: &[String]) {
    let statuses: Vec<String> = urls.iter().map(|url| get(proxy, url)).collect();
    println!("{{\"statuses\":[{}]}}", statuses.join(","));
    if statuses.iter().any(|status| !status.starts_with('2')) {
        eprintln!("asked in vain");
        exit(1);
    }
}

/// Its own way out.
pub fn proxy() {
    println!("{:?}", env::var("HTTP_PROXY").expect("HTTP_PROXY"));
}

/// Asks for an address; with a method before it and a blank, by that.
fn get(proxy: &str, url: &str) -> String {
    let line = if url.contains(' ') { url.to_owned() } else { format!("GET {url}") };
    let (user, at) =
        proxy.strip_prefix("http://").and_then(|rest| rest.split_once('@')).expect("a user");
    let mut stream = TcpStream::connect(at).expect("the proxy");
    let user = base64(user.as_bytes());
    write!(
        stream,
        "{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nproxy-authorization: Basic {user}\r\n\r\n"
    )
    .expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    eprintln!("{url}: {answer}");
    answer.split(' ').nth(1).unwrap_or("0").to_owned()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for part in bytes.chunks(3) {
        let word = part
            .iter()
            .enumerate()
            .fold(0_u32, |word, (n, byte)| word | u32::from(*byte) << (16 - 8 * n));
        for n in 0..4 {
            let digit =
                if n <= part.len() { DIGITS[(word >> (18 - 6 * n)) as usize & 63] } else { b'=' };
            text.push(char::from(digit));
        }
    }
    text
}

/// Tries each address (`1.2.3.4:5`, `[::1]:5`) by TCP and UDP, and ping; says what answered.
pub fn reach(addresses: &[String]) {
    let mut reached = Vec::new();
    for text in addresses {
        let at: SocketAddr = text.parse().expect("an address");
        if TcpStream::connect_timeout(&at, REACH).is_ok() {
            reached.push(format!("tcp {at}"));
        }
        let any = if at.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let asked = UdpSocket::bind(any).and_then(|socket| {
            socket.set_read_timeout(Some(REACH))?;
            socket.connect(at)?;
            socket.send(b"?")?;
            socket.recv(&mut [0; 16])
        });
        if asked.is_ok() {
            reached.push(format!("udp {at}"));
        }
        // Its own loopback answers itself.
        if let SocketAddr::V4(at) = at
            && !at.ip().is_loopback()
        {
            for (kind, name) in [(2, "ping"), (3, "raw ping")] {
                if ping(kind, at.ip().octets()) {
                    reached.push(format!("{name} {}", at.ip()));
                }
            }
        }
    }
    let links = std::fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let links = links.lines().filter(|line| line.contains(':')).count();
    println!("{{\"reached\":{reached:?},\"links\":{links}}}");
}

/// An echo request by a socket of `kind`: datagrams, or raw.
fn ping(kind: c_int, to: [u8; 4]) -> bool {
    // Type 8, code 0, the sum of an otherwise empty message.
    let message: [u8; 8] = [8, 0, 0xf7, 0xff, 0, 0, 0, 0];
    let mut address = [0_u8; 16];
    address[0] = 2;
    address[4..8].copy_from_slice(&to);
    let wait: [i64; 2] = [0, 300_000];
    let mut answer = [0_u8; 64];
    // SAFETY: every pointer is to a live array of the length beside it.
    unsafe {
        let fd = socket(2, kind, 1);
        fd >= 0
            && setsockopt(fd, 1, 20, wait.as_ptr().cast(), 16) == 0
            && sendto(fd, message.as_ptr().cast(), message.len(), 0, address.as_ptr().cast(), 16)
                > 0
            && recv(fd, answer.as_mut_ptr().cast(), answer.len(), 0) > 0
    }
}
