//! The edge document: one JSON object for Envoy, Istio and Kong alike, compiled whole or refused whole with every
//! mistake. Everything that a request needs is built here, once. Knows no files and no hosts' own formats.

use std::{collections::BTreeSet, str::FromStr, time::Duration};

use gatehouse_authn::{Algorithm, Rules, claims};
use gatehouse_contract::{Document, Mistake, Role, TenantId, document, rbac::Matrix};

use crate::{matrix::Routes, version::Versions};

/// The compiled edge document: the policy of every request.
#[derive(Debug)]
pub struct Suite {
    pub(crate) host: Host,
    pub(crate) signatures: Signatures,
    pub(crate) sidecar: Sidecar,
    pub(crate) issuers: Vec<Issuer>,
    pub(crate) versions: Versions,
    pub(crate) routes: Routes,
    pub(crate) principal_ttl: Duration,
    pub(crate) limiter: Limiter,
}

/// Something that is allowed but probably not meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Where: a JSON path.
    pub path: String,
    /// What it means, and what to write instead.
    pub text: String,
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path, self.text)
    }
}

/// How to reach the sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sidecar {
    /// Envoy: a cluster's name. Kong: `host:port` or `unix:/path`.
    pub target: String,
    /// The `:authority` of call-outs.
    pub authority: String,
    /// How long a rate decision may take, in milliseconds.
    pub(crate) timeout_ms: u64,
    /// How long keys and principals may take, in milliseconds: behind these the sidecar may have to ask others.
    pub(crate) identity_timeout_ms: u64,
}

