//! What signatures cannot tell: tokens that were revoked one by one, and subjects whose tokens of before are worth
//! nothing. Knows nothing of tokens but their marks.

use gatehouse_contract::sidecar::{Change, Denied};
use serde_json::json;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    Error, Within,
    audit::told,
    members::{Changed, Member},
};

impl Within<'_> {
    /// Revokes one token by its mark, which may be forgotten at `until`. `false` where it was revoked before.
    pub async fn revoke_token(&mut self, mark: &str, until: OffsetDateTime) -> Result<bool, Error> {
        let done = sqlx::query(
            "INSERT INTO revoked_tokens (tenant_id, mark, until) VALUES ($1, $2, $3)
             ON CONFLICT (tenant_id, mark) DO NOTHING",
        )
        .bind(self.tenant.as_uuid())
        .bind(mark)
        .bind(until)
        .execute(&mut *self.connection)
        .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        let denied = Denied::Token { token: mark.to_owned(), until_s: seconds(until) };
        self.publish(&[Change::Deny(denied)]).await?;
        let new = json!({"new": {"until": told(until)}});
        self.audit_change("token.revoke", "token", mark, new).await?;
        Ok(true)
    }

    /// Revokes every token of a member that was issued before `before`, and ends its sessions; the last of the tokens has
    /// expired by itself at `until`. A time before an earlier one changes nothing for tokens.
    pub async fn revoke_tokens_of(
        &mut self,
        member: Member,
        before: OffsetDateTime,
        until: OffsetDateTime,
    ) -> Result<Changed, Error> {
        if self.member(member).await?.is_none() {
            return Ok(Changed::Missing);
        }
        let (before, until): (OffsetDateTime, OffsetDateTime) = sqlx::query_as(
            "INSERT INTO token_cutoffs AS c (tenant_id, subject, issued_before, until) VALUES ($1, $2, $3, $4)
             ON CONFLICT (tenant_id, subject) DO UPDATE
             SET issued_before = greatest(c.issued_before, $3), until = greatest(c.until, $4)
             RETURNING issued_before, until",
        )
        .bind(self.tenant.as_uuid())
        .bind(member.id())
        .bind(before)
        .bind(until)
        .fetch_one(&mut *self.connection)
        .await?;
        let denied = Denied::IssuedBefore {
            tenant: self.tenant,
            subject: member.id().to_string(),
            before_s: seconds(before),
            until_s: seconds(until),
        };
        let mut changes = vec![Change::Deny(denied)];
        let ended = self.end_sessions_of(member).await?;
        let sessions = ended.len();
        changes.extend(ended);
        self.publish(&changes).await?;
        let new = json!({"new": {"issued_before": told(before), "sessions_ended": sessions}});
        self.audit_change("token.revoke_all", member.kind(), member.id(), new).await?;
        Ok(Changed::Yes)
    }

    /// A session is a token in another form: it ends with them.
    async fn end_sessions_of(&mut self, member: Member) -> Result<Vec<Change>, Error> {
        let Member::User(user) = member else { return Ok(Vec::new()) };
        let ended: Vec<Uuid> = sqlx::query_scalar(
            "UPDATE sessions SET revoked_at = now()
             WHERE tenant_id = $1 AND user_id = $2 AND revoked_at IS NULL RETURNING id",
        )
        .bind(self.tenant.as_uuid())
        .bind(user.as_uuid())
        .fetch_all(&mut *self.connection)
        .await?;
        Ok(ended.iter().map(|id| Change::Credential { credential: id.to_string() }).collect())
    }
}

/// Whole seconds since the Unix epoch, rounded up: what is denied is denied a little longer, never shorter.
pub(crate) fn seconds(at: OffsetDateTime) -> u64 {
    let whole = at.unix_timestamp() + i64::from(at.nanosecond() > 0);
    u64::try_from(whole).unwrap_or(0)
}

/// Whole seconds since the Unix epoch, rounded down: what ends, ends a little earlier, never later.
pub(crate) fn ends_s(at: OffsetDateTime) -> u64 {
    u64::try_from(at.unix_timestamp()).unwrap_or(0)
}
