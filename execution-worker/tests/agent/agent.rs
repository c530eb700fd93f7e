//! An agent that does what the first argument says: mostly what an agent must not get away with.
//! Compiled by the tests with rustc, statically and without crates, so that a root file system is one file.

mod bombs;
mod escape;
mod outside;
mod shout;
mod taint;

use std::{
    env, fs,
    io::{self, Read, Write},
    process::{Command, exit},
    thread,
    time::Duration,
};

unsafe extern "C" {
    fn signal(number: i32, handler: usize) -> usize;
}

/// SIGTERM changes nothing any more.
fn ignore_term() {
    // SAFETY: SIG_IGN installs no code.
    unsafe { signal(15, 1) };
}

fn script() {
    let mut stdin = Vec::new();
    io::stdin().read_to_end(&mut stdin).expect("stdin");
    let file = fs::read("/run/agent/input.json").expect("input.json");
    let text = String::from_utf8(stdin).expect("utf-8");
    let after = |name: &str| {
        let value = text.split_once(&format!("\"{name}\":"))?.1;
        Some(value.split([',', '}']).next()?.trim_matches('"'))
    };
    let number =
        |name: &str| after(name).map_or(0, |value| value.parse::<u64>().expect("a number"));
    if after("ignores_term") == Some("true") {
        ignore_term();
    }
    thread::sleep(Duration::from_millis(number("ms")));
    let mut out = io::stdout().lock();
    let line = [b'\n'; 1 << 16];
    let mut noise = number("noise_bytes");
    while noise > 0 {
        let part = noise.min(line.len() as u64);
        out.write_all(&line[..part as usize]).expect("stdout");
        noise -= part;
    }
    match after("end").unwrap_or("completed") {
        "completed" => {
            let (read, found) = (text.len(), file.len());
            writeln!(out, "{{\"stdin_bytes\":{read},\"file_bytes\":{found}}}").expect("stdout");
        }
        "failed" => exit(1),
        "retry_asked" => exit(75),
        "timeout" => thread::sleep(Duration::from_secs(3600)),
        "output_invalid" => println!("no json"),
        "oom_killed" => {
            let mut held = Vec::new();
            loop {
                held.push(vec![1_u8; 8 << 20]);
            }
        }
        "disk_full" => {
            for n in 0.. {
                if fs::write(format!("/tmp/{n}"), vec![0_u8; 1 << 20]).is_err() {
                    exit(1);
                }
            }
        }
        other => panic!("unknown end {other}"),
    }
}

