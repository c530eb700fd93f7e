//! A streaming replica that answers heavy reads, each only where its transaction sees everything that the primary showed
//! when the read began; else the primary answers (ADR 0040). It is a stranger until it is proven, on each connection and
//! for each read. Knows nothing of what is read.

mod standing;
mod together;

use std::{
    str::FromStr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use sqlx::{
    PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use self::{
    standing::{Primary, Refusal, Standing},
    together::Together,
};
use crate::{
    Error, OpCtx, Store, TenantTx,
    connect::{self, judge},
    tenant::enter_reading,
};

const DOOR: &str = "replica";
const CONNECTIONS: u32 = 16;
/// All that the replica may take of a read; then the primary answers. A statement has less ([`enter_reading`]).
const ATTEMPT: Duration = Duration::from_secs(3);
/// The primary is asked at most this long where it stands.
const ASK: Duration = Duration::from_secs(1);
/// A read waits at most this long for the replica, which is then left alone until it has caught up.
const WAIT: Duration = Duration::from_millis(50);
/// Between two looks while a read waits.
const PAUSE: Duration = Duration::from_millis(1);

/// What the replica is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It answers reads.
    Used,
    /// It has not replayed what the primary had: far behind, paused, or cut off.
    Behind,
    /// It does not answer in time.
    Away,
    /// It is none: promoted, of another cluster, database or timeline, or reached as a role that sees too much.
    Refused,
}

/// Why the primary answered a read that a replica might have answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// [`State::Behind`].
    Behind,
    /// [`State::Away`].
    Away,
    /// [`State::Refused`].
    Refused,
    /// The replica ended the read: what it read was to be cleaned up (SQLSTATE 40001).
    Conflict,
    /// A statement took too long there.
    Slow,
    /// The read failed there.
    Failed,
    /// The primary did not tell in time where it stands.
    Unasked,
}

/// What has become of reads, and what is known of the replica.
#[derive(Debug, Clone, PartialEq)]
pub struct Reads {
    /// What it is good for.
    pub state: State,
    /// Reads that the replica answered.
    pub by_replica: u64,
    /// And those that the primary answered in its place.
    pub by_primary: [(Why, u64); Why::ALL.len()],
    /// How often the primary was asked where it stands.
    pub questions: u64,
    /// What it had to replay at the last look; `None` where that is not known.
    pub behind_bytes: Option<u64>,
    /// How long ago it last showed all that the primary did; `None` where it never did.
    pub caught_up: Option<Duration>,
}

#[derive(Debug)]
pub(crate) struct Replica {
    pool: PgPool,
    /// One connection: where the primary stands is asked by one read for all that wait.
    primary: PgPool,
    positions: Together<Option<Primary>>,
    state: AtomicU8,
    by_replica: AtomicU64,
    by_primary: [AtomicU64; Why::ALL.len()],
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    behind_bytes: Option<u64>,
    caught_up: Option<Instant>,
}

/// What is wrong with the replica.
#[derive(Debug, thiserror::Error)]
enum Unfit {
    #[error("it is not let in: {0}")]
    Door(connect::Error),
    #[error("its URL {0}")]
    Refused(Refusal),
    #[error("it lacks {0} bytes of the log")]
    Behind(u64),
    #[error("it does not answer: {0}")]
    Away(sqlx::Error),
    #[error("the primary does not say where it stands")]
    Unasked,
}

impl State {
    const ALL: [Self; 4] = [Self::Used, Self::Behind, Self::Away, Self::Refused];

    /// Its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Used => "used",
            Self::Behind => "behind",
            Self::Away => "away",
            Self::Refused => "refused",
        }
    }
}

impl Why {
    /// Every reason.
    pub const ALL: [Self; 7] = [
        Self::Behind,
        Self::Away,
        Self::Refused,
        Self::Conflict,
        Self::Slow,
        Self::Failed,
        Self::Unasked,
    ];

    /// Its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Behind => "behind",
            Self::Away => "away",
            Self::Refused => "refused",
            Self::Conflict => "conflict",
            Self::Slow => "slow",
            Self::Failed => "failed",
            Self::Unasked => "unasked",
        }
    }
}

// === impl Store ===

