//! Who does something, for which tenant, under which request: every call of the store takes it.
//! Knows nothing of how it was established.

use gatehouse_contract::TenantId;
use time::OffsetDateTime;

/// What kind of one acts: its id alone does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// A human.
    User,
    /// An OAuth 2.0 client.
    Client,
    /// An API key.
    ApiKey,
    /// A part of Gatehouse, or whoever runs it.
    System,
}

impl Actor {
    /// Its name in the audit.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Client => "client",
            Self::ApiKey => "api_key",
            Self::System => "system",
        }
    }
}

/// The circumstances of one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpCtx {
    /// Whose data it is about. At the admin door: the caller's own tenant.
    pub tenant: TenantId,
    /// Who acts: the principal's subject, or `worker:<incarnation>`.
    pub subject: String,
    /// What kind of one that is.
    pub actor: Actor,
    /// Under which request's id it is logged and audited.
    pub request_id: String,
    /// The trace that it belongs to, as `traceparent` has it: events carry it on. A job has none.
    pub traceparent: Option<String>,
    /// The caller's clock. Leases and stored times go by the database's.
    pub now: OffsetDateTime,
}
