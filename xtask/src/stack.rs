//! Starts and stops a whole private system on this machine: PostgreSQL, Redis, the control API, the sidecar,
//! the worker and a real Envoy with the compiled filter. `up` runs one, and so do tests.
//! Knows how each part is started; decides nothing that the product decides.
//!
//! An instance is a directory under `.gatehouse/run/`. Whoever holds its lock runs it; everything that a killed
//! holder left is removed by the next one. Stopping ends exactly what was started.

pub mod child;
mod cluster;
pub mod envoy;
pub mod instance;
mod policy;
pub mod ports;
pub mod postgres;
pub mod record;
pub mod redis;
pub mod services;
pub mod sweep;
pub mod user;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;

use self::{
    child::Part,
    instance::{Client, Instance, Limiter, Ports, Secrets},
    policy::Policy,
    ports::Wish,
    record::{Claim, Process, Run},
    services::Services,
    user::User,
};
use crate::{
    install::{self, Tools},
    paths, repo,
    report::{Faults, Report, exit},
    wasm,
};

/// What to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// The instance's name: a folder name.
    pub name: String,
    /// Where limits are counted.
    pub limiter: Limiter,
    /// The gateway's port; any free one when absent.
    pub gateway_port: Option<u16>,
    /// The control API's own port (behind the gateway).
    pub control_port: Option<u16>,
    /// PostgreSQL's port.
    pub postgres_port: Option<u16>,
    /// Redis' port.
    pub redis_port: Option<u16>,
    /// The filter's document; the repository's example when absent.
    pub document: Option<PathBuf>,
    /// Whether to begin with an empty database.
    pub reset: bool,
    /// One password for every role and user, instead of random ones: for tests, which get it by environment.
    pub password: Option<String>,
    /// Whether what PostgreSQL confirms is on the disk: for benches, which count that.
    pub durable: bool,
}

impl Options {
    /// An instance called `name`, on free ports.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            limiter: Limiter::Redis,
            gateway_port: None,
            control_port: None,
            postgres_port: None,
            redis_port: None,
            document: None,
            reset: false,
            password: None,
            durable: false,
        }
    }
}

/// A running system. Dropping it stops it.
#[derive(Debug)]
pub struct Stack {
    /// What it is.
    pub instance: Instance,
    run: Run,
    user: User,
    /// Where the databases keep their files.
    data: PathBuf,
    /// In the order of their starts.
    parts: Vec<Part>,
    abandoned: bool,
}

/// The directory of the instance `name`.
pub fn dir(name: &str) -> anyhow::Result<PathBuf> {
    Ok(paths::home()?.join("run").join(name))
}

/// The instance `name`, if somebody runs it now.
pub fn running(name: &str) -> anyhow::Result<Option<Instance>> {
    let dir = dir(name)?;
    if !dir.is_dir() {
        return Ok(None);
    }
    match Run::claim(&dir)? {
        Claim::Taken => Instance::load(&dir),
        Claim::Ours(_) => Ok(None),
    }
}

/// How many steps [`Stack::start`] reports besides the installation.
const STEPS: usize = 8;

impl Stack {
    /// Installs what is missing, builds, and starts everything.
    pub fn start(options: &Options, report: &mut Report) -> anyhow::Result<Self> {
        let policy = Policy::read(options.document.as_deref())?;
        let run = claim(&options.name, report)?;
        report.expect(STEPS);
        // The machine's own faults show up before the long build: a port that is taken, a full disk.
        let stores = choose_store_ports(options)?;
        choose_service_ports(options)?;
        let tools = install::ensure(install::Part::ALL, report)?;
        // From here on an early return stops what was started.
        let mut stack = Self::new(options, run, stores, &tools)?;
        stack.start_stores(&tools, options.durable, report)?;
        let bin = report.step("Build the services", |_| services::build())?;
        let suite = report.step("Build the filter", |_| build_filter())?;
        let services = choose_service_ports(options)?;
        let Ports { postgres, redis, .. } = stores;
        stack.instance.ports = Ports { postgres, redis, ..services };

        let instance = stack.instance.clone();
        let services = Services {
            instance: &instance,
            bin: &bin,
            runsc: tools.runsc()?,
            issuer: &policy.issuer,
            audience: &policy.audience,
        };
        report.step("Control API", |_| {
            services.migrate()?;
            stack.instance.platform = services.bootstrap()?;
            stack.parts.push(services.control(&stack.run)?);
            Ok(())
        })?;
        report.step("Rate-limit sidecar", |_| {
            if options.limiter == Limiter::Redis {
                services.load_functions()?;
            }
            stack.parts.push(services.sidecar(&stack.run)?);
            Ok(())
        })?;
        report.step("Execution worker", |_| {
            stack.parts.push(services.worker(&stack.run)?);
            Ok(())
        })?;
        report.step("Envoy 1.40 with the filter", |_| {
            let gateway = envoy::Gateway {
                instance: &instance,
                envoy: tools.envoy()?,
                suite: &suite,
                document: &policy.document,
            };
            stack.parts.push(gateway.start(&stack.run)?);
            stack.instance.save()
        })?;
        Ok(stack)
    }

