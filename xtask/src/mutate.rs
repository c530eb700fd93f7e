//! `cargo xtask mutate`: takes the guards out of a copy of the tree, one at a time, and sees a test go red each time.
//! A guard whose absence no test notices is a survivor. `cargo xtask mutate authn` lets `cargo-mutants` do the same
//! with every function of `crates/authn`. Knows the table of guards, not what they guard.

mod authn;
mod control;
mod edge;
mod engine;
mod limits;
mod record;
mod store;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};

use crate::{
    command, install, repo,
    report::Report,
    stack::{Options, Stack},
    tools,
};

/// The options of `cargo xtask mutate`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask mutate                 every guard\n  cargo xtask mutate guards j7       those with this in their name or their file's\n  cargo xtask mutate --list          their names\n  cargo xtask mutate authn           cargo-mutants over crates/authn"
)]
pub struct Args {
    /// `guards` (the table of this command) or `authn` (cargo-mutants over that crate).
    #[arg(default_value = "guards")]
    pub what: String,
    /// Only guards with this in their name or their file's; for `authn` only files whose path has it.
    pub name: Option<String>,
    /// Lists the guards and does nothing.
    #[arg(long)]
    pub list: bool,
}

/// A line that holds something, and what stands there when it is taken out.
#[derive(Debug, Clone, Copy)]
pub struct Guard {
    /// The acceptance line that it holds, and which part of it.
    pub name: &'static str,
    /// Where it stands.
    pub file: &'static str,
    /// The text, which stands in the file exactly once.
    pub text: &'static str,
    /// The text without the guard.
    pub without: &'static str,
    /// Which tests of the file's package must notice: a part of their names, or nothing for all. After `NAME: ` those
    /// of the package's integration test of that name, which get stores and a provider of their own; else unit tests.
    pub tests: &'static str,
}

/// The whole table.
fn guards() -> impl Iterator<Item = &'static Guard> {
    authn::GUARDS
        .iter()
        .chain(edge::GUARDS)
        .chain(engine::GUARDS)
        .chain(limits::GUARDS)
        .chain(record::GUARDS)
        .chain(store::GUARDS)
        .chain(control::GUARDS)
}

/// From an empty folder on two cores.
const BUILD: Duration = Duration::from_secs(30 * 60);
/// One package's tests, or a mutant that never ends.
const TESTS: Duration = Duration::from_secs(5 * 60);
/// The whole of cargo-mutants.
const MUTANTS: Duration = Duration::from_secs(6 * 3600);

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    command::catch_signals()?;
    let root = repo::root()?;
    match args.what.as_str() {
        "guards" => {}
        "authn" => return mutants(&root, args.name.as_deref()),
        other => bail!("there is nothing called {other}; known: guards, authn"),
    }
    let part = args.name.as_deref().unwrap_or_default();
    let fits = |guard: &&Guard| guard.name.contains(part) || guard.file.contains(part);
    let chosen: Vec<&Guard> = guards().filter(fits).collect();
    ensure!(!chosen.is_empty(), "no guard has {part} in its name or its file's");
    if args.list {
        chosen.iter().for_each(|guard| println!("{}  {}", guard.name, guard.file));
        return Ok(ExitCode::SUCCESS);
    }
    let stale = stale(&root, &chosen);
    ensure!(stale.is_empty(), "the table does not fit the tree:\n{}", stale.join("\n"));
    walk(&root, &chosen)
}

/// Entries whose text does not stand in their file exactly once, and why.
fn stale(root: &Path, guards: &[&Guard]) -> Vec<String> {
    let mut texts: BTreeMap<&str, String> = BTreeMap::new();
    let mut found = Vec::new();
    for guard in guards {
        let text = texts
            .entry(guard.file)
            .or_insert_with(|| fs::read_to_string(root.join(guard.file)).unwrap_or_default());
        let times = text.matches(guard.text).count();
        if times != 1 {
            found.push(format!("{}: its text stands {times} times in {}", guard.name, guard.file));
        }
        if guard.text == guard.without {
            found.push(format!("{}: nothing is taken out", guard.name));
        }
    }
    found
}

/// How a guard fared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Noticed,
    Survived,
    DoesNotCompile,
}

fn walk(root: &Path, chosen: &[&Guard]) -> anyhow::Result<ExitCode> {
    let mut report = Report::new();
    let copy = repo::target(root).join("mutate/tree");
    let stores = match chosen.iter().any(|guard| guard.integration().is_some()) {
        true => Some(stores(&mut report)?),
        false => None,
    };
    let environment = stores.as_ref().map_or_else(Vec::new, |(_, environment)| environment.clone());
    let lab = Lab { copy, environment };
    let ended = experiments(root, chosen, &lab, &mut report);
    if let Some((stack, _)) = stores {
        stack.discard()?;
    }
    ended
}

