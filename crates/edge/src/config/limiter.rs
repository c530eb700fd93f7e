//! Who decides rates, what happens while nobody does, and what clients see of it. Knows no rates.

use std::{num::NonZeroU32, rc::Rc, str::FromStr};

use gatehouse_contract::{Document, Tier};
use serde_json::Value;

use super::{
    Suite, Warnings,
    words::{Away, Host, Outage, Reset, UpstreamHeaders},
};
use crate::{limits::Shown, matrix::Routes, parts::Parts};

/// The limiter as the document has it.
#[derive(Debug)]
pub(crate) struct Limiter {
    pub(crate) decides: Decides,
    /// Asked and counted, and nobody is refused (acceptance R21).
    pub(crate) shadow: bool,
    /// What `X-RateLimit-Reset` counts from.
    pub(crate) reset: Reset,
    /// What becomes of an upstream's own rate headers (acceptance R13).
    pub(crate) upstream_headers: UpstreamHeaders,
    /// By place in the role matrix.
    costs: Vec<u32>,
    /// The response header by which an upstream names the true cost, lower case (acceptance R24).
    pub(crate) cost_header: Option<String>,
    /// SPIFFE ids that pass unlimited, sorted (specification GRL-005).
    pub(crate) internal: Vec<String>,
    /// How often one client address may fail to authenticate in any 60 s (acceptance R17).
    pub(crate) failed_authn_per_minute: Option<NonZeroU32>,
    /// How many proxies before this gateway append to `X-Forwarded-For` (acceptance R18).
    pub(crate) trusted_hops: usize,
}

/// Who decides.
#[derive(Debug)]
pub(crate) enum Decides {
    /// The sidecar.
    Sidecar(Asks),
    /// This VM by itself: each worker counts its own requests.
    Local {
        /// Requests of one tenant in any 60 s.
        per_minute: NonZeroU32,
        /// What clients see of it.
        shown: Rc<Shown>,
    },
    /// Nobody: another module limits.
    Nobody,
}

/// How the sidecar is asked.
#[derive(Debug)]
pub(crate) struct Asks {
    /// What happens while it is away.
    pub(crate) away: ByTier<Away>,
    /// What one VM lets pass of a tenant per minute while the sidecar is away and never told.
    pub(crate) share: ByTier<Option<u32>>,
    /// Whether passes are taken along.
    pub(crate) leases: bool,
    /// Whether the caller within the tenant is named.
    pub(crate) subjects: bool,
}

/// One value per tier.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ByTier<T> {
    free: T,
    pro: T,
    enterprise: T,
}

const EXPECTED: &str =
    "\"closed\", \"open\", {\"away\": \"local\"} or {\"local\": {\"per_minute\": 600}}";
const MAX_PER_MINUTE: u64 = 1_000_000;
const MAX_COST: u64 = 10_000;
const MAX_HOPS: u64 = 16;

/// What stands around the limiter in the document.
#[derive(Debug, Clone, Copy)]
pub(super) struct Surroundings<'d> {
    pub(super) host: Option<Host>,
    pub(super) parts: Parts,
    /// Whether there is a sidecar.
    pub(super) record: bool,
    pub(super) routes: Option<&'d Routes>,
}

impl<T: Copy> ByTier<T> {
    pub(crate) const fn all(value: T) -> Self {
        Self { free: value, pro: value, enterprise: value }
    }

    pub(crate) const fn of(&self, tier: Tier) -> T {
        match tier {
            Tier::Free => self.free,
            Tier::Pro => self.pro,
            Tier::Enterprise => self.enterprise,
        }
    }
}

impl Suite {
    /// What happens to a request of this tier while the sidecar is away, for people.
    pub fn limiter_away(&self, tier: Tier) -> &'static str {
        let Decides::Sidecar(asks) = &self.limiter.decides else { return "decided here" };
        match asks.away.of(tier) {
            Away::Open => "passes, marked as degraded",
            Away::Closed => "refused with 503",
            Away::Local => match asks.share.of(tier) {
                None => "the share that the sidecar last told, else refused with 503",
                Some(_) => "the share that the sidecar last told, else the document's",
            },
        }
    }
}

impl Limiter {
    /// What a request to the route at `place` costs.
    pub(crate) fn cost(&self, place: usize) -> u32 {
        self.costs.get(place).copied().unwrap_or(1)
    }

    fn new(decides: Decides) -> Self {
        Self {
            decides,
            shadow: false,
            reset: Reset::Delta,
            upstream_headers: UpstreamHeaders::Override,
            costs: Vec::new(),
            cost_header: None,
            internal: Vec::new(),
            failed_authn_per_minute: None,
            trusted_hops: 0,
        }
    }
}

