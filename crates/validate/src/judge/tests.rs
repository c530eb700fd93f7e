//! What a client is told, word for word.

use serde_json::json;

use super::*;

#[test]
fn x7_every_refusal_is_a_problem_of_its_status() {
    for (refusal, status, code) in [
        (Refusal::malformed(Malformed::NotJson), 400, "body_malformed"),
        (Refusal::malformed(Malformed::Twins), 400, "body_malformed"),
        (Refusal::malformed(Malformed::TooDeep), 400, "body_malformed"),
        (Refusal::too_dear(), 422, "body_invalid"),
        (Refusal::too_large(), 413, "body_too_large"),
    ] {
        let problem = refusal.problem();
        assert_eq!((problem.status, problem.code), (status, code));
        assert_eq!(problem.detail.as_deref(), Some(refusal.detail));
        let errors = (status == 422).then(|| json!([{"pointer": "", "detail": refusal.detail}]));
        assert_eq!(problem.extensions.get("errors"), errors.as_ref());
    }
}

#[test]
fn x7_a_long_pointer_is_cut_between_steps() {
    let long = format!("/a/{}/b", "x".repeat(300));
    for (pointer, expected) in [("", ""), ("/a/b", "/a/b"), (long.as_str(), "/a")] {
        assert_eq!(bounded(pointer.to_owned()), expected);
    }
    let just = format!("/{}", "x".repeat(255));
    assert_eq!(bounded(just.clone()), just);
    assert_eq!(bounded(format!("{just}y")), "");
}
