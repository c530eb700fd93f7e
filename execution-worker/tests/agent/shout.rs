//! Writing more than anybody wants to read.

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::fd::FromRawFd,
    path::Path,
    thread,
    time::Duration,
};

/// Writes `bytes` of `kind` to standard error or standard output, and then a result.
pub fn shout(place: &str, kind: &str, bytes: u64) {
    let fd = if place == "stdout" { 1 } else { 2 };
    // SAFETY: both are open, and nothing else of this process writes to them meanwhile.
    let mut to = std::mem::ManuallyDrop::new(unsafe { File::from_raw_fd(fd) });
    let pattern: &[u8] = match kind {
        "lines" => b"a line of a hundred bytes or so, which says nothing, again and again, and again, and again, and again\n",
        "line" => b"one line without an end ",
        // No UTF-8, NUL, what clears a screen, sets a title and moves the cursor, and a C1 control.
        _ => b"\xff\xfe\x00\x1b[2J\x1b]0;owned\x07\x1b[31m\xc2\x9b1m\xe2\x80\xae\n",
    };
    let block: Vec<u8> = pattern.iter().copied().cycle().take(pattern.len() * 1024).collect();
    let mut left = bytes;
    while left > 0 {
        let part = left.min(block.len() as u64);
        to.write_all(&block[..part as usize]).expect("written");
        left -= part;
    }
    fs::write("/run/agent/output.json", "{\"ok\":true}").expect("output.json");
}

/// Says a line, waits as long as the input says, and says another.
pub fn say() {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).expect("stdin");
    let ms = text
        .split_once("\"ms\":")
        .map_or("0", |(_, rest)| rest.split([',', '}']).next().unwrap_or("0"));
    eprintln!("first words");
    thread::sleep(Duration::from_millis(ms.trim().parse().expect("a number")));
    eprintln!("last words");
    assert!(Path::new("/run/agent").exists());
    fs::write("/run/agent/output.json", "{\"ok\":true}").expect("output.json");
}
