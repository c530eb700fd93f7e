//! PostgreSQL: the only crate that speaks SQL.
//!
//! Three doors, and no other way in (design §4): [`Store::tenant`] opens a transaction that sees one tenant,
//! [`Store::admin`] one across tenants, with a recorded reason and a bound on its time, [`Store::system`] one for
//! a job of a closed list. [`Store::read`] is the first one's for what only reads, and may be answered by a replica.
//! [`Store::lookup`] answers what must be known before the tenant is. Which role may do
//! what is in `migrations/`; this crate refuses to start on a role that could see past it.
//! Knows neither HTTP nor Redis, and makes no ids: callers bring them.
#![warn(missing_docs)]

mod addresses;
pub mod admin;
pub mod agents;
pub mod api_keys;
pub mod attempts;
pub mod audit;
pub mod connect;
pub mod context;
pub mod data_keys;
pub mod dead_letters;
mod deadline;
pub mod deliveries;
pub mod entitlements;
pub mod erasure;
pub mod error;
pub mod events;
pub mod executions;
pub mod feeder;
pub mod hooks;
pub mod idempotency;
pub mod identities;
pub mod issuers;
pub mod lock;
pub mod logs;
pub mod lookup;
pub mod master_keys;
pub mod members;
pub mod metering;
pub mod migrate;
pub mod operations;
pub mod organizations;
pub mod paging;
pub mod partitions;
pub mod provenance;
pub mod publisher;
pub mod quotas;
pub mod rebuild;
pub mod rekey;
pub mod relay;
pub mod remembered;
pub mod replica;
pub mod revocations;
pub mod sandboxes;
pub mod seals;
pub mod sessions;
pub mod sweep;
pub mod system;
pub mod tenant;
pub mod tenant_config;
pub mod tenants;
pub mod usage;
pub mod version_pins;
pub mod versions;
pub mod watching;
pub mod webhooks;
pub mod within;

pub use admin::AdminTx;
pub use connect::{Store, Urls};
pub use context::{Actor, OpCtx};
pub use error::Error;
pub use master_keys::{CannotOpen, MasterKeys};
pub use system::{Job, SystemTx};
pub use tenant::TenantTx;
pub use time::OffsetDateTime;
pub use within::Within;