/// Of a module that limits nobody.
pub(super) fn none() -> Limiter {
    Limiter::new(Decides::Nobody)
}

pub(super) fn read(
    doc: &Document<'_>,
    around: Surroundings<'_>,
    warnings: &mut Warnings,
) -> Option<Limiter> {
    let asks = |away| {
        let leases = around.host == Some(Host::Envoy);
        let (away, share) = (ByTier::all(away), ByTier::all(None));
        Decides::Sidecar(Asks { away, share, leases, subjects: false })
    };
    let in_a_word = |doc: &Document<'_>| {
        Some(Limiter::new(asks(match doc.word_opt("limiter", EXPECTED)? {
            None => Away::Local,
            Some(Outage::Closed) => Away::Closed,
            Some(Outage::Open) => Away::Open,
        })))
    };
    let at_length =
        |doc: &Document<'_>| doc.object("limiter", |doc| read_object(doc, around, warnings));
    let mut limiter = doc.either("limiter", Value::is_object, at_length, in_a_word)?;
    if !around.parts.limits() {
        limiter.decides = Decides::Nobody;
        limiter.internal.clear();
        return Some(limiter);
    }
    match &limiter.decides {
        Decides::Sidecar(asks) => {
            let open = Tier::ALL.iter().filter(|tier| asks.away.of(**tier) == Away::Open).count();
            if !around.record && open < Tier::ALL.len() {
                let mend =
                    format!("name a sidecar, or write {}", "{\"local\": {\"per_minute\": 600}}");
                doc.note("limiter", "without a sidecar every request would be refused", mend);
            }
            if open > 0 {
                let text =
                    "without a limiter nothing is limited; write \"closed\" to refuse instead";
                warnings.add("$.limiter", text);
            }
        }
        Decides::Local { .. } => warnings.add(
            "$.limiter",
            "every worker of every gateway counts by itself; write \"closed\" to have the sidecar decide",
        ),
        Decides::Nobody => {}
    }
    if limiter.shadow {
        let text = "limits are asked and counted, and refuse nothing; write \"shadow\": false";
        warnings.add("$.limiter.shadow", text);
    }
    Some(limiter)
}

fn read_object(
    doc: &Document<'_>,
    around: Surroundings<'_>,
    warnings: &mut Warnings,
) -> Option<Limiter> {
    let local = doc.object_opt("local", |doc| {
        let per_minute = doc.integer("per_minute", None, 1..=MAX_PER_MINUTE)?;
        NonZeroU32::new(u32::try_from(per_minute).ok()?)
    });
    let asks = read_asks(doc, around, warnings);
    if matches!(local, Some(Some(_))) {
        for name in ["away", "local_share", "leases", "subjects"] {
            if doc.raw(name).is_some() {
                let mend = "remove it, or remove \"local\" to have the sidecar decide";
                doc.note(name, "is for a limiter that asks the sidecar", mend);
            }
        }
    }
    let shadow = doc.flag("shadow", false);
    let reset = doc.word_or("reset", Reset::Delta, "\"delta\" or \"epoch\"");
    let upstream_headers = doc.word_or(
        "upstream_headers",
        UpstreamHeaders::Override,
        "\"override\", \"keep\" or \"lowest\"",
    );
    let costs = doc.objects("costs", |doc| read_cost(doc, around.routes));
    let cost_header = doc.parsed_opt::<HeaderName>(
        "cost_header",
        "the name of a response header such as \"x-request-cost\", none of the gateway's own",
    );
    let internal = doc.object_opt("bypass", |doc| {
        let expected = "a SPIFFE id such as \"spiffe://mesh.local/ns/factory/sa/worker\"";
        let ids = doc.parsed_list::<SpiffeId>("spiffe_ids", expected);
        doc.refuse_empty("spiffe_ids", ids.as_deref(), &format!("write {expected}"));
        ids
    });
    if around.host == Some(Host::Kong) && doc.raw("bypass").is_some() {
        let cause = "Kong's Wasm host cannot tell who the peer of a connection proved to be";
        doc.note("bypass", cause, "remove it: on Kong nobody bypasses the limits");
    }
    let failed = doc.integer_opt("failed_authn_per_minute", 1..=MAX_PER_MINUTE);
    let trusted_hops = doc.integer("trusted_hops", Some(0), 0..=MAX_HOPS);
    let decides = match local? {
        Some(per_minute) => {
            let shown = Rc::new(Shown::local(per_minute.get()));
            Decides::Local { per_minute, shown }
        }
        None => Decides::Sidecar(asks?),
    };
    let mut internal: Vec<String> =
        internal?.unwrap_or_default().into_iter().map(|id: SpiffeId| id.0).collect();
    internal.sort_unstable();
    Some(Limiter {
        decides,
        shadow: shadow?,
        reset: reset?,
        upstream_headers: upstream_headers?,
        costs: by_place(costs?),
        cost_header: cost_header?.map(|name| name.0),
        internal,
        failed_authn_per_minute: match failed? {
            None => None,
            Some(most) => NonZeroU32::new(u32::try_from(most).ok()?),
        },
        trusted_hops: usize::try_from(trusted_hops?).ok()?,
    })
}

