//! What a descriptor asks. One descriptor is one whole decision: every limit that weighs on the request is charged by
//! it, or none; several would be several decisions, of which some could be charged and others not.
//! Nothing here means "pass": what is not understood is an error.
//! Knows no limit's standing. Nothing is copied: a question is a few hundred bytes, and there are many.

use gatehouse_contract::{TenantId, Tier, sidecar::Overrides};
use gatehouse_ratelimit::{Asked, policy::MAX_LIMIT};

use super::{
    Settings,
    wire::{Fields, Malformed},
};
use crate::engine::Check;

/// Longest value of an entry, in bytes.
const VALUE_BYTES: usize = 512;
/// The names of an entry, in the order of [`Descriptor::values`].
const NAMES: [&[u8]; 5] = [b"tenant_id", b"tier", b"method", b"route", b"subject"];

/// Why a question cannot be weighed (gRPC `INVALID_ARGUMENT`). Its text goes out as `grpc-message`: plain ASCII
/// without `%`, and nothing of the question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("not a RateLimitRequest")]
    Message,
    #[error("the domain is not one of the configuration ($.grpc.domains)")]
    Domain,
    #[error("exactly one descriptor is weighed, with every limit of the request")]
    Descriptors,
    #[error("an entry's key is none of tenant_id, tier, method, route, subject")]
    UnknownEntry,
    #[error("an entry's key stands twice")]
    TwiceEntry,
    #[error("an entry's value is empty or longer than 512 bytes")]
    Value,
    #[error("tenant_id, tier, method and route are needed")]
    Missing,
    #[error("tenant_id is not a UUID")]
    Tenant,
    #[error("tier is none of free, pro, enterprise")]
    Tier,
    #[error("method is not in upper case")]
    Method,
    #[error("route does not begin with a slash")]
    Route,
    #[error("hits_addend is greater than 16777215")]
    Hits,
    #[error("hits cannot be handed back")]
    Negative,
    #[error("limit is per another unit than the window, or greater than 16777215")]
    Limit,
}

/// A check, as it lies in the message.
#[derive(Debug)]
pub struct Question<'a> {
    tenant: TenantId,
    tier: Tier,
    limits: Option<Overrides>,
    subject: Option<&'a str>,
    method: &'a str,
    route: &'a str,
    cost: u32,
}

/// `RateLimitDescriptor`.
#[derive(Default)]
struct Descriptor<'a> {
    values: [Option<&'a str>; NAMES.len()],
    limit: Option<Limit>,
    hits: Option<u64>,
    negative: bool,
}

/// `RateLimitOverride`. Of a field that stands twice the last one counts, in messages within it as well.
#[derive(Clone, Copy, Default)]
struct Limit {
    requests: u32,
    unit: u32,
}

impl From<Malformed> for Invalid {
    fn from(_: Malformed) -> Self {
        Self::Message
    }
}

// === impl Question ===

impl<'a> Question<'a> {
    /// Reads a `RateLimitRequest` and its one descriptor.
    pub fn read(message: &'a [u8], settings: &Settings) -> Result<Self, Invalid> {
        let (mut domain, mut descriptor, mut hits) = (&[][..], None, 0);
        for field in Fields::of(message) {
            match field? {
                (1, value) => domain = value.bytes()?,
                (2, value) if descriptor.is_none() => descriptor = Some(value.bytes()?),
                (2, _) => return Err(Invalid::Descriptors),
                (3, value) => hits = value.number32()?,
                _ => {}
            }
        }
        if !settings.domains.iter().any(|known| known.as_bytes() == domain) {
            return Err(Invalid::Domain);
        }
        let descriptor = Descriptor::read(descriptor.ok_or(Invalid::Descriptors)?)?;
        if descriptor.negative {
            return Err(Invalid::Negative);
        }
        let cost = match descriptor.hits {
            // Set on purpose: 0 asks without charging.
            Some(hits) => u32::try_from(hits).map_err(|_| Invalid::Hits)?,
            // Proto3 does not tell 0 from "not set", which counts as 1 (Envoy's rls.proto).
            None => hits.max(1),
        };
        if cost > MAX_LIMIT {
            return Err(Invalid::Hits);
        }
        let limits = descriptor.limit.map(|limit| overrides(limit, settings.window_s));
        let limits = limits.transpose()?;
        let [Some(tenant), Some(tier), Some(method), Some(route), subject] = descriptor.values
        else {
            return Err(Invalid::Missing);
        };
        if !method.bytes().all(|byte| byte.is_ascii_uppercase()) {
            return Err(Invalid::Method);
        }
        if !route.starts_with('/') {
            return Err(Invalid::Route);
        }
        let tenant = tenant.parse().map_err(|_| Invalid::Tenant)?;
        let tier = tier.parse().map_err(|_| Invalid::Tier)?;
        Ok(Self { tenant, tier, limits, subject, method, route, cost })
    }

