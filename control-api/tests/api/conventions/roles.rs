//! Who may do what, asked of every endpoint × role × tenant: exactly what the role matrix says. Another tenant's and a
//! missing one are the same answer. There is no exception.

use gatehouse_contract::rbac::{Access, Matrix};
use serde_json::{Value, json};

use super::{Furnished, example, operations};
use crate::{
    access::refused,
    http::{Answer, send},
};

const NOTHING: &str = "0191d6b0-7c3e-7aaa-8bbb-0123456789ab";
const ROLES: [&str; 4] = ["viewer", "operator", "developer", "admin"];

/// What is asked of an endpoint.
struct Ask<'a> {
    furnished: &'a Furnished,
    method: &'a str,
    body: Option<Value>,
}

impl Ask<'_> {
    /// All the way: what is not the caller's is not there.
    fn whole(&self, token: Option<&str>, path: &str) -> Answer {
        self.send(token, path, &[("if-match", "*")])
    }

    /// As far as whoever may is let, and no further: with a condition that no state meets, and a key that is none.
    fn harmless(&self, token: Option<&str>, path: &str) -> Answer {
        self.send(token, path, &[("if-match", "\"x\""), ("idempotency-key", "not one")])
    }

    fn send(&self, token: Option<&str>, path: &str, more: &[(&str, &str)]) -> Answer {
        let bearer = token.map(|token| format!("Bearer {token}"));
        let mut headers = vec![("x-gatehouse-reason", "a test")];
        headers.extend(more);
        headers.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
        headers.extend(self.body.as_ref().map(|_| ("content-type", "application/json")));
        let body = self.body.as_ref().map(Value::to_string);
        let url = format!("{}{path}", self.furnished.world.service.url);
        send(self.method, &url, &headers, body.as_deref())
    }
}

#[test]
fn every_endpoint_lets_those_pass_whom_the_matrix_names_to_their_own_tenant_alone() {
    let furnished = Furnished::new();
    let world = &furnished.world;
    let other = world.tenant("tenant-b");
    let callers =
        ROLES.map(|role| (role, world.member(&furnished.tenant, role), world.member(&other, role)));
    // Below an admin one sees one's own keys.
    let of_developer = callers.iter().find(|(role, ..)| *role == "developer").unwrap().1.as_str();
    let keys = furnished.path("/api/v1/factory/tenants/{tenant}/api-keys");
    let key = world.post(of_developer, &keys, json!({"name": "k", "roles": ["viewer"]}));
    let key = key.json()["id"].as_str().unwrap().to_owned();
    let matrix = Matrix::builtin().unwrap();
    let mut asked = 0;
    for (method, template, operation) in operations() {
        let access = &matrix
            .routes()
            .iter()
            .find(|route| route.method == method && route.template == template)
            .unwrap_or_else(|| panic!("{method} {template} is not in the matrix"))
            .access;
        let ask = Ask { furnished: &furnished, method: &method, body: example(operation) };
        let own = furnished.path(&template.replace("{key}", &key));
        let Access::Held { roles, platform, .. } = access else {
            let answer = ask.whole(None, &own);
            assert_ne!(answer.json_or_null()["code"], "credential_missing", "{method} {template}");
            continue;
        };
        let missing = own.replace(&furnished.tenant.id, NOTHING);
        let no_such_thing = template.split('/').map(|part| {
            if part.starts_with('{') && part != "{tenant}" && part != "{role}" {
                NOTHING
            } else {
                part
            }
        });
        let no_such_thing = furnished.path(&no_such_thing.collect::<Vec<_>>().join("/"));
        refused(&ask.whole(None, &own), 401, "credential_missing");
        refused(&ask.whole(None, &missing), 401, "credential_missing");
        for (role, token, of_other) in &callers {
            asked += 1;
            let what = format!("{role} {method} {template}");
            if !roles.holds(role.parse().unwrap()) {
                for path in [&own, &missing, &no_such_thing] {
                    refused(&ask.whole(Some(token), path), 403, "permission_denied");
                    refused(&ask.whole(Some(of_other), path), 403, "permission_denied");
                }
                continue;
            }
            let passed = ask.harmless(Some(token), &own);
            let status = passed.status;
            assert!(
                status < 500 && ![401, 403, 404, 405].contains(&status),
                "{what}: {}",
                passed.text
            );
            // Without an id in its path an endpoint is about the caller's own tenant, whichever that is.
            if template.contains('{') {
                let theirs = ask.whole(Some(of_other), &own);
                refused(&theirs, 404, "not_found");
                let nowhere = if template.contains("{tenant}") { &missing } else { &no_such_thing };
                let nothing = ask.whole(Some(of_other), nowhere);
                assert_eq!(theirs.body_but_request_id(), nothing.body_but_request_id(), "{what}");
                let names = |answer: &Answer| {
                    answer.headers.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>()
                };
                assert_eq!(names(&theirs), names(&nothing), "{what}");
            }
        }
        asked += 1;
        let of_platform = ask.harmless(Some(&world.platform), &own);
        if *platform {
            let status = of_platform.status;
            assert!(
                status < 500 && ![401, 403, 404, 405].contains(&status),
                "platform {method} {template}: {}",
                of_platform.text
            );
            if template.contains("{tenant}") {
                refused(&ask.whole(Some(&world.platform), &missing), 404, "not_found");
            }
        } else {
            refused(&of_platform, 403, "permission_denied");
        }
    }
    assert!(asked > 250, "{asked}");
    // Everything is still there: nobody reached what was not theirs.
    for template in ["{agent}", "{execution}", "{user}", "{client}", "{issuer}", "{webhook}"] {
        let (_, path, operation) = operations()
            .find(|(method, path, _)| method == "GET" && path.ends_with(template))
            .unwrap();
        let there = furnished.call(&furnished.admin, ("GET", &furnished.path(path)), &[], None);
        assert_eq!(there.status, 200, "{}", operation["operationId"]);
    }
}