fn main() {
    let args: Vec<String> = env::args().collect();
    let arg = |n: usize| args.get(n).map_or("", String::as_str);
    match arg(1) {
        // Input from both places, and who we are.
        "look" => {
            let mut stdin = String::new();
            io::stdin().read_to_string(&mut stdin).expect("stdin");
            let file = fs::read_to_string("/run/agent/input.json").expect("input.json");
            let status = fs::read_to_string("/proc/self/status").expect("status");
            let field = |name: &str| {
                let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
                line.split_once(':').map_or("", |(_, value)| value.trim()).replace('\t', " ")
            };
            let tried = |result: io::Result<()>| match result {
                Ok(()) => "done".to_owned(),
                Err(error) => format!("{:?}", error.kind()),
            };
            let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
            let links = fs::read_to_string("/proc/net/dev").unwrap_or_default();
            let links: Vec<_> = links
                .lines()
                .filter_map(|l| Some(l.split_once(':')?.0.trim().to_owned()))
                .collect();
            let mut names: Vec<_> = env::vars().map(|(name, _)| name).collect();
            names.sort();
            println!("{}", fs::read_to_string("/proc/version").expect("version").trim());
            println!(
                "{{\"same\":{},\"uid\":\"{}\",\"caps\":\"{} {}\",\"write_root\":\"{}\",\"write_input\":\"{}\",\
                 \"remove_input\":\"{}\",\"write_tmp\":\"{}\",\"env\":{:?},\"mounts\":{},\"links\":{:?}}}",
                stdin == file,
                field("Uid"),
                field("CapEff"),
                field("CapBnd"),
                tried(fs::write("/open/x", "x")),
                tried(fs::write("/run/agent/input.json", "x")),
                tried(fs::remove_file("/run/agent/input.json")),
                tried(fs::write("/tmp/x", "x")),
                names,
                mounts.lines().count(),
                links,
            );
        }
        "exit" => {
            eprintln!("the last words");
            exit(arg(2).parse().expect("a code"));
        }
        "file" => {
            println!("not the result");
            fs::write("/run/agent/output.json", arg(2)).expect("output.json");
        }
        "link" => {
            std::os::unix::fs::symlink(arg(2), "/run/agent/output.json").expect("link");
            println!("{{}}");
        }
        "print" => println!("{}", arg(2)),
        // Lines without an end, or one line without an end.
        "spam" => {
            let mut out = io::stdout().lock();
            let line = vec![if arg(2) == "line" { b'x' } else { b'\n' }; 1 << 20];
            for _ in 0..64 {
                out.write_all(&line).expect("stdout");
            }
            if arg(2) != "line" {
                writeln!(out, "{{\"after\":\"the flood\"}}").expect("stdout");
            }
        }
        "memory" => {
            let mut held = Vec::new();
            loop {
                held.push(vec![1_u8; 8 << 20]);
                eprintln!("{} MiB", held.len() * 8);
            }
        }
        // A file beyond the size limit, then many small ones until the disk is full.
        "fill" => {
            let error = loop {
                let name = format!("{}/{}", arg(2), fs::read_dir(arg(2)).expect("dir").count());
                if let Err(error) = fs::write(name, vec![0_u8; 1 << 20]) {
                    break error;
                }
            };
            println!("{{\"refused\":\"{:?}\"}}", error.kind());
        }
        "forks" => {
            let mut children = 0;
            let refused = loop {
                match Command::new("/agent").arg("sleep").spawn() {
                    Ok(_) => children += 1,
                    Err(error) => break format!("{:?}", error.kind()),
                }
                if children == 1000 {
                    break "never".to_owned();
                }
            };
            println!("{{\"children\":{children},\"refused\":\"{refused}\"}}");
        }
        // Leaves a child behind that holds our pipes.
        "orphan" => {
            Command::new("/agent").arg("sleep").spawn().expect("child");
            println!("{{\"left\":1}}");
        }
        // For as long as the input says.
        "wait" => {
            let mut stdin = String::new();
            io::stdin().read_to_string(&mut stdin).expect("stdin");
            let digits: String = stdin.chars().filter(char::is_ascii_digit).collect();
            thread::sleep(Duration::from_millis(digits.parse().expect("milliseconds")));
            println!("{{\"waited\":{digits}}}");
        }
        // What the input says, in the words of the simulating driver.
        // Nothing but processor time, for so many milliseconds.
        "burn" => {
            let until = std::time::Instant::now() + Duration::from_millis(arg(2).parse().expect("a number"));
            let mut turns = 0_u64;
            while std::time::Instant::now() < until {
                turns = std::hint::black_box(turns + 1);
            }
            println!("{{\"turned\":{}}}", turns > 0);
        }
        "script" => script(),
        "sleep" => thread::sleep(Duration::from_secs(3600)),
        "escape" => escape::all(&args[2..]),
        "attempt" => escape::one(&args[2..]),
        "result" => escape::result(arg(2), arg(3)),
        "whoami" => escape::whoami(),
        "bomb" => bombs::bomb(arg(2), arg(3).parse().expect("a number")),
        "everything" => bombs::everything(arg(2)),
        "ask" => outside::ask(&args[2..]),
        "ask_by" => outside::ask_by(arg(2), &args[3..]),
        "proxy" => outside::proxy(),
        "reach" => outside::reach(&args[2..]),
        "deaf" => bombs::deaf(),
        "say" => shout::say(),
        "shout" => shout::shout(arg(2), arg(3), arg(4).parse().expect("a number")),
        "taint" => taint::taint(arg(2)),
        other => {
            eprintln!("unknown mode {other}");
            exit(64);
        }
    }
}
