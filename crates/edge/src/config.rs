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

fn read_suite(doc: &Document<'_>, parts: Parts, warnings: &mut Warnings) -> Option<Suite> {
    let host = doc.word("host", "\"envoy\" or \"kong\"");
    if let (Some(Host::Kong), Parts::Auth) = (host, parts) {
        // Single modules hand over by filter state, which Kong's host has not (design §3).
        doc.note("host", "only the fused module runs on Kong", "write \"envoy\" or load the suite");
    }
    let signatures = doc.word("signatures", "\"native\" or \"portable\"");
    if let (Some(Host::Kong), Some(Signatures::Native)) = (host, signatures) {
        let cause = "Kong's Wasm host has no signature check to call";
        doc.note("signatures", cause, "write \"portable\"");
    }
    let sidecar = doc.object_opt("sidecar", |doc| sidecar::read(doc, host, warnings));
    let record = !matches!(sidecar, Some(None));
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
    let versions = versions::read(doc, parts, warnings);
    let principal_ttl_ms =
        doc.integer("principal_ttl_ms", Some(PRINCIPAL_TTL_MS), 0..=MAX_PRINCIPAL_TTL_MS);
    if principal_ttl_ms.is_some_and(|ttl| ttl > PRINCIPAL_TTL_MS) {
        let text = "a role that was taken acts this long while the change feed is away; write \
                    60000 or less";
        warnings.add("$.principal_ttl_ms", text);
    }
    let routes = match Matrix::builtin() {
        Ok(matrix) => Some(Routes::new(matrix, versions.iter().flat_map(Versions::tokens))),
        Err(broken) => {
            doc.note("routes", broken.to_string(), "this build is broken; use another one");
            None
        }
    };
    let around = limiter::Surroundings { host, parts, record, routes: routes.as_ref() };
    let limiter = limiter::read(doc, around, warnings);
    let context = context::read(doc, host);
    let shape = shape(doc, (host, parts), sources.as_ref(), warnings);
    let tenant_host_suffix = doc.parsed_opt::<HostSuffix>(
        "tenant_host_suffix",
        "what follows a tenant's id in host names, such as \".api.example.com\"",
    );
    let access_log = doc.flag("access_log", false);
    let rbac = doc.word_or("rbac", Rbac::Enforce, "\"enforce\" or \"shadow\"");
    if rbac == Some(Rbac::Shadow) {
        let text = "roles and scopes are judged and noted, and refuse nothing; write \"enforce\"";
        warnings.add("$.rbac", text);
    }
    let Shape { cors, transforms, sizes, envelope } = shape?;
    Some(Suite {
        parts,
        host: host?,
        signatures: signatures?,
        sidecar: sidecar?,
        issuers: issuers?,
        sources: sources?,
        verify_on_public: verify_on_public?,
        versions: versions?,
        routes: routes?,
        rbac: rbac?,
        principal_ttl: Duration::from_millis(principal_ttl_ms?),
        limiter: limiter?,
        context: context?,
        cors: cors.map(Rc::new),
        transforms,
        sizes,
        envelope,
        tenant_host_suffix: tenant_host_suffix?.map(|suffix| suffix.0),
        access_log: access_log?,
    })
}

/// What is changed of requests and responses.
#[derive(Default)]
struct Shape {
    cors: Option<Cors>,
    transforms: Option<Transforms>,
    sizes: Sizes,
    envelope: Option<Envelope>,
}

/// The single module leaves all of it to others.
fn shape(
    doc: &Document<'_>,
    (host, parts): (Option<Host>, Parts),
    sources: Option<&Sources>,
    warnings: &mut Warnings,
) -> Option<Shape> {
    if !parts.shapes() {
        for name in ["cors", "transforms", "sizes", "envelope"] {
            let _judged_elsewhere = doc.raw(name);
        }
        return Some(Shape::default());
    }
    let cors = doc.object_opt("cors", |doc| cors::read(doc, warnings));
    let transforms = doc.object_opt("transforms", |doc| transforms::read(doc, sources));
    let sizes = doc.object_opt("sizes", transforms::read_sizes);
    let envelope = doc.object_opt("envelope", |doc| envelope::read(doc, host));
    Some(Shape {
        cors: cors?,
        transforms: transforms?,
        sizes: sizes?.unwrap_or_default(),
        envelope: envelope?,
    })
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
