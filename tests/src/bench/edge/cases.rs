//! The figures: which chain of ours stands beside which of Envoy's own, with which tokens. Knows no clocks.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, ensure};
use gatehouse_contract::header;
use serde_json::{Value, json};

use super::{
    AUDIENCE, CONNECTIONS, CORES, GROUP, ISSUER, KNOWN_TOKENS, NEW_TOKENS, PATH, claims,
    envoy::{Chain, Gateway, wasm},
    native, ours,
    sidecar::Sidecar,
};
use crate::{
    bench::{
        cpu,
        load::{Load, Requests},
        signer::Signer,
    },
    env,
    http::{
        Message,
        serve::{self, Server},
    },
};

/// A listener and the tokens that its requests carry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way {
    chain: &'static str,
    tokens: Tokens,
}

#[derive(Debug, Clone, Copy)]
enum Tokens {
    /// A few, which are remembered.
    Known,
    /// Each of them new.
    New,
    /// The same, signed with ES256.
    NewEs256,
    /// The few, in requests whose `Accept` names the version.
    Accepting,
    /// The few, whose answers are JSON as it came.
    Json,
    /// The few, whose answers are JSON in an envelope.
    Wrapped,
}

/// One figure.
pub(super) struct Case {
    pub(super) id: &'static str,
    pub(super) floor: f64,
    pub(super) aim: f64,
    pub(super) ours: Way,
    pub(super) native: Way,
    /// Headers that our side must show its clients.
    pub(super) shows: &'static [&'static str],
    /// Whether what Envoy costs without a filter is taken off both sides.
    pub(super) added: bool,
}

/// The chain as a whole, beside another.
const fn whole(
    id: &'static str,
    (floor, aim): (f64, f64),
    (ours, native): (Way, Way),
    shows: &'static [&'static str],
) -> Case {
    Case { id, floor, aim, ours, native, shows, added: false }
}

/// What every response of the full chain carries (acceptance R9 to R13, V7).
const SHOWN: &[&str] = &[
    header::RATE_LIMIT,
    header::RATE_REMAINING,
    header::RATE_RESET,
    "ratelimit",
    "ratelimit-policy",
    header::API_VERSION,
    header::REQUEST_ID,
    "deprecation",
    "sunset",
    "link",
    ours::RESPONSE_HEADER,
];

const fn way(chain: &'static str, tokens: Tokens) -> Way {
    Way { chain, tokens }
}

/// No filter at all.
pub(super) const BARE: Way = way("bare", Tokens::Known);

/// The cheapest chain of ours, whose ratio to itself is to be 1: what is cheap shows every disturbance.
pub(super) const TWICE: Way = way("ours-core", Tokens::Known);

/// Every figure of processor time.
pub(super) const ALL: &[Case] = &[
    whole(
        "rs256_uncached_ratio",
        (1.15, 1.05),
        (way("ours-token", Tokens::New), way("native-token", Tokens::New)),
        &[],
    ),
    whole(
        "es256_uncached_ratio",
        (1.20, 1.08),
        (way("ours-token-es", Tokens::NewEs256), way("native-token-es", Tokens::NewEs256)),
        &[],
    ),
    whole(
        "core_chain_cached_ratio",
        (1.20, 1.08),
        (way("ours-core", Tokens::Known), way("native-core-cached", Tokens::Known)),
        &[],
    ),
    whole(
        "core_chain_uncached_ratio",
        (1.10, 1.02),
        (way("ours-core", Tokens::New), way("native-core", Tokens::New)),
        &[],
    ),
    whole(
        "full_chain_cached_ratio",
        (1.5, 1.2),
        (way(FULL, Tokens::Known), way("native-full-cached", Tokens::Known)),
        SHOWN,
    ),
    whole(
        "full_chain_uncached_ratio",
        (1.25, 1.10),
        (way(FULL, Tokens::New), way("native-full", Tokens::New)),
        SHOWN,
    ),
    whole(
        "versioning_ratio",
        (1.10, 1.04),
        (way(FULL, Tokens::Accepting), way("ours-unversioned", Tokens::Known)),
        SHOWN,
    ),
    whole(
        "envelope_ratio",
        (1.4, 1.15),
        (way("ours-wrapped", Tokens::Wrapped), way("ours-bare-bodies", Tokens::Json)),
        &[],
    ),
    Case {
        added: true,
        ..whole(
            "fused_ratio",
            (0.85, 0.7),
            (way(FULL, Tokens::Known), way("ours-single", Tokens::Known)),
            SHOWN,
        )
    },
];