/// One issuer and what it may say.
#[derive(Debug)]
pub(crate) struct Issuer {
    pub(crate) rules: Rules,
    pub(crate) algorithms: Vec<Algorithm>,
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

macro_rules! words {
    ($(#[$doc:meta])* $vis:vis $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $vis enum $name { $($(#[$vdoc])* $variant),+ }

        impl FromStr for $name {
            type Err = ();

            fn from_str(word: &str) -> Result<Self, ()> {
                match word { $($word => Ok(Self::$variant),)+ _ => Err(()) }
            }
        }
    };
}

words! {
    /// The proxy that runs the filter; from configuration, never from probing.
    pub Host {
        /// Envoy, also within Istio.
        Envoy = "envoy",
        /// Kong 3.9 (ngx_wasm_module).
        Kong = "kong",
    }
}

words! {
    /// Who checks signatures.
    pub Signatures {
        /// The host's own library where it has one (Envoy), else [`Self::Portable`].
        Native = "native",
        /// Pure Rust within the module.
        Portable = "portable",
    }
}

words! {
    /// What happens to requests while the limiter is away.
    pub(crate) Limiter {
        /// They are refused.
        Closed = "closed",
        /// They pass, and the response says so.
        Open = "open",
    }
}

/// The largest time-out of a call-out.
const MAX_TIMEOUT_MS: u64 = 10_000;
/// The largest age of a principal: how late a changed role may act without the change feed.
const MAX_PRINCIPAL_TTL_MS: u64 = 300_000;

impl Suite {
    /// Compiles the edge document. `Err` has every mistake; the warnings are for people, at configure time.
    pub fn compile(text: &str) -> Result<(Self, Vec<Warning>), Vec<Mistake>> {
        let mut warnings = Vec::new();
        let suite = document::read(text, |doc| read_suite(doc, &mut warnings))?;
        Ok((suite, warnings))
    }

    /// The host that a document names, even if it does not compile: how to refuse it depends on the host.
    pub fn named_host(text: &str) -> Option<Host> {
        let document: serde_json::Value = serde_json::from_str(text).ok()?;
        document.get("host")?.as_str()?.parse().ok()
    }

    /// The proxy that this document is for.
    pub fn host(&self) -> Host {
        self.host
    }

    /// Who is to check signatures.
    pub fn signatures(&self) -> Signatures {
        self.signatures
    }

    /// How to reach the sidecar.
    pub fn sidecar(&self) -> &Sidecar {
        &self.sidecar
    }
}

fn read_suite(doc: &Document<'_>, warnings: &mut Vec<Warning>) -> Option<Suite> {
    let host = doc.parsed("host", "\"envoy\" or \"kong\"");
    let signatures = doc.parsed("signatures", "\"native\" or \"portable\"");
    if let (Some(Host::Kong), Some(Signatures::Native)) = (host, signatures) {
        let cause = "Kong's Wasm host has no signature check to call";
        doc.note("signatures", cause, "write \"portable\"");
    }
    let sidecar = doc.object("sidecar", |doc| read_sidecar(doc, host));
    let mut at = 0_usize;
    let issuers = doc.objects("issuers", |doc| {
        let path = format!("$.issuers[{at}]");
        at = at.saturating_add(1);
        read_issuer(doc, &path, warnings)
    });
    if let Some(issuers) = &issuers {
        refuse_repeated_issuers(doc, issuers);
    }
    let versions = doc.object("versions", read_versions);
    let principal_ttl_ms = doc.integer("principal_ttl_ms", Some(5000), 0..=MAX_PRINCIPAL_TTL_MS);
    let limiter = doc.parsed_or("limiter", Limiter::Closed, "\"closed\" or \"open\"");
    if limiter == Some(Limiter::Open) {
        warnings.push(Warning {
            path: "$.limiter".to_owned(),
            text: "without a limiter nothing is limited; write \"closed\" to refuse instead"
                .to_owned(),
        });
    }
    let routes = match Matrix::builtin() {
        Ok(matrix) => Some(Routes::new(matrix)),
        Err(broken) => {
            doc.note("routes", broken.to_string(), "this build is broken; use another one");
            None
        }
    };
    Some(Suite {
        host: host?,
        signatures: signatures?,
        sidecar: sidecar?,
        issuers: issuers?,
        versions: versions?,
        routes: routes?,
        principal_ttl: Duration::from_millis(principal_ttl_ms?),
        limiter: limiter?,
    })
}

fn read_sidecar(doc: &Document<'_>, host: Option<Host>) -> Option<Sidecar> {
    let target: Option<String> = match host {
        Some(Host::Kong) => {
            let expected = "\"host:port\" or \"unix:/path\", as Kong calls addresses, not clusters";
            doc.parsed::<KongTarget>("target", expected).map(|target| target.0)
        }
        Some(Host::Envoy) | None => {
            doc.parsed::<Printable>("target", "a cluster's name").map(|name| name.0)
        }
    };
    let authority = doc.parsed_or(
        "authority",
        Printable("gatehouse-sidecar".to_owned()),
        "a host name, with a port if need be",
    );
    let timeout_ms = doc.integer("timeout_ms", Some(50), 1..=MAX_TIMEOUT_MS);
    let identity_timeout_ms = doc.integer("identity_timeout_ms", Some(1000), 1..=MAX_TIMEOUT_MS);
    Some(Sidecar {
        target: target?,
        authority: authority?.0,
        timeout_ms: timeout_ms?,
        identity_timeout_ms: identity_timeout_ms?,
    })
}

fn read_issuer(doc: &Document<'_>, path: &str, warnings: &mut Vec<Warning>) -> Option<Issuer> {
    let mut warn = |name: &str, text: &str| {
        warnings.push(Warning { path: format!("{path}.{name}"), text: text.to_owned() });
    };
    let issuer = doc.parsed::<Printable>("issuer", "the exact iss of its tokens, without spaces");
    let audiences = doc.parsed_list::<String>("audiences", "a non-empty string");
    if audiences.as_ref().is_some_and(Vec::is_empty) {
        warn("audiences", "tokens for any audience pass; name the audiences of this gateway");
    }
    let algorithms = doc.parsed_list::<Algorithm>("algorithms", "RS256, RS384, RS512 or ES256");
    if algorithms.as_ref().is_some_and(Vec::is_empty) {
        doc.note(
            "algorithms",
            "empty or missing",
            "list the algorithms of its tokens, e.g. [\"RS256\"]",
        );
    }
    let leeway_s = doc.integer(
        "leeway_s",
        Some(claims::DEFAULT_LEEWAY.as_secs()),
        0..=claims::MAX_LEEWAY.as_secs(),
    );
    let platform = doc.flag("platform", false);
    let tenants = read_tenants(doc);
    match (&tenants, platform) {
        // Whoever runs such an issuer could sign a token for any tenant (design §3.1).
        (Some(Tenants::Any), Some(false)) => doc.note(
            "tenants",
            "\"any\" is for the platform's own issuer alone",
            "list the tenants that it may speak for, or write \"from_record\"",
        ),
        (Some(Tenants::Listed(tenants)), _) if tenants.is_empty() => {
            warn("tenants", "speaks for no tenant: every token is refused");
        }
        _ => {}
    }
    let max_role = doc.parsed_opt::<Role>("max_role", "viewer, operator, developer or admin");
    if max_role == Some(None) && platform == Some(false) {
        warn(
            "max_role",
            "grants no role: every token is refused; name the highest role it may grant",
        );
    }
    let access_tokens_only = doc.flag("access_tokens_only", false);
    let tenant_claim = doc.parsed_or(
        "tenant_claim",
        default_tenant_claim()?,
        "a JSON pointer such as \"/tenant_id\"",
    );
    Some(Issuer {
        rules: Rules {
            issuer: issuer?.0,
            audiences: audiences?,
            leeway: Duration::from_secs(leeway_s?),
            tenant_claim: tenant_claim?,
            access_tokens_only: access_tokens_only?,
        },
        algorithms: algorithms?,
        tenants: tenants?,
        max_role: max_role?,
        platform: platform?,
    })
}

fn default_tenant_claim() -> Option<claims::Pointer> {
    "/tenant_id".parse().ok()
}

/// `"any"`, `"from_record"` or a list of ids. Absent is none.
fn read_tenants(doc: &Document<'_>) -> Option<Tenants> {
    const EXPECTED: &str = "\"any\", \"from_record\" or a list of tenant ids";
    match doc.raw("tenants") {
        Some(value) if value.is_string() => match value.as_str() {
            Some("any") => Some(Tenants::Any),
            Some("from_record") => Some(Tenants::FromRecord),
            _ => {
                doc.note("tenants", format!("{value} does not fit"), format!("write {EXPECTED}"));
                None
            }
        },
        _ => {
            let listed = doc.parsed_list::<TenantId>("tenants", "a tenant's id (a UUID)")?;
            Some(Tenants::Listed(listed.into_iter().collect()))
        }
    }
}

fn refuse_repeated_issuers(doc: &Document<'_>, issuers: &[Issuer]) {
    let mut seen = BTreeSet::new();
    for (index, issuer) in issuers.iter().enumerate() {
        if !seen.insert(issuer.rules.issuer.as_str()) {
            let name = format!("issuers[{index}].issuer");
            doc.note(&name, "this issuer stands twice", "write one entry per issuer");
        }
    }
    if issuers.is_empty() {
        doc.note("issuers", "empty or missing", "list at least one issuer of tokens");
    }
}

fn read_versions(doc: &Document<'_>) -> Option<Versions> {
    let served = doc.parsed_list::<Token>("served", "a version such as \"v1\"");
    let default = doc.parsed::<Token>("default", "one of the versions that are served");
    if let (Some(served), Some(default)) = (&served, &default)
        && !served.contains(default)
    {
        doc.note("default", "is not served", "write one of the versions in \"served\"");
    }
    let served = served?.into_iter().map(|token| token.0).collect();
    Some(Versions::new(served, default?.0))
}

/// Text that is safe in a header.
struct Printable(String);

impl FromStr for Printable {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let fits = text.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then(|| Self(text.to_owned())).ok_or(())
    }
}

/// A version's token in a path: unreserved characters, so that it has one spelling.
#[derive(PartialEq, Eq)]
struct Token(String);

impl FromStr for Token {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        let dots = text.bytes().all(|byte| byte == b'.');
        (!dots && text.bytes().all(fits)).then(|| Self(text.to_owned())).ok_or(())
    }
}

/// An address as ngx_wasm_module takes it.
struct KongTarget(String);

impl FromStr for KongTarget {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let Printable(target) = text.parse()?;
        let path = target.strip_prefix("unix:").is_some_and(|path| path.starts_with('/'));
        let port = target.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
        });
        if path || port { Ok(Self(target)) } else { Err(()) }
    }
}

#[cfg(test)]
mod tests;