    /// What is decided.
    pub fn check(&self) -> Check<'_> {
        let asked = Asked {
            tier: self.tier,
            limits: self.limits.as_ref(),
            subject: self.subject,
            method: self.method,
            route: self.route,
        };
        Check { tenant: self.tenant, asked, cost: self.cost, forced: false }
    }
}

// === impl Descriptor ===

impl<'a> Descriptor<'a> {
    fn read(message: &'a [u8]) -> Result<Self, Invalid> {
        let mut descriptor = Self::default();
        for field in Fields::of(message) {
            match field? {
                (1, value) => descriptor.entry(value.bytes()?)?,
                (2, value) => {
                    let mut limit = descriptor.limit.unwrap_or_default();
                    for field in Fields::of(value.bytes()?) {
                        match field? {
                            (1, value) => limit.requests = value.number32()?,
                            (2, value) => limit.unit = value.number32()?,
                            _ => {}
                        }
                    }
                    descriptor.limit = Some(limit);
                }
                (3, value) => {
                    let mut hits = descriptor.hits.unwrap_or_default();
                    for field in Fields::of(value.bytes()?) {
                        if let (1, value) = field? {
                            hits = value.number()?;
                        }
                    }
                    descriptor.hits = Some(hits);
                }
                (4, value) => descriptor.negative = value.number()? != 0,
                _ => {}
            }
        }
        Ok(descriptor)
    }

    fn entry(&mut self, message: &'a [u8]) -> Result<(), Invalid> {
        let [mut key, mut text] = [&[][..]; 2];
        for field in Fields::of(message) {
            match field? {
                (1, value) => key = value.bytes()?,
                (2, value) => text = value.bytes()?,
                _ => {}
            }
        }
        let known = NAMES.iter().zip(&mut self.values).find(|(name, _)| **name == key);
        let (_, slot) = known.ok_or(Invalid::UnknownEntry)?;
        if text.is_empty() || text.len() > VALUE_BYTES {
            return Err(Invalid::Value);
        }
        let text = std::str::from_utf8(text).map_err(|_| Invalid::Message)?;
        if slot.replace(text).is_some() { Err(Invalid::TwiceEntry) } else { Ok(()) }
    }
}

/// The tenant's limit instead of its tier's: per window where the unit is the window, or per day.
fn overrides(limit: Limit, window_s: u32) -> Result<Overrides, Invalid> {
    if limit.requests > MAX_LIMIT {
        return Err(Invalid::Limit);
    }
    let requests = Some(limit.requests);
    match limit.unit {
        DAY => Ok(Overrides { per_day: requests, ..Overrides::default() }),
        unit if seconds(unit) == Some(window_s) => {
            Ok(Overrides { per_window: requests, ..Overrides::default() })
        }
        _ => Err(Invalid::Limit),
    }
}

/// `RateLimitUnit` has these from 1 on; months, years and weeks follow.
const SECOND: u32 = 1;
const MINUTE: u32 = 2;
const HOUR: u32 = 3;
const DAY: u32 = 4;

const fn seconds(unit: u32) -> Option<u32> {
    match unit {
        SECOND => Some(1),
        MINUTE => Some(60),
        HOUR => Some(3600),
        _ => None,
    }
}

/// The unit of a window; one that has none is told by the headers alone.
pub const fn unit(window_s: u32) -> u32 {
    match window_s {
        1 => SECOND,
        60 => MINUTE,
        3600 => HOUR,
        86_400 => DAY,
        _ => 0,
    }
}
