//! What a store of windows is asked, and what it answers: one contract for the Redis function, the memory store and
//! the model that both are compared with.
//!
//! A *take* charges passes to every limit of a request at once: the passes that somebody waits for, all or none of
//! the first, and more in advance for a lease. What is charged for a lease is booked where the lease ends, so that a
//! pass that is used late is still inside the window that counts it (no window ever holds more than the limit).
//! Knows neither stores nor leases' holders.

use std::{sync::Arc, time::Duration};

use gatehouse_contract::TenantId;

use crate::{decision::Decision, policy::Rule, window::Timestamp};

/// Charges passes to all of `rules` or to none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Take {
    /// Whose windows.
    pub tenant: TenantId,
    /// Every limit that weighs.
    pub rules: Arc<[Rule]>,
    /// What one pass costs in each window; 0 asks without charging.
    pub cost: u32,
    /// How many passes are waited for: as many of them as fit are granted, in whole passes. At least 1.
    pub waiting: u32,
    /// How many more are wanted in advance.
    pub ahead: u32,
    /// Of what is left after those who wait, at most one part in this many goes ahead; 0 counts as 1.
    pub divisor: u32,
    /// For how long a pass that goes ahead may be used: it is booked at the end of that time.
    pub hold: Duration,
    /// Charge those who wait even where they do not fit.
    pub forced: bool,
    /// The run of the store that the asker knows; another run charges nothing and answers [`Refused::Anew`].
    /// `None` when none is known: then nothing was charged by the asker, either.
    pub run: Option<Run>,
}

impl Take {
    /// One request of `cost`, nothing ahead, to whatever run.
    pub const fn one(tenant: TenantId, rules: Arc<[Rule]>, cost: u32) -> Self {
        Self {
            tenant,
            rules,
            cost,
            waiting: 1,
            ahead: 0,
            divisor: 1,
            hold: Duration::ZERO,
            forced: false,
            run: None,
        }
    }
}

/// One unbroken life of a store's data: changes whenever some of it may be lost (a restart, a failover).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Run(pub u64);

/// What was charged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// How many of those who wait may pass.
    pub waiting: u32,
    /// How many passes go ahead; 0 whenever somebody who waits may not pass.
    pub ahead: u32,
    /// The verdict on one who waits: allowed when all may pass; and how every limit stands after the charge.
    pub decision: Decision,
    /// When, by the store's clock.
    pub at: Timestamp,
    /// The store's run.
    pub run: Run,
}

/// Nothing was charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The store may have lost data: declare what was charged, then ask again.
    #[error("the store began anew")]
    Anew(Run),
    /// The store began anew a moment ago and waits for what its sidecars declare.
    #[error("the store waits for declarations")]
    Settling(Run),
}

/// Hands back passes of a lease that nobody used. Credits every window in the slot in which they were booked, at most
/// what that slot still holds; a window that began anew since is left alone. Sent once, never repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Return {
    /// Whose windows.
    pub tenant: TenantId,
    /// The rules of the take.
    pub rules: Arc<[Rule]>,
    /// What one pass cost.
    pub cost: u32,
    /// How many passes.
    pub passes: u32,
    /// [`Taken::at`] of the take.
    pub at: Timestamp,
    /// [`Take::hold`] of the take.
    pub hold: Duration,
    /// [`Taken::run`] of the take.
    pub run: Run,
}

/// What one sidecar charged to one window lately, for a store that began anew. Declarations of several sidecars add
/// up; the window then holds the greater of their sum and of what the store still has, slot by slot, so that data
/// that was not lost is not counted twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declaration {
    /// Whose window.
    pub tenant: TenantId,
    /// Which one.
    pub rule: Rule,
    /// (When by the store's clock, how much).
    pub charges: Vec<(Timestamp, u32)>,
    /// The run that it is declared to; another one ignores it.
    pub run: Run,
}
