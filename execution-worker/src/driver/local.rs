//! The drivers of this machine: images from the layout store, each run in a control group of its own, made by an
//! [`Engine`]. Knows nothing of how an engine makes a process.

use std::sync::Arc;

use gatehouse_execution::{
    oci::Start,
    outcome::{Exit, Run},
    sandbox::SandboxId,
};
use tokio::time::{Instant, timeout_at};

use super::{
    Done, Driver, Error, Running, Starts, Stop, Task, Watch, asked,
    warm::{Ready, Warm},
};
use crate::{
    egress::Asked,
    image::{self, Image, Images},
    sandbox::{self, Job, Sandboxes, pool::Bounds},
};

/// Sandboxes, and the images that run in them.
#[derive(Debug)]
pub struct Local {
    sandboxes: Arc<Sandboxes>,
    images: Arc<Images>,
    warm: Option<Warm>,
}

impl Local {
    /// Runs what is in `images` in `sandboxes`.
    pub fn new(sandboxes: Arc<Sandboxes>, images: Images) -> Self {
        Self { sandboxes, images: Arc::new(images), warm: None }
    }

    /// The same, with sandboxes made in advance. Within tokio's runtime, and to be drained at the end.
    #[must_use]
    pub fn with_warm(mut self, bounds: Bounds) -> Self {
        let (sandboxes, images) = (Arc::clone(&self.sandboxes), Arc::clone(&self.images));
        self.warm = Some(Warm::start(sandboxes, images, bounds));
        self
    }

    async fn ran(&self, task: Task<'_>, mut watch: Watch<'_>) -> Result<Run, Error> {
        let until = Instant::now() + task.limits.start_timeout;
        let stop = watch.stop.clone();
        // What is half unpacked when its time is over is unpacked to its end, for the next run.
        let image = tokio::select! {
            image = timeout_at(until, self.fetch(task)) => match image {
                Ok(image) => image?,
                Err(_) => {
                    let late = task.limits.start_timeout.as_secs();
                    return Err(Error::ImageAway(format!("the image was not there within {late} s")));
                }
            },
            () = asked(&mut watch.stop, Stop::Gently) => return Ok(Run::ended(Exit::Cancelled)),
        };
        let own = task.command.map(|line| Start {
            entrypoint: Some(line.to_vec()),
            cmd: None,
            ..image.config.config.clone()
        });
        let job = Job {
            id: task.id,
            start: own.as_ref().unwrap_or(&image.config.config),
            rootfs: &image.rootfs,
            input: task.input,
            limits: task.limits,
            egress: task.egress,
            start_until: until,
        };
        let ran = self.ran_in(task, &image, job, Watch { stop, ..watch }).await;
        ran.map_err(|error| match error {
            sandbox::Error::Start(error) => Error::Image(error.to_string()),
            sandbox::Error::Io { source, .. } if is_full(&source) => {
                Error::Full(source.to_string())
            }
            sandbox::Error::NoEgress => Error::NoEgress,
            other => Error::Broken(other.into()),
        })
    }

    /// In the sandbox that was set aside, else in a new one of the same name.
    async fn ran_in(
        &self,
        task: Task<'_>,
        image: &Image,
        job: Job<'_>,
        watch: Watch<'_>,
    ) -> Result<Run, sandbox::Error> {
        let Some(warm) = &self.warm else { return self.sandboxes.run(job, watch).await };
        let ready = warm.redeem(task.id);
        // What stands in the lease names the run, also where it is made from the beginning.
        let job = Job { id: ready.as_ref().map_or(job.id, Ready::id), ..job };
        let ran = match ready {
            Some(ready) => warm.run(ready, image, job, watch.clone()).await,
            None => None,
        };
        let run = match ran {
            Some(ran) => ran?,
            None => self.sandboxes.run(job, watch).await?,
        };
        // One that could not begin says nothing of the next.
        let began = !matches!(run.exit, Exit::NotStarted | Exit::StartTimeout | Exit::Sandbox);
        // And only the image's own start is made in advance.
        if began && task.command.is_none() {
            warm.used(&task);
        }
        Ok(run)
    }

    async fn fetch(&self, task: Task<'_>) -> Result<Image, Error> {
        let (images, tenant, image) = (Arc::clone(&self.images), task.tenant, task.image.clone());
        let fetched = tokio::task::spawn_blocking(move || images.fetch(tenant, &image)).await;
        fetched.map_err(|error| Error::Broken(error.into()))?.map_err(|error| match error {
            image::Error::Io { source, .. } if is_full(&source) => Error::Full(source.to_string()),
            error @ image::Error::Io { .. } => Error::Broken(error.into()),
            error @ image::Error::Away(_) => Error::ImageAway(error.to_string()),
            image::Error::Missing(_) | image::Error::Refused(_) | image::Error::Layer { .. } => {
                Error::Image(gatehouse_service::exit::chain(&error))
            }
        })
    }
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

impl Driver for Local {
    fn name(&self) -> &'static str {
        self.sandboxes.engine().name()
    }

    fn runtime(&self) -> String {
        self.sandboxes.engine().version()
    }

    fn run<'a>(&'a self, task: Task<'a>, watch: Watch<'a>) -> Running<'a> {
        Box::pin(async move {
            let ran = self.ran(task, watch).await;
            // Set aside for a run that ended before its sandbox was asked for.
            self.release(task.id).await;
            ran
        })
    }

    fn set_aside(&self, task: &Task<'_>) -> Option<SandboxId> {
        self.warm.as_ref()?.set_aside(task)
    }

    fn release(&self, id: SandboxId) -> Done<'_> {
        Box::pin(async move {
            if let Some(warm) = &self.warm {
                warm.release(id).await;
            }
        })
    }

    fn drain(&self) -> Done<'_> {
        Box::pin(async {
            if let Some(warm) = &self.warm {
                warm.drain().await;
            }
        })
    }

    fn asked(&self) -> Option<Asked> {
        self.sandboxes.asked()
    }

    fn images(&self) -> Option<image::Told> {
        Some(self.images.told())
    }

    fn starts(&self) -> Option<Starts> {
        self.warm.as_ref().map(Warm::starts)
    }

    fn admits(&self) -> Result<(), Error> {
        self.sandboxes.has_room()
    }

    fn close(&self) {
        self.sandboxes.close();
    }
}
