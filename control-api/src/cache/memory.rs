//! Level one: what this process remembers. Bounded by bytes; what nobody asks for goes first. Of many that miss the same at
//! once one reads, and all have its answer, a refusal included; refusals are not kept.
//!
//! What something was read under is part of its key, and so is the turn of the clock in which it was: nothing needs to be
//! taken away to be forgotten, and nothing outlives its turn. Turns begin at another moment for each key, so that not
//! everything is read again at once. Knows nothing of what it keeps.

use std::{
    convert::Infallible,
    hash::{DefaultHasher, Hash, Hasher as _},
    time::Duration,
};

use gatehouse_contract::TenantId;
use quick_cache::{Weighter, sync::Cache};
use tokio::time::Instant;

use super::{Entity, counts::Counts, stamps::Stamp};

/// What an entry takes beside what it says.
const OVERHEAD_BYTES: u64 = 256;

/// What is remembered, of whom, read under what.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    tenant: TenantId,
    entity: Entity,
    id: Box<str>,
    stamp: Stamp,
    turn: u64,
}

/// How much memory something takes, about.
pub(super) trait Bytes {
    fn bytes(&self) -> usize;
}

#[derive(Clone)]
struct ByBytes;

/// What is remembered of one kind.
pub(super) struct Memory<V> {
    kept: Cache<Key, V, ByBytes>,
    turn: Duration,
    began: Instant,
}

impl Key {
    pub(super) fn new(tenant: TenantId, entity: Entity, id: &str, stamp: Stamp) -> Self {
        Self { tenant, entity, id: id.into(), stamp, turn: 0 }
    }
}

impl<V: Bytes> Weighter<Key, V> for ByBytes {
    fn weight(&self, key: &Key, value: &V) -> u64 {
        let bytes = u64::try_from(key.id.len().saturating_add(value.bytes())).unwrap_or(u64::MAX);
        bytes.saturating_add(OVERHEAD_BYTES)
    }
}

impl<V: Bytes + Clone> Memory<V> {
    /// Nothing yet; what is read is found for at most `turn`, and everything takes at most `bytes`.
    pub(super) fn new(turn: Duration, bytes: u64) -> Self {
        let entries = usize::try_from(bytes / OVERHEAD_BYTES).unwrap_or(usize::MAX);
        Self { kept: Cache::with_weighter(entries, bytes, ByBytes), turn, began: Instant::now() }
    }

    /// What is remembered under `key`, or what `seek` finds, which is remembered where it is to be kept.
    pub(super) async fn read(
        &self,
        mut key: Key,
        counts: &Counts,
        keep: impl Fn(&V) -> bool,
        seek: impl Future<Output = V>,
    ) -> V {
        key.turn = self.turn_of(&key);
        let found = self.kept.get(&key);
        counts.memory(key.entity, found.is_some());
        if let Some(found) = found {
            return found;
        }
        let once = async { Ok::<_, Infallible>(seek.await) };
        let Ok(read) = self.kept.get_or_insert_async(&key, once).await;
        if !keep(&read) {
            self.kept.remove_if(&key, |kept| !keep(kept));
        }
        read
    }

    /// How many bytes are taken.
    pub(super) fn held(&self) -> u64 {
        self.kept.weight()
    }

    fn turn_of(&self, key: &Key) -> u64 {
        let mut hasher = DefaultHasher::new();
        (key.tenant, &key.id).hash(&mut hasher);
        let turn_ms = self.turn.as_millis().max(1);
        let offset = u128::from(hasher.finish()) % turn_ms;
        let turns = (self.began.elapsed().as_millis() + offset) / turn_ms;
        u64::try_from(turns).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    };

    use tokio::sync::Semaphore;
    use uuid::Uuid;

    use super::*;
    use crate::cache::stamps::Stamps;

    type Read = Result<String, ()>;

