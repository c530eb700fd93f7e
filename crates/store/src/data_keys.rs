//! A tenant's own key, under which what is personal or secret in it is sealed. The database holds it wrapped by a key from
//! the file ([`MasterKeys`]); when the row is emptied, nothing that it sealed can be read again, in no copy of the
//! database.
//! Knows no column: each names itself.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aws_lc_rs::{
    aead::{AES_256_GCM, RandomizedNonceKey},
    hkdf::{self, HKDF_SHA256, Salt},
    hmac,
};
use gatehouse_contract::TenantId;
use serde_json::Value;
use sqlx::PgConnection;
use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    Error, Store,
    master_keys::{MasterKeys, open, random, seal},
    system::Job,
};

/// A key that was opened is kept for this long: so long after its end may another process still read.
const KEEP: Duration = Duration::from_secs(60);
/// At most so many are kept.
const KEPT: usize = 10_000;
/// The first byte of what a data key sealed: `1 nonce(12) ciphertext tag(16)`.
const VERSION: u8 = 1;

/// A tenant's key, opened.
pub struct Cipher {
    tenant: TenantId,
    sealing: RandomizedNonceKey,
    index: hmac::Key,
}

/// The master keys, and the tenants' keys that were opened of late.
pub(crate) struct Vault {
    pub(crate) master: MasterKeys,
    opened: Mutex<HashMap<TenantId, (Instant, Arc<Cipher>)>>,
}

/// What one transaction may open.
pub(crate) struct Keys {
    vault: Option<Arc<Vault>>,
    /// Made in this transaction: another one must not use them before it is committed.
    made: Vec<Arc<Cipher>>,
    /// Whether a tenant that has no key gets one.
    makes: bool,
}

// === impl Cipher ===

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cipher").field(&self.tenant).finish()
    }
}

impl Cipher {
    fn new(tenant: TenantId, key: &[u8]) -> Result<Self, Error> {
        let broken = |_| Error::Unreadable { what: "data key" };
        let extracted = Salt::new(HKDF_SHA256, b"gatehouse data key").extract(key);
        let mut sealing = [0; 32];
        let okm = extracted.expand(&[b"seal"], Bytes32).map_err(broken)?;
        okm.fill(&mut sealing).map_err(broken)?;
        let index = extracted.expand(&[b"index"], hmac::HMAC_SHA256).map_err(broken)?;
        Ok(Self {
            tenant,
            sealing: RandomizedNonceKey::new(&AES_256_GCM, &sealing).map_err(broken)?,
            index: index.into(),
        })
    }

    /// Seals `plain` for this place and no other: `column` is `table.column`, `row` names the row.
    pub fn seal(
        &self,
        column: &str,
        row: impl fmt::Display,
        plain: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let mut sealed = vec![VERSION];
        seal(&self.sealing, &self.name(column, row), plain, &mut sealed)
            .map_err(|_| Error::Unreadable { what: "data key" })?;
        Ok(sealed)
    }

    /// Opens what [`Self::seal`] made for the same place.
    pub fn open(
        &self,
        column: &'static str,
        row: impl fmt::Display,
        sealed: &[u8],
    ) -> Result<Vec<u8>, Error> {
        match sealed.split_first() {
            Some((&VERSION, rest)) => open(&self.sealing, &self.name(column, row), rest),
            _ => None,
        }
        .ok_or(Error::Unreadable { what: column })
    }

    /// Opens text.
    pub fn open_text(
        &self,
        column: &'static str,
        row: impl fmt::Display,
        sealed: &[u8],
    ) -> Result<String, Error> {
        let plain = self.open(column, row, sealed)?;
        String::from_utf8(plain).map_err(|_| Error::Unreadable { what: column })
    }

    /// Seals a JSON value.
    pub fn seal_json(
        &self,
        column: &'static str,
        row: impl fmt::Display,
        value: &Value,
    ) -> Result<Vec<u8>, Error> {
        self.seal(column, row, value.to_string().as_bytes())
    }