/// The whole product in one module.
pub(super) const FULL: &str = "ours-full";
/// The same in four.
const SINGLE: &str = "ours-single";

/// What stands beside what, for the reader of the table.
pub(super) const ABOUT: &str = "\
token: one issuer's tokens, all new, ÷ jwt_authn without a cache
core: token, tenant header, version, limit in the VM; request phase only ÷ jwt_authn, header_mutation, local_ratelimit
full: all that the product does per request and response ÷ jwt_authn, rbac, header_mutation, local_ratelimit with headers;
  its steps: request id, trusted headers stripped, path, version, token (signature, claims, keys of the sidecar), deny list of
  the live feed, principal of the record, tenant, RBAC matrix, budget of failed sign-ins, SPIFFE bypass looked up, limits of the
  real sidecar over Redis (tenant, endpoint, burst) on passes taken along, tenant context with a signature every 30 s; response:
  request id, version, X-RateLimit-*, RateLimit, RateLimit-Policy, identity headers removed; cors, a version that ends
  (Deprecation, Sunset, Link), a header set on each way, the envelope (no JSON comes), a line for the access log
versioning: the full chain whose version Accept names and whose path is rewritten, and ends ÷ one in the path that does not
envelope: 10 KB of JSON of a server, wrapped ÷ as it came, both through the full chain
fused: what the fused module adds ÷ what version, auth, ratelimit and transform add, one after the other
cached: 64 tokens go round, jwt_authn with its cache; uncached: 12288 tokens go round, caches hold 4096, jwt_authn has none";

/// Headers of which the upstream says what it got.
const ECHOED: &[&str] = &[
    header::TENANT_ID,
    header::TENANT_TIER,
    header::USER_ID,
    header::USER_ROLES,
    header::AUTH_METHOD,
    header::CONTEXT,
    header::BAGGAGE,
    header::REQUEST_ID,
    "authorization",
    ours::REQUEST_HEADER,
];

/// Headers whose values are each request's own: only their presence is compared.
const OWN: &[&str] = &[header::CONTEXT, header::REQUEST_ID, "authorization"];

/// Everything that is made before the clock runs.
pub(super) struct Kit {
    rs: Signer,
    es: Signer,
    known: Requests,
    new: Requests,
    new_es: Requests,
    accepting: Requests,
    /// Answers with 10 KB of JSON.
    upstream: Server,
    /// For the wasmtime host.
    pub(super) token: String,
    pub(super) token_es: String,
    pub(super) now: SystemTime,
    pub(super) sidecar: Sidecar,
}

impl Kit {
    pub(super) fn new(dir: &Path, now: SystemTime) -> Result<Self> {
        let (rs, es) = (Signer::rs256()?, Signer::es256()?);
        let claims = claims(now)?;
        let tokens = rs.tokens(&claims, NEW_TOKENS)?;
        let tokens_es = es.tokens(&claims, NEW_TOKENS)?;
        let known = tokens.get(..KNOWN_TOKENS).context("too few tokens")?;
        Ok(Self {
            sidecar: Sidecar::start(dir, rs.jwks()?)?,
            known: Requests::get(PATH, known),
            accepting: Requests::accepting(ACCEPTED, UNVERSIONED, known),
            upstream: Server::start(Arc::new(json_of_10_kb()))?,
            token: tokens.first().context("no tokens")?.clone(),
            token_es: tokens_es.first().context("no tokens")?.clone(),
            new: Requests::get(PATH, &tokens),
            new_es: Requests::get(PATH, &tokens_es),
            rs,
            es,
            now,
        })
    }

