//! An issuer as JSON: read strictly, with every mistake at once, and shown in the same form without its secret.
//! Knows neither HTTP nor the store's way to keep it.

use std::collections::{BTreeMap, BTreeSet};

use gatehouse_authn::{Algorithm, claims::Pointer};
use gatehouse_contract::{Document, Role, document::member};
use gatehouse_outbound::Guard;
use gatehouse_store::issuers::{ClientAuth, RolesSource, Settings};
use serde_json::{Map, Value, json};

/// Longest texts, in characters.
const MAX_NAME: usize = 200;
const MAX_URL: usize = 512;
const MAX_SECRET: usize = 512;
/// Most entries of a list or a map.
const MAX_ITEMS: usize = 256;

/// What the reader must know of the world.
pub struct Around<'a> {
    /// Judges the addresses: the operator's exceptions where the platform registers.
    pub guard: &'a Guard,
    /// Our own issuer, which is no external one.
    pub own_issuer: &'a str,
    /// Whether a secret is kept already.
    pub has_secret: bool,
}

/// An issuer and the secret that came with it.
pub type Read = (Settings, Option<String>);

/// Reads an issuer.
pub fn read(doc: &Document<'_>, around: &Around<'_>) -> Option<Read> {
    let name = bounded(doc, "name", MAX_NAME);
    let issuer = issuer(doc, around);
    let client_id = bounded(doc, "client_id", 256);
    let client = client(doc, around);
    let jwks_uri = jwks_uri(doc, around);
    let scopes = scopes(doc);
    let audiences = texts(doc, "audiences");
    let algorithms = algorithms(doc);
    let max_role = doc.parsed::<Role>("max_role", "viewer, operator, developer or admin");
    let claims = doc.object_opt("claims", |doc| {
        let subject = pointer_or(doc, "subject", "/sub");
        let email = pointer_or(doc, "email", "/email");
        let required = required(doc);
        Some((subject?, email?, required?))
    });
    let roles = doc.object("roles", roles);
    let sign_in = doc.flag("sign_in", true);
    let bearer = doc.flag("bearer", false);
    let access_tokens_only = doc.flag("access_tokens_only", true);
    let enabled = doc.flag("enabled", true);
    let (subject_claim, email_claim, required_claims) =
        claims?.unwrap_or_else(|| ("/sub".to_owned(), "/email".to_owned(), BTreeMap::new()));
    let (groups_claim, role_map, roles_source) = roles?;
    let (client_auth, secret) = client?;
    let settings = Settings {
        name: name?,
        issuer: issuer?,
        client_id: client_id?,
        client_auth,
        jwks_uri: jwks_uri?,
        scopes: scopes?,
        audiences: audiences?,
        algorithms: algorithms?,
        max_role: max_role?,
        subject_claim,
        email_claim,
        groups_claim,
        role_map,
        required_claims,
        roles_source,
        allow_sign_in: sign_in?,
        allow_bearer: bearer?,
        access_tokens_only: access_tokens_only?,
        enabled: enabled?,
    };
    if settings.allow_bearer && settings.audiences.is_empty() {
        let cause = "empty, and \"bearer\" is true: tokens made for others would be taken";
        doc.note("audiences", cause, "list what \"aud\" of its tokens names for us");
        return None;
    }
    if settings.allow_bearer
        && !settings.access_tokens_only
        && settings.audiences.contains(&settings.client_id)
    {
        let cause =
            "names \"client_id\", for which ID tokens are, and \"access_tokens_only\" is false";
        let mend = "register an API at the provider and name its own audience";
        doc.note("audiences", cause, mend);
        return None;
    }
    if settings.role_map.values().any(|role| *role > settings.max_role) {
        let cause = format!("maps a group to more than \"max_role\" ({})", settings.max_role);
        doc.note("roles.map", cause, "lower the role, or raise \"max_role\"");
        return None;
    }
    Some((settings, secret))
}

