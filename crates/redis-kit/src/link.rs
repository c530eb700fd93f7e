//! One shared connection to one Redis server: every operation has a deadline, one connection attempt runs at a
//! time, and after a failed one callers are refused at once for a moment, so that an outage costs them nothing.
//! Knows no keys and no commands of ours.

use std::{
    fmt,
    str::FromStr,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, FromRedisValue,
    IntoConnectionInfo, Pipeline, aio::MultiplexedConnection, io::tcp::TcpSettings,
};
use tokio::{
    sync::{Mutex, OwnedMutexGuard},
    time::{Instant, timeout, timeout_at},
};
use tracing::Instrument as _;

/// How long one connection attempt may take; callers wait no longer than their own deadline.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long after a failed attempt callers are refused without another one.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// How long sent bytes may go unacknowledged before the kernel gives the connection up. Without it, every
/// operation on a connection whose peer has vanished would be late for a quarter of an hour.
const UNACKNOWLEDGED: Duration = Duration::from_secs(5);

/// After so many answers in a row that did not come in time a server is taken for silent,
const LATE: u32 = 2;
/// for so long after the last of them: then one more finds out whether it is back, unless a pulse did before.
const SILENT_FOR: Duration = Duration::from_millis(200);

/// Codes with which Redis refuses a command before any of it has run.
const NOT_RUN: &[&str] = &[
    "ASK",
    "BUSY",
    "CLUSTERDOWN",
    "CROSSSLOT",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "MOVED",
    "NOAUTH",
    "NOPERM",
    "NOREPLICAS",
    "OOM",
    "READONLY",
    "TRYAGAIN",
];
/// Those of them that pass.
const PASSING: &[&str] = &[
    "BUSY",
    "CLUSTERDOWN",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "NOREPLICAS",
    "OOM",
    "READONLY",
    "TRYAGAIN",
];
/// Redis' words for a function that is not there (no code of its own: `ERR Function not found`).
pub(crate) const NO_FUNCTION: &str = "Function not found";

