//! The configuration document. Compiled whole or refused.
//! Knows no file and no socket.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

mod issuers;

use gatehouse_contract::{Document, Tier, rbac};
use gatehouse_outbound::Trust;
use gatehouse_ratelimit::{
    Policy, Span,
    policy::{Endpoint, MAX_LIMIT, Settings},
};
use gatehouse_redis_kit::Address;
use gatehouse_service::config::{loopback, secret_url};
use reqwest::Url;

pub use self::issuers::{Issuer, Source};
use crate::{grpc, keysets::schedule::Ages, peppers};

/// What the sidecar needs to run.
#[derive(Debug)]
pub struct Config {
    pub listen: Listen,
    pub admin_listen: SocketAddr,
    pub store: StoreKind,
    pub policy: Policy,
    pub grpc: grpc::Settings,
    pub issuers: Vec<Issuer>,
    pub ages: Ages,
    pub trust: Trust,
    /// Without them API keys cannot be told.
    pub peppers: Option<peppers::Known>,
    pub last_used_every: Duration,
    /// Base of the control API's internal listener; without it principals are unavailable.
    pub control_internal: Option<Url>,
}

/// Where filters reach us: nothing that another machine can reach (design §3.3).
#[derive(Debug, PartialEq, Eq)]
pub enum Listen {
    Loopback(SocketAddr),
    Unix(PathBuf),
}

#[derive(Debug)]
pub enum StoreKind {
    Memory,
    Redis { address: Address, deadline: Duration },
}

const TIERS: &[(&str, Tier, u64)] =
    &[("free", Tier::Free, 60), ("pro", Tier::Pro, 600), ("enterprise", Tier::Enterprise, 6000)];

/// Design §3.4: (method, route, requests per minute).
const ENDPOINTS: &[(&str, &str, u32)] = &[
    ("POST", "/api/v1/registry/agents", 10),
    ("POST", "/api/v1/runtime/executions", 100),
    ("DELETE", "/api/v1/registry/agents/{agent}", 5),
];

const METHODS: &str = "GET, HEAD, POST, PUT, PATCH or DELETE";

/// Reads the document; `None` after its mistakes are noted.
pub fn read(doc: &Document<'_>) -> Option<Config> {
    let listen = listen(doc);
    let admin_listen = loopback(doc, "admin_listen");
    let redis_timeout_ms = doc.integer("redis_timeout_ms", Some(25), 1..=1000);
    let store = doc.object("store", |doc| store(doc, redis_timeout_ms));
    let policy = match doc.object_opt("limits", limits) {
        Some(Some(policy)) => Some(policy),
        Some(None) => Some((Policy::new(&settings(BTreeMap::new(), None, 1000, 60, 5)?), 60)),
        None => None,
    };
    let domains = doc.object_opt("grpc", domains);
    let control_internal = doc.object_opt("control_api", |doc| {
        let url = plain_http(doc, "internal")?;
        if loopback_of(&url).is_some() {
            return Some(url);
        }
        doc.note(
            "internal",
            format!("{url} is not on this machine"),
            "write a loopback address such as \"http://127.0.0.1:8082\"",
        );
        None
    });
    let own = [
        control_internal.iter().flatten().find_map(loopback_of),
        admin_listen,
        match &listen {
            Some(Listen::Loopback(at)) => Some(*at),
            _ => None,
        },
    ];
    let issuers = issuers::read(doc, own.into_iter().flatten().collect());
    let ages = issuers::ages(doc);
    let trust = issuers::trust(doc);
    let peppers = peppers::read(doc);
    let last_used_s = doc.integer("last_used_s", Some(10), 1..=3600);
    let (policy, window_s) = policy?;
    let domains = domains?.unwrap_or_else(|| vec![grpc::DOMAIN.to_owned()]);
    Some(Config {
        listen: listen?,
        admin_listen: admin_listen?,
        store: store?,
        policy,
        grpc: grpc::Settings { domains, window_s },
        issuers: issuers?,
        ages: ages?,
        trust: trust?,
        peppers: peppers?,
        last_used_every: Duration::from_secs(last_used_s?),
        control_internal: control_internal?,
    })
}

fn listen(doc: &Document<'_>) -> Option<Listen> {
    let unix = doc.raw("listen").and_then(|value| value.as_str()?.strip_prefix("unix:"));
    match unix {
        Some(path) if path.starts_with('/') => Some(Listen::Unix(path.into())),
        Some(_) => {
            doc.note(
                "listen",
                "not an absolute path",
                "write \"unix:/run/gatehouse/sidecar.sock\"",
            );
            None
        }
        None => loopback(doc, "listen").map(Listen::Loopback),
    }
}