fn read_asks(
    doc: &Document<'_>,
    around: Surroundings<'_>,
    warnings: &mut Warnings,
) -> Option<Asks> {
    let expected = "\"local\", \"open\" or \"closed\"";
    let by_tier = |doc: &Document<'_>| {
        doc.object("away", |doc| {
            let free = doc.word_or("free", Away::Local, expected);
            let pro = doc.word_or("pro", Away::Local, expected);
            let enterprise = doc.word_or("enterprise", Away::Local, expected);
            Some(ByTier { free: free?, pro: pro?, enterprise: enterprise? })
        })
    };
    let alike = |doc: &Document<'_>| doc.word_or("away", Away::Local, expected).map(ByTier::all);
    let away = doc.either("away", Value::is_object, by_tier, alike);
    let share = doc.object_opt("local_share", |doc| {
        let of = |name| match doc.integer_opt(name, 0..=MAX_PER_MINUTE)? {
            None => Some(None),
            Some(share) => Some(Some(u32::try_from(share).ok()?)),
        };
        let (free, pro, enterprise) = (of("free"), of("pro"), of("enterprise"));
        Some(ByTier { free: free?, pro: pro?, enterprise: enterprise? })
    });
    let able = around.host != Some(Host::Kong);
    let leases = doc.flag("leases", able);
    if !able && leases == Some(true) {
        let text = "Kong's Wasm host has no clock that is fine enough: leases stay off there";
        warnings.add("$.limiter.leases", text);
    }
    let subjects = doc.flag("subjects", false);
    Some(Asks {
        away: away?,
        share: share?.unwrap_or(ByTier::all(None)),
        leases: leases? && able,
        subjects: subjects?,
    })
}

/// A route by its place, and what a request to it costs.
fn read_cost(doc: &Document<'_>, routes: Option<&Routes>) -> Option<(usize, u32)> {
    let method = doc.text("method");
    let route = doc.text("route");
    let cost = doc.integer("cost", None, 1..=MAX_COST);
    let (method, route) = (method?, route?);
    let place = routes?.named(&method, &route);
    if place.is_none() {
        let mend = "write a method and a route's template as in the role matrix";
        doc.note("route", format!("there is no route {method} {route}"), mend);
    }
    Some((place?, u32::try_from(cost?).ok()?))
}

fn by_place(costs: Vec<(usize, u32)>) -> Vec<u32> {
    let most = costs.iter().map(|(place, _)| place.saturating_add(1)).max().unwrap_or_default();
    let mut all = vec![1; most];
    for (place, cost) in costs {
        if let Some(slot) = all.get_mut(place) {
            *slot = cost;
        }
    }
    all
}

/// A header of a response that is none of ours (RFC 9110 §5.1: a token).
struct HeaderName(String);

impl FromStr for HeaderName {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let name = text.to_ascii_lowercase();
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let ours = name.starts_with("x-ratelimit-")
            || name.starts_with("ratelimit")
            || matches!(name.as_str(), "x-request-id" | "api-version" | "retry-after")
            || gatehouse_contract::header::is_identity(name.as_bytes());
        (name.bytes().all(fits) && !ours).then_some(Self(name)).ok_or(())
    }
}

/// An id as SPIFFE has it (SPIFFE-ID §2): a trust domain and a path, no query, no empty segment.
struct SpiffeId(String);

impl FromStr for SpiffeId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let rest = text.strip_prefix("spiffe://").ok_or(())?;
        let (domain, path) = rest.split_once('/').ok_or(())?;
        let lower = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let of_domain = |byte: u8| lower(byte) || matches!(byte, b'.' | b'-' | b'_');
        let of_path = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        let segment = |part: &str| !matches!(part, "" | "." | "..") && part.bytes().all(of_path);
        let fits = !domain.is_empty()
            && domain.bytes().all(of_domain)
            && path.split('/').all(segment)
            && text.len() <= 2048;
        fits.then(|| Self(text.to_owned())).ok_or(())
    }
}