/// Redis did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The address is not a `redis://` or `redis+unix://` URL.
    #[error("not a redis:// or redis+unix:// URL")]
    Address,
    /// No connection could be made; nothing was sent.
    #[error("redis cannot be reached")]
    Away(#[source] redis::RedisError),
    /// No connection was made before the deadline; nothing was sent.
    #[error("redis could not be reached within {} ms", .0.as_millis())]
    Unsent(Duration),
    /// The connection broke. Whether the last command ran is unknown.
    #[error("the connection to redis broke")]
    Unreachable(#[source] redis::RedisError),
    /// The server does not know the user or the password.
    #[error("redis refused the login")]
    Login(#[source] redis::RedisError),
    /// This server of a cluster cannot be reached, or was late again and again and is left alone for a moment; nothing was
    /// sent, and of the other servers it says nothing.
    #[error("a server of the cluster does not answer")]
    Silent,
    /// A connection attempt failed a moment ago; nothing was sent.
    #[error("redis could not be reached a moment ago")]
    Resting,
    /// No answer before the deadline. Whether the command ran is unknown.
    #[error("redis did not answer within {} ms", .0.as_millis())]
    Late(Duration),
    /// Redis refused the command, e.g. for want of permission.
    #[error("redis refused the command")]
    Refused(#[source] redis::RedisError),
    /// The answer is not of the expected shape.
    #[error("redis answered in an unexpected shape")]
    Shape(#[source] redis::RedisError),
    /// The answer has the right type but not our form: another version wrote it, or its function is loaded.
    #[error("redis answered in another version's form")]
    Foreign,
}

impl Error {
    /// The code at the start of a refusal, such as `NOGROUP` or `NOPERM`.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused(source) => source.code(),
            _ => None,
        }
    }

    /// The refusal's text after its code.
    pub(crate) fn refusal(&self) -> Option<&str> {
        match self {
            Self::Refused(source) => source.detail(),
            _ => None,
        }
    }

    /// Whether the command may have run all the same, so that it must not be repeated. What Redis refuses as a whole
    /// has not; a function that fails half way has charged those before.
    pub fn may_have_run(&self) -> bool {
        match self {
            Self::Late(_) | Self::Unreachable(_) | Self::Shape(_) | Self::Foreign => true,
            Self::Refused(source) => {
                let missing = source.detail().is_some_and(|text| text.contains(NO_FUNCTION));
                !missing && source.code().is_none_or(|code| !NOT_RUN.contains(&code))
            }
            Self::Address
            | Self::Away(_)
            | Self::Unsent(_)
            | Self::Login(_)
            | Self::Silent
            | Self::Resting => false,
        }
    }

    /// Whether this passes without anybody's doing, or with what an operator does at the server: it is away, busy,
    /// loading, failing over or full. A login, a right or a version that is wrong is a mistake that stays.
    pub fn passes(&self) -> bool {
        match self {
            Self::Away(_)
            | Self::Unsent(_)
            | Self::Unreachable(_)
            | Self::Silent
            | Self::Resting
            | Self::Late(_) => true,
            Self::Refused(source) => source.code().is_some_and(|code| PASSING.contains(&code)),
            Self::Address | Self::Login(_) | Self::Shape(_) | Self::Foreign => false,
        }
    }

    /// The server, `host:port`, that `MOVED` or `ASK` names.
    pub(crate) fn elsewhere(&self) -> Option<&str> {
        match self {
            Self::Refused(source) => source.redirect_node().map(|(name, _)| name),
            _ => None,
        }
    }

    /// As [`Self::from_redis`], before anything was sent.
    fn connecting(source: redis::RedisError) -> Self {
        match Self::from_redis(source) {
            Self::Unreachable(source) => Self::Away(source),
            other => other,
        }
    }

    fn from_redis(source: redis::RedisError) -> Self {
        match source.kind() {
            ErrorKind::AuthenticationFailed => Self::Login(source),
            ErrorKind::Server(_) | ErrorKind::Extension => Self::Refused(source),
            ErrorKind::UnexpectedReturnType | ErrorKind::Parse => Self::Shape(source),
            _ => Self::Unreachable(source),
        }
    }
}

/// Where a Redis server is and as whom to log in. Never shows its password.
#[derive(Clone)]
pub struct Address(ConnectionInfo);

/// One connection to a Redis server, shared by everyone who clones it, made on first use and again after it broke.
#[derive(Clone)]
pub struct Link(Arc<Shared>);

struct Shared {
    client: Client,
    deadline: Duration,
    live: RwLock<Option<Live>>,
    attempts: Arc<Mutex<Attempts>>,
    late: RwLock<Late>,
}

/// How many answers in a row did not come in time, and when the last of them was given up.
#[derive(Default)]
struct Late {
    in_a_row: u32,
    last: Option<Instant>,
}

#[derive(Clone)]
struct Live {
    connection: MultiplexedConnection,
    generation: u64,
}

#[derive(Default)]
struct Attempts {
    made: u64,
    failed: Option<Instant>,
}

// === impl Address ===

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let info = text.into_connection_info().map_err(|_| Error::Address)?;
        // Off by default in this release of `redis`; on a real network Nagle costs half the throughput.
        // Naming the client to Redis needs a permission and a round trip.
        let login = info.redis_settings().clone().set_skip_set_lib_name();
        let info = info.set_redis_settings(login);
        let tcp = TcpSettings::default().set_nodelay(true).set_user_timeout(UNACKNOWLEDGED);
        Ok(Self(info.set_tcp_settings(tcp)))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.redis_settings().username() {
            Some(user) => write!(f, "{user}@{}", self.0.addr()),
            None => self.0.addr().fmt(f),
        }
    }
}

impl Address {
    /// The same login on another server, `host:port`.
    pub(crate) fn on(&self, name: &str) -> Option<Self> {
        let (host, port) = name.rsplit_once(':')?;
        let addr = ConnectionAddr::Tcp(host.to_owned(), port.parse().ok()?);
        Some(Self(self.0.clone().set_addr(addr)))
    }
}

// === impl Link ===

impl Link {
    /// A link whose operations wait at most `deadline`. Connects on first use.
    ///
    /// # Errors
    /// [`Error::Address`] when the client library does not take the address.
    pub fn new(address: &Address, deadline: Duration) -> Result<Self, Error> {
        Ok(Self(Arc::new(Shared {
            client: Client::open(address.0.clone()).map_err(|_| Error::Address)?,
            deadline,
            live: RwLock::new(None),
            attempts: Arc::default(),
            late: RwLock::default(),
        })))
    }

