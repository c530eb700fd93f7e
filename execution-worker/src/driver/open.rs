//! From the configuration's choice to a driver that works, or the line that says what to mend.

use std::{path::Path, sync::Arc};

use gatehouse_service::{Stop, exit::chain};
use tracing::{info, warn};

use super::{Choice, Driver, Error, Running, Task, Watch, choice::Demo, local::Local, sim::Sim};
use crate::{
    cgroup,
    config::Config,
    image::{self, Images},
    sandbox::{Engine, Entry, Runtime, Sandboxes},
    selftest::{self, Unproven},
    state_dir::StateDir,
};

/// No other runtime is taken in its place.
const MEND: &str = "use a runsc that this worker knows (of 2022 or 2024), as root, with control groups that it may limit";

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
    let store = config.image_store.clone();
    let images = Images::new(store, state.images(), image::Bounds::default());
    images.sweep().map_err(|error| Stop::unavailable(chain(&error)))?;
    let local: Box<dyn Driver> = Box::new(Local::new(Arc::new(sandboxes), images));
    Ok(match demo {
        None => local,
        Some(demo) => Box::new(ForDemos { inner: local, tenants: demo.clone() }),
    })
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

    fn admits(&self) -> Result<(), Error> {
        self.inner.admits()
    }

    fn close(&self) {
        self.inner.close();
    }
}
