//! Ids. Every kind has its own type, so that a tenant's id and an agent's cannot be swapped.
//! Knows nothing of how ids are made: services bring the [`Uuid`].

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The text is not a UUID in its canonical, hyphenated form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a canonical UUID")]
pub struct NotAnId;

/// Accepts the 36-character hyphenated form only: one spelling per id, so that keys, logs and headers agree.
fn canonical(text: &str) -> Result<Uuid, NotAnId> {
    if text.len() != 36 {
        return Err(NotAnId);
    }
    Uuid::try_parse(text).map_err(|_| NotAnId)
}

macro_rules! id_kinds {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Takes a UUID as an id of this kind.
            pub const fn new(id: Uuid) -> Self {
                Self(id)
            }

            /// The UUID itself, for a store's bind.
            pub const fn as_uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;

            fn from_str(text: &str) -> Result<Self, NotAnId> {
                canonical(text).map(Self)
            }
        }
    )+};
}

// Append only: logs and stored keys name these kinds.
id_kinds! {
    /// A tenant (specification MTD-001).
    TenantId,
    /// A human user.
    UserId,
    /// A registered agent.
    AgentId,
    /// One version of an agent.
    AgentVersionId,
    /// One execution of an agent version.
    ExecutionId,
    /// An OAuth 2.0 client of a tenant (RFC 6749 §2.2).
    ClientId,
    /// An API key (specification GAA-003).
    ApiKeyId,
    /// An external issuer of tokens that a tenant registered.
    IssuerId,
    /// An organization within a tenant (specification MTD-002).
    OrganizationId,
    /// An address that a tenant wants to be told at.
    WebhookId,
    /// Something that takes longer than an answer, and can be asked about.
    OperationId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_hyphenated_form_alone() {
        let text = "0191d6b0-7c3e-7aaa-8bbb-0123456789ab";
        assert_eq!(text.parse::<TenantId>().map(|id| id.to_string()), Ok(text.to_owned()));
        for bad in [
            "",
            "0191d6b07c3e7aaa8bbb0123456789ab",
            "{0191d6b0-7c3e-7aaa-8bbb-0123456789ab}",
            "urn:uuid:0191d6b0-7c3e-7aaa-8bbb-0123456789ab",
            "0191d6b0-7c3e-7aaa-8bbb-0123456789ag",
        ] {
            assert_eq!(bad.parse::<TenantId>(), Err(NotAnId), "{bad:?}");
        }
    }
}
