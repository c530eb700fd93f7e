//! Under what something was read: numbers that grow with every change of a tenant, of a credential, or of anything. What is
//! kept under older ones is not found any more. Many tenants share a number, which costs a reading and nothing else.
//! Knows neither what is kept nor where a change comes from.

use std::{
    hash::{DefaultHasher, Hash, Hasher as _},
    sync::atomic::{AtomicU64, Ordering::SeqCst},
};

use gatehouse_contract::TenantId;

/// How many numbers there are of each kind.
const PLACES: u64 = 1024;

/// What stood when something was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Stamp {
    all: u64,
    tenant: u64,
    credential: u64,
}

/// The numbers as they are.
pub(super) struct Stamps {
    all: AtomicU64,
    tenants: Box<[AtomicU64]>,
    credentials: Box<[AtomicU64]>,
}

impl Default for Stamps {
    fn default() -> Self {
        let places = || (0..PLACES).map(|_| AtomicU64::new(0)).collect();
        Self { all: AtomicU64::new(0), tenants: places(), credentials: places() }
    }
}

impl Stamps {
    /// What stands now; to be asked before the record is.
    pub(super) fn of(&self, tenant: TenantId, credential: Option<&str>) -> Stamp {
        Stamp {
            all: self.all.load(SeqCst),
            tenant: place(&self.tenants, &tenant.as_uuid()).map_or(0, |one| one.load(SeqCst)),
            credential: credential
                .and_then(|credential| place(&self.credentials, credential))
                .map_or(0, |one| one.load(SeqCst)),
        }
    }

    pub(super) fn forget(&self, tenant: TenantId) {
        if let Some(one) = place(&self.tenants, &tenant.as_uuid()) {
            one.fetch_add(1, SeqCst);
        }
    }

    pub(super) fn forget_credential(&self, credential: &str) {
        if let Some(one) = place(&self.credentials, credential) {
            one.fetch_add(1, SeqCst);
        }
    }

    pub(super) fn forget_all(&self) {
        self.all.fetch_add(1, SeqCst);
    }
}

fn place<'a>(places: &'a [AtomicU64], of: &(impl Hash + ?Sized)) -> Option<&'a AtomicU64> {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    let at = usize::try_from(hasher.finish() % PLACES).ok()?;
    places.get(at)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_change_of_one_is_a_change_of_no_other() {
        let stamps = Stamps::default();
        let [one, other] = [1, 2].map(|n| TenantId::new(Uuid::from_u128(n)));
        let before = (stamps.of(one, Some("a")), stamps.of(other, Some("b")));
        stamps.forget(one);
        assert_ne!(stamps.of(one, Some("a")), before.0);
        assert_eq!(stamps.of(other, Some("b")), before.1);
        stamps.forget_credential("b");
        assert_ne!(stamps.of(other, Some("b")), before.1);
        assert_eq!(stamps.of(other, None), Stamp { credential: 0, ..before.1 });
        stamps.forget_all();
        assert_ne!(stamps.of(other, None), before.1);
    }
}
