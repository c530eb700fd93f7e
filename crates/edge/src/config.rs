//! The edge document: one JSON object for Envoy, Istio and Kong alike, compiled whole or refused whole with every
//! mistake. Everything that a request needs is built here, once. Knows no files and no hosts' own formats.

pub(crate) mod context;
mod cors;
mod envelope;
pub(crate) mod issuer;
mod limiter;
#[cfg(feature = "describe")]
mod schema;
mod sidecar;
mod sources;
mod transforms;
mod versions;
mod words;

use std::{rc::Rc, time::Duration};

use gatehouse_contract::{Document, Mistake, document, rbac::Matrix};

pub(crate) use self::words::{Away, OnBroken, Reset, UpstreamHeaders};
pub(crate) use self::{
    context::Context,
    issuer::{Issuer, KeySource, Tenants},
    limiter::{Asks, Decides, Limiter},
    sources::{SESSION_COOKIE, Sources},
};
pub use self::{
    context::Environment,
    sidecar::{Sidecar, Target},
    words::{Host, Rbac, Signatures},
};
use crate::{
    cors::Cors, envelope::Envelope, matrix::Routes, parts::Parts, sizes::Sizes,
    transform::Transforms, version::Versions,
};

/// The compiled edge document: the policy of every request.
#[derive(Debug)]
pub struct Suite {
    pub(crate) parts: Parts,
    pub(crate) host: Host,
    pub(crate) signatures: Signatures,
    /// `None`: no record stands behind this gateway.
    pub(crate) sidecar: Option<Sidecar>,
    pub(crate) issuers: Vec<Issuer>,
    pub(crate) sources: Sources,
    pub(crate) verify_on_public: bool,
    pub(crate) versions: Versions,
    pub(crate) routes: Routes,
    pub(crate) rbac: Rbac,
    pub(crate) principal_ttl: Duration,
    pub(crate) limiter: Limiter,
    pub(crate) context: Context,
    pub(crate) cors: Option<Rc<Cors>>,
    pub(crate) transforms: Option<Transforms>,
    pub(crate) sizes: Sizes,
    pub(crate) envelope: Option<Envelope>,
    /// Lower case, with its leading dot.
    pub(crate) tenant_host_suffix: Option<String>,
    /// Whether the host is told a line for its access log.
    pub(crate) access_log: bool,
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

/// What a document may hold that is allowed but probably not meant, in the order of reading.
#[derive(Debug, Default)]
struct Warnings(Vec<Warning>);

impl Warnings {
    fn add(&mut self, path: impl Into<String>, text: impl Into<String>) {
        self.0.push(Warning { path: path.into(), text: text.into() });
    }
}

/// The age of a principal where the document does not say.
const PRINCIPAL_TTL_MS: u64 = 60_000;

/// The largest age of a principal: how late a changed role may act without the change feed.
const MAX_PRINCIPAL_TTL_MS: u64 = 300_000;

impl Suite {
    /// Compiles the edge document for the fused module or for a single one. `Err` has every mistake; the warnings
    /// are for people, at configure time.
    ///
    /// A document that signs contexts needs [`Suite::with_keys`] before it can serve.
    pub fn compile(text: &str, parts: Parts) -> Result<(Self, Vec<Warning>), Vec<Mistake>> {
        let mut warnings = Warnings::default();
        let suite = document::read(text, |doc| read_suite(doc, parts, &mut warnings))?;
        Ok((suite, warnings.0))
    }

    /// The host that a document names, even if it does not compile: how to refuse it depends on the host.
    pub fn named_host(text: &str) -> Option<Host> {
        let document: serde_json::Value = serde_json::from_str(text).ok()?;
        document.get("host")?.as_str()?.parse().ok()
    }

    /// The steps that this policy takes.
    pub fn parts(&self) -> Parts {
        self.parts
    }

    /// The proxy that this document is for.
    pub fn host(&self) -> Host {
        self.host
    }

    /// Who is to check signatures.
    pub fn signatures(&self) -> Signatures {
        self.signatures
    }