impl Store {
    /// With a replica of the app door's database, for [`Self::read`]. One that is away, promoted or behind is not used
    /// until it is none of these.
    ///
    /// # Errors
    /// As [`Self::connect`] for the role; [`connect::Error::NoReplica`] where it is another cluster's or another database.
    pub async fn with_replica(self, url: &str) -> Result<Self, connect::Error> {
        let options = PgConnectOptions::from_str(url)
            .map_err(|_| connect::Error::Url { door: DOOR })?
            .application_name("gatehouse-replica");
        let primary = (*self.app.connect_options()).clone().application_name("gatehouse-position");
        let pool = |connections, wait| {
            PgPoolOptions::new().max_connections(connections).acquire_timeout(wait)
        };
        let replica = Replica {
            pool: pool(CONNECTIONS, ATTEMPT).connect_lazy_with(options),
            primary: pool(1, ASK).test_before_acquire(false).connect_lazy_with(primary),
            positions: Together::new(),
            state: AtomicU8::new(index(&State::ALL, &State::Away)),
            by_replica: AtomicU64::new(0),
            by_primary: Default::default(),
            seen: Mutex::default(),
        };
        match replica.look().await {
            Err(Unfit::Door(
                error @ (connect::Error::Refused { .. } | connect::Error::NotMigrated),
            )) => {
                return Err(error);
            }
            Err(Unfit::Refused(why @ (Refusal::OtherCluster | Refusal::OtherDatabase))) => {
                return Err(connect::Error::NoReplica { why: why.to_string() });
            }
            Ok(()) | Err(_) => {}
        }
        Ok(Self { replica: Some(Arc::new(replica)), ..self })
    }

    /// Reads within `op.tenant`: at the replica where there is one that shows everything that the primary does now, else at
    /// the primary, which also answers whatever fails at the replica. `read` may so run twice; nothing that it does lasts.
    ///
    /// # Errors
    /// Those of `read` at the primary.
    pub async fn read<'op, T, F: Future<Output = Result<T, Error>>>(
        &self,
        op: &'op OpCtx,
        read: impl Fn(TenantTx<'op>) -> F,
    ) -> Result<T, Error> {
        if let Some(replica) = &self.replica {
            match tokio::time::timeout(ATTEMPT, self.read_at(replica, op, &read)).await {
                Ok(Ok(found)) => {
                    replica.by_replica.fetch_add(1, SeqCst);
                    return Ok(found);
                }
                Ok(Err(why)) => replica.answered_by_primary(why),
                Err(_) => {
                    let why = replica.unfit(&late());
                    replica.answered_by_primary(why);
                }
            }
        }
        read(self.tenant(op).await?).await
    }

    async fn read_at<'op, T, F: Future<Output = Result<T, Error>>>(
        &self,
        replica: &Replica,
        op: &'op OpCtx,
        read: impl Fn(TenantTx<'op>) -> F,
    ) -> Result<T, Why> {
        match replica.state() {
            State::Used => {}
            State::Behind => return Err(Why::Behind),
            State::Away => return Err(Why::Away),
            State::Refused => return Err(Why::Refused),
        }
        // Each statement sees what is replayed when it begins (READ COMMITTED): those behind the look see what it saw. A
        // snapshot for the whole transaction would be older than its look.
        let (primary, begun) =
            tokio::join!(replica.ask(), replica.pool.begin_with(enter_reading(op.tenant)));
        let primary = primary.ok_or(Why::Unasked)?;
        let mut transaction = begun.map_err(|error| replica.unfit(&Unfit::Away(error)))?;
        let done = replica.caught_up(&mut transaction, &primary).await;
        done.map_err(|unfit| replica.unfit(&unfit))?;
        let tx = TenantTx::reading(transaction, op, self.vault.clone());
        read(tx).await.map_err(|error| replica.failed(error))
    }

    /// Looks whether the replica may be used, and has it used or left alone from here on. Does nothing without one.
    pub async fn look_at_replica(&self) {
        if let Some(replica) = &self.replica {
            // What is wrong was said where it began.
            replica.look().await.unwrap_or_default();
        }
    }

    /// What has become of reads; `None` without a replica.
    pub fn reads(&self) -> Option<Reads> {
        self.replica.as_ref().map(|replica| replica.reads())
    }
}

// === impl Replica ===

impl Replica {
    /// Where the primary stands, asked after this call began.
    async fn ask(&self) -> Option<Primary> {
        let question = async {
            match tokio::time::timeout(ASK, Primary::asked(&self.primary)).await {
                Ok(Ok(primary)) => Some(primary),
                Ok(Err(error)) => {
                    debug!(error = %error, "the primary does not tell where it stands");
                    None
                }
                Err(_) => None,
            }
        };
        self.positions.ask(question).await
    }