    /// Opens a JSON value.
    pub fn open_json(
        &self,
        column: &'static str,
        row: impl fmt::Display,
        sealed: &[u8],
    ) -> Result<Value, Error> {
        let plain = self.open(column, row, sealed)?;
        serde_json::from_slice(&plain).map_err(|_| Error::Unreadable { what: column })
    }

    /// By what `text` is found in `column`: equal for equal text of this tenant, and nothing else to anybody.
    pub fn index(&self, column: &str, text: &str) -> [u8; 32] {
        let tag = hmac::sign(&self.index, format!("{column}\0{text}").as_bytes());
        let mut index = [0; 32];
        index.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
        index
    }

    fn name(&self, column: &str, row: impl fmt::Display) -> String {
        format!("{}/{column}/{row}", self.tenant)
    }
}

/// HKDF's wish for 32 bytes.
struct Bytes32;

impl hkdf::KeyType for Bytes32 {
    fn len(&self) -> usize {
        32
    }
}

// === impl Vault ===

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Vault").field(&self.master).finish()
    }
}

impl Vault {
    pub(crate) fn new(master: MasterKeys) -> Self {
        Self { master, opened: Mutex::default() }
    }

    fn kept(&self, tenant: TenantId) -> Option<Arc<Cipher>> {
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, cipher) = opened.get(&tenant)?;
        (at.elapsed() < KEEP).then(|| Arc::clone(cipher))
    }

    fn keep(&self, cipher: &Arc<Cipher>) {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if opened.len() >= KEPT {
            opened.retain(|_, (at, _)| at.elapsed() < KEEP);
        }
        if opened.len() < KEPT {
            opened.insert(cipher.tenant, (Instant::now(), Arc::clone(cipher)));
        }
    }

    pub(crate) fn forget(&self, tenant: TenantId) {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).remove(&tenant);
    }

    pub(crate) fn unwrap(&self, tenant: TenantId, wrapped: &[u8]) -> Result<Arc<Cipher>, Error> {
        let key = self.master.open(&name_of(tenant), wrapped).map_err(Error::Locked)?;
        Cipher::new(tenant, &key).map(Arc::new)
    }
}

/// Of a wrapped data key: it opens as this tenant's and no other.
pub(crate) fn name_of(tenant: TenantId) -> String {
    format!("gatehouse/data-key/{tenant}")
}

// === impl Keys ===

impl Keys {
    pub(crate) const fn new(vault: Option<Arc<Vault>>) -> Self {
        Self { vault, made: Vec::new(), makes: true }
    }

    /// Of a transaction that only reads: nothing was sealed where there is no key.
    pub(crate) const fn reading(vault: Option<Arc<Vault>>) -> Self {
        Self { vault, made: Vec::new(), makes: false }
    }

    /// The key of `tenant`, which is made where there is none.
    ///
    /// # Errors
    /// [`Error::NoKeyFile`] without master keys, [`Error::Locked`] under another one, [`Error::Erased`] where the tenant's
    /// was destroyed, [`Error::Unreadable`] where there is none and none may be made.
    pub(crate) async fn of(
        &mut self,
        connection: &mut PgConnection,
        tenant: TenantId,
    ) -> Result<Arc<Cipher>, Error> {
        if let Some(made) = self.made.iter().find(|cipher| cipher.tenant == tenant) {
            return Ok(Arc::clone(made));
        }
        let vault = self.vault.as_ref().ok_or(Error::NoKeyFile)?;
        if let Some(kept) = vault.kept(tenant) {
            return Ok(kept);
        }
        if let Some(found) = stored(connection, tenant).await? {
            let cipher = vault.unwrap(tenant, &found.ok_or(Error::Erased)?)?;
            vault.keep(&cipher);
            return Ok(cipher);
        }
        if !self.makes {
            return Err(Error::Unreadable { what: "data key" });
        }
        let broken = |_| Error::Unreadable { what: "data key" };
        let key = random().map_err(broken)?;
        let wrapped = vault.master.seal(&name_of(tenant), &key).map_err(broken)?;
        let made = sqlx::query(
            "INSERT INTO data_keys (tenant_id, wrapped) VALUES ($1, $2) ON CONFLICT (tenant_id) DO NOTHING",
        )
        .bind(tenant.as_uuid())
        .bind(wrapped)
        .execute(&mut *connection)
        .await?;
        if made.rows_affected() > 0 {
            let cipher = Arc::new(Cipher::new(tenant, &key)?);
            self.made.push(Arc::clone(&cipher));
            return Ok(cipher);
        }
        // Another transaction came first, and has committed: the insertion waited for it.
        let found = stored(connection, tenant).await?.flatten().ok_or(Error::Erased)?;
        let cipher = vault.unwrap(tenant, &found)?;
        vault.keep(&cipher);
        Ok(cipher)
    }
}

