//! Sign-ins under way and browser sessions. Both are found by the hash of a secret that the browser holds, before
//! their tenant is known.
//! Knows neither cookies nor providers.

use std::time::Duration;

use gatehouse_contract::{IssuerId, Role, TenantId, UserId, sidecar::Change};
use serde_json::json;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{Error, Within, audit::told};

/// A sign-in that was sent to a provider. It comes back once.
#[derive(Clone, PartialEq, Eq)]
pub struct Attempt {
    /// SHA-256 of what travels through the provider.
    pub state_sha256: [u8; 32],
    /// SHA-256 of what stays in the browser.
    pub browser_sha256: [u8; 32],
    /// Which provider.
    pub issuer: IssuerId,
    /// What its token must repeat.
    pub nonce: String,
    /// The PKCE verifier, sealed.
    pub sealed_verifier: Vec<u8>,
    /// Where the browser goes afterwards, within our own origin.
    pub return_to: String,
    /// When it is too late.
    pub expires_at: OffsetDateTime,
}

/// A session to be made.
#[derive(Clone, PartialEq, Eq)]
pub struct NewSession {
    /// Its public name.
    pub id: Uuid,
    /// SHA-256 of the cookie's value.
    pub secret_sha256: [u8; 32],
    /// Whose.
    pub user: UserId,
    /// Through which issuer.
    pub issuer: IssuerId,
    /// Ends after this long without use.
    pub idle: Duration,
    /// Ends then at the latest.
    pub expires_at: OffsetDateTime,
}

/// A session that lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its public name.
    pub id: Uuid,
    /// In which tenant.
    pub tenant: TenantId,
    /// Whose.
    pub user: UserId,
    /// When it ends if it is not used.
    pub ends_at: OffsetDateTime,
    /// When that was last put off.
    pub last_seen_at: OffsetDateTime,
    /// The highest role that its issuer may grant.
    pub max_role: Role,
}

