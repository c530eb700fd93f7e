//! What the sealer tells operators: a word for readiness, and metrics. Knows no row.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

/// Where this process stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Stand {
    /// Another process seals, or nobody can.
    #[default]
    Follows,
    /// It seals.
    Leads,
    /// It found a chain that it does not extend: someone must look.
    Broken,
}

/// Shared by the sealer and the admin listener.
#[derive(Debug, Default)]
pub struct Status {
    stand: Mutex<Stand>,
    rows: AtomicU64,
    seals: AtomicU64,
}

impl Status {
    /// `leads`, `follows` or `broken`.
    pub fn word(&self) -> &'static str {
        match self.stand() {
            Stand::Follows => "follows",
            Stand::Leads => "leads",
            Stand::Broken => "broken",
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

    /// The text form of Prometheus.
    pub fn render(&self) -> String {
        let (leads, broken) = match self.stand() {
            Stand::Follows => (0, 0),
            Stand::Leads => (1, 0),
            Stand::Broken => (0, 1),
        };
        let (rows, seals) = (self.rows.load(Ordering::Relaxed), self.seals.load(Ordering::Relaxed));
        format!(
            "# HELP gatehouse_audit_sealer_leads Whether this process seals the audit.\n\
             # TYPE gatehouse_audit_sealer_leads gauge\n\
             gatehouse_audit_sealer_leads {leads}\n\
             # HELP gatehouse_audit_chain_broken Whether a chain was found that was tampered with.\n\
             # TYPE gatehouse_audit_chain_broken gauge\n\
             gatehouse_audit_chain_broken {broken}\n\
             # HELP gatehouse_audit_sealed_rows_total Audit rows sealed by this process.\n\
             # TYPE gatehouse_audit_sealed_rows_total counter\n\
             gatehouse_audit_sealed_rows_total {rows}\n\
             # HELP gatehouse_audit_seals_total Seals written by this process.\n\
             # TYPE gatehouse_audit_seals_total counter\n\
             gatehouse_audit_seals_total {seals}\n"
        )
    }
}
