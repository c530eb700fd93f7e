//! The issuers of tokens: what each may sign with, whom it may speak for, where its keys and its subjects' roles
//! come from. Knows no tokens.

use std::{collections::BTreeSet, time::Duration};

use gatehouse_authn::{
    Algorithm, Rules,
    claims::{self, Pointer, RolesClaim},
};
use gatehouse_contract::{Document, Role, TenantId};
use serde_json::Value;

use super::{
    Warnings,
    sidecar::{self, MAX_TIMEOUT_MS, Target},
    words::{AnyTenant, FromRecord, Host, Printable},
};

mod keys;

pub(crate) use keys::{Direct, KeySource};

/// One issuer and what it may say.
#[derive(Debug)]
pub(crate) struct Issuer {
    pub(crate) rules: Rules,
    pub(crate) algorithms: Vec<Algorithm>,
    pub(crate) keys: KeySource,
    pub(crate) tenants: Tenants,
    pub(crate) max_role: Option<Role>,
    pub(crate) platform: bool,
}

/// The tenants that an issuer may speak for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Tenants {
    /// Any: for the platform's own issuer only.
    Any,
    /// Those for which the record knows the subject.
    FromRecord,
    /// These.
    Listed(BTreeSet<TenantId>),
}

/// What an issuer's entry depends on beside itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Surroundings {
    pub(super) host: Option<Host>,
    /// Whether there is a sidecar, and so a record.
    pub(super) record: bool,
}

/// The largest bound on a token's life: a year.
const MAX_LIFETIME_S: u64 = 31_536_000;
const NO_RECORD: &str = "there is no sidecar to ask";

pub(super) fn read_all(
    doc: &Document<'_>,
    around: Surroundings,
    warnings: &mut Warnings,
) -> Option<Vec<Issuer>> {
    let mut at = 0_usize;
    let issuers = doc.objects("issuers", |doc| {
        let path = format!("$.issuers[{at}]");
        at = at.saturating_add(1);
        read(doc, &path, around, warnings)
    });
    if let Some(issuers) = &issuers {
        refuse_repeated(doc, issuers);
    }
    doc.refuse_empty("issuers", issuers.as_deref(), "list at least one issuer of tokens");
    issuers
}

fn refuse_repeated(doc: &Document<'_>, issuers: &[Issuer]) {
    let mut seen = BTreeSet::new();
    for (index, issuer) in issuers.iter().enumerate() {
        if !seen.insert(&*issuer.rules.issuer) {
            let name = format!("issuers[{index}].issuer");
            doc.note(&name, "this issuer stands twice", "write one entry per issuer");
        }
    }
}

fn read(
    doc: &Document<'_>,
    path: &str,
    around: Surroundings,
    warnings: &mut Warnings,
) -> Option<Issuer> {
    let issuer = doc.parsed::<Printable>("issuer", "the exact iss of its tokens, without spaces");
    let audiences = doc.parsed_list::<String>("audiences", "a non-empty string");
    if audiences.as_ref().is_some_and(Vec::is_empty) {
        let text = "tokens for any audience pass; name the audiences of this gateway";
        warnings.add(format!("{path}.audiences"), text);
    }
    let algorithms = keys::read_algorithms(doc);
    let keys = keys::read(doc, path, around, algorithms.as_deref(), warnings);
    let leeway_s = doc.integer(
        "leeway_s",
        Some(claims::DEFAULT_LEEWAY.as_secs()),
        0..=claims::MAX_LEEWAY.as_secs(),
    );
    let platform = doc.flag("platform", false);
    let tenants = read_tenants(doc, path, platform, around, warnings);
    let max_role = doc.word_opt::<Role>("max_role", "viewer, operator, developer or admin");
    if max_role == Some(None) && platform == Some(false) {
        let text = "grants no role: every token is refused; name the highest role it may grant";
        warnings.add(format!("{path}.max_role"), text);
    }
    let access_tokens_only = doc.flag("access_tokens_only", false);
    let max_lifetime_s = read_max_lifetime(doc);
    let pointer = "a JSON pointer such as \"/tenant_id\"";
    let subject_claim = doc.parsed_opt::<Pointer>("subject_claim", pointer);
    let tenant_claim = doc.parsed_opt::<Pointer>("tenant_claim", pointer);
    let scope_claim = doc.parsed_opt::<Pointer>("scope_claim", pointer);
    let required_scopes = doc.parsed_list::<Scope>("required_scopes", "a scope without spaces");
    let roles = read_roles(doc, around);
    let defaults = Rules::new(issuer?.0);
    Some(Issuer {
        rules: Rules {
            audiences: audiences?,
            leeway: Duration::from_secs(leeway_s?),
            max_lifetime: max_lifetime_s?,
            subject_claim: subject_claim?.unwrap_or(defaults.subject_claim),
            tenant_claim: tenant_claim?.unwrap_or(defaults.tenant_claim),
            roles: roles?,
            scope_claim: scope_claim?,
            required_scopes: required_scopes?.into_iter().map(|scope| scope.0).collect(),
            access_tokens_only: access_tokens_only?,
            issuer: defaults.issuer,
        },
        algorithms: algorithms?,
        keys: keys?,
        tenants: tenants?,
        max_role: max_role?,
        platform: platform?,
    })
}

