//! J33 and what else depends on the method.

use gatehouse_tests::http::Request;

use super::gate::{AGENTS, Gate, token, verdict};

#[test]
fn j33_head_is_get_without_a_body() {
    let gate = Gate::open();
    let head = |path: &str| Request::new("HEAD", path);
    let allowed = gate.send(&head(AGENTS).bearer(&token()));
    assert_eq!(verdict(&allowed), "200");
    assert_eq!(allowed.body, b"");
    let refused = gate.send(&head(AGENTS));
    assert_eq!((refused.status().unwrap(), refused.body.as_slice()), (401, &b""[..]));
    let as_get = gate.send(&Request::new("GET", AGENTS));
    for name in ["www-authenticate", "content-type", "cache-control", "api-version"] {
        assert_eq!(refused.headers.all(name), as_get.headers.all(name), "{name}");
    }
    // What has no GET has no HEAD.
    let token_endpoint = gate.send(&head("/oauth2/token"));
    assert_eq!(token_endpoint.status().unwrap(), 405);
    assert_eq!(token_endpoint.headers.all("allow"), ["POST"]);
}
