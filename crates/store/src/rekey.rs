//! When another key from the file takes over: what the ones before sealed is sealed anew, a batch at a time, and so is what
//! was stored before rows were sealed. Each batch is a transaction: who is interrupted begins where it was.
//! Knows neither the names of the platform's secrets nor how they are opened: the caller does.

use gatehouse_contract::{ExecutionId, TenantId, UserId};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    Error, MasterKeys, Store, SystemTx, TenantTx,
    addresses::{EMAIL, email_index, placeholder},
    data_keys::name_of,
    executions::{ERROR, INPUT, OUTPUT},
};

/// What the platform seals under a key of the file, beside the data keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secret {
    /// A private key that signs; its row is named by the `kid`.
    SigningKey,
    /// The client secret of an external issuer; its row is named by the issuer's id.
    IssuerSecret,
    /// The secret of a webhook's endpoint; its row is named by the endpoint's id.
    WebhookSecret,
    /// The one before it, which signs until its time is over.
    WebhookPreviousSecret,
}

impl Secret {
    /// Every kind.
    pub const ALL: &'static [Self] =
        &[Self::SigningKey, Self::IssuerSecret, Self::WebhookSecret, Self::WebhookPreviousSecret];
}

impl SystemTx {
    /// At most `limit` data keys that another key than the first of `keys` wrapped are wrapped by that. Returns how many
    /// were.
    ///
    /// # Errors
    /// [`Error::Locked`] where none of `keys` opens one: nothing of the batch is changed.
    pub async fn rewrap(&mut self, keys: &MasterKeys, limit: u32) -> Result<u64, Error> {
        let old: Vec<(Uuid, Vec<u8>)> = sqlx::query_as(
            "SELECT tenant_id, wrapped FROM data_keys
             WHERE wrapped IS NOT NULL AND substring(wrapped FROM 1 FOR $2) <> $1 LIMIT $3",
        )
        .bind(keys.mark())
        .bind(i32::try_from(keys.mark().len()).unwrap_or(i32::MAX))
        .bind(i64::from(limit))
        .fetch_all(self.connection())
        .await?;
        let mut done = 0;
        for (tenant, wrapped) in old {
            let name = name_of(TenantId::new(tenant));
            let key = keys.open(&name, &wrapped).map_err(Error::Locked)?;
            let anew =
                keys.seal(&name, &key).map_err(|_| Error::Unreadable { what: "data key" })?;
            let written = sqlx::query(
                "UPDATE data_keys SET wrapped = $3 WHERE tenant_id = $1 AND wrapped = $2",
            )
            .bind(tenant)
            .bind(wrapped)
            .bind(anew)
            .execute(self.connection())
            .await?;
            done += written.rows_affected();
        }
        Ok(done)
    }

    /// At most `limit` secrets that another key than the first of `keys` sealed: their rows' names, and they.
    pub async fn sealed_before(
        &mut self,
        kind: Secret,
        keys: &MasterKeys,
        limit: u32,
    ) -> Result<Vec<(String, Vec<u8>)>, Error> {
        let query = match kind {
            Secret::SigningKey => {
                "SELECT kid, sealed_private FROM signing_keys
                 WHERE substring(sealed_private FROM 1 FOR $2) <> $1 LIMIT $3"
            }
            Secret::IssuerSecret => {
                "SELECT id::text, sealed_client_secret FROM issuers
                 WHERE substring(sealed_client_secret FROM 1 FOR $2) <> $1 LIMIT $3"
            }
            Secret::WebhookSecret => {
                "SELECT id::text, sealed_secret FROM webhook_endpoints
                 WHERE substring(sealed_secret FROM 1 FOR $2) <> $1 LIMIT $3"
            }
            Secret::WebhookPreviousSecret => {
                "SELECT id::text, sealed_previous_secret FROM webhook_endpoints
                 WHERE substring(sealed_previous_secret FROM 1 FOR $2) <> $1 LIMIT $3"
            }
        };
        let rows = sqlx::query_as(query)
            .bind(keys.mark())
            .bind(i32::try_from(keys.mark().len()).unwrap_or(i32::MAX))
            .bind(i64::from(limit))
            .fetch_all(self.connection())
            .await?;
        Ok(rows)
    }

