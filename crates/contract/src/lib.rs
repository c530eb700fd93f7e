//! The words that the parts of Gatehouse share: ids, roles, reasons, header names, the wire types of the
//! sidecar, the role matrix and the reader for configuration documents.
//!
//! Pure: no IO, no clock, no randomness. Knows no host, no database and no HTTP library.

pub mod acl;
pub mod document;
pub mod field;
pub mod header;
pub mod id;
pub mod identity;
pub mod problem;
pub mod rbac;
pub mod sidecar;
pub mod trace;
pub mod version;

pub use document::{Document, Mistake};
pub use id::{
    AgentId, AgentVersionId, ApiKeyId, ClientId, ExecutionId, IssuerId, OperationId,
    OrganizationId, TenantId, UserId, WebhookId,
};
pub use identity::{AuthMethod, Principal, Role, Roles, TenantStatus, Tier};
pub use problem::{Problem, Reason};
pub use version::ApiVersion;
