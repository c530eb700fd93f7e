//! The document and its page, as they are served: to anybody, whole, and with nothing from elsewhere.

use serde_json::Value;

use super::document;
use crate::{http::send, world::World};

#[test]
fn the_document_and_its_page_are_served_to_anybody_and_load_nothing() {
    let world = World::new();
    let get = |path: &str, more: &[(&str, &str)]| {
        send("GET", &format!("{}{path}", world.service.url), more, None)
    };
    let served = get("/api/v1/openapi.json", &[]);
    assert_eq!(served.status, 200, "{}", served.text);
    let kind = "application/vnd.oai.openapi+json;version=3.1";
    assert_eq!(served.header("content-type"), Some(kind));
    assert_eq!(&serde_json::from_str::<Value>(&served.text).unwrap(), document());
    let page = get("/api/v1/reference", &[]);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; style-src 'unsafe-inline';"), "{policy}");
    for loaded in ["http://", "https://", "<script", "src="] {
        let shown = page.text.split("<h2>Schemas</h2>").next().unwrap();
        // An example's address is text, and no link.
        let shown = shown.replace("https://acme.okta.example", "");
        let shown = shown.replace("https://hooks.acme.example", "");
        assert!(!shown.contains(loaded), "{loaded}");
    }
    // It changes with a release: whoever has it asks whether it still is.
    let tag = served.header("etag").unwrap();
    assert_eq!(get("/api/v1/openapi.json", &[("if-none-match", tag)]).status, 304);
    let tag = page.header("etag").unwrap();
    assert_eq!(get("/api/v1/reference", &[("if-none-match", tag)]).status, 304);
}
