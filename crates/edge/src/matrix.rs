//! The role matrix as the request path asks it: by method and normalised path, `HEAD` as `GET` (acceptance J33).
//! Knows no callers.

use gatehouse_contract::rbac::{Access, Found, Matrix, Route};

/// The matrix and the methods that occur in it.
#[derive(Debug)]
pub(crate) struct Routes {
    matrix: Matrix,
    methods: Vec<String>,
}

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
    pub(crate) fn new(matrix: Matrix) -> Self {
        let mut methods: Vec<String> = Vec::new();
        for route in matrix.routes() {
            if !methods.contains(&route.method) {
                methods.push(route.method.clone());
            }
        }
        methods.sort();
        Self { matrix, methods }
    }

    pub(crate) fn place(&self, method: &str, path: &str) -> Place {
        let method = if method == "HEAD" { "GET" } else { method };
        match self.matrix.find(method, path) {
            Found::Route(route) => {
                let index =
                    self.matrix.routes().iter().position(|known| std::ptr::eq(known, route));
                index.map_or(Place::Nothing, Place::Route)
            }
            Found::OtherMethod => self.other_method(path),
            Found::Nothing => Place::Nothing,
        }
    }

    pub(crate) fn get(&self, index: usize) -> Option<&Route> {
        self.matrix.routes().get(index)
    }

    fn other_method(&self, path: &str) -> Place {
        let mut allow = Vec::new();
        let mut public = true;
        for method in &self.methods {
            if let Found::Route(route) = self.matrix.find(method, path) {
                public &= route.access == Access::Public;
                allow.push(method.as_str());
                if method == "GET" {
                    allow.push("HEAD");
                }
            }
        }
        Place::OtherMethod { allow: allow.join(", "), public }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p6_methods_are_exact_and_head_is_get() {
        let routes = Routes::new(Matrix::builtin().unwrap());
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