    /// Installs and starts only PostgreSQL (with the roles and the database, but no tables) and Redis.
    pub fn stores(options: &Options, report: &mut Report) -> anyhow::Result<Self> {
        let run = claim(&options.name, report)?;
        report.expect(2);
        let tools = install::ensure(&[install::Part::Postgres, install::Part::Redis], report)?;
        let ports = choose_store_ports(options)?;
        let mut stack = Self::new(options, run, ports, &tools)?;
        stack.start_stores(&tools, options.durable, report)?;
        stack.instance.save()?;
        Ok(stack)
    }

    fn new(options: &Options, run: Run, ports: Ports, tools: &Tools) -> anyhow::Result<Self> {
        let dir = run.dir().to_owned();
        let user = User::unprivileged()?;
        let data = user.data_dir(&dir)?;
        if options.reset {
            remove_state(&dir, &data)?;
        }
        let instance = Instance {
            name: options.name.clone(),
            ports,
            limiter: options.limiter,
            secrets: match &options.password {
                Some(password) => Secrets::all(password)?,
                None => Secrets::of(&dir)?,
            },
            platform: Client::none(),
            psql: tools.pg("psql")?,
            redis_cli: tools.redis_cli()?.to_owned(),
            dir,
        };
        Ok(Self { instance, run, user, data, parts: Vec::new(), abandoned: false })
    }

    fn start_stores(
        &mut self,
        tools: &Tools,
        durable: bool,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        report.step("PostgreSQL 15", |_| {
            let cluster = postgres::Cluster {
                tools,
                user: self.user,
                data: &self.data,
                port: self.instance.ports.postgres,
                secrets: &self.instance.secrets,
                durable,
            };
            self.parts.push(cluster.start(&self.run)?);
            cluster.prepare()
        })?;
        report.step("Redis 7", |_| {
            let server = redis::Server {
                tools,
                user: self.user,
                data: &self.data,
                port: self.instance.ports.redis,
                secrets: &self.instance.secrets,
                bus: None,
            };
            self.parts.push(server.start(&self.run)?);
            Ok(())
        })
    }

    /// Starts a Redis Cluster of three servers beside what runs; says their URLs for `user`, with commas between.
    pub fn redis_cluster(&mut self, user: &str, report: &mut Report) -> anyhow::Result<String> {
        let tools = install::ensure(&[install::Part::Redis], report)?;
        let secrets = &self.instance.secrets;
        let (parts, ports) = report.step("Redis Cluster", |_| {
            cluster::start(&tools, self.user, &self.data, secrets, &self.run)
        })?;
        self.parts.extend(parts);
        let one = self.instance.redis(user);
        let own = format!(":{}", self.instance.ports.redis);
        Ok(ports.map(|port| one.replace(&own, &format!(":{port}"))).join(","))
    }

    /// Why a part ended on its own, if one did.
    pub fn broken(&mut self) -> Option<anyhow::Error> {
        self.parts.iter_mut().find_map(Part::ended)
    }

    /// Where the databases keep their files.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The processes that it started.
    pub fn processes(&self) -> Vec<Process> {
        self.run.noted()
    }

