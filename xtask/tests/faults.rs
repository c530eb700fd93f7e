//! What `cargo xtask up` says when something is wrong: one line per mistake with its cause and its mend, a non-zero
//! exit, and nothing half-started left. Each as a golden of exit code and stderr.
//!
//! The goldens are renewed with `UPDATE_GOLDEN=1 cargo test -p gatehouse-xtask --test faults`, and read in review.
//! They leave out the progress lines, which depend on what the machine has already.

#![cfg(test)]

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use gatehouse_xtask::{
    paths,
    report::Report,
    stack::{self, Options, Stack, record},
};

const XTASK: &str = env!("CARGO_BIN_EXE_gatehouse-xtask");

/// A name that no other test and no other run has.
fn name(fault: &str) -> String {
    format!("fault-{fault}-{}", std::process::id())
}

fn up(name: &str) -> Command {
    let mut up = Command::new(XTASK);
    up.args(["up", "--name", name]);
    up
}

/// Runs `command` and compares what it said; nothing of the instance at `dir` may run afterwards.
fn check(golden: &str, mut command: Command, dir: &Path, hide: &[(&str, &str)]) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert!(stdout.is_empty(), "stdout: {}", String::from_utf8_lossy(&stdout));
    let mut said = format!("exit {}\n", status.code().unwrap());
    for line in String::from_utf8(stderr).unwrap().lines().filter(|line| !line.starts_with('[')) {
        let line =
            hide.iter().fold(line.to_owned(), |line, (text, shown)| line.replace(text, shown));
        said.push_str(&line.replace(&dir.display().to_string(), "RUN"));
        said.push('\n');
    }
    let left = record::marked(dir);
    assert!(left.is_empty(), "left running: {left:?}");

    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{golden}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, &said).unwrap();
    }
    assert_eq!(said, fs::read_to_string(&file).unwrap(), "{}", file.display());
}

/// Removes the directory of an instance that never came up.
fn remove(dir: &Path) {
    if dir.exists() {
        fs::remove_dir_all(dir).unwrap();
    }
}

/// A directory of this test, gone at its end, with what it mounted.
struct Scratch(PathBuf);

impl Scratch {
    fn new(fault: &str) -> Self {
        let dir = std::env::temp_dir().join(name(fault));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
fn a_taken_port_is_named_with_its_flag() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for flag in ["port", "postgres-port"] {
        let name = name(flag);
        let mut command = up(&name);
        command.args([&format!("--{flag}"), &port]);
        let dir = stack::dir(&name).unwrap();
        check(&format!("taken-{flag}"), command, &dir, &[(&port, "PORT")]);
        remove(&dir);
    }
}

#[test]
fn a_document_with_three_mistakes_is_three_lines() {
    let scratch = Scratch::new("document");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = fs::read_to_string(root.join("examples/gateway/suite.json")).unwrap();
    let text = text
        .replace("\"RS256\"", "\"none\"")
        .replace("\"audiences\"", "\"audience\"")
        .replace("\"closed\"", "\"maybe\"");
    let file = scratch.0.join("suite.json");
    fs::write(&file, text).unwrap();
    let name = name("document");
    let mut command = up(&name);
    command.arg("--config").arg(&file);
    let dir = stack::dir(&name).unwrap();
    check("document", command, &dir, &[(&file.display().to_string(), "FILE")]);
    assert!(!dir.exists(), "nothing is made before the document is read");
}

/// Runs `up` where a mount namespace of its own hides or adds something; it ends with the process.
fn up_behind(mounts: &str, name: &str, home: &Path) -> Command {
    let mut unshare = Command::new("unshare");
    unshare
        .args(["--mount", "--propagation", "private", "sh", "-ec"])
        .arg(format!("{mounts}\nexec \"$0\" up --name \"$1\""))
        .args([XTASK, name])
        .env("GATEHOUSE_HOME", home);
    unshare
}

#[test]
fn missing_packages_are_each_named_where_nothing_can_be_installed() {
    let scratch = Scratch::new("packages");
    let name = name("packages");
    let hide = ["/usr/bin/redis-server", "/usr/bin/apt-get"]
        .map(|file| format!("mount --bind /dev/null {file}"));
    let mounts = format!("mount -t tmpfs none /usr/lib/postgresql\n{}", hide.join("\n"));
    let command = up_behind(&mounts, &name, &scratch.0);
    check("packages", command, &scratch.0.join("run").join(&name), &[]);
}

#[test]
fn a_full_disk_is_named_and_leaves_nothing() {
    let scratch = Scratch::new("disk");
    let name = name("disk");
    // What is installed already is found there, so that only the data meets the small disk.
    let mounts = format!(
        "mount -t tmpfs -o size=8m,mode=755 none {home}\n\
         for part in venv debs; do ln -s {real}/$part {home}/$part; done",
        home = scratch.0.display(),
        real = paths::home().unwrap().display()
    );
    let command = up_behind(&mounts, &name, &scratch.0);
    check("disk", command, &scratch.0.join("run").join(&name), &[]);
}

/// An instance whose stores ran once.
fn ran_once(fault: &str) -> (Options, PathBuf, PathBuf) {
    let options = Options { reset: true, ..Options::new(&name(fault)) };
    let stack = Stack::stores(&options, &mut Report::quiet()).unwrap();
    let (dir, data) = (stack.instance.dir.clone(), stack.data().to_owned());
    stack.stop().unwrap();
    (options, dir, data)
}

/// Removes such an instance. It starts once more: what was broken is mended by `reset`, as the message says.
fn remove_ran(options: &Options) {
    Stack::stores(options, &mut Report::quiet()).unwrap().discard().unwrap();
}

#[test]
fn a_postgresql_that_does_not_start_says_why() {
    let (options, dir, data) = ran_once("postgres");
    let file = data.join("postgres/postgresql.conf");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{text}\nno_such_setting = 1\n")).unwrap();
    let data = data.display().to_string();
    check("postgres", up(&options.name), &dir, &[(&data, "DATA")]);
    remove_ran(&options);
}

#[test]
fn a_redis_that_does_not_start_says_why() {
    let (options, dir, data) = ran_once("redis");
    // Its user may not look into its own directory.
    let folder = data.join("redis");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o000)).unwrap();
    let data = data.display().to_string();
    check("redis", up(&options.name), &dir, &[(&data, "DATA")]);
    remove_ran(&options);
}

#[test]
fn an_instance_that_runs_is_not_started_twice() {
    let options = Options { reset: true, ..Options::new(&name("twice")) };
    let stack = Stack::stores(&options, &mut Report::quiet()).unwrap();
    let mut second = up(&options.name);
    let Output { status, stderr, .. } = second.output().unwrap();
    assert_eq!(status.code(), Some(69));
    let said = String::from_utf8(stderr).unwrap().replace(&options.name, "NAME");
    assert_eq!(
        said,
        "xtask: the instance NAME runs already; end it with Ctrl-C where it was started, or choose another with --name\n"
    );
    // The first one is untouched by the refusal.
    assert!(stack.processes().iter().all(record::Process::runs));
    stack.discard().unwrap();
}

/// A link that a reset must not follow: what it points at is not the instance's.
#[test]
fn a_reset_removes_a_link_and_not_what_it_points_at() {
    let scratch = Scratch::new("link");
    fs::write(scratch.0.join("precious"), "x").unwrap();
    let (options, dir, _) = ran_once("link");
    let images = dir.join("images");
    if images.exists() {
        fs::remove_dir_all(&images).unwrap();
    }
    symlink(&scratch.0, &images).unwrap();
    remove_ran(&options);
    assert!(scratch.0.join("precious").exists());
}
