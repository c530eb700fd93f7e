//! The endpoints of what a tenant is and may use: `/api/v1/factory`. Knows no handler's inside.

use super::TENANT;
use crate::routes::{endpoint::Endpoint, limits, oauth, tenants, version_pin};

pub fn tenants() -> Vec<Endpoint> {
    let at = |rest: &str| format!("{TENANT}/{rest}");
    let (of_limits, of_pin) = (at("limits"), at("version-pin"));
    vec![
        Endpoint::act(
            "/api/v1/factory/tenants",
            "createTenant",
            "Makes an active tenant",
            tenants::create,
        )
        .takes("NewTenant")
        .answers(201, "Tenant"),
        Endpoint::read(TENANT, "readTenant", "A tenant's record", tenants::read)
            .answers(200, "Tenant"),
        Endpoint::change(
            ("PATCH", TENANT),
            "changeTenant",
            "Gives a tenant another tier",
            tenants::change,
        )
        .takes("TenantChange")
        .answers(200, "Tenant"),
        Endpoint::act(
            &at("suspend"),
            "suspendTenant",
            "Keeps everybody of a tenant from acting",
            tenants::suspend,
        )
        .answers(200, "Tenant"),
        Endpoint::act(
            &at("resume"),
            "resumeTenant",
            "Lets a suspended tenant act again",
            tenants::resume,
        )
        .answers(200, "Tenant"),
        Endpoint::read(
            &of_limits,
            "readLimits",
            "Where a tenant's limits differ from its tier's",
            limits::read,
        )
        .answers(200, "Limits"),
        Endpoint::change(
            ("PUT", &of_limits),
            "replaceLimits",
            "Replaces all that differs",
            limits::replace,
        )
        .takes("LimitsPut")
        .answers(200, "Limits"),
        Endpoint::remove(&of_limits, "clearLimits", "Back to the tier's limits", limits::clear),
        Endpoint::read(
            &of_pin,
            "readVersionPin",
            "Which API version answers requests that name none",
            version_pin::read,
        )
        .answers(200, "VersionPin"),
        Endpoint::change(
            ("PUT", &of_pin),
            "replaceVersionPin",
            "Pins a tenant to an API version",
            version_pin::replace,
        )
        .takes("VersionPinPut")
        .answers(200, "VersionPin"),
        Endpoint::remove(
            &of_pin,
            "clearVersionPin",
            "Back to the gateway's default",
            version_pin::clear,
        ),
    ]
}

pub fn platform() -> Vec<Endpoint> {
    vec![
        Endpoint::act(
            "/api/v1/factory/signing-keys",
            "rotateSigningKey",
            "Publishes another key; it signs once verifiers had the time to learn it",
            oauth::rotate,
        )
        .answers(201, "SigningKey"),
    ]
}
        Endpoint::act(
            "/api/v1/factory/cache/purge",
            "purgeCache",
            "Has everything that is remembered of a tenant, or of all, forgotten everywhere",
            cache::purge,
        )
        .takes("CachePurge")
        .answers(202, "CachePurge"),