fn store(doc: &Document<'_>, redis_timeout_ms: Option<u64>) -> Option<StoreKind> {
    match doc.parsed::<StoreName>("kind", "\"redis\" or \"memory\"")? {
        StoreName::Memory => {
            // Windows in one process say nothing about another's: the limit would be multiplied.
            let sidecars = doc.integer("sidecars", None, 1..=10_000)?;
            if sidecars == 1 {
                return Some(StoreKind::Memory);
            }
            doc.note(
                "sidecars",
                format!("{sidecars} sidecars cannot share windows in memory"),
                "write \"kind\": \"redis\", or 1 if there is one sidecar only",
            );
            None
        }
        StoreName::Redis => {
            let url = secret_url(doc, "url", &["redis", "redis+unix"])?;
            let Ok(address) = url.parse::<Address>() else {
                doc.note("url", "not a Redis address", "write \"redis://user:password@host:port\"");
                return None;
            };
            let deadline = Duration::from_millis(redis_timeout_ms?);
            Some(StoreKind::Redis { address, deadline })
        }
    }
}

enum StoreName {
    Redis,
    Memory,
}

impl FromStr for StoreName {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "redis" => Ok(Self::Redis),
            "memory" => Ok(Self::Memory),
            _ => Err(()),
        }
    }
}

/// The domains of Envoy's filters that are answered: at least one.
fn domains(doc: &Document<'_>) -> Option<Vec<String>> {
    let domains: Vec<String> = doc.parsed_list("domains", "a name such as \"gatehouse\"")?;
    if domains.is_empty() {
        doc.note("domains", "empty", "write at least one name, such as [\"gatehouse\"]");
        return None;
    }
    Some(domains)
}

fn limits(doc: &Document<'_>) -> Option<(Policy, u32)> {
    let tiers = doc.object_opt("tiers", |doc| {
        // All are read before any is judged, so that every mistake is reported.
        let read: Vec<_> = TIERS
            .iter()
            .map(|(name, tier, default)| Some((*tier, limit(doc, name, Some(*default))?)))
            .collect();
        read.into_iter().collect::<Option<BTreeMap<_, _>>>()
    });
    let listed = doc.raw("endpoints").is_some();
    let endpoints = doc.objects("endpoints", |doc| {
        let method = doc.parsed::<Method>("method", METHODS);
        let route = doc.text("route");
        let max = limit(doc, "per_minute", None);
        Some(Endpoint { method: method?.0, route: route?, max: max? })
    });
    let endpoint_default = limit(doc, "endpoint_default", Some(1000));
    let window_s = doc.integer("window_s", Some(60), 1..=86_400);
    let multiplier = doc.integer("burst_multiplier", Some(5), 0..=1000);
    let endpoints = endpoints?;
    let window_s = u32::try_from(window_s?).ok()?;
    let settings = settings(
        tiers?.unwrap_or_default(),
        listed.then_some(endpoints),
        endpoint_default?,
        window_s,
        u32::try_from(multiplier?).ok()?,
    )?;
    Some((Policy::new(&settings), window_s))
}

fn limit(doc: &Document<'_>, name: &'static str, default: Option<u64>) -> Option<u32> {
    let value = doc.integer(name, default, 0..=u64::from(MAX_LIMIT))?;
    u32::try_from(value).ok()
}

fn settings(
    tiers: BTreeMap<Tier, u32>,
    endpoints: Option<Vec<Endpoint>>,
    endpoint_default: u32,
    window_s: u32,
    burst_multiplier: u32,
) -> Option<Settings> {
    // The matrix is part of this build and tested there: it cannot be broken here.
    let matrix = rbac::Matrix::builtin().ok()?;
    let known = matrix.routes().iter().map(|route| (route.method.clone(), route.template.clone()));
    let by_design = || {
        let endpoint = |(method, route, max): &(&str, &str, u32)| Endpoint {
            method: (*method).to_owned(),
            route: (*route).to_owned(),
            max: *max,
        };
        ENDPOINTS.iter().map(endpoint).collect()
    };
    let default_tiers =
        TIERS.iter().filter_map(|(_, tier, max)| Some((*tier, u32::try_from(*max).ok()?)));
    Some(Settings {
        tiers: default_tiers.chain(tiers).collect(),
        endpoints: endpoints.unwrap_or_else(by_design),
        endpoint_default,
        known: known.collect(),
        window: Span::from_secs(window_s),
        burst_multiplier,
    })
}

struct Method(String);

impl FromStr for Method {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" => Ok(Self(text.to_owned())),
            _ => Err(()),
        }
    }
}

fn plain_http(doc: &Document<'_>, name: &'static str) -> Option<Url> {
    let url = doc.parsed::<Url>(name, "a URL such as \"http://127.0.0.1:8080/path\"")?;
    let (cause, mend) = if url.scheme() != "http" || url.host_str().is_none() {
        ("not an http:// URL", "write a URL such as \"http://127.0.0.1:8080/path\"")
    } else if !url.username().is_empty() || url.password().is_some() {
        ("carries a password", "write the URL without one")
    } else {
        return Some(url);
    };
    doc.note(name, cause, mend);
    None
}

fn loopback_of(url: &Url) -> Option<SocketAddr> {
    let host = match url.host_str()?.trim_matches(['[', ']']) {
        "localhost" => "127.0.0.1",
        host => host,
    };
    let ip: IpAddr = host.parse().ok()?;
    Some(SocketAddr::new(ip, url.port_or_known_default()?)).filter(|at| at.ip().is_loopback())
}

#[cfg(test)]
mod tests;