/// Where guards are taken out, and what integration tests are told.
struct Lab {
    copy: PathBuf,
    environment: Vec<(&'static str, OsString)>,
}

/// What integration tests of the services need, as `cargo xtask test` starts it.
fn stores(report: &mut Report) -> anyhow::Result<(Stack, Vec<(&'static str, OsString)>)> {
    let wanted = [install::Part::Postgres, install::Part::Redis, install::Part::OidcProvider];
    let parts = install::ensure(&wanted, report)?;
    let mut options = Options::new("mutate");
    options.reset = true;
    options.password = Some("test".to_owned());
    let mut stores = Stack::stores(&options, report)?;
    let cluster = stores.redis_cluster("admin", report)?;
    let environment = vec![
        ("GATEHOUSE_TEST_REDIS", stores.instance.redis("admin").into()),
        ("GATEHOUSE_TEST_REDIS_CLUSTER", cluster.into()),
        ("GATEHOUSE_TEST_POSTGRES", stores.instance.database("postgres").into()),
        ("GATEHOUSE_TEST_REDIS_SERVER", parts.redis_server()?.into()),
        ("GATEHOUSE_TEST_OIDC", parts.oidc()?.into()),
    ];
    Ok((stores, environment))
}

fn experiments(
    root: &Path,
    chosen: &[&Guard],
    lab: &Lab,
    report: &mut Report,
) -> anyhow::Result<ExitCode> {
    let packages: BTreeSet<&str> = chosen.iter().map(|guard| package(guard.file)).collect();
    report.expect(packages.len() + 1);
    report.step("Copy the tree", |_| copy_tree(root, &lab.copy))?;
    for package in packages {
        let name = format!("Build the tests of {package} and see them green");
        report.step(&name, |_| {
            // Only those that are asked: others of the package may need parts that are not started here.
            let of_package = chosen.iter().filter(|guard| self::package(guard.file) == package);
            let parts: BTreeSet<&str> = of_package.map(|guard| guard.tests).collect();
            for part in parts {
                let sound = lab.tests(package, part, BUILD)?;
                let whole = sound == Fate::Survived;
                ensure!(whole, "the tests {part} of {package} are not green as they are");
            }
            Ok(())
        })?;
    }
    let width = chosen.iter().map(|guard| guard.name.len()).max().unwrap_or_default();
    let mut survivors = Vec::new();
    for guard in chosen {
        let began = Instant::now();
        let fate = without(lab, guard)?;
        let word = match fate {
            Fate::Noticed => "noticed",
            Fate::Survived => "SURVIVED",
            Fate::DoesNotCompile => "DOES NOT COMPILE",
        };
        println!("{:width$}  {word:8}  {:5.1} s", guard.name, began.elapsed().as_secs_f32());
        if fate != Fate::Noticed {
            survivors.push(guard.name);
        }
    }
    println!("{} guards, {} noticed", chosen.len(), chosen.len() - survivors.len());
    if survivors.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    println!("not noticed: {}", survivors.join(", "));
    Ok(ExitCode::FAILURE)
}

/// Runs the tests with the guard taken out of the copy, which is whole again afterwards.
fn without(lab: &Lab, guard: &Guard) -> anyhow::Result<Fate> {
    let file = lab.copy.join(guard.file);
    let whole = fs::read_to_string(&file).with_context(|| guard.file.to_owned())?;
    fs::write(&file, whole.replacen(guard.text, guard.without, 1))?;
    let fate = lab.tests(package(guard.file), guard.tests, TESTS);
    fs::write(&file, whole)?;
    fate
}

/// The package that a file belongs to.
fn package(file: &str) -> &str {
    let folder = file.split("/src/").next().unwrap_or_default();
    folder.rsplit('/').next().unwrap_or_default()
}

impl Guard {
    /// The integration test whose tests it asks for.
    fn integration(&self) -> Option<&'static str> {
        self.tests.split_once(": ").map(|(name, _)| name)
    }
}

impl Lab {
    /// Runs a package's tests whose names have `part` in them ([`Guard::tests`]). A run that takes too long was noticed,
    /// too.
    fn tests(&self, package: &str, part: &str, limit: Duration) -> anyhow::Result<Fate> {
        let (integration, part) = match part.split_once(": ") {
            Some((name, part)) => (Some(name), part),
            None => (None, part),
        };
        let cargo = |more: &[&str]| {
            let mut cargo = repo::cargo(&self.copy);
            cargo.args(["test", "--quiet", "--package", &format!("gatehouse-{package}")]);
            match integration {
                Some(name) => cargo.args(["--test", name]),
                None if self.copy.join(folder(package)).join("src/lib.rs").exists() => {
                    cargo.arg("--lib")
                }
                None => cargo.arg("--bins"),
            };
            cargo.args(more).env("CARGO_TARGET_DIR", self.copy.with_file_name("target"));
            cargo.envs(self.environment.iter().map(|(name, value)| (name, value)));
            cargo
        };
        let built = command::output(&mut cargo(&["--no-run"]), "building a mutant", BUILD)?;
        if !built.status.success() {
            return Ok(Fate::DoesNotCompile);
        }
        let mut run = cargo(&["--", part]);
        match command::output(&mut run, "a mutant's tests", limit) {
            Ok(done) if done.status.success() => Ok(Fate::Survived),
            Ok(_) => Ok(Fate::Noticed),
            Err(_) if !command::interrupted() => Ok(Fate::Noticed),
            Err(error) => Err(error),
        }
    }
}

/// The folder of one of our packages.
fn folder(package: &str) -> PathBuf {
    let service = guards().find(|guard| self::package(guard.file) == package);
    let file = service.map(|guard| guard.file).unwrap_or_default();
    PathBuf::from(file.split("/src/").next().unwrap_or_default())
}

/// Brings the copy up to date; what did not change keeps its time, so that it is not built again.
fn copy_tree(root: &Path, copy: &Path) -> anyhow::Result<()> {
    let mut git = std::process::Command::new("git");
    git.current_dir(root).args(["ls-files", "-z", "-co", "--exclude-standard"]);
    let listed = command::run(&mut git, "git ls-files", TESTS)?;
    let files: BTreeSet<&str> = listed.split('\0').filter(|path| !path.is_empty()).collect();
    for path in &files {
        let (from, to) = (root.join(path), copy.join(path));
        // A file that git lists and that is gone.
        let Ok(text) = fs::read(&from) else { continue };
        if fs::read(&to).is_ok_and(|known| known == text) {
            continue;
        }
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&to, text).with_context(|| to.display().to_string())?;
    }
    Ok(())
}

