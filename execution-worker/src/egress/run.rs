//! What one run may ask, and what it has asked so far. Knows no connection.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use gatehouse_execution::{egress::Hosts, sandbox::SandboxId};
use gatehouse_outbound::{Guard, Refused as Unasked, Target};
use http::{HeaderMap, Method, Uri, header};
use tracing::{debug, info};

use super::{answer::Exchange, namespace::Credential, refused::Refused};

/// So many refusals of a run are told in the log; all are counted.
const TOLD: u32 = 20;

/// One run, as its proxy knows it.
#[derive(Debug)]
pub struct Run {
    id: SandboxId,
    hosts: Hosts,
    most: u32,
    /// The value of `Proxy-Authorization`.
    basic: Vec<u8>,
    requests: AtomicU32,
    tokens: AtomicU64,
    refusals: AtomicU32,
    denied: Mutex<Option<Refused>>,
    results: Mutex<BTreeMap<&'static str, u64>>,
    bytes: AtomicU64,
}

/// What a run has asked, at its end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// Requests that were let through.
    pub requests: u64,
    /// Tokens that the answers said they cost.
    pub tokens: u64,
    /// Bytes of the answers' bodies.
    pub bytes: u64,
    /// The last refusal that the platform's rules were the reason of.
    pub denied: Option<String>,
    /// How requests ended: `2xx` and so on, or a refusal's code.
    pub results: BTreeMap<&'static str, u64>,
}

impl Asked {
    /// Counts `other` in.
    pub fn add(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.tokens = self.tokens.saturating_add(other.tokens);
        self.bytes = self.bytes.saturating_add(other.bytes);
        for (result, count) in &other.results {
            *self.results.entry(result).or_default() += count;
        }
    }
}

impl Run {
    pub fn new(id: SandboxId, hosts: Hosts, most: u32, credential: &Credential) -> Self {
        Self {
            id,
            hosts,
            most,
            basic: credential.basic().into_bytes(),
            requests: AtomicU32::default(),
            tokens: AtomicU64::default(),
            refusals: AtomicU32::default(),
            denied: Mutex::default(),
            results: Mutex::default(),
            bytes: AtomicU64::default(),
        }
    }

    /// Judges a request by its head, and takes one of the run's requests for it.
    pub fn admit(
        &self,
        guard: &Guard,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Target, Refused> {
        // First: nobody else learns what this run may do.
        let shown = headers.get(header::PROXY_AUTHORIZATION).map(|value| value.as_bytes());
        if verify_slices_are_equal(shown.unwrap_or_default(), &self.basic).is_err() {
            return Err(Refused::Credential);
        }
        if method == Method::CONNECT {
            return Err(Refused::Connect);
        }
        if uri.scheme().is_none() || uri.authority().is_none() {
            let form = "a request to a proxy names the whole address (RFC 9112, 3.2.2)";
            return Err(Refused::Form(form.to_owned()));
        }
        let target = self.target(guard, &uri.to_string())?;
        let taken = self.requests.fetch_update(Relaxed, Relaxed, |taken| {
            (taken < self.most).then(|| taken.saturating_add(1))
        });
        taken.map_err(|_| Refused::Requests(self.most))?;
        Ok(target)
    }

    /// Where the request goes. Strangers are asked under TLS, whatever the address begins with: clients that are given `https://`
    /// would ask for a tunnel.
    fn target(&self, guard: &Guard, url: &str) -> Result<Target, Refused> {
        let target: Target = url
            .parse()
            .map_err(|error: gatehouse_outbound::NotAUrl| Refused::Form(error.to_string()))?;
        let target = match guard.admit(target.origin()) {
            Err(Unasked::Plain(_)) => target.over_tls(),
            _ => target,
        };
        let origin = target.origin();
        let listed = origin.name().is_some_and(|name| self.hosts.allow(name, origin.port()));
        if !listed {
            return Err(Refused::Host(origin.authority()));
        }
        guard.admit(origin).map_err(|_| Refused::Address(origin.authority()))?;
        Ok(target)
    }

    /// Notes a refusal.
    pub fn refused(&self, refused: &Refused) {
        self.count(refused.code());
        if refused.is_denial() {
            *self.denied.lock().unwrap_or_else(PoisonError::into_inner) = Some(refused.clone());
        }
        if self.refusals.fetch_add(1, Relaxed) < TOLD {
            info!(execution.id = %self.id.execution, code = refused.code(), status = refused.status().as_u16(),
                detail = %refused, "refused a request to the outside");
        }
    }

    /// Notes an answer that is over.
    pub fn over(&self, exchange: &Exchange) {
        self.count(match exchange.status {
            200..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            _ => "5xx",
        });
        self.tokens.fetch_add(exchange.tokens, Relaxed);
        self.bytes.fetch_add(exchange.bytes, Relaxed);
        info!(execution.id = %self.id.execution, host = exchange.host, status = exchange.status,
            bytes = exchange.bytes, tokens = exchange.tokens,
            took_ms = exchange.began.elapsed().as_millis(), "asked the outside");
    }

    fn count(&self, result: &'static str) {
        let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        *results.entry(result).or_default() += 1;
    }

    /// What was asked so far.
    pub fn asked(&self) -> Asked {
        let asked = Asked {
            requests: self.requests.load(Relaxed).into(),
            tokens: self.tokens.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            denied: self
                .denied
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .as_ref()
                .map(ToString::to_string),
            results: self.results.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        };
        debug!(execution.id = %self.id.execution, ?asked, "closed the way to the outside");
        asked
    }
}
