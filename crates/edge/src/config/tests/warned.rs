//! What a document may hold that is probably not meant, beside the issuers and the limiter.

use super::*;

#[test]
fn what_delays_a_revocation_is_a_warning() {
    for (ttl, poll, expected) in [
        (60_000, 1000, &[][..]),
        (60_001, 1000, &["$.principal_ttl_ms"]),
        (0, 1001, &["$.sidecar.poll_ms"]),
    ] {
        let found = warnings(|document| {
            document["principal_ttl_ms"] = ttl.into();
            document["sidecar"]["poll_ms"] = poll.into();
        });
        assert_eq!(found, expected, "{ttl} {poll}");
    }
}

#[test]
fn shadow_mode_is_a_warning_and_host_suffixes_begin_with_a_dot() {
    assert_eq!(warnings(|document| document["rbac"] = "shadow".into()), ["$.rbac"]);
    for bad in ["api.example", ".", "..a", ".a_b", ".a:80"] {
        assert!(compile(|doc| doc["tenant_host_suffix"] = bad.into()).is_err(), "{bad}");
    }
    check(|doc| doc["tenant_host_suffix"] = ".API.example.com".into(), &[]);
}