    /// Writes a secret that was sealed anew, unless somebody replaced it meanwhile.
    pub async fn reseal(
        &mut self,
        kind: Secret,
        row: &str,
        before: &[u8],
        anew: &[u8],
    ) -> Result<(), Error> {
        let query = match kind {
            Secret::SigningKey => {
                "UPDATE signing_keys SET sealed_private = $3 WHERE kid = $1 AND sealed_private = $2"
            }
            Secret::IssuerSecret => {
                "UPDATE issuers SET sealed_client_secret = $3
                 WHERE id::text = $1 AND sealed_client_secret = $2"
            }
            Secret::WebhookSecret => {
                "UPDATE webhook_endpoints SET sealed_secret = $3
                 WHERE id::text = $1 AND sealed_secret = $2"
            }
            Secret::WebhookPreviousSecret => {
                "UPDATE webhook_endpoints SET sealed_previous_secret = $3
                 WHERE id::text = $1 AND sealed_previous_secret = $2"
            }
        };
        sqlx::query(query).bind(row).bind(before).bind(anew).execute(self.connection()).await?;
        Ok(())
    }

    /// Every tenant, by id after `after`; at most `limit`.
    pub async fn tenants_after(
        &mut self,
        after: Option<TenantId>,
        limit: u32,
    ) -> Result<Vec<TenantId>, Error> {
        let rows: Vec<Uuid> = sqlx::query_scalar(
            "SELECT id FROM tenants WHERE ($1::uuid IS NULL OR id > $1) ORDER BY id LIMIT $2",
        )
        .bind(after.map(TenantId::as_uuid))
        .bind(i64::from(limit))
        .fetch_all(self.connection())
        .await?;
        Ok(rows.into_iter().map(TenantId::new).collect())
    }
}

type Plain = (Uuid, Option<Value>, Option<Value>, Option<String>);

impl TenantTx<'_> {
    /// Seals at most `limit` users and as many executions that were stored before rows were sealed; returns how many it
    /// did. An execution that runs is left to its worker, which seals its output.
    pub async fn seal_rows(&mut self, limit: u32) -> Result<u64, Error> {
        let users: Vec<(Uuid, String)> = sqlx::query_as(
            "SELECT id, email FROM users WHERE sealed_email IS NULL ORDER BY id LIMIT $1 FOR UPDATE",
        )
        .bind(i64::from(limit))
        .fetch_all(self.connection())
        .await?;
        let executions: Vec<Plain> = sqlx::query_as(
            "SELECT id, input, output, error FROM executions
             WHERE (input IS NOT NULL OR error IS NOT NULL) AND state IN ('completed', 'failed', 'timeout', 'cancelled', 'dead_letter')
             ORDER BY id LIMIT $1 FOR UPDATE",
        )
        .bind(i64::from(limit))
        .fetch_all(self.connection())
        .await?;
        let done = users.len() + executions.len();
        if done == 0 {
            return Ok(0);
        }
        let cipher = self.cipher().await?;
        for (id, email) in users {
            let user = UserId::new(id);
            sqlx::query(
                "UPDATE users SET email = $2, sealed_email = $3, email_index = $4 WHERE id = $1",
            )
            .bind(id)
            .bind(placeholder(user))
            .bind(cipher.seal(EMAIL, user, email.as_bytes())?)
            .bind(email_index(&cipher, &email).as_slice())
            .execute(self.connection())
            .await?;
        }
        for (id, input, output, error) in executions {
            let name = ExecutionId::new(id);
            let json = |column, value: Option<Value>| {
                value.map(|value| cipher.seal_json(column, name, &value)).transpose()
            };
            let error = error.map(|text| cipher.seal(ERROR, name, text.as_bytes())).transpose()?;
            sqlx::query(
                "UPDATE executions SET input = NULL, output = NULL, error = NULL,
                    sealed_input = coalesce($2, sealed_input), sealed_output = coalesce($3, sealed_output),
                    sealed_error = coalesce($4, sealed_error) WHERE id = $1",
            )
            .bind(id)
            .bind(json(INPUT, input)?)
            .bind(json(OUTPUT, output)?)
            .bind(error)
            .execute(self.connection())
            .await?;
        }
        Ok(u64::try_from(done).unwrap_or(u64::MAX))
    }
}

impl Store {
    /// The keys from the file, as [`Store::with_keys`] took them.
    pub fn keys(&self) -> Option<&MasterKeys> {
        self.vault.as_ref().map(|vault| &vault.master)
    }
}