/// Lets cargo-mutants change every function of `crates/authn`.
fn mutants(root: &Path, file: Option<&str>) -> anyhow::Result<ExitCode> {
    let mut report = Report::new();
    report.expect(1);
    let program = tools::ensure(tools::MUTANTS, &mut report)?;
    let out = repo::target(root).join("mutate");
    fs::create_dir_all(&out)?;
    let mut cargo = std::process::Command::new(program);
    cargo
        .current_dir(root)
        .args(["mutants", "--package", "gatehouse-authn", "--no-shuffle", "--colors", "never"])
        .args(["--baseline", "run", "--output"])
        .arg(&out)
        .args(["--", "--lib"]);
    if let Some(file) = file {
        cargo.args(["--file", &format!("**/{file}*")]);
    }
    println!("cargo-mutants over crates/authn; its reports are in {}", out.display());
    let done = command::output(&mut cargo, "cargo-mutants", MUTANTS)?;
    print!("{}", done.stdout);
    let missed = out.join("mutants.out/missed.txt");
    let survivors = fs::read_to_string(&missed).unwrap_or_default();
    println!("{} survivors", survivors.lines().count());
    print!("{survivors}");
    // cargo-mutants: 0 is no survivor, 2 is survivors, 3 is time-outs (which are noticed).
    let sound = matches!(done.status.code(), Some(0 | 3)) && survivors.is_empty();
    if !sound && !matches!(done.status.code(), Some(2 | 3)) {
        bail!("cargo-mutants did not run:\n{}", command::last_lines(&done.stderr, 12));
    }
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_guard_stands_in_the_tree_exactly_once() {
        let all: Vec<&Guard> = guards().collect();
        let stale = stale(&repo::root().unwrap(), &all);
        assert!(stale.is_empty(), "{stale:#?}");
        let names: BTreeSet<&str> = all.iter().map(|guard| guard.name).collect();
        assert_eq!(names.len(), all.len(), "a name stands twice");
        assert!(all.len() >= 60, "{} guards", all.len());
    }

    #[test]
    fn a_text_that_is_gone_or_stands_twice_is_stale() {
        let guard =
            |text| Guard { name: "x", file: "xtask/src/mutate.rs", text, without: "", tests: "" };
        let check = |text: &'static str| stale(&repo::root().unwrap(), &[&guard(text)]).len();
        assert_eq!(check(concat!("//! `cargo xtask ", "mutate`: takes")), 0);
        assert_eq!(check(concat!("this text is ", "nowhere")), 1);
        assert_eq!(check("use "), 1);
    }

    #[test]
    fn a_file_names_its_package() {
        for (file, expected) in [
            ("crates/authn/src/jws/header.rs", "authn"),
            ("ratelimit-sidecar/src/config.rs", "ratelimit-sidecar"),
        ] {
            assert_eq!(package(file), expected);
        }
    }
}
