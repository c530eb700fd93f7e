//! From the configuration's choice to a driver that works, or the line that says what to mend.

use std::{path::Path, sync::Arc};

use gatehouse_execution::sandbox::SandboxId;
use gatehouse_service::{Stop, exit::chain};
use tracing::{info, warn};

use super::{
    Choice, Done, Driver, Error, Running, Starts, Task, Watch, choice::Demo, local::Local, sim::Sim,
};
use crate::{
    cgroup,
    config::{Config, Outside},
    egress::{Asked, Egress, Settings},
    image::{self, Images},
    sandbox::{Engine, Entry, Runtime, Sandboxes},
    selftest::{self, Unproven},
    state_dir::StateDir,
};

/// No other runtime is taken in its place.
const MEND: &str = "use a runsc that this worker knows (of 2022 or 2024), as root, with control groups that it may limit";

/// What a network of a run's own takes.
const EGRESS_MEND: &str = "give the worker CAP_NET_ADMIN and CAP_SYS_ADMIN, which root has where a container or a unit does not take them away, \
    or write \"egress\": {\"enabled\": false}";

/// Opens the driver that `config` names, and removes what an earlier start left in `state`.
pub async fn open(config: &Config, state: &StateDir) -> Result<Box<dyn Driver>, Stop> {
    let (engine, demo) = match &config.driver {
        Choice::Runsc(runsc) => {
            let opened = Runtime::open(runsc, state.runsc()).await.map_err(|error| {
                let mend = "write the absolute path of gVisor's runsc";
                Stop::unavailable(format!("$.runsc: {error}; {mend}"))
            });
            let (runtime, version) = opened?;
            info!(runsc = version, "sandboxes can be made");
            (Engine::Runsc(runtime), None)
        }
        Choice::Process(demo) => {
            warn!(
                "THE DRIVER IS \"process\": AGENTS RUN ON THIS MACHINE'S KERNEL WITHOUT A SANDBOX"
            );
            let program = std::env::current_exe()
                .map_err(|error| Stop::unavailable(format!("this program's file: {error}")))?;
            (Engine::Process(Entry::new(program)), Some(demo))
        }
        Choice::Sim(demo) => {
            warn!("THE DRIVER IS \"sim\": NO AGENT IS RUN, RESULTS ARE MADE UP FROM INPUTS");
            let sim = Sim::recording(&state.journal()).map_err(|error| {
                Stop::unavailable(format!(
                    "$.state_dir: {error}; choose a folder that this user can write"
                ))
            })?;
            let inner: Box<dyn Driver> = Box::new(sim);
            return Ok(Box::new(ForDemos { inner, tenants: demo.clone() }));
        }
    };
    let sandboxes = Sandboxes::new(engine, state, Path::new(cgroup::ROOT)).map_err(|error| {
        let mend = "run the worker as root on a machine with control groups of version 1 or 2";
        Stop::unavailable(format!("control groups cannot be used: {}; {mend}", chain(&error)))
    })?;
    info!(cgroup = sandboxes.cgroup_version(), "control groups can be made");
    sandboxes.sweep().await.map_err(|error| {
        let mend = "end them by hand";
        Stop::unavailable(format!("leftovers of an earlier start: {}; {mend}", chain(&error)))
    })?;
    let took = selftest::prove(&sandboxes, state).await.map_err(|error| {
        let name = config.driver.name();
        let line = format!("the driver \"{name}\" is not safe to use: {}", chain(&error));
        match error {
            Unproven::Limits(_) => Stop::refused(format!("{line}; {MEND}")),
            Unproven::Files(_) | Unproven::Sandbox(_) => {
                Stop::unavailable(format!("{line}; {MEND}"))
            }
        }
    })?;
    info!(took_ms = took.as_millis(), "the limits of sandboxes were seen to bite");
    let sandboxes = with_egress(sandboxes, config, state).await?;
    let source = config.images.clone().open();
    let images = Images::new(source, state.images(), image::Bounds::default());
    let images = images.with_budget(config.image_budget);
    images.sweep().map_err(|error| Stop::unavailable(chain(&error)))?;
    let mut local = Local::new(Arc::new(sandboxes), images);
    if let Some(bounds) = config.warm {
        info!(max = bounds.max, "sandboxes are made in advance");
        local = local.with_warm(bounds);
    }
    let local: Box<dyn Driver> = Box::new(local);
    Ok(match demo {
        None => local,
        Some(demo) => Box::new(ForDemos { inner: local, tenants: demo.clone() }),
    })
}

/// The same with a way to the outside, which is tried in a sandbox. Where this machine cannot give one, the start ends if it was
/// asked for; else versions that name hosts are not run here.
async fn with_egress(
    mut sandboxes: Sandboxes,
    config: &Config,
    state: &StateDir,
) -> Result<Sandboxes, Stop> {
    let settings = match &config.egress {
        Outside::No => {
            info!("agents have no network: egress is switched off");
            return Ok(sandboxes);
        }
        Outside::WherePossible => &Settings::default(),
        Outside::Always(settings) => settings,
    };
    let egress = Egress::new(settings, vec![config.admin_listen]).map_err(|error| {
        let mend = "name a PEM file of certificates that this user can read";
        Stop::unavailable(format!("$.egress.ca_file: {}; {mend}", chain(&error)))
    })?;
    sandboxes.set_egress(Some(egress));
    match selftest::prove_egress(&sandboxes, state).await {
        Ok(took) => {
            info!(
                took_ms = took.as_millis(),
                "agents were seen to reach their proxy and nothing else"
            );
            Ok(sandboxes)
        }
        Err(error) if matches!(config.egress, Outside::Always(_)) => {
            let line = format!("$.egress: agents cannot be given a network: {}", chain(&error));
            Err(Stop::unavailable(format!("{line}; {EGRESS_MEND}")))
        }
        Err(error) => {
            warn!(error = %chain(&error), mend = EGRESS_MEND, "AGENTS HAVE NO NETWORK HERE: versions that name hosts are not run");
            sandboxes.set_egress(None);
            Ok(sandboxes)
        }
    }
}

/// A driver that isolates too little for anybody but demo tenants.
#[derive(Debug)]
struct ForDemos {
    inner: Box<dyn Driver>,
    tenants: Demo,
}

impl Driver for ForDemos {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn runtime(&self) -> String {
        self.inner.runtime()
    }

    fn run<'a>(&'a self, task: Task<'a>, watch: Watch<'a>) -> Running<'a> {
        if self.tenants.0.contains(&task.tenant) {
            return self.inner.run(task, watch);
        }
        Box::pin(std::future::ready(Err(Error::NotADemo)))
    }

    fn set_aside(&self, task: &Task<'_>) -> Option<SandboxId> {
        self.inner.set_aside(task)
    }

    fn release(&self, id: SandboxId) -> Done<'_> {
        self.inner.release(id)
    }

    fn drain(&self) -> Done<'_> {
        self.inner.drain()
    }

    fn asked(&self) -> Option<Asked> {
        self.inner.asked()
    }

    fn images(&self) -> Option<image::Told> {
        self.inner.images()
    }

    fn starts(&self) -> Option<Starts> {
        self.inner.starts()
    }

    fn admits(&self) -> Result<(), Error> {
        self.inner.admits()
    }

    fn close(&self) {
        self.inner.close();
    }
}
