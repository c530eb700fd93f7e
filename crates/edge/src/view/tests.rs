//! Tests of the one pass over the headers.

use super::*;

fn check(headers: &[(&str, &str)], expected: impl FnOnce(&Scan<'_>)) {
    expected(&scan(&RequestView::new(headers)));
}

#[test]
fn t2_identity_headers_are_found_in_every_spelling() {
    let spellings = ["X-Tenant-ID", "x_tenant_id", "X-Tenant_ID", "x-gatehouse-context"];
    let mut headers: Vec<_> = spellings.iter().map(|name| (*name, "evil")).collect();
    headers.extend([("x-tenant", "a"), ("x-gatehouse-reason", "b"), ("accept", "c")]);
    check(&headers, |scan| {
        assert_eq!(scan.identity, spellings);
        assert!(!scan.identity_twice);
    });
    check(&[("x-gatehouse-sidecar", "1"), ("X_Gatehouse_Reason", "b")], |scan| {
        assert_eq!(scan.identity, ["x-gatehouse-sidecar", "X_Gatehouse_Reason"]);
    });
    check(&[("x-tenant-id", "a"), ("X-TENANT-ID", "")], |scan| assert!(scan.identity_twice));
}

#[test]
fn t4_connection_cannot_nominate_protected_headers() {
    let connection = |value: &str, expected: Option<&str>| {
        check(&[("connection", value)], |scan| {
            assert_eq!(scan.connection.as_deref(), expected, "{value:?}");
        });
    };
    connection("keep-alive, X-Other", None);
    connection("Upgrade", None);
    connection("keep-alive, X-Tenant-ID,Upgrade", Some("keep-alive, Upgrade"));
    connection("x_tenant_id", Some(""));
    connection("Authorization, close", Some("close"));
    connection("x-request-id", Some(""));
}

#[test]
fn duplicates_are_seen() {
    check(&[("authorization", "a")], |scan| {
        assert_eq!(scan.authorization, Single::One(b"a"));
    });
    check(&[("authorization", "a"), ("Authorization", "a")], |scan| {
        assert_eq!(scan.authorization, Single::Many);
    });
    check(&[], |scan| assert_eq!(scan.authorization, Single::Absent));
}

#[test]
fn j4_two_credentials_that_were_joined_on_the_way_are_still_two() {
    for (value, joined) in [
        ("Bearer a,Bearer b", true),
        ("Basic a, bearer b", true),
        ("Bearer a,Basic b", false),
        ("Digest realm=\"Bearer\", nonce=x", false),
        ("Bearer a", false),
    ] {
        check(&[("authorization", value)], |scan| {
            assert_eq!(scan.authorization == Single::Many, joined, "{value}");
        });
    }
}

#[test]
fn j34_dialects_follow_the_content_type() {
    for (content_type, expected) in [
        ("application/grpc", Dialect::Grpc),
        ("application/grpc+proto", Dialect::Grpc),
        ("Application/gRPC+proto", Dialect::Http),
        ("application/grpc;charset=utf-8", Dialect::Http),
        ("application/grpcx", Dialect::Http),
        ("application/grpc-weblog", Dialect::Http),
        ("application/grpc-web", Dialect::GrpcWeb),
        ("application/grpc-web+proto", Dialect::GrpcWeb),
        ("application/grpc-web-text", Dialect::GrpcWebText),
        ("application/grpc-web-text+proto", Dialect::GrpcWebText),
        ("application/json", Dialect::Http),
        ("", Dialect::Http),
    ] {
        check(&[("content-type", content_type)], |scan| {
            assert_eq!(scan.dialect, expected, "{content_type}");
        });
    }
}
