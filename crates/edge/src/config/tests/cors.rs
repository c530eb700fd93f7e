//! The `cors` object.

use super::*;

fn with(cors: Value) -> impl FnOnce(&mut Value) {
    move |document| document["cors"] = cors
}

#[test]
fn x9_origins_are_written_as_browsers_send_them() {
    for good in [
        "https://app.greenlang.ai",
        "https://app.greenlang.ai:8443",
        "http://localhost:3000",
        "http://[::1]:3000",
        "https://*.greenlang.ai",
        "https://*.greenlang.ai:8443",
        "http://*.localhost",
        "https://127.0.0.1",
        "app+x://localhost",
    ] {
        check(with(json!({"origins": [good]})), &[]);
    }
    for bad in [
        "app.greenlang.ai",
        "https://app.greenlang.ai/",
        "https://app.greenlang.ai:443",
        "http://app.greenlang.ai:80",
        "https://app.greenlang.ai:0",
        "https://app.greenlang.ai:08443",
        "https://app.greenlang.ai:70000",
        "https://App.greenlang.ai",
        "HTTPS://app.greenlang.ai",
        "https://app.greenlang.ai.",
        "https://user@app.greenlang.ai",
        "https://*greenlang.ai",
        "https://app*.greenlang.ai",
        "https://app.*.ai",
        "https://*.ai",
        "https://*.*.greenlang.ai",
        "https://*",
        "*.greenlang.ai",
        "https://[::1",
        "https://[0:0::1]",
        "https://",
        "://x.y",
        "https://a b",
        "null ",
    ] {
        assert!(compile(with(json!({"origins": [bad]}))).is_err(), "{bad}");
    }
}

#[test]
fn x9_a_wildcard_with_credentials_is_refused() {
    check(
        with(json!({"origins": ["*"], "credentials": true})),
        &["$.cors.origins: every page of the web could act as whoever visits it; list the \
           origins, or write \"credentials\": false"],
    );
    check(
        with(json!({"origins": ["null"], "credentials": true})),
        &["$.cors.origins: \"null\" is the origin of any page in a sandbox: the same as \"*\"; \
           leave it out, or write \"credentials\": false"],
    );
    check(
        with(json!({"origins": ["*", "https://a.example"]})),
        &["$.cors.origins: \"*\" stands for all of them; write \"*\" alone, or leave it out"],
    );
    for warned in [json!(["*"]), json!(["null"]), json!(["http://app.greenlang.ai"])] {
        assert_eq!(warnings(with(json!({"origins": warned}))), ["$.cors.origins"], "{warned}");
    }
    let sound =
        json!({"origins": ["http://localhost:1", "https://a.example"], "credentials": true});
    assert_eq!(warnings(with(sound)), [""; 0]);
}

#[test]
fn lists_have_names_and_no_wildcards() {
    for (cors, path) in [
        (json!({}), "$.cors.origins"),
        (json!({"origins": []}), "$.cors.origins"),
        (json!({"origins": ["https://a.example"], "headers": ["*"]}), "$.cors.headers[0]"),
        (json!({"origins": ["https://a.example"], "expose": ["a b"]}), "$.cors.expose[0]"),
        (json!({"origins": ["https://a.example"], "methods": ["get"]}), "$.cors.methods[0]"),
        (json!({"origins": ["https://a.example"], "methods": ["*"]}), "$.cors.methods[0]"),
        (json!({"origins": ["https://a.example"], "max_age_s": 86_401}), "$.cors.max_age_s"),
        (json!({"origins": ["https://a.example"], "orgins": []}), "$.cors.orgins"),
    ] {
        let mistakes = compile(with(cors.clone())).unwrap_err();
        let paths: Vec<_> = mistakes.iter().map(|mistake| mistake.path.as_str()).collect();
        assert_eq!(paths, [path], "{cors}");
    }
    let (suite, _) = compile(with(json!({
        "origins": ["https://a.example"], "headers": ["X-One"], "expose": ["X-Two", "Link"],
    })))
    .unwrap();
    let cors = suite.cors.unwrap();
    assert_eq!(&*cors.headers, "x-one");
    assert!(cors.expose.ends_with("grpc-message, x-two"), "{}", cors.expose);
}