    /// Runs one command within the link's deadline. Never repeats it.
    ///
    /// # Errors
    /// See [`Error`]; after `Late` and `Unreachable` the command may have run.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Error> {
        self.query_within(command, self.0.deadline).await
    }

    /// As [`Self::query`], with a deadline of its own (blocking reads).
    pub(crate) async fn query_within<T: FromRedisValue>(
        &self,
        command: &Cmd,
        deadline: Duration,
    ) -> Result<T, Error> {
        self.run(deadline, async |connection| command.query_async(connection).await).await
    }

    /// Runs a pipeline within the link's deadline.
    pub(crate) async fn pipe<T: FromRedisValue>(&self, pipeline: &Pipeline) -> Result<T, Error> {
        self.run(self.0.deadline, async |connection| pipeline.query_async(connection).await).await
    }

    /// Whether the server answers a `PING`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn ping(&self) -> Result<(), Error> {
        self.query(&redis::cmd("PING")).await
    }

    /// Whether both share one connection.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether it was late again and again, a moment ago.
    pub(crate) fn is_silent(&self) -> bool {
        let late = self.0.late.read().unwrap_or_else(PoisonError::into_inner);
        late.in_a_row >= LATE && late.last.is_some_and(|last| last.elapsed() < SILENT_FOR)
    }

    pub(crate) fn deadline(&self) -> Duration {
        self.0.deadline
    }

    /// Runs what needs several trips over one and the same connection, within `deadline` as a whole.
    pub(crate) async fn run<T>(
        &self,
        deadline: Duration,
        command: impl AsyncFnOnce(&mut MultiplexedConnection) -> redis::RedisResult<T>,
    ) -> Result<T, Error> {
        let outcome = self.attempt(deadline, command).await;
        match &outcome {
            Err(Error::Late(_) | Error::Unsent(_)) => {
                let mut late = self.0.late.write().unwrap_or_else(PoisonError::into_inner);
                late.in_a_row = late.in_a_row.saturating_add(1);
                late.last = Some(Instant::now());
            }
            // Said at once by this side, or by the end of a connection: the server has no part in it.
            Err(Error::Away(_) | Error::Unreachable(_) | Error::Resting) => {}
            Ok(_) | Err(_) if self.was_late() => {
                *self.0.late.write().unwrap_or_else(PoisonError::into_inner) = Late::default();
            }
            Ok(_) | Err(_) => {}
        }
        outcome
    }

    /// Whether the last answer did not come in time.
    fn was_late(&self) -> bool {
        self.0.late.read().unwrap_or_else(PoisonError::into_inner).in_a_row > 0
    }

    async fn attempt<T>(
        &self,
        deadline: Duration,
        command: impl AsyncFnOnce(&mut MultiplexedConnection) -> redis::RedisResult<T>,
    ) -> Result<T, Error> {
        let end = Instant::now() + deadline;
        let Ok(live) = timeout_at(end, self.live()).await else {
            return Err(Error::Unsent(deadline));
        };
        let mut live = live?;
        let outcome = timeout_at(end, async {
            match command(&mut live.connection).await {
                Ok(value) => Ok(value),
                Err(error) => {
                    if error.is_unrecoverable_error() {
                        self.forget(live.generation);
                    }
                    Err(Error::from_redis(error))
                }
            }
        });
        outcome.await.unwrap_or(Err(Error::Late(deadline)))
    }

    async fn live(&self) -> Result<Live, Error> {
        if let Some(live) = self.current() {
            return Ok(live);
        }
        // Whoever comes while an attempt is under way waits for it here, within its own deadline.
        let attempts = Arc::clone(&self.0.attempts).lock_owned().await;
        if let Some(live) = self.current() {
            return Ok(live);
        }
        if attempts.failed.is_some_and(|at| at.elapsed() < RETRY_AFTER) {
            return Err(Error::Resting);
        }
        // A task of its own, bounded by CONNECT_TIMEOUT: a caller with a short deadline must not cut it short,
        // or a server that needs longer than one deadline to accept would never be reached again.
        let shared = Arc::clone(&self.0);
        match tokio::spawn(async move { shared.connect(attempts).await }.in_current_span()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::Resting),
        }
    }

    fn current(&self) -> Option<Live> {
        self.0.live.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn forget(&self, generation: u64) {
        let mut live = self.0.live.write().unwrap_or_else(PoisonError::into_inner);
        if live.as_ref().is_some_and(|live| live.generation == generation) {
            *live = None;
        }
    }
}

impl Shared {
    async fn connect(&self, mut attempts: OwnedMutexGuard<Attempts>) -> Result<Live, Error> {
        attempts.made += 1;
        // Our own deadlines cover every operation; the library's would cut blocking reads.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(None);
        let connecting = self.client.get_multiplexed_async_connection_with_config(&config);
        let outcome = match timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(outcome) => outcome.map_err(Error::connecting),
            Err(_) => Err(Error::Unsent(CONNECT_TIMEOUT)),
        };
        match outcome {
            Ok(connection) => {
                attempts.failed = None;
                let live = Live { connection, generation: attempts.made };
                *self.live.write().unwrap_or_else(PoisonError::into_inner) = Some(live.clone());
                Ok(live)
            }
            Err(error) => {
                attempts.failed = Some(Instant::now());
                tracing::warn!(error = %error, "connecting to Redis failed");
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_never_shows_its_password() {
        let address: Address = "redis://sidecar:hunter2@127.0.0.1:6379/".parse().unwrap();
        assert_eq!(address.to_string(), "sidecar@127.0.0.1:6379");
        assert_eq!(format!("{address:?}"), "Address(sidecar@127.0.0.1:6379)");
    }

    #[test]
    fn refuses_what_is_no_redis_url() {
        for bad in ["", "127.0.0.1:6379", "http://127.0.0.1", "redis://"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }
}
