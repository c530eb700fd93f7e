//! The leases of VMs, by id and holder: what was granted out of which of ours. A lease leaves the book with its first
//! return or some time after its end, so that it is credited once at most, and never more than was granted.
//! Knows no store; `now` counts from the engine's start.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use gatehouse_contract::{TenantId, sidecar::Lease};
use hashbrown::HashMap;

use super::{
    core::GroupId,
    group::{Origin, Wants},
};

/// How long before ours a VM's lease ends.
pub const MARGIN: Duration = Duration::from_millis(20);
/// The longest lease of a VM.
const LONGEST: Duration = Duration::from_millis(100);
/// A shorter one is over before it is used.
const SHORTEST: Duration = Duration::from_millis(20);
/// How long after its end a lease may be handed back: a VM does that on its tick.
const KEPT: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug)]
pub struct Book {
    granted: HashMap<u64, Granted>,
    /// By their ends: all live equally long but for the rounding of `ttl`, which only makes a wait longer.
    ends: VecDeque<(Duration, u64)>,
    capacity: usize,
    next: u64,
    step: u64,
}

#[derive(Debug)]
struct Granted {
    holder: Arc<str>,
    back: Back,
}

/// What a return credits.
#[derive(Debug)]
pub struct Back {
    pub group: GroupId,
    pub origin: Origin,
    pub tenant: TenantId,
    pub cost: u32,
    pub passes: u32,
}

impl Origin {
    /// For how long a VM's lease out of this one would last; `None` where that is not worth it.
    pub fn time_for_a_vm(&self, now: Duration) -> Option<Duration> {
        let ttl = self.until.checked_sub(now)?.checked_sub(MARGIN)?.min(LONGEST);
        (ttl >= SHORTEST).then_some(ttl)
    }
}

impl Book {
    /// Of at most `capacity` leases, whose ids begin with `first` and are `step` apart. Another process must not
    /// begin with the same.
    pub fn new(capacity: usize, first: u64, step: u64) -> Self {
        let (granted, ends) = (HashMap::new(), VecDeque::new());
        Self { granted, ends, capacity, next: first, step }
    }

    /// Notes a lease of `passes` out of `origin`, for as long as may be; `None` when that is too short, or the book
    /// is full.
    #[expect(clippy::too_many_arguments, reason = "one caller, which has them all apart")]
    pub fn begin(
        &mut self,
        now: Duration,
        group: GroupId,
        origin: &Origin,
        tenant: TenantId,
        cost: u32,
        vm: &Wants,
        passes: u32,
    ) -> Option<Lease> {
        let ttl = origin.time_for_a_vm(now)?;
        if passes == 0 || self.ends.len() >= self.capacity {
            return None;
        }
        let id = self.next;
        self.next = self.next.wrapping_add(self.step);
        let back = Back { group, origin: origin.clone(), tenant, cost, passes };
        self.granted.insert(id, Granted { holder: Arc::clone(&vm.holder), back });
        self.ends.push_back((now + ttl + KEPT, id));
        Some(Lease { id, passes, ttl_ms: u32::try_from(ttl.as_millis()).ok()? })
    }

    /// Ends a lease: what is credited of the `unused` that its holder hands back, and what had been granted.
    pub fn end(&mut self, holder: &str, lease: u64, unused: u32) -> Option<(Back, u32)> {
        self.granted.get(&lease).filter(|granted| *granted.holder == *holder)?;
        let mut back = self.granted.remove(&lease)?.back;
        let granted = back.passes;
        back.passes = granted.min(unused);
        Some((back, granted))
    }

    /// Forgets leases whose holders handed nothing back: of so many passes nobody knows what became.
    pub fn forget(&mut self, now: Duration) -> u64 {
        let mut lost = 0;
        while let Some((end, id)) = self.ends.front().copied()
            && end <= now
        {
            self.ends.pop_front();
            lost += self.granted.remove(&id).map_or(0, |granted| u64::from(granted.back.passes));
        }
        lost
    }
}