impl Within<'_> {
    /// Remembers a sign-in, and forgets those of the tenant that came too late.
    pub async fn begin_login(&mut self, attempt: &Attempt) -> Result<(), Error> {
        sqlx::query("DELETE FROM login_attempts WHERE tenant_id = $1 AND expires_at < now()")
            .bind(self.tenant.as_uuid())
            .execute(&mut *self.connection)
            .await?;
        sqlx::query(
            "INSERT INTO login_attempts (tenant_id, state_sha256, browser_sha256, issuer_id, nonce, sealed_verifier,
                return_to, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(self.tenant.as_uuid())
        .bind(attempt.state_sha256.as_slice())
        .bind(attempt.browser_sha256.as_slice())
        .bind(attempt.issuer.as_uuid())
        .bind(&attempt.nonce)
        .bind(&attempt.sealed_verifier)
        .bind(&attempt.return_to)
        .bind(attempt.expires_at)
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// Takes a sign-in that came back: nobody gets it twice. Only the browser that began it has it, and one that is
    /// not its own leaves it there.
    pub async fn take_login(
        &mut self,
        state_sha256: [u8; 32],
        browser_sha256: [u8; 32],
    ) -> Result<Option<Attempt>, Error> {
        let row: Option<(Uuid, String, Vec<u8>, String, OffsetDateTime)> = sqlx::query_as(
            "DELETE FROM login_attempts
             WHERE tenant_id = $1 AND state_sha256 = $2 AND browser_sha256 = $3 AND expires_at > now()
             RETURNING issuer_id, nonce, sealed_verifier, return_to, expires_at",
        )
        .bind(self.tenant.as_uuid())
        .bind(state_sha256.as_slice())
        .bind(browser_sha256.as_slice())
        .fetch_optional(&mut *self.connection)
        .await?;
        Ok(row.map(|(issuer, nonce, sealed_verifier, return_to, expires_at)| Attempt {
            state_sha256,
            browser_sha256,
            issuer: IssuerId::new(issuer),
            nonce,
            sealed_verifier,
            return_to,
            expires_at,
        }))
    }

    /// Opens a session, and forgets those of the user that have ended.
    pub async fn create_session(&mut self, new: &NewSession) -> Result<(), Error> {
        let idle = i32::try_from(new.idle.as_secs()).unwrap_or(i32::MAX);
        sqlx::query(
            "DELETE FROM sessions WHERE tenant_id = $1 AND user_id = $2
             AND (revoked_at IS NOT NULL OR expires_at < now()
                OR last_seen_at + make_interval(secs => idle_s) < now())",
        )
        .bind(self.tenant.as_uuid())
        .bind(new.user.as_uuid())
        .execute(&mut *self.connection)
        .await?;
        sqlx::query(
            "INSERT INTO sessions (tenant_id, id, secret_sha256, user_id, issuer_id, idle_s, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(self.tenant.as_uuid())
        .bind(new.id)
        .bind(new.secret_sha256.as_slice())
        .bind(new.user.as_uuid())
        .bind(new.issuer.as_uuid())
        .bind(idle)
        .bind(new.expires_at)
        .execute(&mut *self.connection)
        .await?;
        let told =
            json!({"user": new.user, "issuer": new.issuer, "expires_at": told(new.expires_at)});
        self.audit_change("session.create", "session", new.id, json!({"new": told})).await
    }

    /// Puts off a session's end: it was used. Not an act, so that it leaves no audit row.
    pub async fn touch_session(&mut self, id: Uuid) -> Result<(), Error> {
        sqlx::query("UPDATE sessions SET last_seen_at = now() WHERE tenant_id = $1 AND id = $2")
            .bind(self.tenant.as_uuid())
            .bind(id)
            .execute(&mut *self.connection)
            .await?;
        Ok(())
    }

    /// Ends a session. `false` where it had ended before.
    pub async fn revoke_session(&mut self, id: Uuid) -> Result<bool, Error> {
        let user: Option<Uuid> = sqlx::query_scalar(
            "UPDATE sessions SET revoked_at = now() WHERE tenant_id = $1 AND id = $2 AND revoked_at IS NULL
             RETURNING user_id",
        )
        .bind(self.tenant.as_uuid())
        .bind(id)
        .fetch_optional(&mut *self.connection)
        .await?;
        let Some(user) = user else { return Ok(false) };
        self.publish(&[Change::Credential { credential: id.to_string() }]).await?;
        self.audit_change("session.revoke", "session", id, json!({"old": {"user": user}})).await?;
        Ok(true)
    }

    /// Ends every session that came through an issuer; returns how many those were.
    pub(crate) async fn end_sessions_of_issuer(
        &mut self,
        issuer: IssuerId,
    ) -> Result<usize, Error> {
        let ended: Vec<Uuid> = sqlx::query_scalar(
            "UPDATE sessions SET revoked_at = now()
             WHERE tenant_id = $1 AND issuer_id = $2 AND revoked_at IS NULL RETURNING id",
        )
        .bind(self.tenant.as_uuid())
        .bind(issuer.as_uuid())
        .fetch_all(&mut *self.connection)
        .await?;
        let changes: Vec<Change> =
            ended.iter().map(|id| Change::Credential { credential: id.to_string() }).collect();
        self.publish(&changes).await?;
        Ok(ended.len())
    }
}

impl crate::lookup::Lookup<'_> {
    /// Whose sign-in has this state.
    pub async fn login(&self, state_sha256: [u8; 32]) -> Result<Option<TenantId>, Error> {
        let row: Option<Uuid> = sqlx::query_scalar("SELECT tenant_id FROM lookup_login($1)")
            .bind(state_sha256.as_slice())
            .fetch_optional(&self.0.app)
            .await?;
        Ok(row.map(TenantId::new))
    }

    /// The session with this secret, while it lives.
    pub async fn session(&self, secret_sha256: [u8; 32]) -> Result<Option<Session>, Error> {
        let row: Option<(Uuid, Uuid, Uuid, OffsetDateTime, OffsetDateTime, String)> = sqlx::query_as(
            "SELECT tenant_id, id, user_id, ends_at, last_seen_at, max_role FROM lookup_session($1)",
        )
        .bind(secret_sha256.as_slice())
        .fetch_optional(&self.0.app)
        .await?;
        row.map(|(tenant, id, user, ends_at, last_seen_at, max_role)| {
            Ok(Session {
                id,
                tenant: TenantId::new(tenant),
                user: UserId::new(user),
                ends_at,
                last_seen_at,
                max_role: max_role.parse().map_err(|_| Error::Unreadable { what: "role" })?,
            })
        })
        .transpose()
    }
}