    /// Our documents, by chain.
    pub(super) fn documents(&self) -> Result<[(&'static str, Value); 7]> {
        let (rs, es) = (self.rs.jwks()?, self.es.jwks()?);
        Ok([
            ("ours-token", ours::core(&rs, "RS256")),
            ("ours-token-es", ours::core(&es, "ES256")),
            ("ours-core", ours::core(&rs, "RS256")),
            (FULL, ours::full()),
            ("ours-unversioned", ours::unversioned()),
            ("ours-wrapped", ours::full()),
            ("ours-bare-bodies", ours::bare_bodies()),
        ])
    }

    /// So many tokens of the issuer.
    pub(super) fn tokens(&self, count: usize) -> Result<Vec<String>> {
        self.rs.tokens(&claims(self.now)?, count)
    }

    /// The variables that our VMs find.
    pub(super) fn environment() -> (&'static str, String) {
        (ours::CONTEXT_KEY, "c29tZSBrZXkgdGhhdCBpcyAzMiBieXRlcyBsb25nISE".to_owned())
    }

    /// Starts Envoy with every chain.
    pub(super) fn gateway(&self, dir: &Path) -> Result<Gateway> {
        let suite = env::path(env::SUITE)?;
        let cut = dir.join("request-phase.wasm");
        ours::request_phase(&suite, &cut)?;
        let (name, value) = Self::environment();
        let environment = json!({name: value});
        let mut chains = vec![Chain::new(BARE.chain, vec![], true)];
        for (name, document) in self.documents()? {
            let module = if REQUEST_PHASE.contains(&name) { &cut } else { &suite };
            let filters = vec![wasm(name, module, &document, &environment)];
            let served = matches!(name, "ours-wrapped" | "ours-bare-bodies");
            let upstream = served.then_some(self.upstream.address);
            chains.push(Chain { upstream, ..Chain::new(name, filters, false) });
        }
        let single = [
            ("version", env::VERSION),
            ("auth", env::AUTH),
            ("ratelimit", env::RATE_LIMIT),
            ("transform", env::TRANSFORM),
        ]
        .into_iter()
        .map(|(name, module)| Ok(wasm(name, &env::path(module)?, &ours::full(), &environment)));
        chains.push(Chain::new(SINGLE, single.collect::<Result<_>>()?, false));
        let (rs, es) = (self.rs.jwks()?, self.es.jwks()?);
        for (name, filters) in [
            ("native-token", token(&rs)),
            ("native-token-es", token(&es)),
            ("native-core", core(&rs, false)),
            ("native-core-cached", core(&rs, true)),
            ("native-full", full(&rs, false)),
            ("native-full-cached", full(&rs, true)),
        ] {
            chains.push(Chain::new(name, filters, true));
        }
        Gateway::start(dir, &chains, ECHOED, self.sidecar.listen()?, CORES)
    }

    /// Connects to a listener.
    pub(super) fn open(&self, gateway: &Gateway, way: Way) -> Result<Side> {
        let requests = match way.tokens {
            Tokens::Known => &self.known,
            Tokens::New => &self.new,
            Tokens::NewEs256 => &self.new_es,
            Tokens::Accepting => &self.accepting,
            Tokens::Json | Tokens::Wrapped => &self.known,
        };
        let requests = match way.tokens {
            Tokens::Json => requests.clone().ending(JSON_END),
            Tokens::Wrapped => requests.clone().ending(WRAPPED_END),
            _ => requests.clone(),
        };
        let load = Load::open(gateway.address(way.chain)?, CONNECTIONS, requests)?;
        Ok(Side { chain: way.chain, load })
    }
}

/// Chains whose module is cut to the request's headers, since what stands beside them sees no more.
const REQUEST_PHASE: &[&str] = &["ours-token", "ours-token-es", "ours-core"];

/// A path without a version, and the `Accept` that names one.
pub(super) const UNVERSIONED: &str = "/api/registry/agents";
pub(super) const ACCEPTED: &str = "application/vnd.greenlang.v1+json";

/// How the server's JSON ends.
const JSON_END: &str = "\"last\":true}";

/// The same in an envelope, whose length nobody knew beforehand: with the last chunk.
const WRAPPED_END: &str = "\"error\":null}\r\n0\r\n\r\n";

/// A list of agents as the control API answers it.
fn json_of_10_kb() -> impl Fn(&Message) -> Message {
    let item = |n: usize| {
        let id = format!("0191d6b0-7c3e-7aaa-8bbb-{n:012}");
        format!(
            r#"{{"id":"{id}","name":"fuel-emissions-{n}","version":1.{n},"tags":["a","\u00e9"]}}"#
        )
    };
    let items: Vec<String> = (0..100).map(item).collect();
    let body = format!(r#"{{"items":[{}],{JSON_END}"#, items.join(","));
    let answer = serve::response(200, &[("content-type", "application/json")], body);
    move |_| answer.clone()
}

fn tenant() -> (&'static str, String) {
    (header::TENANT_ID, native::claim("tenant_id"))
}

fn baggage() -> (&'static str, String) {
    (header::BAGGAGE, format!("tenant.id={}", native::claim("tenant_id")))
}

fn token(jwks: &Value) -> Vec<Value> {
    vec![
        native::jwt_authn(ISSUER, AUDIENCE, jwks, false),
        native::header_mutation(&[tenant(), baggage()], &[], &[]),
    ]
}

fn core(jwks: &Value, cached: bool) -> Vec<Value> {
    vec![
        native::jwt_authn(ISSUER, AUDIENCE, jwks, cached),
        native::header_mutation(&[tenant(), baggage()], &[], &[]),
        native::local_ratelimit(false),
    ]
}

fn full(jwks: &Value, cached: bool) -> Vec<Value> {
    let request = [
        tenant(),
        (header::TENANT_TIER, "free".to_owned()),
        (header::USER_ID, native::claim("sub")),
        (header::USER_ROLES, "developer".to_owned()),
        (header::AUTH_METHOD, "jwt".to_owned()),
        // A signature is beyond these filters: text of the same size.
        (header::CONTEXT, "c".repeat(500)),
        baggage(),
        (ours::REQUEST_HEADER, native::claim("tenant_id")),
    ];
    let response = [
        (header::REQUEST_ID, format!("%REQ({})%", header::REQUEST_ID)),
        (header::API_VERSION, "v1".to_owned()),
        ("deprecation", "@1767225600".to_owned()),
        ("sunset", "Thu, 01 Jan 2099 00:00:00 GMT".to_owned()),
        ("link", "</api/v2/registry/agents>; rel=\"successor-version\"".to_owned()),
        (ours::RESPONSE_HEADER, "gatehouse".to_owned()),
        // Beside the three that the bucket's own filter writes.
        ("ratelimit", "\"tenant\";r=15999999;t=0".to_owned()),
        ("ratelimit-policy", "\"tenant\";q=16000000;w=60".to_owned()),
        ("vary", "origin".to_owned()),
    ];
    vec![
        native::cors(),
        native::jwt_authn(ISSUER, AUDIENCE, jwks, cached),
        native::rbac("/api/v1/registry/", GROUP),
        native::header_mutation(&request, &response, header::IDENTITY),
        native::local_ratelimit(true),
    ]
}

/// One side of a comparison.
#[derive(Debug)]
pub(super) struct Side {
    chain: &'static str,
    load: Load,
}

impl Side {
    /// The processor time of the whole process per request, in µs, under this side's load.
    pub(super) fn cost(&mut self, process: u32, span: Duration) -> Result<f64> {
        let before = cpu::spent(process)?;
        let answered = self.load.run(span).with_context(|| self.chain)?;
        let spent = cpu::spent(process)?.saturating_sub(before);
        ensure!(answered > 0, "{}: nothing was answered", self.chain);
        // More requests than a double counts exactly would take years.
        Ok(spent.as_secs_f64() * 1e6 / answered as f64)
    }

    /// What the upstream says it got; the answer must carry these headers.
    pub(super) fn echo(&mut self, shows: &[&str]) -> Result<String> {
        let answer = self.load.once().with_context(|| self.chain)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no body")?;
        for name in shows {
            let shown = head.lines().any(|line| {
                line.split_once(':').is_some_and(|(header, _)| header.eq_ignore_ascii_case(name))
            });
            ensure!(shown, "{}: void: no {name} in\n{head}", self.chain);
        }
        let mut lines = Vec::new();
        for line in body.lines() {
            let own = line.split_once(": ").filter(|(name, _)| OWN.contains(name));
            lines.push(match own {
                // Envoy's word for a header that is not there.
                Some((name, "-")) => format!("{name}: none"),
                Some((name, _)) => format!("{name}: some"),
                None => line.to_owned(),
            });
        }
        Ok(lines.join("\n"))
    }
}
