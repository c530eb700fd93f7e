//! How often what is remembered was of use, in the text form of Prometheus. Labels are entities and levels, never a tenant.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Entity;

#[derive(Debug, Default)]
struct Of {
    memory: [AtomicU64; 2],
    redis: [AtomicU64; 2],
    record: AtomicU64,
}

/// The counters of one process.
#[derive(Debug, Default)]
pub(super) struct Counts {
    of: [Of; Entity::ALL.len()],
    forgotten: [AtomicU64; 3],
}

const FORGOTTEN: [&str; 3] = ["all", "tenant", "credential"];

impl Counts {
    fn of(&self, entity: Entity) -> Option<&Of> {
        let at = Entity::ALL.iter().position(|one| *one == entity)?;
        self.of.get(at)
    }

    pub(super) fn memory(&self, entity: Entity, hit: bool) {
        self.add(entity, |of| of.memory.get(usize::from(hit)));
    }

    pub(super) fn redis(&self, entity: Entity, hit: bool) {
        self.add(entity, |of| of.redis.get(usize::from(hit)));
    }

    /// The record was read.
    pub(super) fn record(&self, entity: Entity) {
        self.add(entity, |of| Some(&of.record));
    }

    fn add(&self, entity: Entity, which: impl Fn(&Of) -> Option<&AtomicU64>) {
        if let Some(counter) = self.of(entity).and_then(which) {
            counter.fetch_add(1, Relaxed);
        }
    }

    /// Everything, a tenant's or a credential's was forgotten.
    pub(super) fn forgot(&self, what: &str) {
        let at = FORGOTTEN.iter().position(|one| *one == what);
        if let Some(counter) = at.and_then(|at| self.forgotten.get(at)) {
            counter.fetch_add(1, Relaxed);
        }
    }

    #[cfg(test)]
    pub(super) fn memory_misses(&self) -> u64 {
        self.of.iter().map(|of| of.memory[0].load(Relaxed)).sum()
    }

    /// The text form.
    pub(super) fn render(&self, used: bool, bytes: u64) -> String {
        let mut text = String::from(
            "# HELP gatehouse_cache_lookups_total Looks for what is remembered, by level.\n\
             # TYPE gatehouse_cache_lookups_total counter\n",
        );
        for (entity, of) in Entity::ALL.iter().zip(&self.of) {
            let entity = entity.as_str();
            for (level, counters) in [("memory", &of.memory), ("redis", &of.redis)] {
                for (outcome, counter) in ["miss", "hit"].iter().zip(counters) {
                    let count = counter.load(Relaxed);
                    text += &format!(
                        "gatehouse_cache_lookups_total{{entity=\"{entity}\",level=\"{level}\",outcome=\"{outcome}\"}} {count}\n"
                    );
                }
            }
        }
        text += "# HELP gatehouse_cache_record_reads_total Reads of the record of what may be remembered.\n\
                 # TYPE gatehouse_cache_record_reads_total counter\n";
        for (entity, of) in Entity::ALL.iter().zip(&self.of) {
            let (entity, count) = (entity.as_str(), of.record.load(Relaxed));
            text += &format!("gatehouse_cache_record_reads_total{{entity=\"{entity}\"}} {count}\n");
        }
        text += "# HELP gatehouse_cache_forgotten_total How often everything, a tenant's or a credential's was forgotten.\n\
                 # TYPE gatehouse_cache_forgotten_total counter\n";
        for (what, counter) in FORGOTTEN.iter().zip(&self.forgotten) {
            let count = counter.load(Relaxed);
            text += &format!("gatehouse_cache_forgotten_total{{what=\"{what}\"}} {count}\n");
        }
        let used = u8::from(used);
        text += &format!(
            "# HELP gatehouse_cache_used Whether what is remembered is used: this process hears the change feed.\n\
             # TYPE gatehouse_cache_used gauge\n\
             gatehouse_cache_used {used}\n\
             # HELP gatehouse_cache_memory_bytes What this process remembers.\n\
             # TYPE gatehouse_cache_memory_bytes gauge\n\
             gatehouse_cache_memory_bytes {bytes}\n"
        );
        text
    }
}
