//! The one role matrix: which route needs which permission, and which roles hold it (specification GAA-004).
//! Read from `rbac.json` by the filters and the control API alike; deny by default.
//! Knows neither tokens nor paths that are not normalised yet.

use serde::Deserialize;
use std::collections::BTreeMap;

use crate::identity::{Role, Roles};

const BUILTIN: &str = include_str!("../rbac.json");

/// The matrix does not hold together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("role matrix: {0}")]
pub struct Broken(String);

/// Who may pass a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// Anyone, without a credential.
    Public,
    /// Holders of a permission.
    Held {
        /// The permission's name.
        permission: String,
        /// The tenant roles that hold it.
        roles: Roles,
        /// Whether the platform membership holds it; no tenant role implies that membership, nor the reverse.
        platform: bool,
    },
}

impl Access {
    /// Whether a caller with these roles, or the platform membership, may pass.
    pub fn allows(&self, held: Roles, platform: bool) -> bool {
        match self {
            Self::Public => true,
            Self::Held { roles, platform: by_platform, .. } => {
                roles.meets(held) || (*by_platform && platform)
            }
        }
    }
}

/// One route of the matrix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Upper case.
    pub method: String,
    /// The template, `{name}` standing for one segment; the key of limits and metrics.
    pub template: String,
    /// Who may pass.
    pub access: Access,
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Any,
}

/// What the matrix says of a method and a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found<'a> {
    /// This route.
    Route(&'a Route),
    /// The path is known, the method is not.
    OtherMethod,
    /// Nothing: deny.
    Nothing,
}

/// The compiled matrix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matrix {
    routes: Vec<Route>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    permissions: BTreeMap<String, Vec<String>>,
    routes: Vec<FileRoute>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRoute {
    method: String,
    path: String,
    permission: String,
}

/// The word that stands beside the roles for the platform membership.
const PLATFORM: &str = "platform";

impl Matrix {
    /// The matrix that this build ships.
    pub fn builtin() -> Result<Self, Broken> {
        Self::parse(BUILTIN)
    }

    /// Compiles a matrix document.
    pub fn parse(text: &str) -> Result<Self, Broken> {
        let file: File = serde_json::from_str(text).map_err(|error| Broken(error.to_string()))?;
        let mut routes: Vec<Route> = Vec::with_capacity(file.routes.len());
        for FileRoute { method, path, permission } in file.routes {
            let access = if permission == "public" {
                Access::Public
            } else {
                let Some(holders) = file.permissions.get(&permission) else {
                    return Err(Broken(format!(
                        "{method} {path} names {permission}, which has no holders"
                    )));
                };
                held(permission, holders)?
            };
            if routes.iter().any(|route| route.method == method && route.template == path) {
                return Err(Broken(format!("{method} {path} stands twice")));
            }
            let segments = segments(&path)
                .map(|part| {
                    if part.starts_with('{') { Segment::Any } else { Segment::Literal(part.into()) }
                })
                .collect();
            routes.push(Route { method, template: path, access, segments });
        }
        Ok(Self { routes })
    }

    /// Every route, in the file's order.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// Whether some route needs this permission.
    pub fn knows_permission(&self, name: &str) -> bool {
        self.routes.iter().any(
            |route| matches!(&route.access, Access::Held { permission, .. } if permission == name),
        )
    }

    /// The route of an upper-case `method` and a normalised `path` without its query.
    pub fn find(&self, method: &str, path: &str) -> Found<'_> {
        let mut known = false;
        for route in &self.routes {
            if route.matches(path) {
                if route.method == method {
                    return Found::Route(route);
                }
                known = true;
            }
        }
        if known { Found::OtherMethod } else { Found::Nothing }
    }
}

fn held(permission: String, holders: &[String]) -> Result<Access, Broken> {
    let mut roles = Roles::NONE;
    let mut platform = false;
    for holder in holders {
        if holder == PLATFORM {
            platform = true;
        } else {
            let role: Role = holder
                .parse()
                .map_err(|error| Broken(format!("{permission}: {holder:?}: {error}")))?;
            roles = roles.with(role);
        }
    }
    Ok(Access::Held { permission, roles, platform })
}

impl Route {
    fn matches(&self, path: &str) -> bool {
        let mut parts = segments(path);
        let all = self.segments.iter().all(|segment| match (segment, parts.next()) {
            (Segment::Literal(literal), Some(part)) => literal == part,
            (Segment::Any, Some(part)) => !part.is_empty(),
            (_, None) => false,
        });
        all && parts.next().is_none()
    }
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.strip_prefix('/').unwrap_or(path).split('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &str, path: &str, expected: &str) {
        let matrix = Matrix::builtin().unwrap();
        let got = match matrix.find(method, path) {
            Found::Route(route) => route.template.clone(),
            Found::OtherMethod => "other method".to_owned(),
            Found::Nothing => "nothing".to_owned(),
        };
        assert_eq!(got, expected, "{method} {path}");
    }

    #[test]
    fn finds_the_template_of_a_path() {
        check("POST", "/api/v1/registry/agents", "/api/v1/registry/agents");
        check("GET", "/api/v1/registry/agents/7", "/api/v1/registry/agents/{agent}");
        check("PATCH", "/api/v1/registry/agents", "other method");
        for nothing in
            ["/api/v1/registry/agents/", "/api/v1/registry", "/", "", "/api/v1/registry/agents/7/x"]
        {
            check("GET", nothing, "nothing");
        }
    }

    #[test]
    fn denies_by_default_and_keeps_platform_apart() {
        let matrix = Matrix::builtin().unwrap();
        let Found::Route(create) = matrix.find("POST", "/api/v1/registry/agents") else { panic!() };
        for (role, allowed) in [
            (Role::Viewer, false),
            (Role::Operator, false),
            (Role::Developer, true),
            (Role::Admin, true),
        ] {
            assert_eq!(create.access.allows(Roles::NONE.with(role), false), allowed, "{role}");
        }
        let Found::Route(tenants) = matrix.find("POST", "/api/v1/factory/tenants") else {
            panic!()
        };
        assert!(!tenants.access.allows(Roles::NONE.with(Role::Admin), false));
        assert!(tenants.access.allows(Roles::NONE, true));
        assert!(matrix.knows_permission("agents:read") && !matrix.knows_permission("agents"));
    }

    #[test]
    fn a_route_without_holders_is_refused() {
        let broken =
            r#"{"permissions":{},"routes":[{"method":"GET","path":"/x","permission":"y"}]}"#;
        assert!(Matrix::parse(broken).is_err());
    }
}
