//! Who the subjects of external issuers are: users by (tenant, issuer, subject), never by an address.
//! Knows no protocol: what a provider says was judged before it comes here.

use gatehouse_contract::{Role, Roles, TenantId, UserId, sidecar::PrincipalFacts};
use serde_json::json;
use uuid::Uuid;

use crate::{
    Error, Within,
    addresses::{Person, email_index},
    lookup::Lookup,
    members::{Changed, Member},
    quotas::LimitsRow,
};

/// Keeps one subject from becoming two users at the same time: an advisory lock in this space, by tenant, issuer and
/// subject.
const SUBJECT_LOCK: i64 = 0x6761_7465_0002;

/// Who a provider's subject is in a tenant, and what its issuer may do there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The user; `None` is unknown.
    pub user: Option<UserId>,
    /// What its issuer may do in the tenant.
    pub issuer: Standing,
}

/// What an issuer may do in a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Its bearer tokens are taken, up to this role.
    Taken(Role),
    /// It is registered, and its bearer tokens are not taken.
    Refused,
    /// Other tenants have registered it.
    Elsewhere,
    /// No tenant has.
    Unknown,
}

#[derive(sqlx::FromRow)]
struct TenantStanding {
    status: String,
    tier: String,
    epoch: i64,
    #[sqlx(flatten)]
    limits: LimitsRow,
    version_pin: Option<String>,
}

impl Within<'_> {
    /// The user that a subject is.
    pub async fn identity(&mut self, issuer: &str, subject: &str) -> Result<Option<UserId>, Error> {
        let row: Option<Uuid> = sqlx::query_scalar(
            "SELECT user_id FROM user_identities WHERE tenant_id = $1 AND issuer = $2 AND subject = $3",
        )
        .bind(self.tenant.as_uuid())
        .bind(issuer)
        .bind(subject)
        .fetch_optional(&mut *self.connection)
        .await?;
        Ok(row.map(UserId::new))
    }

    /// As [`Self::identity`], for who goes on to say whom an unknown subject is: others who found it unknown wait here
    /// until this transaction ends, and then see what came of it.
    pub async fn identity_in_turn(
        &mut self,
        issuer: &str,
        subject: &str,
    ) -> Result<Option<UserId>, Error> {
        sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, $2))")
            .bind(format!("{} {issuer} {subject}", self.tenant))
            .bind(SUBJECT_LOCK)
            .execute(&mut *self.connection)
            .await?;
        // A statement of its own: it sees what was committed while the one above waited.
        self.identity(issuer, subject).await
    }

    /// The user who was invited by this address and whom no provider has named yet.
    pub async fn invited(&mut self, email: &str) -> Result<Option<UserId>, Error> {
        let index = email_index(&*self.cipher().await?, email);
        let row: Option<Uuid> = sqlx::query_scalar(
            "SELECT u.id FROM users u WHERE u.tenant_id = $1 AND NOT u.federated
             AND (u.email_index = $3 OR (u.sealed_email IS NULL AND lower(u.email) = lower($2)))
             AND NOT EXISTS (SELECT FROM user_identities n WHERE n.tenant_id = u.tenant_id AND n.user_id = u.id)
             FOR UPDATE OF u",
        )
        .bind(self.tenant.as_uuid())
        .bind(email)
        .bind(index.as_slice())
        .fetch_optional(&mut *self.connection)
        .await?;
        Ok(row.map(UserId::new))
    }

    /// Lets a subject be a user from now on. One that is somebody already is [`Error::Conflict`].
    pub async fn link_identity(
        &mut self,
        user: UserId,
        issuer: &str,
        subject: &str,
    ) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO user_identities (tenant_id, issuer, subject, user_id) VALUES ($1, $2, $3, $4)",
        )
        .bind(self.tenant.as_uuid())
        .bind(issuer)
        .bind(subject)
        .bind(user.as_uuid())
        .execute(&mut *self.connection)
        .await?;
        self.publish_member(Member::User(user)).await?;
        let new = json!({"new": {"issuer": issuer, "subject": subject}});
        self.audit_change("user.link", "user", user, new).await
    }

    /// Makes the user that a subject is, with these roles.
    pub async fn create_federated_user(
        &mut self,
        id: UserId,
        email: &str,
        roles: Roles,
    ) -> Result<(), Error> {
        self.insert_user(id, &Person { email, name: None }, true).await?;
        for role in roles.iter() {
            self.insert_role(Member::User(id), role).await?;
        }
        self.publish_member(Member::User(id)).await?;
        let new = json!({"email": email, "federated": true, "roles": roles});
        self.audit_change("user.create", "user", id, json!({"new": new})).await
    }

    /// Gives a user these roles and no others. The last admin who may act stays one. Returns whether all went through.
    pub async fn set_roles(&mut self, user: UserId, roles: Roles) -> Result<bool, Error> {
        let member = Member::User(user);
        for role in roles.iter() {
            self.grant_role(member, role).await?;
        }
        let mut through = true;
        for role in Role::ALL.iter().copied().filter(|role| !roles.holds(*role)) {
            match self.revoke_role(member, role).await {
                Ok(Changed::Yes | Changed::No | Changed::Missing) => {}
                Err(Error::LastAdmin) => through = false,
                Err(error) => return Err(error),
            }
        }
        Ok(through)
    }
}

