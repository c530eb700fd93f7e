//! What a descriptor asks. One descriptor is one whole decision: every limit that weighs on the request is charged by
//! it, or none; several would be several decisions, of which some could be charged and others not.
//! Nothing here means "pass": what is not understood is an error.
//! Knows no limit's standing.

use gatehouse_contract::{
    TenantId, Tier,
    sidecar::{CheckAsk, Overrides},
};
use gatehouse_ratelimit::policy::MAX_LIMIT;

use super::wire::{Descriptor, LimitOverride, RateLimitRequest, Unit};

/// Longest value of an entry, in bytes.
const VALUE_BYTES: usize = 512;

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

/// Reads the one descriptor of `request`. `window_s` is the window of tier limits, for an override's unit.
pub fn read(request: RateLimitRequest, window_s: u32) -> Result<CheckAsk, Invalid> {
    let Ok([descriptor]) = <[Descriptor; 1]>::try_from(request.descriptors) else {
        return Err(Invalid::Descriptors);
    };
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
    let limits = descriptor.limit.map(|limit| overrides(limit, window_s)).transpose()?;
    let [mut tenant, mut tier, mut method, mut route, mut subject] = [const { None::<String> }; 5];
    for entry in descriptor.entries {
        let slot = match entry.key.as_str() {
            "tenant_id" => &mut tenant,
            "tier" => &mut tier,
            "method" => &mut method,
            "route" => &mut route,
            "subject" => &mut subject,
            _ => return Err(Invalid::UnknownEntry),
        };
        if entry.value.is_empty() || entry.value.len() > VALUE_BYTES {
            return Err(Invalid::Value);
        }
        if slot.replace(entry.value).is_some() {
            return Err(Invalid::TwiceEntry);
        }
    }
    let (Some(tenant), Some(tier), Some(method), Some(route)) = (tenant, tier, method, route)
    else {
        return Err(Invalid::Missing);
    };
    if !method.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Err(Invalid::Method);
    }
    if !route.starts_with('/') {
        return Err(Invalid::Route);
    }
    let tenant: TenantId = tenant.parse().map_err(|_| Invalid::Tenant)?;
    let tier: Tier = tier.parse().map_err(|_| Invalid::Tier)?;
    Ok(CheckAsk { tenant, tier, limits, subject, method, route, cost, forced: false })
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
