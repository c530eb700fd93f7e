//! `cargo xtask mutate`: takes the guards out of a copy of the tree, one at a time, and sees a test go red each time.
//! A guard whose absence no test notices is a survivor. `cargo xtask mutate authn` lets `cargo-mutants` do the same
//! with every function of `crates/authn`; `cargo xtask mutate policies` takes each policy out of the schema. Knows the
//! table of guards, not what they guard.

mod attempts;
mod audit;
mod authn;
mod cache;
mod cli;
mod control;
mod conventions;
mod edge;
mod egress;
mod engine;
mod events;
mod functions;
mod images;
mod lifecycle;
mod limits;
mod policies;
mod queue;
mod record;
mod replica;
mod shape;
mod store;
mod tenancy;
mod validate;
mod versions;
mod warm;
mod watching;
mod webhooks;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fmt, fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail, ensure};

use crate::{
    command, install, repo,
    report::Report,
    stack::{Options, Stack},
    up::seed,
};

/// The options of `cargo xtask mutate`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask mutate                 every guard\n  cargo xtask mutate guards j7       those with this in their name or their file's\n  cargo xtask mutate --list          their names\n  cargo xtask mutate authn der probe cargo-mutants over these files of crates/authn\n  cargo xtask mutate policies        every policy of the schema: dropped, loosened, let off"
)]
pub struct Args {
    /// `guards` (the table of this command), `authn` (cargo-mutants over that crate) or `policies` (of the schema).
    #[arg(default_value = "guards")]
    pub what: String,
    /// Only guards with one of these in their name or their file's; for `authn` only files of `src` that begin so.
    pub parts: Vec<String>,
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
    /// of the package's integration test of that name, which get stores and a provider of their own; after
    /// `PACKAGE/NAME: ` another package's; else unit tests.
    pub tests: &'static str,
}

/// The whole table.
fn guards() -> impl Iterator<Item = &'static Guard> {
    authn::GUARDS
        .iter()
        .chain(edge::GUARDS)
        .chain(egress::GUARDS)
        .chain(engine::GUARDS)
        .chain(images::GUARDS)
        .chain(lifecycle::GUARDS)
        .chain(limits::GUARDS)
        .chain(queue::GUARDS)
        .chain(attempts::GUARDS)
        .chain(watching::GUARDS)
        .chain(record::GUARDS)
        .chain(replica::GUARDS)
        .chain(shape::GUARDS)
        .chain(store::GUARDS)
        .chain(control::GUARDS)
        .chain(audit::GUARDS)
        .chain(cache::GUARDS)
        .chain(conventions::GUARDS)
        .chain(tenancy::GUARDS)
        .chain(events::GUARDS)
        .chain(webhooks::GUARDS)
        .chain(versions::GUARDS)
        .chain(warm::GUARDS)
        .chain(validate::GUARDS)
        .chain(cli::GUARDS)
}

/// From an empty folder on two cores.
const BUILD: Duration = Duration::from_secs(30 * 60);
/// One package's tests, or a mutant that never ends.
const TESTS: Duration = Duration::from_secs(5 * 60);

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    command::catch_signals()?;
    let root = repo::root()?;
    match args.what.as_str() {
        "guards" => {}
        "authn" => return functions::change(&root, &args.parts),
        "policies" => return policies::change(&root),
        other => bail!("there is nothing called {other}; known: guards, authn, policies"),
    }
    let chosen = chosen(&args.parts)?;
    if args.list {
        chosen.iter().for_each(|guard| println!("{}  {}", guard.name, guard.file));
        return Ok(ExitCode::SUCCESS);
    }
    let stale = stale(&root, &chosen);
    ensure!(stale.is_empty(), "the table does not fit the tree:\n{}", stale.join("\n"));
    walk(&root, &chosen)
}

