//! The host process around its VMs: the clocks and the shared data. Whoever clones a [`Host`] has the same one.
//! Knows nothing of streams or callbacks.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// One host process. Its clocks move only when a test moves them.
#[derive(Debug, Clone)]
pub struct Host(Arc<Mutex<Process>>);

#[derive(Debug)]
struct Process {
    /// What the clock on the wall shows; it may be set back.
    wall: SystemTime,
    /// Since the process began; timers go by it, and it never goes back.
    elapsed: Duration,
    /// By the VM's id.
    shared: BTreeMap<String, Values>,
    next_cas: u32,
    vms: u64,
}

/// What VMs of one id share: by key, the value and its CAS number.
type Values = BTreeMap<Vec<u8>, (Vec<u8>, u32)>;

/// The value is not the one that the caller read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CasMismatch;

impl Host {
    /// A new process at this time.
    pub fn at(now: SystemTime) -> Self {
        let process = Process {
            wall: now,
            elapsed: Duration::ZERO,
            shared: BTreeMap::new(),
            next_cas: 1,
            vms: 0,
        };
        Self(Arc::new(Mutex::new(process)))
    }

    /// What the clock on the wall shows.
    pub fn now(&self) -> SystemTime {
        self.process().wall
    }

    /// Sets the clock on the wall, back as well as forth, as an operator or NTP does. No time passes for timers.
    pub fn set_clock(&self, now: SystemTime) {
        self.process().wall = now;
    }

    /// The shared value of `key` under `vm_id` with its CAS number.
    pub fn shared(&self, vm_id: &str, key: &[u8]) -> Option<(Vec<u8>, u32)> {
        self.process().shared.get(vm_id)?.get(key).cloned()
    }

    /// Shares a value as Envoy does: `cas` 0 always writes, and so does any `cas` where nothing is there yet.
    pub fn share(
        &self,
        vm_id: &str,
        key: &[u8],
        value: &[u8],
        cas: u32,
    ) -> Result<(), CasMismatch> {
        let mut process = self.process();
        let next = process.next_cas;
        let values = process.shared.entry(vm_id.to_owned()).or_default();
        match values.get(key) {
            Some((_, held)) if cas != 0 && cas != *held => return Err(CasMismatch),
            _ => values.insert(key.to_vec(), (value.to_vec(), next)),
        };
        process.next_cas = next.wrapping_add(1).max(1);
        Ok(())
    }

    pub(super) fn wall_ns(&self) -> u64 {
        let since = self.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.process().elapsed
    }

    /// Time passes, on both clocks, until so much has passed since the beginning.
    pub(super) fn pass_until(&self, elapsed: Duration) {
        let mut process = self.process();
        let by = elapsed.saturating_sub(process.elapsed);
        process.elapsed += by;
        process.wall += by;
    }

    /// The beginning of a sequence that no other VM of the process has.
    pub(super) fn seed(&self) -> u64 {
        let mut process = self.process();
        process.vms += 1;
        process.vms.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn process(&self) -> MutexGuard<'_, Process> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
