//! The door of the platform: across tenants, with a reason that is recorded before the work starts, and with a
//! bound on its time. It has no way to agents and executions.
//! Knows nothing of who may use it: the caller has checked the platform membership.

use std::time::Duration;

use gatehouse_contract::{ClientId, TenantId, sidecar::Change};
use serde_json::{Value, json};
use sqlx::{PgConnection, Postgres, Transaction};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    Error, OpCtx, Store,
    audit::{self, told},
    data_keys::Keys,
    deadline::Deadline,
    members::{self, Member, NewClient, Tenant, TenantRow},
};

/// How long a transaction of the platform lasts at most, whatever it does (specification RLS-004).
pub const LIMIT: Duration = Duration::from_secs(15 * 60);

/// An open transaction of the platform.
pub struct AdminTx<'op> {
    transaction: Transaction<'static, Postgres>,
    deadline: Deadline,
    op: &'op OpCtx,
    reason: String,
    keys: Keys,
}

/// A signing key to be stored.
pub struct NewSigningKey<'a> {
    /// Its id.
    pub kid: &'a str,
    /// The public key (RFC 7517 §4).
    pub jwk: &'a Value,
    /// The private key, sealed.
    pub sealed_private: &'a [u8],
    /// Whose tokens it signs (`iss`): who keeps that issuer's key set is told.
    pub issuer: &'a str,
}

impl Store {
    /// Opens a transaction across tenants. Who opened it and why is committed first, so that it is known
    /// whatever becomes of the transaction. Statements have 10 s, between two of them may be 10 s, and the whole has
    /// [`LIMIT`].
    pub async fn admin<'op>(&self, op: &'op OpCtx, reason: &str) -> Result<AdminTx<'op>, Error> {
        let pool = self.admin.as_ref().ok_or(Error::DoorClosed("admin"))?;
        sqlx::query(
            "INSERT INTO admin_access (tenant_id, subject, request_id, reason) VALUES ($1, $2, $3, $4)",
        )
        .bind(op.tenant.as_uuid())
        .bind(&op.subject)
        .bind(&op.request_id)
        .bind(reason)
        .execute(pool)
        .await?;
        let mut transaction = pool.begin().await?;
        let (pid, began, _, _): (i32, OffsetDateTime, String, String) = sqlx::query_as(
            "SELECT pg_backend_pid(), now(), set_config('statement_timeout', '10s', true),
                set_config('idle_in_transaction_session_timeout', '10s', true)",
        )
        .fetch_one(&mut *transaction)
        .await?;
        let deadline = Deadline::new(pool.clone(), (pid, began), self.admin_limit);
        let keys = Keys::new(self.vault.clone());
        Ok(AdminTx { transaction, deadline, op, reason: reason.to_owned(), keys })
    }
}

