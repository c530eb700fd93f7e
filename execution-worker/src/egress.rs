//! The way of agents to the outside: no network at all, or a network of the run's own in which there is one thing, a proxy within this
//! worker (docs/egress.md). It judges each request by the version's hosts, asks under TLS through the one guard against addresses that
//! are not public, counts requests and tokens, and keeps the run's limit.
//! Knows neither runsc nor executions: it is given hosts, a limit, and a name for its log.

mod answer;
mod namespace;
mod netlink;
mod proxy;
mod refused;
mod run;
mod tokens;

use std::{
    fmt, io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use gatehouse_execution::{egress::Hosts, sandbox::SandboxId};
use gatehouse_outbound::{Client, Guard, Origin, Trust, TrustError};
use tokio::{sync::oneshot, task::JoinHandle};

pub use namespace::{Network, PORT, PROXY};
pub use run::Asked;

use proxy::Outside;
use run::Run;

/// How upstreams that are no strangers are reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// A PEM file of authorities beside the public ones.
    pub ca_file: Option<PathBuf>,
    /// Upstreams that may be private, or without TLS: exact scheme, host and port.
    pub private_upstreams: Vec<Origin>,
}

/// Why there is no way to the outside.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file of authorities.
    #[error("{} cannot be read", .0.display())]
    File(PathBuf, #[source] io::Error),
    /// What is in it.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

/// Opens proxies.
#[derive(Clone)]
pub struct Egress {
    outside: Outside,
    /// Of all runs that have ended.
    asked: Arc<Mutex<Asked>>,
}

/// The proxy of one run, open until its end; dropping it closes it, too.
#[derive(Debug)]
pub struct Session {
    run: Arc<Run>,
    all: Arc<Mutex<Asked>>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Egress {
    /// As `settings` say; never to a listener of our `own`.
    pub fn new(settings: &Settings, own: Vec<SocketAddr>) -> Result<Self, Error> {
        let pem = match &settings.ca_file {
            Some(path) => {
                let read = std::fs::read(path);
                Some(read.map_err(|error| Error::File(path.clone(), error))?)
            }
            None => None,
        };
        let client = Client::new(Trust::new(pem.as_deref())?, "gatehouse");
        let guard = Guard::new(settings.private_upstreams.iter().cloned(), own);
        Ok(Self { outside: Outside { client, guard }, asked: Arc::default() })
    }

    /// The same, with another way to find addresses; they are judged like the system's.
    #[must_use]
    pub fn with_resolver(mut self, resolver: Arc<dyn gatehouse_outbound::Resolve>) -> Self {
        self.outside.client = self.outside.client.with_resolver(resolver);
        self
    }

    /// What all runs have asked that have ended.
    pub fn asked(&self) -> Asked {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Issues the credential of `network` to the run `id`: from here to the session's end it opens `hosts`, `most` times.
    pub fn open(
        &self,
        network: &Network,
        id: SandboxId,
        hosts: &Hosts,
        most: u32,
    ) -> io::Result<Session> {
        let run = Arc::new(Run::new(id, hosts.clone(), most, network.credential()));
        let (stop, stopped) = oneshot::channel();
        let outside = self.outside.clone();
        let serving = proxy::serve(network.listener()?, outside, Arc::clone(&run), stopped);
        let all = Arc::clone(&self.asked);
        Ok(Session { run, all, stop, serving: tokio::spawn(serving) })
    }
}

impl fmt::Debug for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Egress").field("guard", &self.outside.guard).finish_non_exhaustive()
    }
}

impl Session {
    /// Closes it, and says what was asked.
    pub async fn end(self) -> Asked {
        let Self { run, all, stop, serving } = self;
        drop(stop);
        // It ends with nothing to say; a panic in it is in the log.
        drop(serving.await);
        let asked = run.asked();
        all.lock().unwrap_or_else(PoisonError::into_inner).add(&asked);
        asked
    }
}