/// The guards that have one of `parts` in their name or their file's; all where no part is named.
fn chosen(parts: &[String]) -> anyhow::Result<Vec<&'static Guard>> {
    let fits = |guard: &Guard, part: &str| guard.name.contains(part) || guard.file.contains(part);
    for part in parts {
        // A part that is misspelt must not look like one whose guards were all noticed.
        ensure!(
            guards().any(|guard| fits(guard, part)),
            "no guard has {part} in its name or its file's"
        );
    }
    let wanted = |guard: &Guard| parts.is_empty() || parts.iter().any(|part| fits(guard, part));
    Ok(guards().filter(|guard| wanted(guard)).collect())
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

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Noticed => "noticed",
            Self::Survived => "SURVIVED",
            Self::DoesNotCompile => "DOES NOT COMPILE",
        })
    }
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
        command::forget_interrupt();
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
    let wanted = [
        install::Part::Postgres,
        install::Part::Redis,
        install::Part::OidcProvider,
        install::Part::PgBouncer,
        install::Part::Runsc,
        install::Part::Runsc2022,
        install::Part::Runc,
        install::Part::Registry,
    ];
    let parts = install::ensure(&wanted, report)?;
    let agent = report.step("Build the sample agent", |_| seed::build_agent())?;
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
        ("GATEHOUSE_TEST_PG_BIN", parts.pg("")?.into()),
        ("GATEHOUSE_TEST_PGBOUNCER", parts.pgbouncer()?.into()),
        ("GATEHOUSE_TEST_RUNSC", parts.runsc()?.into()),
        ("GATEHOUSE_TEST_RUNSC_2022", parts.runsc_2022()?.into()),
        ("GATEHOUSE_TEST_RUNC", parts.runc()?.into()),
        ("GATEHOUSE_TEST_REGISTRY", parts.registry()?.into()),
        ("GATEHOUSE_TEST_AGENT", agent.into()),
    ];
    Ok((stores, environment))
}

fn experiments(
    root: &Path,
    chosen: &[&Guard],
    lab: &Lab,
    report: &mut Report,
) -> anyhow::Result<ExitCode> {
    let packages: BTreeSet<&str> = chosen.iter().map(|guard| guard.package()).collect();
    report.expect(1 + packages.len() + chosen.len());
    report.step("Copy the tree", |_| copy_tree(root, &lab.copy))?;
    for package in packages {
        let name = format!("Build the tests of {package} and see them green");
        report.step(&name, |_| {
            // Only those that are asked: others of the package may need parts that are not started here.
            let of_package = chosen.iter().filter(|guard| guard.package() == package);
            let parts: BTreeSet<&str> = of_package.map(|guard| guard.tests).collect();
            for part in parts {
                let sound = lab.tests(package, part, BUILD)?;
                ensure!(sound != Fate::DoesNotCompile, "{package} does not compile as it is");
                let green = sound == Fate::Survived;
                ensure!(green, "the tests {part} of {package} are not green as they are");
            }
            Ok(())
        })?;
    }
    let mut survivors = Vec::new();
    for guard in chosen {
        let so_far = report.elapsed().as_secs();
        let fate = report.step(guard.name, |note| {
            let fate = without(lab, guard)?;
            *note = format!("{fate}, begun at {so_far} s");
            Ok(fate)
        })?;
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
    let fate = lab.tests(guard.package(), guard.tests, TESTS);
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

    /// The package whose tests these are.
    fn package(&self) -> &'static str {
        let named = self.integration().and_then(|name| name.split_once('/'));
        named.map_or_else(|| package(self.file), |(package, _)| package)
    }
}

impl Lab {
    /// Runs a package's tests whose names have `part` in them ([`Guard::tests`]). A run that takes too long was noticed,
    /// too.
    fn tests(&self, package: &str, part: &str, limit: Duration) -> anyhow::Result<Fate> {
        let (integration, part) = match part.split_once(": ") {
            Some((name, part)) => (name.rsplit('/').next(), part),
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
    fn parts_add_up_and_a_misspelt_one_is_refused() {
        let count = |parts: &[&str]| {
            let parts: Vec<String> = parts.iter().map(|part| (*part).to_owned()).collect();
            chosen(&parts).map(|guards| guards.len())
        };
        let (all, r4, lease) = (count(&[]), count(&["r4 "]), count(&["lease"]));
        assert_eq!(all.unwrap(), guards().count());
        assert_eq!(count(&["lease", "r4 "]).unwrap(), r4.unwrap() + lease.unwrap());
        assert!(count(&["lease", "nonesuch"]).is_err());
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