impl Lookup<'_> {
    /// Who an issuer's subject is in a tenant.
    pub async fn identity(
        &self,
        tenant: TenantId,
        issuer: &str,
        subject: &str,
    ) -> Result<Identity, Error> {
        let (user, registered, bearer, max_role, elsewhere): (
            Option<Uuid>,
            bool,
            bool,
            Option<String>,
            bool,
        ) = sqlx::query_as(
            "SELECT user_id, registered, bearer, max_role, elsewhere FROM lookup_identity($1, $2, $3)",
        )
        .bind(tenant.as_uuid())
        .bind(issuer)
        .bind(subject)
        .fetch_one(&self.0.app)
        .await?;
        let issuer = match max_role {
            Some(role) if bearer => {
                Standing::Taken(role.parse().map_err(|_| Error::Unreadable { what: "role" })?)
            }
            _ if registered => Standing::Refused,
            _ if elsewhere => Standing::Elsewhere,
            _ => Standing::Unknown,
        };
        Ok(Identity { user: user.map(UserId::new), issuer })
    }

    /// Whether a token of the tenant was revoked by its mark (`authn::revocation::mark`).
    pub async fn is_revoked(&self, tenant: TenantId, mark: &str) -> Result<bool, Error> {
        let revoked = sqlx::query_scalar("SELECT is_token_revoked($1, $2)")
            .bind(tenant.as_uuid())
            .bind(mark)
            .fetch_one(&self.0.app)
            .await?;
        Ok(revoked)
    }

    /// A tenant's standing as the facts of somebody whom the record does not know: no role, no membership.
    pub async fn outsider(
        &self,
        tenant: TenantId,
        subject: &str,
    ) -> Result<Option<PrincipalFacts>, Error> {
        let row: Option<TenantStanding> = sqlx::query_as(
            "SELECT t.*, l.*, lookup_version_pin($1) AS version_pin
             FROM lookup_tenant($1) t LEFT JOIN lookup_tenant_limits($1) l ON true",
        )
        .bind(tenant.as_uuid())
        .fetch_optional(&self.0.app)
        .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(PrincipalFacts {
            status: row.status.parse().map_err(|_| Error::Unreadable { what: "status" })?,
            tier: row.tier.parse().map_err(|_| Error::Unreadable { what: "tier" })?,
            version_pin: row.version_pin,
            limits: row.limits.facts()?,
            epoch: u64::try_from(row.epoch).map_err(|_| Error::Unreadable { what: "epoch" })?,
            ..PrincipalFacts::member(tenant, subject)
        }))
    }
}
