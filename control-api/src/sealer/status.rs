//! What the sealer tells operators: a word for readiness, and metrics. Knows no row.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

/// Where this process stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Stand {
    /// Another process seals, or nobody does yet.
    #[default]
    Follows,
    /// It could seal, and what it read or wrote failed.
    Failing,
    /// It seals.
    Leads,
}

/// Shared by the sealer and the admin listener.
#[derive(Debug, Default)]
pub struct Status {
    stand: Mutex<Stand>,
    rows: AtomicU64,
    seals: AtomicU64,
    broken: AtomicU64,
}

impl Status {
    /// `leads`, `follows`, `failing` where the last round failed, or `broken` where it leads and a tenant is left out: someone must look.
    pub fn word(&self) -> &'static str {
        match self.stand() {
            Stand::Leads if self.broken.load(Ordering::Relaxed) > 0 => "broken",
            Stand::Follows => "follows",
            Stand::Failing => "failing",
            Stand::Leads => "leads",
        }
    }

    fn stand(&self) -> Stand {
        *self.stand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is(&self, stand: Stand) {
        *self.stand.lock().unwrap_or_else(PoisonError::into_inner) = stand;
    }

    pub(super) fn sealed(&self, rows: usize) {
        self.rows.fetch_add(u64::try_from(rows).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.seals.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn left_out(&self, tenants: usize) {
        self.broken.store(u64::try_from(tenants).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The text form of Prometheus.
    pub fn render(&self) -> String {
        let leads = u8::from(self.stand() == Stand::Leads);
        // Whoever leads knows.
        let broken = u64::from(leads) * self.broken.load(Ordering::Relaxed);
        let (rows, seals) = (self.rows.load(Ordering::Relaxed), self.seals.load(Ordering::Relaxed));
        format!(
            "# HELP gatehouse_audit_sealer_leads Whether this process seals the audit.\n\
             # TYPE gatehouse_audit_sealer_leads gauge\n\
             gatehouse_audit_sealer_leads {leads}\n\
             # HELP gatehouse_audit_chains_broken Tenants whose chain was tampered with and is not extended.\n\
             # TYPE gatehouse_audit_chains_broken gauge\n\
             gatehouse_audit_chains_broken {broken}\n\
             # HELP gatehouse_audit_sealed_rows_total Audit rows sealed by this process.\n\
             # TYPE gatehouse_audit_sealed_rows_total counter\n\
             gatehouse_audit_sealed_rows_total {rows}\n\
             # HELP gatehouse_audit_seals_total Seals written by this process.\n\
             # TYPE gatehouse_audit_seals_total counter\n\
             gatehouse_audit_seals_total {seals}\n"
        )
    }
}