    /// How to reach the sidecar, where the document names one.
    pub fn sidecar(&self) -> Option<&Sidecar> {
        self.sidecar.as_ref()
    }
}

/// What only the module `auth` reads, or the suite.
#[derive(Debug)]
struct Authentication {
    signatures: Signatures,
    issuers: Vec<Issuer>,
    sources: Sources,
    verify_on_public: bool,
    principal_ttl: Duration,
    context: Context,
    tenant_host_suffix: Option<String>,
    rbac: Rbac,
}

fn read_suite(doc: &Document<'_>, parts: Parts, warnings: &mut Warnings) -> Option<Suite> {
    let host = doc.word("host", "\"envoy\" or \"kong\"");
    if let (Some(Host::Kong), true) = (host, parts != Parts::Suite) {
        // Single modules hand over by filter state, which Kong's host has not (design §3).
        doc.note("host", "only the fused module runs on Kong", "write \"envoy\" or load the suite");
    }
    let sidecar = match parts.authenticates() || parts.limits() {
        true => doc.object_opt("sidecar", |doc| sidecar::read(doc, host, warnings)),
        false => of_others(doc, "sidecar", None),
    };
    let record = !matches!(sidecar, Some(None));
    let authentication = match parts.authenticates() {
        true => read_authentication(doc, host, record, warnings),
        false => Some(no_authentication(doc)),
    };
    let versions = versions::read(doc, parts, warnings);
    let routes = match Matrix::builtin() {
        Ok(matrix) => Some(Routes::new(matrix, versions.iter().flat_map(Versions::tokens))),
        Err(broken) => {
            doc.note("routes", broken.to_string(), "this build is broken; use another one");
            None
        }
    };
    let around = limiter::Surroundings { host, parts, record, routes: routes.as_ref() };
    let limiter = match parts.authenticates() || parts.limits() {
        true => limiter::read(doc, around, warnings),
        false => of_others(doc, "limiter", limiter::none()),
    };
    let cors = match parts.shares() {
        true => doc.object_opt("cors", |doc| cors::read(doc, warnings)),
        false => of_others(doc, "cors", None),
    };
    let shape = match parts.shapes() {
        true if parts.authenticates() => {
            let sources = authentication.as_ref().map(|authentication| &authentication.sources);
            read_shape(doc, host, sources.and_then(|sources| sources.query.as_deref()))
        }
        true => read_shape_alone(doc, host),
        false => Some(no_shape(doc)),
    };
    let access_log = doc.flag("access_log", false);
    let (authentication, shape) = (authentication?, shape?);
    Some(Suite {
        parts,
        host: host?,
        signatures: authentication.signatures,
        sidecar: sidecar?,
        issuers: authentication.issuers,
        sources: authentication.sources,
        verify_on_public: authentication.verify_on_public,
        versions: versions?,
        routes: routes?,
        rbac: authentication.rbac,
        principal_ttl: authentication.principal_ttl,
        limiter: limiter?,
        context: authentication.context,
        cors: cors?.map(Rc::new),
        transforms: shape.transforms,
        sizes: shape.sizes,
        envelope: shape.envelope,
        tenant_host_suffix: authentication.tenant_host_suffix,
        access_log: access_log?,
    })
}

/// Known here and judged by the module whose part it is, and by whoever lints the document whole.
fn of_others<T>(doc: &Document<'_>, name: &'static str, absent: T) -> Option<T> {
    let _judged_elsewhere = doc.raw(name);
    Some(absent)
}

fn read_authentication(
    doc: &Document<'_>,
    host: Option<Host>,
    record: bool,
    warnings: &mut Warnings,
) -> Option<Authentication> {
    let signatures = doc.word("signatures", "\"native\" or \"portable\"");
    if let (Some(Host::Kong), Some(Signatures::Native)) = (host, signatures) {
        let cause = "Kong's Wasm host has no signature check to call";
        doc.note("signatures", cause, "write \"portable\"");
    }
    if !record {
        let text = "without it there is no record: no API keys, no sessions, no suspension, no \
                    revocation before a token ends, and every tenant is on the lowest tier";
        warnings.add("$.sidecar", text);
    }
    let issuers = issuer::read_all(doc, issuer::Surroundings { host, record }, warnings);
    let sources = sources::read(doc, record, warnings);
    let verify_on_public = doc.flag("verify_on_public", false);
    if let (Some(true), Some(true)) = (verify_on_public, sources.as_ref().map(|s| s.sessions)) {
        let text = "whose session has ended cannot sign in again while its browser still sends the \
                    cookie: /oauth2/login is public, too; write false in front of the control API";
        warnings.add("$.verify_on_public", text);
    }
    let principal_ttl_ms =
        doc.integer("principal_ttl_ms", Some(PRINCIPAL_TTL_MS), 0..=MAX_PRINCIPAL_TTL_MS);
    if principal_ttl_ms.is_some_and(|ttl| ttl > PRINCIPAL_TTL_MS) {
        let text = "a role that was taken acts this long while the change feed is away; write \
                    60000 or less";
        warnings.add("$.principal_ttl_ms", text);
    }
    let context = context::read(doc, host);
    let tenant_host_suffix = doc.parsed_opt::<HostSuffix>(
        "tenant_host_suffix",
        "what follows a tenant's id in host names, such as \".api.example.com\"",
    );
    let rbac = doc.word_or("rbac", Rbac::Enforce, "\"enforce\" or \"shadow\"");
    if rbac == Some(Rbac::Shadow) {
        let text = "roles and scopes are judged and noted, and refuse nothing; write \"enforce\"";
        warnings.add("$.rbac", text);
    }
    Some(Authentication {
        signatures: signatures?,
        issuers: issuers?,
        sources: sources?,
        verify_on_public: verify_on_public?,
        principal_ttl: Duration::from_millis(principal_ttl_ms?),
        context: context?,
        tenant_host_suffix: tenant_host_suffix?.map(|suffix| suffix.0),
        rbac: rbac?,
    })
}

/// What is changed of requests and responses beside what the other steps need.
#[derive(Debug, Default)]
struct Shape {
    transforms: Option<Transforms>,
    sizes: Sizes,
    envelope: Option<Envelope>,
}

/// Of a module that does not take credentials itself: where they stand is said all the same. A change of the query could
/// else give a token a name under which nobody takes it away, and the upstream and its logs would see it.
fn read_shape_alone(doc: &Document<'_>, host: Option<Host>) -> Option<Shape> {
    let token = sources::token_parameter(doc);
    let named = token.as_ref().and_then(|token| token.as_ref()?.as_deref());
    let shape = read_shape(doc, host, named);
    let changes = shape.as_ref().and_then(|shape| shape.transforms.as_ref());
    if token == Some(None) && changes.is_some_and(|changes| !changes.query.is_empty()) {
        let cause = "missing: where tokens stand must be known to whoever changes queries";
        doc.note("sources", cause, "write what the module auth has, {} where it has none");
        return None;
    }
    token.and(shape)
}

fn read_shape(doc: &Document<'_>, host: Option<Host>, token: Option<&str>) -> Option<Shape> {
    let transforms = doc.object_opt("transforms", |doc| transforms::read(doc, token));
    let sizes = doc.object_opt("sizes", transforms::read_sizes);
    let envelope = doc.object_opt("envelope", |doc| envelope::read(doc, host));
    let sizes = sizes?.unwrap_or_default();
    Some(Shape { transforms: transforms?, sizes, envelope: envelope? })
}

/// Of a module that changes nothing beside.
fn no_shape(doc: &Document<'_>) -> Shape {
    for name in ["transforms", "sizes", "envelope"] {
        let _judged_elsewhere = doc.raw(name);
    }
    Shape::default()
}

/// Of a module that judges no credential and tells upstreams of nobody.
fn no_authentication(doc: &Document<'_>) -> Authentication {
    for name in [
        "signatures",
        "issuers",
        "sources",
        "api_keys",
        "sessions",
        "verify_on_public",
        "principal_ttl_ms",
        "context",
        "tenant_host_suffix",
        "rbac",
    ] {
        let _judged_elsewhere = doc.raw(name);
    }
    Authentication {
        signatures: Signatures::Portable,
        issuers: Vec::new(),
        sources: Sources::none(),
        verify_on_public: false,
        principal_ttl: Duration::ZERO,
        context: Context { headers: Vec::new(), sign: Vec::new() },
        tenant_host_suffix: None,
        rbac: Rbac::Enforce,
    }
}

/// A dot and a host name.
struct HostSuffix(String);

impl std::str::FromStr for HostSuffix {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let labels = text.strip_prefix('.').ok_or(())?;
        let fits = |label: &str| {
            !label.is_empty()
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        labels.split('.').all(fits).then(|| Self(text.to_ascii_lowercase())).ok_or(())
    }
}

#[cfg(test)]
mod tests;
