//! The figures: which chain of ours stands beside which of Envoy's own, with which tokens. Knows no clocks.

use std::{
    path::Path,
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
}

/// What every response of the full chain carries (acceptance R9 to R13).
const SHOWN: &[&str] = &[
    header::RATE_LIMIT,
    header::RATE_REMAINING,
    header::RATE_RESET,
    "ratelimit",
    "ratelimit-policy",
    header::API_VERSION,
    header::REQUEST_ID,
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
    Case {
        id: "rs256_uncached_ratio",
        floor: 1.15,
        aim: 1.05,
        ours: way("ours-token", Tokens::New),
        native: way("native-token", Tokens::New),
        shows: &[],
    },
    Case {
        id: "es256_uncached_ratio",
        floor: 1.20,
        aim: 1.08,
        ours: way("ours-token-es", Tokens::NewEs256),
        native: way("native-token-es", Tokens::NewEs256),
        shows: &[],
    },
    Case {
        id: "core_chain_cached_ratio",
        floor: 1.20,
        aim: 1.08,
        ours: way("ours-core", Tokens::Known),
        native: way("native-core-cached", Tokens::Known),
        shows: &[],
    },
    Case {
        id: "core_chain_uncached_ratio",
        floor: 1.10,
        aim: 1.02,
        ours: way("ours-core", Tokens::New),
        native: way("native-core", Tokens::New),
        shows: &[],
    },
    Case {
        id: "full_chain_cached_ratio",
        floor: 1.5,
        aim: 1.2,
        ours: way("ours-full", Tokens::Known),
        native: way("native-full-cached", Tokens::Known),
        shows: SHOWN,
    },
    Case {
        id: "full_chain_uncached_ratio",
        floor: 1.25,
        aim: 1.10,
        ours: way("ours-full", Tokens::New),
        native: way("native-full", Tokens::New),
        shows: SHOWN,
    },
];

/// What stands beside what, for the reader of the table.
pub(super) const ABOUT: &str = "\
token: one issuer's tokens, all new, ÷ jwt_authn without a cache
core: token, tenant header, version, limit in the VM; request phase only ÷ jwt_authn, header_mutation, local_ratelimit
full: all that the product does per request and response ÷ jwt_authn, rbac, header_mutation, local_ratelimit with headers;
  its steps: request id, trusted headers stripped, path, version, token (signature, claims, keys of the sidecar), deny list of
  the live feed, principal of the record, tenant, RBAC matrix, budget of failed sign-ins, SPIFFE bypass looked up, limits of the
  real sidecar over Redis (tenant, endpoint, burst) on passes taken along, tenant context with a signature every 30 s; response:
  request id, version, X-RateLimit-*, RateLimit, RateLimit-Policy, identity headers removed
cached: 64 tokens go round, jwt_authn with its cache; uncached: 12288 tokens go round, caches hold 4096, jwt_authn has none
cors is left out of Envoy's full chain, since ours does no CORS yet: the comparison is stricter without it";

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
    pub(super) fn documents(&self) -> Result<[(&'static str, Value); 4]> {
        let (rs, es) = (self.rs.jwks()?, self.es.jwks()?);
        Ok([
            ("ours-token", ours::core(&rs, "RS256")),
            ("ours-token-es", ours::core(&es, "ES256")),
            ("ours-core", ours::core(&rs, "RS256")),
            ("ours-full", ours::full()),
        ])
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
        let mut chains = vec![Chain { name: BARE.chain, filters: vec![], request_ids: true }];
        for (name, document) in self.documents()? {
            let module = if name == "ours-full" { &suite } else { &cut };
            let filters = vec![wasm(name, module, &document, &environment)];
            chains.push(Chain { name, filters, request_ids: false });
        }
        let (rs, es) = (self.rs.jwks()?, self.es.jwks()?);
        for (name, filters) in [
            ("native-token", token(&rs)),
            ("native-token-es", token(&es)),
            ("native-core", core(&rs, false)),
            ("native-core-cached", core(&rs, true)),
            ("native-full", full(&rs, false)),
            ("native-full-cached", full(&rs, true)),
        ] {
            chains.push(Chain { name, filters, request_ids: true });
        }
        Gateway::start(dir, &chains, ECHOED, self.sidecar.listen()?, CORES)
    }

    /// Connects to a listener.
    pub(super) fn open(&self, gateway: &Gateway, way: Way) -> Result<Side> {
        let requests = match way.tokens {
            Tokens::Known => &self.known,
            Tokens::New => &self.new,
            Tokens::NewEs256 => &self.new_es,
        };
        let load = Load::open(gateway.address(way.chain)?, CONNECTIONS, requests.clone())?;
        Ok(Side { chain: way.chain, load })
    }
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
    ];
    let response = [
        (header::REQUEST_ID, format!("%REQ({})%", header::REQUEST_ID)),
        (header::API_VERSION, "v1".to_owned()),
    ];
    vec![
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
