//! Issuers as JSON, and every example of the documentation by the same reader.

use gatehouse_contract::document;
use serde_json::json;

use super::*;

const PAGE: &str = include_str!("../../../../docs/identity-providers.md");

fn read_text(text: &str) -> Result<Read, Vec<String>> {
    let guard = Guard::default();
    let around =
        Around { guard: &guard, own_issuer: "https://auth.example.com", has_secret: false };
    document::read(text, |doc| read(doc, &around))
        .map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect())
}

/// The fenced blocks of a page that are JSON.
fn blocks(page: &str) -> Vec<&str> {
    page.split("```json\n").skip(1).filter_map(|rest| rest.split("\n```").next()).collect()
}

#[test]
fn every_example_of_the_documentation_is_an_issuer() {
    let blocks = blocks(PAGE);
    let issuers: Vec<Settings> = blocks
        .iter()
        .map(|block| read_text(block).unwrap_or_else(|mistakes| panic!("{block}\n{mistakes:?}")).0)
        .collect();
    let names: Vec<&str> = issuers.iter().map(|issuer| issuer.name.as_str()).collect();
    assert_eq!(names, ["Okta", "Okta, API", "Microsoft Entra ID", "Google Workspace"]);
    // What the page says of them, held here.
    let [okta, api, entra, google] = issuers.as_slice() else { panic!("four") };
    assert!(okta.allow_sign_in && !okta.allow_bearer && api.allow_bearer && !api.allow_sign_in);
    assert_eq!(entra.subject_claim, "/oid");
    assert!(entra.required_claims.contains_key("/tid"));
    assert!(google.required_claims.contains_key("/hd"));
    assert!(
        issuers.iter().all(|issuer| issuer.max_role < Role::Admin || !issuer.role_map.is_empty())
    );
}

#[test]
fn an_issuer_reads_as_it_is_shown() {
    for block in blocks(PAGE) {
        let (settings, secret) = read_text(block).unwrap();
        let mut shown = shown(&settings);
        if let Some(secret) = secret {
            assert!(!Value::Object(shown.clone()).to_string().contains(&secret));
            shown.insert("client_secret".to_owned(), secret.into());
        }
        assert_eq!(read_text(&Value::Object(shown).to_string()).unwrap().0, settings);
    }
}

#[test]
fn an_issuer_needs_its_name_client_role_and_map() {
    let mistakes = read_text(&json!({}).to_string()).unwrap_err();
    let missing: Vec<&str> =
        mistakes.iter().filter_map(|mistake| mistake.split(": missing").next()).collect();
    assert_eq!(
        missing,
        ["$.name", "$.issuer", "$.client_id", "$.client_secret", "$.max_role", "$.roles"]
    );
}
