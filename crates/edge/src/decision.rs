//! What the role matrix says of a request and its caller, and why: for the verdict, for logs, and for
//! `gatehouse explain`. Knows neither paths nor credentials.

use gatehouse_contract::{
    Role, Roles,
    rbac::{Access, Route},
};

use crate::{config::Suite, matrix::Place};

/// What the role matrix said, as data; [`Suite::rule`] has the words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    pub(crate) route: usize,
    /// What opened the route, or why it stayed closed.
    pub ruling: Ruling,
}

/// What opened a route, or why it stayed closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ruling {
    /// Anyone may pass.
    Public,
    /// The caller holds this role, which holds the permission.
    Role(Role),
    /// The caller holds the platform membership, which holds the permission.
    Platform,
    /// Nothing that the caller holds, within what its issuer may grant, holds the permission.
    NotHeld,
    /// The caller's roles hold the permission, but its key is narrowed to others.
    KeyNarrowed,
}

/// The rule that decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule<'s> {
    /// The route's method.
    pub method: &'s str,
    /// The route's template.
    pub template: &'s str,
    /// What the route needs; `None` for a public one.
    pub permission: Option<&'s str>,
    /// The roles that hold it.
    pub roles: Roles,
    /// Whether the platform membership holds it.
    pub platform: bool,
}

/// Why there is no rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unruled {
    /// The path is known, the method is not.
    OtherMethod,
    /// Nothing is there.
    Nothing,
}

impl Ruling {
    /// Whether the request may pass.
    pub fn allows(self) -> bool {
        match self {
            Self::Public | Self::Role(_) | Self::Platform => true,
            Self::NotHeld | Self::KeyNarrowed => false,
        }
    }

    /// Weighs what a caller holds against what a route needs. `scopes` are the permissions that the credential is
    /// narrowed to; `None` is all that the roles hold.
    pub(crate) fn of(
        access: &Access,
        held: Roles,
        platform: bool,
        scopes: Option<&[String]>,
    ) -> Self {
        let Access::Held { permission, roles, platform: by_platform } = access else {
            return Self::Public;
        };
        let opened = match held.iter().find(|role| roles.holds(*role)) {
            Some(role) => Self::Role(role),
            None if platform && *by_platform => Self::Platform,
            None => return Self::NotHeld,
        };
        match scopes {
            Some(scopes) if !scopes.contains(permission) => Self::KeyNarrowed,
            Some(_) | None => opened,
        }
    }
}

impl Suite {
    /// The rule that decided.
    pub fn rule(&self, decision: Decision) -> Option<Rule<'_>> {
        self.rule_at(decision.route)
    }

    /// The rule for a method and a normalised path with its version, whoever asks: for people, beside the request path.
    pub fn rule_for(&self, method: &str, path: &str) -> Result<Rule<'_>, Unruled> {
        match self.routes.place(method, path) {
            Place::Route(route) => self.rule_at(route).ok_or(Unruled::Nothing),
            Place::OtherMethod { .. } => Err(Unruled::OtherMethod),
            Place::Nothing => Err(Unruled::Nothing),
        }
    }

    fn rule_at(&self, route: usize) -> Option<Rule<'_>> {
        let Route { method, template, access, .. } = self.routes.get(route)?;
        let (permission, roles, platform) = match access {
            Access::Public => (None, Roles::NONE, false),
            Access::Held { permission, roles, platform } => {
                (Some(permission.as_str()), *roles, *platform)
            }
        };
        Some(Rule { method, template, permission, roles, platform })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(held: &[Role], platform: bool, scopes: Option<&[&str]>, expected: Ruling) {
        let access = Access::Held {
            permission: "agents:write".to_owned(),
            roles: [Role::Developer, Role::Admin].into_iter().collect(),
            platform: true,
        };
        let scopes: Option<Vec<String>> =
            scopes.map(|scopes| scopes.iter().map(|scope| (*scope).to_owned()).collect());
        let held = held.iter().copied().collect();
        assert_eq!(Ruling::of(&access, held, platform, scopes.as_deref()), expected);
        assert_eq!(Ruling::of(&Access::Public, held, platform, None), Ruling::Public);
    }

    #[test]
    fn the_least_of_the_roles_that_open_is_named() {
        check(&[Role::Admin, Role::Developer], true, None, Ruling::Role(Role::Developer));
        check(&[Role::Viewer, Role::Admin], false, None, Ruling::Role(Role::Admin));
        check(&[Role::Viewer], true, None, Ruling::Platform);
        check(&[Role::Viewer, Role::Operator], false, None, Ruling::NotHeld);
        check(&[], false, None, Ruling::NotHeld);
    }

    #[test]
    fn a_keys_scopes_narrow_and_never_widen() {
        check(&[Role::Admin], false, Some(&["agents:write"]), Ruling::Role(Role::Admin));
        check(&[Role::Admin], false, Some(&["agents:read"]), Ruling::KeyNarrowed);
        check(&[Role::Admin], false, Some(&[]), Ruling::KeyNarrowed);
        check(&[Role::Viewer], false, Some(&["agents:write"]), Ruling::NotHeld);
        check(&[], true, Some(&["agents:read"]), Ruling::KeyNarrowed);
    }
}
