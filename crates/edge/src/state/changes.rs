//! The changes that came of late: whether facts are older than what is known to have changed.
//! Knows neither what is kept nor how changes come.

use std::collections::VecDeque;

use gatehouse_contract::{
    TenantId,
    sidecar::{Change, PrincipalFacts},
};
use hashbrown::HashSet;

/// How many changes are kept to judge late answers by; what was asked for before them all is not remembered.
const RECENT_CHANGES: usize = 1024;

/// When something was asked for, in changes: facts that a change touched since then may be old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked(u64);

/// The changes that came of late, numbered from 1.
#[derive(Debug, Default)]
pub(super) struct Changes {
    count: u64,
    /// The newest change that `recent` no longer has.
    dropped: u64,
    recent: VecDeque<Change>,
}

/// What some changes name.
#[derive(Debug, Default)]
pub(super) struct Touched<'c> {
    tenants: HashSet<TenantId>,
    subjects: HashSet<(TenantId, &'c str)>,
    credentials: HashSet<&'c str>,
}

// === impl Changes ===

impl Changes {
    /// This moment.
    pub(super) fn asked(&self) -> Asked {
        Asked(self.count)
    }

    pub(super) fn add(&mut self, change: Change) {
        self.count = self.count.wrapping_add(1);
        if self.recent.len() >= RECENT_CHANGES {
            self.recent.pop_front();
            self.dropped = self.dropped.wrapping_add(1);
        }
        self.recent.push_back(change);
    }

    /// Everything may have changed.
    pub(super) fn forget(&mut self) {
        self.count = self.count.wrapping_add(1);
        self.dropped = self.count;
        self.recent.clear();
    }

    /// Whether no change since `asked` touches these facts.
    pub(super) fn left_alone(&self, facts: &PrincipalFacts, asked: Asked) -> bool {
        let Some(skip) = asked.0.checked_sub(self.dropped) else { return false };
        let Ok(skip) = usize::try_from(skip) else { return true };
        !self
            .recent
            .iter()
            .skip(skip)
            .any(|change| Touched::by(std::slice::from_ref(change)).has(facts))
    }
}

// === impl Touched ===

impl<'c> Touched<'c> {
    pub(super) fn by(changes: &'c [Change]) -> Self {
        let mut touched = Self::default();
        for change in changes {
            match change {
                Change::Tenant { tenant } => drop(touched.tenants.insert(*tenant)),
                Change::Subject { tenant, subject } => {
                    touched.subjects.insert((*tenant, subject));
                }
                Change::Credential { credential } => drop(touched.credentials.insert(credential)),
                Change::Keys { .. } | Change::Deny(_) => {}
            }
        }
        touched
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tenants.is_empty() && self.subjects.is_empty() && self.credentials.is_empty()
    }

    pub(super) fn has(&self, facts: &PrincipalFacts) -> bool {
        self.tenants.contains(&facts.tenant)
            || self.subjects.contains(&(facts.tenant, facts.subject.as_str()))
            || facts.credential.as_ref().is_some_and(|id| self.credentials.contains(id.as_str()))
    }
}
