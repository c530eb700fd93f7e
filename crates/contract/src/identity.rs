//! Who calls: roles, tiers, and the shape that every credential resolves to.
//! Knows neither tokens nor keys.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{document::Words, id::TenantId};

/// The text names none of the known values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected one of {expected}")]
pub struct UnknownName {
    /// The known names, for people.
    pub expected: &'static str,
}

macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? } $expected:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $text)] $variant),+ }

        impl $name {
            /// Every value, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name on the wire and in the database.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownName;

            fn from_str(text: &str) -> Result<Self, UnknownName> {
                match text { $($text => Ok(Self::$variant),)+ _ => Err(UnknownName { expected: $expected }) }
            }
        }

        impl Words for $name {
            const WORDS: &'static [&'static str] = &[$($text),+];

            fn word(&self) -> &'static str {
                self.as_str()
            }
        }
    };
}

named! {
    /// A role within one tenant (specification GAA-004), from the least to the most.
    Role {
        /// Reads.
        Viewer = "viewer",
        /// Reads and runs.
        Operator = "operator",
        /// Reads, runs and publishes agents.
        Developer = "developer",
        /// Everything within the tenant.
        Admin = "admin",
    }
    "viewer, operator, developer, admin"
}

named! {
    /// What a tenant pays for; it scales limits and quotas (specification 2.3, 3.3).
    Tier { Free = "free", Pro = "pro", Enterprise = "enterprise" }
    "free, pro, enterprise"
}

named! {
    /// Where a tenant is in its life (acceptance MTD-001). Only `Active` may do anything.
    TenantStatus {
        /// Being made.
        Provisioning = "provisioning",
        /// In use.
        Active = "active",
        /// Closed by an admin, its data kept.
        Suspended = "suspended",
        /// Being removed.
        Deleting = "deleting",
    }
    "provisioning, active, suspended, deleting"
}

named! {
    /// How the caller proved who it is (`X-Auth-Method`).
    AuthMethod { Jwt = "jwt", ApiKey = "api_key", Session = "session" }
    "jwt, api_key, session"
}

/// A set of roles, small enough to copy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Roles(u8);

impl Roles {
    /// No role: may do nothing.
    pub const NONE: Self = Self(0);

    const fn bit(role: Role) -> u8 {
        match role {
            Role::Viewer => 1,
            Role::Operator => 2,
            Role::Developer => 4,
            Role::Admin => 8,
        }
    }

    /// This set and `role`.
    #[must_use]
    pub const fn with(self, role: Role) -> Self {
        Self(self.0 | Self::bit(role))
    }

    /// Whether `role` is held.
    pub const fn holds(self, role: Role) -> bool {
        self.0 & Self::bit(role) != 0
    }

    /// Whether any role is in both sets.
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Those of this set that are not above `highest`.
    #[must_use]
    pub fn up_to(self, highest: Role) -> Self {
        self.iter().filter(|role| *role <= highest).collect()
    }

    /// The roles held, from the least to the most.
    pub fn iter(self) -> impl Iterator<Item = Role> {
        Role::ALL.iter().copied().filter(move |role| self.holds(*role))
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        roles.into_iter().fold(Self::NONE, Self::with)
    }
}

/// Comma-separated, as in `X-User-Roles`.
impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, role) in self.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            f.write_str(role.as_str())?;
        }
        Ok(())
    }
}

impl Serialize for Roles {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Roles {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Vec::<Role>::deserialize(deserializer)?.into_iter().collect())
    }
}

/// What a credential resolves to, whatever its kind (design §3.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The tenant it acts for.
    pub tenant: TenantId,
    /// The tenant's tier, from the record.
    pub tier: Tier,
    /// Who it is within the tenant: a user's, client's or key's id.
    pub subject: String,
    /// What it may do there.
    pub roles: Roles,
    /// Whether it holds the platform membership (operations across tenants).
    pub platform: bool,
    /// How it proved itself.
    pub method: AuthMethod,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_a_set_in_order() {
        let roles: Roles = [Role::Admin, Role::Viewer, Role::Admin].into_iter().collect();
        assert_eq!(roles.to_string(), "viewer,admin");
        assert!(roles.holds(Role::Viewer) && !roles.holds(Role::Developer));
        assert_eq!(roles.up_to(Role::Developer).to_string(), "viewer");
        assert_eq!(serde_json::to_string(&roles).unwrap(), r#"["viewer","admin"]"#);
        assert_eq!(Roles::NONE.to_string(), "");
    }
}