/// Absent is no bound.
fn read_max_lifetime(doc: &Document<'_>) -> Option<Option<Duration>> {
    let seconds = doc.integer_opt("max_lifetime_s", 1..=MAX_LIFETIME_S)?;
    Some(seconds.map(Duration::from_secs))
}

/// `"any"`, `"from_record"` or a list of ids. Absent is none.
fn read_tenants(
    doc: &Document<'_>,
    path: &str,
    platform: Option<bool>,
    around: Surroundings,
    warnings: &mut Warnings,
) -> Option<Tenants> {
    const EXPECTED: &str = "\"any\", \"from_record\" or a list of tenant ids";
    let words = |doc: &Document<'_>| {
        Some(match doc.word("tenants", EXPECTED)? {
            AnyTenant::Any => Tenants::Any,
            AnyTenant::FromRecord => Tenants::FromRecord,
        })
    };
    let list = |doc: &Document<'_>| {
        let listed = doc.parsed_list::<TenantId>("tenants", "a tenant's id (a UUID)")?;
        Some(Tenants::Listed(listed.into_iter().collect()))
    };
    let tenants = doc.either("tenants", Value::is_string, words, list)?;
    match (&tenants, platform) {
        // Whoever runs such an issuer could sign a token for any tenant (design §3.1).
        (Tenants::Any, Some(false)) => doc.note(
            "tenants",
            "\"any\" is for the platform's own issuer alone",
            "list the tenants that it may speak for, or write \"from_record\"",
        ),
        (Tenants::FromRecord, _) if !around.record => {
            doc.note("tenants", NO_RECORD, "list the tenants that it may speak for");
        }
        (Tenants::Listed(listed), _) if listed.is_empty() => {
            let text = "speaks for no tenant: every token is refused";
            warnings.add(format!("{path}.tenants"), text);
        }
        _ => {}
    }
    Some(tenants)
}

/// `"record"`, or the claim that names groups and the roles that they are.
fn read_roles(doc: &Document<'_>, around: Surroundings) -> Option<Option<RolesClaim>> {
    const EXPECTED: &str = "\"record\" or {\"claim\": \"/groups\", \"map\": {\"group\": \"role\"}}";
    let from_claim = |doc: &Document<'_>| {
        doc.object("roles", |doc| {
            let claim = doc.parsed("claim", "a JSON pointer such as \"/groups\"");
            let map = doc.word_map("map", "viewer, operator, developer or admin");
            Some(Some(RolesClaim { claim: claim?, map: map? }))
        })
    };
    let from_record = |doc: &Document<'_>| {
        let FromRecord::Record = doc.word_or("roles", FromRecord::Record, EXPECTED)?;
        if !around.record {
            let mend = "write {\"claim\": …, \"map\": …} to take roles from the token";
            doc.note("roles", NO_RECORD, mend);
        }
        Some(None)
    };
    doc.either("roles", Value::is_object, from_claim, from_record)
}

/// A scope's token (RFC 6749 §3.3).
struct Scope(String);

impl std::str::FromStr for Scope {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let fits = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
        text.bytes().all(fits).then(|| Self(text.to_owned())).ok_or(())
    }
}
