//! What a descriptor asks. One descriptor is one whole decision: every limit that weighs on the request is charged by
//! it, or none; several would be several decisions, of which some could be charged and others not.
//! Nothing here means "pass": what is not understood is an error.
//! Knows no limit's standing.

use gatehouse_contract::{TenantId, Tier, sidecar::Overrides};
use gatehouse_ratelimit::{Asked, policy::MAX_LIMIT};

use super::{
    Settings,
    wire::{Entry, LimitOverride, RateLimitRequest, Unit},
};
use crate::engine::Check;

/// Longest value of an entry, in bytes.
const VALUE_BYTES: usize = 512;
/// What entries may be called.
const NAMES: [&str; 5] = ["tenant_id", "tier", "method", "route", "subject"];

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

// === impl Question ===

impl<'a> Question<'a> {
    /// Reads `request` and its one descriptor.
    pub fn read(request: &'a RateLimitRequest, settings: &Settings) -> Result<Self, Invalid> {
        if !settings.domains.contains(&request.domain) {
            return Err(Invalid::Domain);
        }
        let [descriptor] = request.descriptors.as_slice() else { return Err(Invalid::Descriptors) };
        if descriptor.is_negative_hits {
            return Err(Invalid::Negative);
        }
        let cost = match descriptor.hits_addend {
            // Set on purpose: 0 asks without charging.
            Some(hits) => u32::try_from(hits.value).map_err(|_| Invalid::Hits)?,
            // Proto3 does not tell 0 from "not set", which counts as 1 (Envoy's rls.proto).
            None => request.hits_addend.max(1),
        };
        if cost > MAX_LIMIT {
            return Err(Invalid::Hits);
        }
        let limits = descriptor.limit.map(|limit| overrides(limit, settings.window_s));
        let limits = limits.transpose()?;
        let mut values = [None; NAMES.len()];
        for Entry { key, value } in &descriptor.entries {
            let known = NAMES.iter().zip(&mut values).find(|(name, _)| **name == key);
            let (_, slot) = known.ok_or(Invalid::UnknownEntry)?;
            if value.is_empty() || value.len() > VALUE_BYTES {
                return Err(Invalid::Value);
            }
            if slot.replace(value.as_str()).is_some() {
                return Err(Invalid::TwiceEntry);
            }
        }
        let [Some(tenant), Some(tier), Some(method), Some(route), subject] = values else {
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

/// The tenant's limit instead of its tier's: per window where the unit is the window, or per day.
fn overrides(limit: LimitOverride, window_s: u32) -> Result<Overrides, Invalid> {
    let requests = limit.requests_per_unit;
    if requests > MAX_LIMIT {
        return Err(Invalid::Limit);
    }
    let unit = Unit::try_from(limit.unit).map_err(|_| Invalid::Limit)?;
    if unit == Unit::Day {
        return Ok(Overrides { per_day: Some(requests), ..Overrides::default() });
    }
    if seconds(unit) == Some(window_s) {
        return Ok(Overrides { per_window: Some(requests), ..Overrides::default() });
    }
    Err(Invalid::Limit)
}

const fn seconds(unit: Unit) -> Option<u32> {
    match unit {
        Unit::Second => Some(1),
        Unit::Minute => Some(60),
        Unit::Hour => Some(3600),
        Unit::Unknown | Unit::Day | Unit::Month | Unit::Year | Unit::Week => None,
    }
}
