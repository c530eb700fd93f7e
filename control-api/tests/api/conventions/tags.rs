//! What is read has a tag; what exists is changed by whoever names its state.

use serde_json::json;

use super::{Beside, Furnished, example, operations, takes, waiting};
use crate::{access::refused, http::send};

#[test]
fn whatever_is_read_has_a_tag_and_is_not_sent_again() {
    let furnished = Furnished::new();
    let mut read = 0;
    for (method, template, operation) in operations() {
        if method != "GET" || !takes(operation, "IfNoneMatch") {
            continue;
        }
        read += 1;
        let caller = furnished.caller(operation);
        let at = (method.as_str(), &*furnished.path(template));
        let first = furnished.call(caller, at, &[], None);
        assert_eq!(first.status, 200, "{template}: {}", first.text);
        let tag = first.header("etag").unwrap_or_else(|| panic!("{template} has no tag"));
        assert!(tag.starts_with('"'), "{template}: {tag} is weak");
        for known in [tag, "*", &format!("\"x\", W/{tag}")] {
            let same = furnished.call(caller, at, &[("if-none-match", known)], None);
            assert_eq!((same.status, same.text.as_str()), (304, ""), "{template}: {known}");
            assert_eq!(same.header("etag"), Some(tag));
        }
        let head = furnished.call(caller, ("HEAD", at.1), &[], None);
        assert_eq!((head.status, head.header("etag")), (200, Some(tag)), "{template}");
        let other = furnished.call(caller, at, &[("if-none-match", "\"x\"")], None);
        assert_eq!((other.status, &other.text), (200, &first.text), "{template}");
        let broken = furnished.call(caller, at, &[("if-none-match", "x")], None);
        refused(&broken, 400, "header_invalid");
        let private = operation.get("x-gatehouse-permission").is_some();
        assert_eq!(first.header("cache-control") == Some("private, no-cache"), private);
    }
    assert!(read >= 15, "{read}");
}

#[test]
fn what_exists_is_changed_only_in_the_state_that_was_read() {
    let furnished = Furnished::new();
    let mut changed = 0;
    for (method, template, operation) in operations() {
        if !takes(operation, "IfMatch") {
            continue;
        }
        changed += 1;
        let (path, token) = (furnished.path(template), furnished.caller(operation));
        let body = match template {
            // What the example names is no endpoint that could be meant by chance.
            "/api/v1/factory/tenants/{tenant}/limits" => json!({"per_window": 7}),
            _ => example(operation).unwrap(),
        };
        let ask =
            |more: &[(&str, &str)]| furnished.call(token, (&method, &path), more, Some(&body));
        let shown = || furnished.call(token, ("GET", &path), &[], None);
        let before = shown();
        let tag = before.header("etag").unwrap();
        refused(&ask(&[]), 428, "precondition_missing");
        for other in ["\"x\"", &format!("W/{tag}")] {
            refused(&ask(&[("if-match", other)]), 412, "precondition_failed");
        }
        refused(&ask(&[("if-match", "x")]), 400, "header_invalid");
        assert_eq!(shown().text, before.text, "{template}: nothing was done");
        let done = ask(&[("if-match", tag)]);
        assert_eq!(done.status, 200, "{template}: {}", done.text);
        assert_ne!(shown().text, before.text, "{template}: it was changed");
        // Whoever read it before has lost; whoever reads again goes on.
        refused(&ask(&[("if-match", tag)]), 412, "precondition_failed");
        assert_eq!(ask(&[("if-match", "*")]).status, 200, "{template}");
    }
    assert!(changed >= 5, "{changed}");
}

#[test]
fn what_is_removed_is_removed_only_in_the_state_that_was_read() {
    let furnished = Furnished::new();
    let mut removed = 0;
    // What takes everything else along comes last.
    let mut all: Vec<_> = operations().collect();
    all.sort_by_key(|(_, template, _)| template.ends_with("/tenants/{tenant}"));
    for (method, template, operation) in all {
        // A role is no resource that is read.
        if !takes(operation, "IfMatchOptional") || template.ends_with("{role}") {
            continue;
        }
        removed += 1;
        let (path, token) = (furnished.path(template), furnished.caller(operation));
        let tag = furnished.call(token, ("GET", &path), &[], None);
        let tag = tag.header("etag").unwrap();
        let ask = |tag: &str| furnished.call(token, (&method, &path), &[("if-match", tag)], None);
        refused(&ask("\"x\""), 412, "precondition_failed");
        assert_eq!(furnished.call(token, ("GET", &path), &[], None).header("etag"), Some(tag));
        let done = ask(tag);
        let expected = if template.ends_with("/tenants/{tenant}") { 202 } else { 204 };
        assert_eq!(done.status, expected, "{template}: {}", done.text);
    }
    assert!(removed >= 7, "{removed}");
}

#[test]
fn of_many_who_change_the_same_state_one_wins() {
    let furnished = Furnished::new();
    let path = furnished.path("/api/v1/factory/tenants/{tenant}/version-pin");
    let tag = furnished.call(&furnished.admin, ("GET", &path), &[], None);
    let tag = tag.header("etag").unwrap();
    let bearer = format!("Bearer {}", furnished.admin);
    let url = format!("{}{path}", furnished.world.service.url);
    // All of them have read and wait for the tenant's row: what counts is what it is after the wait.
    let lock = format!("SELECT id FROM tenants WHERE id = '{}' FOR UPDATE;", furnished.tenant.id);
    let beside = Beside::holding(&furnished.world, &lock);
    let mut statuses: Vec<u16> = std::thread::scope(|scope| {
        let (bearer, url) = (bearer.as_str(), url.as_str());
        let all = [1, 2, 3, 4].map(|n| {
            scope.spawn(move || {
                let headers = [
                    ("authorization", bearer),
                    ("content-type", "application/json"),
                    ("if-match", tag),
                ];
                let body = json!({"version": format!("v{n}")}).to_string();
                send("PUT", url, &headers, Some(&body)).status
            })
        });
        waiting(&furnished.world, all.len());
        beside.release();
        all.map(|one| one.join().unwrap()).to_vec()
    });
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 412, 412, 412]);
}
