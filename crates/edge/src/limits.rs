//! What one VM knows of limits: the passes that it took along, whether the sidecar answers, its share while the
//! sidecar is away, what it has to tell afterwards, and what it counted.
//! Knows no requests and no configuration.

mod book;
mod breaker;
mod counts;
mod owed;
mod shown;

use std::{fmt, rc::Rc, time::Duration};

use gatehouse_contract::TenantId;

pub use self::shown::Standing;
pub(crate) use self::{
    book::{Asker, Book, Granted, Key, Pass},
    breaker::Breaker,
    counts::{Counts, Event, Outcome},
    owed::Owed,
    shown::Shown,
};
use crate::{client::Network, local::LocalLimits, state::Halves};

/// For how many tenants the share is kept in one half of the map.
const SHARES_PER_HALF: usize = 4096;

/// A monotonic clock: how long ago something of this VM's own was. Its zero means nothing.
pub type Clock = Box<dyn Fn() -> Duration>;

/// What one VM knows of limits.
pub(crate) struct Limits {
    clock: Option<Clock>,
    /// Names this VM to the sidecar, for its lifetime.
    pub(crate) holder: Rc<str>,
    pub(crate) book: Book,
    pub(crate) breaker: Breaker,
    /// What this VM may let pass per window while the sidecar is away, by tenant, as the sidecar last told.
    pub(crate) shares: Halves<TenantId, u32>,
    pub(crate) owed: Owed,
    /// Windows of tenants, where this VM decides.
    pub(crate) local: LocalLimits<TenantId>,
    /// Failed authentications by client.
    pub(crate) failures: LocalLimits<Network>,
    pub(crate) counts: Counts,
}

impl Limits {
    pub(crate) fn new(holder: Rc<str>) -> Self {
        Self {
            clock: None,
            holder,
            book: Book::default(),
            breaker: Breaker::default(),
            shares: Halves::new(SHARES_PER_HALF),
            owed: Owed::default(),
            local: LocalLimits::default(),
            failures: LocalLimits::default(),
            counts: Counts::default(),
        }
    }

    pub(crate) fn set_clock(&mut self, clock: Clock) {
        self.clock = Some(clock);
    }

    /// The monotonic time; `None` where the shell gave no clock, so that nothing may depend on one.
    pub(crate) fn monotonic(&self) -> Option<Duration> {
        self.clock.as_ref().map(|clock| clock())
    }
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limits").field("holder", &self.holder).finish_non_exhaustive()
    }
}
