//! The drivers of this machine: images from the layout store, each run in a control group of its own, made by an
//! [`Engine`]. Knows nothing of how an engine makes a process.

use std::sync::Arc;

use gatehouse_execution::outcome::{Exit, Run};
use tokio::time::{Instant, timeout_at};

use super::{Driver, Error, Running, Stop, Task, Watch, asked};
use crate::{
    image::{self, Image, Images},
    sandbox::{self, Job, Sandboxes},
};

/// Sandboxes, and the images that run in them.
#[derive(Debug)]
pub struct Local {
    sandboxes: Arc<Sandboxes>,
    images: Arc<Images>,
}

impl Local {
    /// Runs what is in `images` in `sandboxes`.
    pub fn new(sandboxes: Arc<Sandboxes>, images: Images) -> Self {
        Self { sandboxes, images: Arc::new(images) }
    }

    async fn ran(&self, task: Task<'_>, mut watch: Watch<'_>) -> Result<Run, Error> {
        let until = Instant::now() + task.limits.start_timeout;
        let stop = watch.stop.clone();
        // What is half unpacked when its time is over is unpacked to its end, for the next run.
        let image = tokio::select! {
            image = timeout_at(until, self.fetch(task)) => match image {
                Ok(image) => image?,
                Err(_) => return Ok(Run::ended(Exit::StartTimeout)),
            },
            () = asked(&mut watch.stop, Stop::Gently) => return Ok(Run::ended(Exit::Cancelled)),
        };
        let job = Job {
            id: task.id,
            start: &image.config.config,
            rootfs: &image.rootfs,
            input: task.input,
            limits: task.limits,
            start_until: until,
        };
        self.sandboxes.run(job, Watch { stop, ..watch }).await.map_err(|error| match error {
            sandbox::Error::Start(error) => Error::Image(error.to_string()),
            sandbox::Error::Io { source, .. } if is_full(&source) => {
                Error::Full(source.to_string())
            }
            other => Error::Broken(other.into()),
        })
    }

    async fn fetch(&self, task: Task<'_>) -> Result<Image, Error> {
        let (images, tenant, image) = (Arc::clone(&self.images), task.tenant, task.image.clone());
        let fetched = tokio::task::spawn_blocking(move || images.fetch(tenant, &image)).await;
        fetched.map_err(|error| Error::Broken(error.into()))?.map_err(|error| match error {
            image::Error::Io { source, .. } if is_full(&source) => Error::Full(source.to_string()),
            error @ image::Error::Io { .. } => Error::Broken(error.into()),
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

    fn run<'a>(&'a self, task: Task<'a>, watch: Watch<'a>) -> Running<'a> {
        Box::pin(self.ran(task, watch))
    }

    fn admits(&self) -> Result<(), Error> {
        self.sandboxes.has_room()
    }

    fn close(&self) {
        self.sandboxes.close();
    }
}
