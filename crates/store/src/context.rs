//! Who does something, for which tenant, under which request: every call of the store takes it.
//! Knows nothing of how it was established.

use gatehouse_contract::TenantId;
use time::OffsetDateTime;

/// The circumstances of one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpCtx {
    /// Whose data it is about. At the admin door: the caller's own tenant.
    pub tenant: TenantId,
    /// Who acts: the principal's subject, or `worker:<incarnation>`.
    pub subject: String,
    /// Under which request's id it is logged and audited.
    pub request_id: String,
    /// The caller's clock. Leases and stored times go by the database's.
    pub now: OffsetDateTime,
}
