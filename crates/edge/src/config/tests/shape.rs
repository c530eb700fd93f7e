//! The objects `transforms`, `sizes` and `envelope`.

use super::*;

fn paths(change: impl FnOnce(&mut Value)) -> Vec<String> {
    let mistakes = compile(change).map(drop).unwrap_err();
    mistakes.into_iter().map(|mistake| mistake.path).collect()
}

#[test]
fn changes_of_what_is_ours_are_refused() {
    let header = |op: Value| {
        move |document: &mut Value| document["transforms"] = json!({"request": {"headers": [op]}})
    };
    for name in [
        "x-tenant-id",
        "X_Tenant_ID",
        "x-gatehouse-context",
        "x-forwarded-client-cert",
        "x-request-id",
        "baggage",
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "authorization",
        "x-api-key",
        "X_API_KEY",
        "cookie",
        ":path",
        "a b",
        "*",
    ] {
        for op in [json!({"set": name, "value": "x"}), json!({"add": name, "value": "x"})] {
            assert_eq!(paths(header(op)).len(), 1, "{name}");
        }
        assert!(compile(header(json!({"rename": name, "to": "x-a"}))).is_err(), "{name}");
        assert!(compile(header(json!({"rename": "x-a", "to": name}))).is_err(), "{name}");
    }
    check(header(json!({"remove": "authorization"})), &[]);
    for response in ["x-user-id", ":status", "content-length", "content-encoding", "x-request-id"] {
        let mistakes = paths(|document| {
            let headers = json!([{"remove": response}]);
            document["transforms"] = json!({"response": {"headers": headers}});
        });
        assert_eq!(mistakes, ["$.transforms.response.headers[0].remove"]);
    }
    for name in ["tenant_id", "token", "a b", "a=b", "%61"] {
        let refused = compile(|document| {
            document["sources"] = json!({"query": "token", "forward": false});
            let query = json!([{"set": name, "value": "x"}]);
            document["transforms"] = json!({"request": {"query": query}});
        });
        assert!(refused.is_err(), "{name}");
    }
}

#[test]
fn a_change_is_one_change_with_all_that_it_needs() {
    for op in [
        json!({}),
        json!({"set": "x-a"}),
        json!({"set": "x-a", "add": "x-b", "value": "x"}),
        json!({"remove": "x-a", "value": "x"}),
        json!({"rename": "x-a"}),
        json!({"rename": "x-a", "to": "x-b", "value": "x"}),
        json!({"value": "x"}),
    ] {
        let mistakes = paths(|document| {
            document["transforms"] = json!({"request": {"headers": [op]}});
        });
        assert_eq!(mistakes, ["$.transforms.request.headers[0].set"]);
    }
    for value in ["${nobody}", "a\r\nb: c", "a\nb", "${tenant", "\u{e9}", ""] {
        let mistakes = paths(|document| {
            let headers = json!([{"set": "x-a", "value": value}]);
            document["transforms"] = json!({"request": {"headers": headers}});
        });
        assert_eq!(mistakes, ["$.transforms.request.headers[0].value"], "{value:?}");
    }
}

#[test]
fn sizes_and_envelopes_have_bounds() {
    for (name, value) in [
        ("max_headers", 0_u64),
        ("max_header_bytes", 255),
        ("max_header_bytes", 1_048_577),
        ("max_body_bytes", 1_099_511_627_777),
    ] {
        let got = paths(|document| document["sizes"] = json!({name: value}));
        assert_eq!(got, [format!("$.sizes.{name}")]);
    }
    for (envelope, path) in [
        (json!({"max_body_bytes": 0}), "$.envelope.max_body_bytes"),
        (json!({"max_body_bytes": 16_777_217}), "$.envelope.max_body_bytes"),
        (json!({"on_broken": "drop"}), "$.envelope.on_broken"),
        (json!({"routes": ["/api"]}), "$.envelope.routes[0]"),
        (json!({"routes": ["/a/../"]}), "$.envelope.routes[0]"),
    ] {
        assert_eq!(paths(|document| document["envelope"] = envelope), [path]);
    }
    let kong = paths(|document| {
        document["host"] = "kong".into();
        document["signatures"] = "portable".into();
        document["sidecar"]["target"] = "127.0.0.1:9".into();
        document["envelope"] = json!({});
    });
    assert_eq!(kong, ["$.envelope.routes"]);
}
