//! What of a foreign token is weighed after its signature. The rest, with a real provider, is in `tests/api/oidc`.

use gatehouse_authn::KeySet;
use gatehouse_contract::{ClientId, Document, IssuerId, document as contract};
use gatehouse_outbound::Guard;
use gatehouse_store::OffsetDateTime;
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::{
    config::Tokens,
    federation::document::{self, Around},
    token::{Grant, Signer},
};

const NAME: &str = "https://idp.example";
const NOW: Duration = Duration::from_secs(1_000_000);

fn issuer(tenant: u128, more: Value) -> Issuer {
    let mut whole = json!({
        "name": "Test", "issuer": NAME, "client_id": "us", "client_auth": "none", "bearer": true,
        "audiences": ["https://api.example"], "max_role": "viewer", "roles": {},
    });
    for (name, value) in more.as_object().unwrap() {
        whole[name] = value.clone();
    }
    let guard = Guard::default();
    let around = Around { guard: &guard, own_issuer: "https://auth.example", has_secret: false };
    let read = |doc: &Document<'_>| document::read(doc, &around);
    let (settings, _) = contract::read(&whole.to_string(), read).unwrap();
    Issuer {
        id: IssuerId::new(Uuid::from_u128(9)),
        tenant: TenantId::new(Uuid::from_u128(tenant)),
        settings,
        by_platform: false,
        created_at: OffsetDateTime::UNIX_EPOCH,
        epoch: 1,
        sealed_client_secret: None,
    }
}

/// A token for the tenant 1, judged for this registration.
fn check(issuer: &Issuer, expected: Option<u16>) {
    let signer = Signer::generate().unwrap();
    let tokens = Tokens {
        issuer: NAME.to_owned(),
        audience: "https://api.example".to_owned(),
        ttl: Duration::from_secs(900),
        key_publish_ahead: Duration::ZERO,
    };
    let grant = Grant {
        tenant: TenantId::new(Uuid::from_u128(1)),
        client: ClientId::new(Uuid::from_u128(2)),
        id: Uuid::from_u128(3),
        now: NOW,
    };
    let token = signer.issue(&tokens, &grant).unwrap();
    let keys = KeySet::parse(json!({"keys": [signer.jwk()]}).to_string().as_bytes()).unwrap();
    let parsed = jws::parse(token.as_bytes()).unwrap();
    let verified =
        jws::verify_with(&parsed, &keys, &algorithms(&issuer.settings), &Portable).unwrap();
    let refused = judged(&verified, issuer, NOW).err().map(|reply| reply.problem().status);
    assert_eq!(refused, expected);
}

/// Another registration of this name may be the tenant's a moment later: what these keys signed is not its word.
#[test]
fn j3_a_registration_judges_its_own_tenants_tokens_alone() {
    check(&issuer(1, json!({})), None);
    check(&issuer(2, json!({})), Some(403));
}

#[test]
fn a_registration_wants_its_audience_and_claims() {
    check(&issuer(1, json!({"audiences": ["https://other.example"]})), Some(401));
    check(&issuer(1, json!({"claims": {"required": {"/tid": "x"}}})), Some(403));
    let client = json!({"claims": {"required": {"/client_id": Uuid::from_u128(2).to_string()}}});
    check(&issuer(1, client), None);
}