impl AdminTx<'_> {
    /// Makes it last.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where it took too long: nothing of it lasts.
    pub async fn commit(self) -> Result<(), Error> {
        self.deadline.check()?;
        self.transaction.commit().await.map_err(Into::into)
    }

    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        &mut self.transaction
    }

    pub(crate) fn parts(&mut self) -> (&mut PgConnection, &OpCtx, &str) {
        (&mut self.transaction, self.op, &self.reason)
    }

    pub(crate) fn parts_and_keys(&mut self) -> (&mut PgConnection, &OpCtx, &str, &mut Keys) {
        (&mut self.transaction, self.op, &self.reason, &mut self.keys)
    }

    pub(crate) async fn audit(
        &mut self,
        tenant: TenantId,
        action: &'static str,
        target_kind: &'static str,
        target_id: impl ToString,
    ) -> Result<(), Error> {
        let target_id = target_id.to_string();
        let reason = Some(self.reason.as_str());
        let details = None;
        let entry = audit::Entry { tenant, action, target_kind, target_id, reason, details };
        audit::write(&mut self.transaction, self.op, entry).await
    }

    /// A tenant by id.
    pub async fn tenant(&mut self, id: TenantId) -> Result<Option<Tenant>, Error> {
        members::tenant(self.connection(), id).await
    }

    /// A tenant by slug.
    pub async fn tenant_by_slug(&mut self, slug: &str) -> Result<Option<Tenant>, Error> {
        let row: Option<TenantRow> = sqlx::query_as(
            "SELECT id, slug, name, tier, status, created_at FROM tenants WHERE slug = $1",
        )
        .bind(slug)
        .fetch_optional(self.connection())
        .await?;
        row.map(TryInto::try_into).transpose()
    }

    /// The platform's client with this name in `tenant`.
    pub async fn platform_client(
        &mut self,
        tenant: TenantId,
        name: &str,
    ) -> Result<Option<ClientId>, Error> {
        let row: Option<Uuid> = sqlx::query_scalar(
            "SELECT c.id FROM oauth_clients c JOIN platform_memberships p
                ON p.tenant_id = c.tenant_id AND p.client_id = c.id
             WHERE c.tenant_id = $1 AND c.name = $2 ORDER BY c.created_at LIMIT 1",
        )
        .bind(tenant.as_uuid())
        .bind(name)
        .fetch_optional(self.connection())
        .await?;
        Ok(row.map(ClientId::new))
    }

    /// Makes a client that holds the platform membership and no role within its tenant.
    pub async fn create_platform_client(
        &mut self,
        tenant: TenantId,
        new: &NewClient<'_>,
    ) -> Result<(), Error> {
        members::insert_client(self.connection(), tenant, new).await?;
        sqlx::query("INSERT INTO platform_memberships (tenant_id, client_id) VALUES ($1, $2)")
            .bind(tenant.as_uuid())
            .bind(new.id.as_uuid())
            .execute(self.connection())
            .await?;
        self.within(tenant).publish_member(Member::Client(new.id)).await?;
        let told = json!({"new": {"name": new.name, "platform": true}});
        self.within(tenant).audit_change("platform_client.create", "client", new.id, told).await
    }

    /// Publishes `new`, which signs from `signs_from` on; the key before it signs until then and stays published
    /// until `publish_until`. A rotation beside another one is [`Error::Conflict`].
    pub async fn rotate_signing_key(
        &mut self,
        new: &NewSigningKey<'_>,
        signs_from: OffsetDateTime,
        publish_until: OffsetDateTime,
    ) -> Result<(), Error> {
        sqlx::query(
            "UPDATE signing_keys SET retired_at = $1, publish_until = $2 WHERE retired_at IS NULL",
        )
        .bind(signs_from)
        .bind(publish_until)
        .execute(self.connection())
        .await?;
        self.insert_signing_key(new, Some(signs_from)).await?;
        let tenant = self.op.tenant;
        let issuer = new.issuer.to_owned();
        self.within(tenant).publish(&[Change::Keys { issuer }]).await?;
        let change = json!({
            "old": {"publish_until": told(publish_until)},
            "new": {"kid": new.kid, "signs_from": told(signs_from)},
        });
        self.within(tenant).audit_change("signing_key.rotate", "signing_key", new.kid, change).await
    }

    /// Stores the first key, which signs at once; [`Error::Conflict`] where there is one.
    pub async fn create_signing_key(&mut self, new: &NewSigningKey<'_>) -> Result<(), Error> {
        self.insert_signing_key(new, None).await?;
        let issuer = new.issuer.to_owned();
        let tenant = self.op.tenant;
        self.within(tenant).publish(&[Change::Keys { issuer }]).await
    }

    async fn insert_signing_key(
        &mut self,
        new: &NewSigningKey<'_>,
        signs_from: Option<OffsetDateTime>,
    ) -> Result<(), Error> {
        // Without a time the database's own, by which it also tells which key signs.
        sqlx::query(
            "INSERT INTO signing_keys (kid, algorithm, public_jwk, sealed_private, signs_from)
             VALUES ($1, 'RS256', $2, $3, coalesce($4, now()))",
        )
        .bind(new.kid)
        .bind(new.jwk)
        .bind(new.sealed_private)
        .bind(signs_from)
        .execute(self.connection())
        .await?;
        Ok(())
    }
}