    /// Waits until this connection shows everything up to where the primary stood.
    async fn caught_up(
        &self,
        connection: &mut PgConnection,
        primary: &Primary,
    ) -> Result<(), Unfit> {
        let began = Instant::now();
        loop {
            let standing = Standing::of(connection).await.map_err(Unfit::Away)?;
            standing.judge(primary).map_err(Unfit::Refused)?;
            let behind = standing.behind(primary);
            if behind == 0 {
                return Ok(());
            }
            if began.elapsed() >= WAIT {
                return Err(Unfit::Behind(behind));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn look(&self) -> Result<(), Unfit> {
        let looked = tokio::time::timeout(ATTEMPT, self.examine()).await;
        let looked = looked.unwrap_or_else(|_| Err(late()));
        match &looked {
            Ok(()) => {
                *self.seen() = Seen { behind_bytes: Some(0), caught_up: Some(Instant::now()) };
                self.stands(State::Used, None);
            }
            Err(unfit) => {
                self.unfit(unfit);
            }
        }
        looked
    }

    async fn examine(&self) -> Result<(), Unfit> {
        judge(DOOR, "gatehouse_app", &self.pool).await.map_err(Unfit::Door)?;
        let primary = self.ask().await.ok_or(Unfit::Unasked)?;
        let mut connection = self.pool.acquire().await.map_err(Unfit::Away)?;
        self.caught_up(&mut connection, &primary).await
    }

    fn state(&self) -> State {
        State::ALL.get(usize::from(self.state.load(SeqCst))).copied().unwrap_or(State::Refused)
    }

    fn stands(&self, state: State, why: Option<&Unfit>) {
        let word = state.as_str();
        let state = index(&State::ALL, &state);
        if self.state.swap(state, SeqCst) == state {
            return;
        }
        match why {
            None => info!(state = word, "the replica answers reads"),
            Some(why) => {
                warn!(state = word, why = %why, "the replica is left alone: the primary answers its reads");
            }
        }
    }

    /// Left alone until it has been looked at again.
    fn unfit(&self, unfit: &Unfit) -> Why {
        self.seen().behind_bytes = match unfit {
            Unfit::Behind(bytes) => Some(*bytes),
            Unfit::Door(_) | Unfit::Refused(_) | Unfit::Away(_) | Unfit::Unasked => None,
        };
        let (state, why) = match unfit {
            Unfit::Behind(_) => (State::Behind, Why::Behind),
            Unfit::Away(_) | Unfit::Door(connect::Error::Unreachable { .. }) => {
                (State::Away, Why::Away)
            }
            // Nothing is known of the replica then.
            Unfit::Unasked => return Why::Unasked,
            Unfit::Door(_) | Unfit::Refused(_) => (State::Refused, Why::Refused),
        };
        self.stands(state, Some(unfit));
        why
    }

    fn failed(&self, error: Error) -> Why {
        debug!(error = %error, "a read failed at the replica");
        match (error.sqlstate().as_deref(), error) {
            // "canceling statement due to conflict with recovery", and where that is a deadlock.
            (Some("40001" | "40P01"), _) => Why::Conflict,
            // "canceling statement due to statement timeout": of this read, and not of others.
            (Some("57014"), _) => Why::Slow,
            (_, Error::Unavailable(error)) => self.unfit(&Unfit::Away(error)),
            _ => Why::Failed,
        }
    }

    fn answered_by_primary(&self, why: Why) {
        if let Some(count) = self.by_primary.get(usize::from(index(&Why::ALL, &why))) {
            count.fetch_add(1, SeqCst);
        }
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reads(&self) -> Reads {
        let seen = self.seen();
        let mut by_primary = Why::ALL.map(|why| (why, 0));
        for ((_, count), counted) in by_primary.iter_mut().zip(&self.by_primary) {
            *count = counted.load(SeqCst);
        }
        Reads {
            state: self.state(),
            by_replica: self.by_replica.load(SeqCst),
            by_primary,
            questions: self.positions.questions(),
            behind_bytes: seen.behind_bytes,
            caught_up: seen.caught_up.map(|at| at.elapsed()),
        }
    }

    pub(crate) async fn close(&self) {
        self.pool.close().await;
        self.primary.close().await;
    }
}

fn late() -> Unfit {
    Unfit::Away(sqlx::Error::PoolTimedOut)
}

fn index<T: PartialEq>(all: &[T], one: &T) -> u8 {
    let at = all.iter().position(|known| known == one);
    at.and_then(|at| u8::try_from(at).ok()).unwrap_or(u8::MAX)
}