    /// Lets go of everything without stopping it, as a SIGKILL of this process would: for tests of the next start.
    pub fn abandon(mut self) {
        // The children stay unreaped until this process ends: `Process::runs` does not count zombies.
        self.parts.clear();
        self.abandoned = true;
    }

    /// Stops everything: those that use others first.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.end()
    }

    /// Stops everything and removes all that the instance kept, as if it had never been.
    pub fn discard(mut self) -> anyhow::Result<()> {
        self.end()?;
        remove_state(&self.instance.dir, &self.data)?;
        for dir in [&self.data, &self.instance.dir] {
            if dir.exists() {
                fs::remove_dir_all(dir).with_context(|| format!("removing {}", dir.display()))?;
            }
        }
        // Its directory is gone, so that the end has nothing left to look at.
        self.abandoned = true;
        Ok(())
    }

    fn end(&mut self) -> anyhow::Result<()> {
        if self.abandoned {
            return Ok(());
        }
        // PostgreSQL and Redis go last, so that the services can finish what they do.
        let services = self.parts.split_off(self.parts.len().min(2));
        for mut group in [services, std::mem::take(&mut self.parts)] {
            for part in group.iter().rev() {
                part.ask_to_stop();
            }
            for part in group.iter_mut().rev() {
                part.stop();
            }
        }
        sweep::sweep(&self.run).map(drop)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("xtask: stopping {}: {error:#}", self.instance.name);
        }
    }
}

/// Takes the instance `name` and removes what a killed holder left of it.
fn claim(name: &str, report: &mut Report) -> anyhow::Result<Run> {
    let dir = dir(name)?;
    let Claim::Ours(run) = Run::claim(&dir)? else {
        let line = format!(
            "the instance {name} runs already; end it with Ctrl-C where it was started, or choose another with --name"
        );
        return Err(Faults::one(exit::UNAVAILABLE, line).into());
    };
    let left = sweep::sweep(&run)?.words();
    if !left.is_empty() {
        report.step("Remove what a killed run left", |note| {
            note.push_str(&left);
            Ok(())
        })?;
    }
    Ok(run)
}

fn choose_store_ports(options: &Options) -> anyhow::Result<Ports> {
    let [postgres, redis] = ports::choose([
        Wish { flag: "postgres-port", port: options.postgres_port },
        Wish { flag: "redis-port", port: options.redis_port },
    ])?;
    Ok(Ports { postgres, redis, ..Ports::default() })
}

fn choose_service_ports(options: &Options) -> anyhow::Result<Ports> {
    let any = Wish { flag: "any", port: None };
    let [
        gateway,
        control,
        envoy_admin,
        control_internal,
        control_admin,
        sidecar,
        sidecar_admin,
        worker_admin,
        capture,
    ] = ports::choose([
        Wish { flag: "port", port: options.gateway_port },
        Wish { flag: "control-port", port: options.control_port },
        any,
        any,
        any,
        any,
        any,
        any,
        any,
    ])?;
    Ok(Ports {
        gateway,
        envoy_admin,
        control,
        control_internal,
        control_admin,
        sidecar,
        sidecar_admin,
        worker_admin,
        capture,
        ..Ports::default()
    })
}

/// Builds the filter; the module for Envoy.
pub fn build_filter() -> anyhow::Result<PathBuf> {
    if let Some(suite) = repo::built("GATEHOUSE_TEST_SUITE") {
        return Ok(suite);
    }
    wasm::build(&repo::root()?)?
        .into_iter()
        .find(|artifact| artifact.host == wasm::Host::Envoy)
        .map(|artifact| artifact.path)
        .context("the build made no module for Envoy")
}

fn remove_state(dir: &Path, data: &Path) -> anyhow::Result<()> {
    for old in [
        data.join("postgres"),
        data.join("redis"),
        dir.join("images"),
        dir.join("secrets.json"),
        dir.join("platform.json"),
        dir.join("demo.json"),
        dir.join("signing.key"),
        dir.join("peppers.json"),
    ] {
        // A link is removed as one, never followed.
        let is_dir = fs::symlink_metadata(&old).is_ok_and(|meta| meta.is_dir());
        match if is_dir { fs::remove_dir_all(&old) } else { fs::remove_file(&old) } {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("removing {}", old.display()));
            }
            _ => {}
        }
    }
    Ok(())
}