    impl Bytes for Read {
        fn bytes(&self) -> usize {
            self.as_ref().map_or(0, String::len)
        }
    }

    fn key(tenant: u128, id: &str, stamps: &Stamps) -> Key {
        let tenant = TenantId::new(Uuid::from_u128(tenant));
        Key::new(tenant, Entity::Tenant, id, stamps.of(tenant, None))
    }

    async fn read(memory: &Memory<Read>, key: Key, answer: Read) -> Read {
        memory.read(key, &Counts::default(), Result::is_ok, async { answer }).await
    }

    fn says(text: &str) -> Read {
        Ok(text.to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_read_is_found_until_it_changes_or_its_turn_ends() {
        let memory = Memory::new(Duration::from_secs(5), 1 << 20);
        let stamps = Stamps::default();
        let ask = |answer| read(&memory, key(1, "-", &stamps), answer);
        assert_eq!(ask(says("a")).await, says("a"));
        assert_eq!(ask(says("b")).await, says("a"));
        assert_eq!(read(&memory, key(2, "-", &stamps), says("c")).await, says("c"));
        assert_eq!(read(&memory, key(1, "x", &stamps), says("d")).await, says("d"));
        stamps.forget(TenantId::new(Uuid::from_u128(1)));
        assert_eq!(ask(says("b")).await, says("b"));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(ask(says("e")).await, says("e"));
    }

    #[tokio::test]
    async fn of_many_that_miss_one_reads_and_a_refusal_is_every_ones_but_not_kept() {
        let memory = Arc::new(Memory::<Read>::new(Duration::from_secs(3600), 1 << 20));
        let (stamps, reads) = (Arc::new(Stamps::default()), Arc::new(AtomicU64::new(0)));
        for answer in [Err(()), says("a")] {
            let gate = Arc::new(Semaphore::new(0));
            let counts = Arc::new(Counts::default());
            let asks: Vec<_> = (0..200)
                .map(|_| {
                    let (memory, stamps, counts) =
                        (Arc::clone(&memory), Arc::clone(&stamps), Arc::clone(&counts));
                    let (reads, gate, answer) =
                        (Arc::clone(&reads), Arc::clone(&gate), answer.clone());
                    tokio::spawn(async move {
                        let seek = async {
                            reads.fetch_add(1, SeqCst);
                            let _open = gate.acquire().await;
                            answer
                        };
                        memory.read(key(1, "-", &stamps), &counts, Result::is_ok, seek).await
                    })
                })
                .collect();
            // The gate opens when all of them have missed.
            while counts.memory_misses() < 200 {
                tokio::task::yield_now().await;
            }
            gate.close();
            for ask in asks {
                assert_eq!(ask.await.unwrap(), answer);
            }
        }
        assert_eq!(reads.load(SeqCst), 2);
    }

    #[tokio::test]
    async fn it_takes_no_more_than_it_may() {
        let memory = Memory::new(Duration::from_secs(3600), 64 * 1024);
        let stamps = Stamps::default();
        for tenant in 0..1000 {
            let answer = Ok("x".repeat(1000));
            assert_eq!(read(&memory, key(tenant, "-", &stamps), answer.clone()).await, answer);
        }
        assert!((1000..=64 * 1024).contains(&memory.held()), "{}", memory.held());
    }

    #[tokio::test]
    async fn what_is_read_while_it_changes_is_not_found_after_the_change() {
        let memory = Memory::new(Duration::from_secs(3600), 1 << 20);
        let stamps = Stamps::default();
        let key_before = key(1, "-", &stamps);
        let seek = async {
            // The record said this before the change, and is remembered after it.
            stamps.forget(TenantId::new(Uuid::from_u128(1)));
            says("old")
        };
        let old = memory.read(key_before, &Counts::default(), Result::is_ok, seek).await;
        assert_eq!(old, says("old"));
        assert_eq!(read(&memory, key(1, "-", &stamps), says("new")).await, says("new"));
    }
}
