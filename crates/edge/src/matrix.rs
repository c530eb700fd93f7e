//! The role matrix as the request path asks it: by method and normalised path, `HEAD` as `GET` (acceptance J33).
//! Knows no callers.

use std::rc::Rc;

use gatehouse_contract::rbac::{Access, Matrix, Route};

mod tree;

use tree::Node;

/// The matrix, found by path.
#[derive(Debug)]
pub(crate) struct Routes {
    matrix: Matrix,
    tree: Node,
    /// By place in the matrix: which segment of the path names a tenant.
    tenant_at: Vec<Option<usize>>,
}

/// The template's parameter that names a tenant.
const TENANT: &str = "{tenant}";

/// What the matrix says of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A route, by its place in the matrix.
    Route(usize),
    /// The path is known, the method is not.
    OtherMethod {
        /// For the `Allow` header.
        allow: String,
        /// Whether the path is open to anyone, so that saying so gives nothing away.
        public: bool,
    },
    /// Nothing is there.
    Nothing,
}

impl Routes {
    /// The matrix' routes, under each of the `served` versions. A version that the matrix has no routes for has those
    /// of its first version: the same permission and one limit for both, so that no version is a way around.
    pub(crate) fn new<'v>(matrix: Matrix, served: impl Iterator<Item = &'v Rc<str>>) -> Self {
        let mut tree = Node::default();
        let mut tenant_at = Vec::new();
        for (index, Route { method, template, .. }) in matrix.routes().iter().enumerate() {
            tree.add(method, template, index);
            tenant_at.push(tree::segments(template).position(|segment| segment == TENANT));
        }
        let versioned =
            |template: &str| Some(template.strip_prefix("/api/")?.split_once('/')?.0.to_owned());
        let known: Vec<String> =
            matrix.routes().iter().filter_map(|route| versioned(&route.template)).collect();
        for version in served.filter(|version| !known.iter().any(|known| **known == ***version)) {
            for (index, Route { method, template, .. }) in matrix.routes().iter().enumerate() {
                let first =
                    known.first().filter(|first| versioned(template).as_ref() == Some(first));
                if let Some(below) = first
                    .and_then(|first| template.strip_prefix("/api/")?.strip_prefix(first.as_str()))
                {
                    tree.add(method, &format!("/api/{version}{below}"), index);
                }
            }
        }
        Self { matrix, tree, tenant_at }
    }

    /// The first route of the matrix that fits.
    pub(crate) fn place(&self, method: &str, path: &str) -> Place {
        let method = if method == "HEAD" { "GET" } else { method };
        let mut found: Option<usize> = None;
        let mut known = false;
        self.tree.visit(path, &mut |theirs, index| {
            known = true;
            if theirs == method {
                found = Some(found.map_or(index, |found| found.min(index)));
            }
        });
        match found {
            Some(index) => Place::Route(index),
            None if known => self.other_method(path),
            None => Place::Nothing,
        }
    }

    /// The place of the route that the matrix names so.
    pub(crate) fn named(&self, method: &str, template: &str) -> Option<usize> {
        let mut routes = self.matrix.routes().iter();
        routes.position(|route| route.method == method && route.template == template)
    }

    pub(crate) fn get(&self, index: usize) -> Option<&Route> {
        self.matrix.routes().get(index)
    }

    /// The segment of `path`, which is at this route, that names a tenant.
    pub(crate) fn tenant_in<'p>(&self, index: usize, path: &'p str) -> Option<&'p str> {
        let at = (*self.tenant_at.get(index)?)?;
        tree::segments(path).nth(at)
    }

    fn other_method(&self, path: &str) -> Place {
        let mut public = true;
        self.tree.visit(path, &mut |_, index| {
            public &= self.get(index).is_some_and(|route| route.access == Access::Public);
        });
        Place::OtherMethod { allow: self.methods(path), public }
    }

    /// The methods that are served on `path`, separated by commas.
    pub(crate) fn methods(&self, path: &str) -> String {
        let mut methods = Vec::new();
        self.tree.visit(path, &mut |method, _| {
            methods.push(method);
            if method == "GET" {
                methods.push("HEAD");
            }
        });
        methods.sort_unstable();
        methods.dedup();
        methods.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use gatehouse_contract::rbac::Found;

    use super::*;

    #[test]
    fn the_tree_finds_what_the_matrix_finds() {
        let routes = Routes::new(Matrix::builtin().unwrap(), std::iter::empty());
        let matrix = Matrix::builtin().unwrap();
        let mut paths = vec![String::new(), "/".to_owned(), "//".to_owned(), "/api".to_owned()];
        for route in matrix.routes() {
            let path = route.template.replace(['{', '}'], "");
            let cut = path.rsplit_once('/').unwrap().0.to_owned();
            let empty = path.replacen("/v1/", "/v1//", 1);
            let upper = path.to_uppercase();
            paths.extend([cut, empty, upper, format!("{path}/"), format!("{path}/x"), path]);
        }
        for path in &paths {
            for method in ["GET", "POST", "DELETE", "PATCH", ""] {
                let expected = matrix.find(method, path);
                let got = routes.place(method, path);
                let same = match (&got, expected) {
                    (Place::Route(index), Found::Route(route)) => routes.get(*index) == Some(route),
                    (Place::OtherMethod { .. }, Found::OtherMethod) => true,
                    (Place::Nothing, Found::Nothing) => true,
                    _ => false,
                };
                assert!(same, "{method} {path}: {got:?}, {expected:?}");
            }
        }
        let Place::Route(users) = routes.place("POST", "/api/v1/factory/tenants/t/users") else {
            panic!()
        };
        assert_eq!(routes.tenant_in(users, "/api/v1/factory/tenants/t/users"), Some("t"));
    }

    #[test]
    fn p6_methods_are_exact_and_head_is_get() {
        let routes = Routes::new(Matrix::builtin().unwrap(), std::iter::empty());
        let agents = "/api/v1/registry/agents";
        let template = |method: &str| match routes.place(method, agents) {
            Place::Route(index) => routes.get(index).map(|route| route.method.clone()),
            Place::OtherMethod { .. } | Place::Nothing => None,
        };
        assert_eq!(template("GET").as_deref(), Some("GET"));
        assert_eq!(template("HEAD").as_deref(), Some("GET"));
        assert_eq!(template("POST").as_deref(), Some("POST"));
        for other in ["post", "Get", "PATCH", "TRACE", ""] {
            let expected =
                Place::OtherMethod { allow: "GET, HEAD, POST".to_owned(), public: false };
            assert_eq!(routes.place(other, agents), expected, "{other}");
        }
        assert_eq!(
            routes.place("GET", "/oauth2/token"),
            Place::OtherMethod { allow: "POST".to_owned(), public: true },
        );
        assert_eq!(routes.place("GET", "/internal/v1/principal"), Place::Nothing);
    }
}