impl Store {
    /// Looks whether the file's keys open what is stored: one tenant's key for each key that sealed any.
    ///
    /// # Errors
    /// [`Error::NoKeyFile`] without master keys, [`Error::Locked`] where one of them is missing or another.
    pub async fn judge_keys(&self) -> Result<(), Error> {
        let vault = self.vault.as_ref().ok_or(Error::NoKeyFile)?;
        let mut tx = self.system(Job::Rekey).await?;
        let stored: Vec<(Uuid, Vec<u8>)> = sqlx::query_as(
            "SELECT DISTINCT ON (substring(wrapped FOR $1)) tenant_id, wrapped FROM data_keys WHERE wrapped IS NOT NULL",
        )
        .bind(i32::try_from(vault.master.mark().len()).unwrap_or(i32::MAX))
        .fetch_all(tx.connection())
        .await?;
        stored.iter().try_for_each(|(tenant, wrapped)| {
            vault.unwrap(TenantId::new(*tenant), wrapped).map(drop)
        })
    }
}

async fn stored(
    connection: &mut PgConnection,
    tenant: TenantId,
) -> Result<Option<Option<Vec<u8>>>, Error> {
    let row = sqlx::query_scalar("SELECT wrapped FROM data_keys WHERE tenant_id = $1")
        .bind(tenant.as_uuid())
        .fetch_optional(connection)
        .await?;
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cipher(tenant: u128, key: u8) -> Cipher {
        Cipher::new(TenantId::new(Uuid::from_u128(tenant)), &[key; 32]).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_in_its_place_alone() {
        let ours = cipher(1, 1);
        let sealed = ours.seal("users.email", 7, b"a@example.com").unwrap();
        assert!(!sealed.windows(7).any(|part| part == b"example"));
        assert_eq!(ours.open_text("users.email", 7, &sealed).unwrap(), "a@example.com");
        for (other, column, row) in [
            (cipher(2, 1), "users.email", 7),
            (cipher(1, 2), "users.email", 7),
            (cipher(1, 1), "users.name", 7),
            (cipher(1, 1), "users.email", 8),
        ] {
            assert!(other.open(column, row, &sealed).is_err(), "{other:?} {column} {row}");
        }
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(ours.open("users.email", 7, &changed).is_err(), "byte {at}");
            assert!(ours.open("users.email", 7, &sealed[..at]).is_err(), "{at} bytes");
        }
    }

    #[test]
    fn an_index_is_equal_for_equal_text_of_one_tenant_and_column() {
        let index = cipher(1, 1).index("users.email", "a@example.com");
        assert_eq!(index, cipher(1, 1).index("users.email", "a@example.com"));
        assert_ne!(index, cipher(1, 1).index("users.email", "b@example.com"));
        assert_ne!(index, cipher(1, 1).index("users.name", "a@example.com"));
        assert_ne!(index, cipher(1, 2).index("users.email", "a@example.com"));
    }
}