/// The issuer in the form in which it is read, without its secret.
pub fn shown(settings: &Settings) -> Map<String, Value> {
    let required: Map<String, Value> = settings
        .required_claims
        .iter()
        .map(|(claim, value)| (claim.clone(), value.as_str().into()))
        .collect();
    let map: Map<String, Value> = settings
        .role_map
        .iter()
        .map(|(group, role)| (group.clone(), role.as_str().into()))
        .collect();
    let document = json!({
        "name": settings.name,
        "issuer": settings.issuer,
        "client_id": settings.client_id,
        "client_auth": settings.client_auth.as_str(),
        "jwks_uri": settings.jwks_uri,
        "scopes": settings.scopes,
        "audiences": settings.audiences,
        "algorithms": settings.algorithms,
        "max_role": settings.max_role,
        "claims": {
            "subject": settings.subject_claim,
            "email": settings.email_claim,
            "required": required,
        },
        "roles": {
            "source": settings.roles_source.as_str(),
            "claim": settings.groups_claim,
            "map": map,
        },
        "sign_in": settings.allow_sign_in,
        "bearer": settings.allow_bearer,
        "access_tokens_only": settings.access_tokens_only,
        "enabled": settings.enabled,
    });
    match document {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

fn bounded(doc: &Document<'_>, name: &'static str, chars: usize) -> Option<String> {
    let text = doc.text(name)?;
    if text.chars().count() <= chars && !text.chars().any(char::is_control) {
        return Some(text);
    }
    doc.note(
        name,
        "too long, or with control characters",
        format!("write 1 to {chars} characters"),
    );
    None
}

fn issuer(doc: &Document<'_>, around: &Around<'_>) -> Option<String> {
    let issuer = bounded(doc, "issuer", MAX_URL)?;
    if issuer == around.own_issuer {
        doc.note("issuer", "this is us", "name the provider's issuer");
        return None;
    }
    // A name for many tenants speaks for all of them (Entra ID's "common").
    if issuer.contains(['{', '}', '?', '#']) || issuer.ends_with("/common/v2.0") {
        let mend = "name the issuer of your own tenant, as its tokens have it in \"iss\"";
        doc.note("issuer", "stands for several issuers, or has a query or fragment", mend);
        return None;
    }
    asked(doc, around, "issuer", &issuer).then_some(issuer)
}

fn jwks_uri(doc: &Document<'_>, around: &Around<'_>) -> Option<Option<String>> {
    let Some(uri) = doc.text_opt("jwks_uri")? else { return Some(None) };
    let fits = uri.len() <= MAX_URL && asked(doc, around, "jwks_uri", &uri);
    fits.then_some(Some(uri))
}

/// Whether the address may be asked, as far as that can be told before its name is resolved.
fn asked(doc: &Document<'_>, around: &Around<'_>, name: &'static str, url: &str) -> bool {
    match around.guard.check(url) {
        Ok(_) => true,
        Err(refused) => {
            let mend =
                "write an https URL of the public internet, or have the operator register it";
            doc.note(name, refused.to_string(), mend);
            false
        }
    }
}

fn client(doc: &Document<'_>, around: &Around<'_>) -> Option<(ClientAuth, Option<String>)> {
    const EXPECTED: &str = "client_secret_basic, client_secret_post or none";
    let auth = doc.parsed_or::<ClientAuth>("client_auth", ClientAuth::Basic, EXPECTED);
    let secret = match doc.raw("client_secret") {
        None => None,
        Some(Value::String(text)) if (8..=MAX_SECRET).contains(&text.len()) => Some(text.clone()),
        // Its text is not repeated.
        Some(_) => {
            doc.note("client_secret", "no text of 8 to 512 bytes", "write the provider's secret");
            return None;
        }
    };
    match (auth?, secret) {
        (ClientAuth::None, Some(_)) => {
            doc.note("client_secret", "stands beside \"client_auth\": \"none\"", "remove one");
            None
        }
        (auth @ (ClientAuth::Basic | ClientAuth::Post), None) if !around.has_secret => {
            let mend = "write the provider's secret, or \"client_auth\": \"none\"";
            doc.note("client_secret", "missing", mend);
            Some((auth, None))
        }
        (auth, secret) => Some((auth, secret)),
    }
}

fn texts(doc: &Document<'_>, name: &'static str) -> Option<Vec<String>> {
    let list = doc.parsed_list::<String>(name, "a non-empty string")?;
    if list.len() <= MAX_ITEMS {
        return Some(list);
    }
    doc.note(name, "too many", format!("list at most {MAX_ITEMS}"));
    None
}

fn scopes(doc: &Document<'_>) -> Option<Vec<String>> {
    let mut scopes = texts(doc, "scopes")?;
    if scopes.is_empty() {
        scopes = ["openid", "email", "profile"].map(str::to_owned).to_vec();
    }
    let token =
        |scope: &String| scope.bytes().all(|b| b.is_ascii_graphic() && !b"\"\\".contains(&b));
    if !scopes.iter().all(token) || !scopes.iter().any(|scope| scope == "openid") {
        doc.note("scopes", "without \"openid\", or with a space", "list scopes one by one");
        return None;
    }
    Some(scopes)
}

/// Names as the verifier knows them, so that no unknown one is ever stored. A secret is no key of others' tokens.
fn algorithms(doc: &Document<'_>) -> Option<Vec<String>> {
    const EXPECTED: &str = "RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA";
    let list = doc.parsed_list::<Algorithm>("algorithms", EXPECTED)?;
    if list.iter().any(|algorithm| algorithm.is_symmetric()) {
        let cause = "a symmetric algorithm: whoever verifies could sign";
        doc.note("algorithms", cause, format!("write {EXPECTED}"));
        return None;
    }
    let unique: BTreeSet<&str> = list.iter().map(|algorithm| algorithm.as_str()).collect();
    let unique: Vec<String> = unique.into_iter().map(str::to_owned).collect();
    Some(if unique.is_empty() { vec!["RS256".to_owned()] } else { unique })
}

fn pointer_or(doc: &Document<'_>, name: &'static str, default: &str) -> Option<String> {
    let text = doc.text_or(name, default)?;
    is_pointer(doc, name, &text).then_some(text)
}

fn is_pointer(doc: &Document<'_>, name: &str, text: &str) -> bool {
    let fits = text.len() <= 256 && text.parse::<Pointer>().is_ok();
    if !fits {
        doc.note(name, format!("{text:?} is no JSON pointer"), "write one such as \"/groups\"");
    }
    fits
}

/// `{"/hd": "example.com"}`.
fn required(doc: &Document<'_>) -> Option<BTreeMap<String, String>> {
    let Some(members) = map(doc, "required", "{\"/claim\": \"value\"}")? else {
        return Some(BTreeMap::new());
    };
    let mut required = BTreeMap::new();
    for (claim, value) in members {
        let at = member("required", claim);
        let Some(value) = value.as_str() else {
            doc.note(&at, format!("{value} is no string"), "write the value that it must have");
            return None;
        };
        if !is_pointer(doc, &at, claim) {
            return None;
        }
        required.insert(claim.clone(), value.to_owned());
    }
    Some(required)
}

type Roles = (Option<String>, BTreeMap<String, Role>, RolesSource);

/// `{"source": "record", "claim": "/groups", "map": {"group": "role"}}`.
fn roles(doc: &Document<'_>) -> Option<Roles> {
    let source = doc.parsed_or::<RolesSource>("source", RolesSource::Record, "record or token");
    let claim = doc.text_opt("claim");
    let members = map(doc, "map", "{\"group\": \"role\"}");
    let (source, claim, members) = (source?, claim?, members?);
    let mut roles = BTreeMap::new();
    for (group, role) in members.into_iter().flatten() {
        let Some(role) = role.as_str().and_then(|role| role.parse().ok()) else {
            let mend = "write viewer, operator, developer or admin";
            doc.note(&member("map", group), format!("{role} does not fit"), mend);
            return None;
        };
        roles.insert(group.clone(), role);
    }
    match &claim {
        Some(claim) if !is_pointer(doc, "claim", claim) => return None,
        None if source == RolesSource::Token || !roles.is_empty() => {
            doc.note("claim", "missing", "write where the groups stand, such as \"/groups\"");
            return None;
        }
        _ => {}
    }
    Some((claim, roles, source))
}

fn map<'a>(
    doc: &Document<'a>,
    name: &'static str,
    form: &str,
) -> Option<Option<&'a Map<String, Value>>> {
    match doc.raw(name) {
        None => Some(None),
        Some(Value::Object(members)) if members.len() <= MAX_ITEMS => Some(Some(members)),
        Some(_) => {
            doc.note(name, "no object, or too large", format!("write {form}"));
            None
        }
    }
}

#[cfg(test)]
mod tests;
