//! The endpoints of what a tenant is and may use: `/api/v1/factory`. Knows no handler's inside.

use super::TENANT;
use crate::routes::{
    cache, endpoint::Endpoint, limits, oauth, operations, organizations, quotas, tenant_config,
    tenants, usage, version_pin,
};

const ALL: &str = "/api/v1/factory/tenants";
const OPERATIONS: &str = "/api/v1/factory/operations";

pub fn tenants() -> Vec<Endpoint> {
    let at = |rest: &str| format!("{TENANT}/{rest}");
    let (of_limits, of_pin) = (at("limits"), at("version-pin"));
    vec![
        Endpoint::list(ALL, "listTenants", "The newest first", tenants::list)
            .narrowed_by(tenants::FILTERS)
            .answers(200, "Tenant"),
        Endpoint::act(ALL, "createTenant", "Makes a tenant", tenants::create)
            .takes("NewTenant")
            .answers(202, "Operation"),
        Endpoint::read(TENANT, "readTenant", "A tenant's record", tenants::read)
            .answers(200, "Tenant"),
        Endpoint::change(
            ("PATCH", TENANT),
            "changeTenant",
            "Gives a tenant another name, another tier, or both",
            tenants::change,
        )
        .takes("TenantChange")
        .answers(200, "Tenant"),
        Endpoint::remove(
            TENANT,
            "deleteTenant",
            "Erases a tenant and everything of it; nothing brings it back",
            tenants::delete,
        )
        .answers(202, "Operation"),
        Endpoint::act(
            &at("suspend"),
            "suspendTenant",
            "Keeps everybody of a tenant from acting",
            tenants::suspend,
        )
        .answers(202, "Operation"),
        Endpoint::act(
            &at("resume"),
            "resumeTenant",
            "Lets a suspended tenant act again",
            tenants::resume,
        )
        .answers(202, "Operation"),
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

/// What a tenant is made of and what it has.
pub fn tenancy() -> Vec<Endpoint> {
    let at = |rest: &str| format!("{TENANT}/{rest}");
    let (organizations, config, quotas) = (at("organizations"), at("config"), at("quotas"));
    let organization = format!("{organizations}/{{organization}}");
    vec![
        Endpoint::list(
            &organizations,
            "listOrganizations",
            "The newest first",
            organizations::list,
        )
        .narrowed_by(organizations::FILTERS)
        .answers(200, "Organization"),
        Endpoint::act(
            &organizations,
            "createOrganization",
            "Makes an organization, below another one or at the top",
            organizations::create,
        )
        .takes("NewOrganization")
        .answers(201, "Organization"),
        Endpoint::read(&organization, "readOrganization", "An organization", organizations::read)
            .answers(200, "Organization"),
        Endpoint::change(
            ("PATCH", &organization),
            "changeOrganization",
            "Gives an organization another name, another place, or both",
            organizations::change,
        )
        .takes("OrganizationChange")
        .answers(200, "Organization"),
        Endpoint::remove(
            &organization,
            "deleteOrganization",
            "Removes an organization with nothing below it",
            organizations::delete,
        ),
        Endpoint::read(&config, "readConfig", "A tenant's configuration", tenant_config::read)
            .answers(200, "TenantConfig"),
        Endpoint::change(
            ("PATCH", &config),
            "changeConfig",
            "Replaces what is named (RFC 7396); the whole must fit the schema",
            tenant_config::change,
        )
        .takes("TenantConfigPatch")
        .merges()
        .answers(200, "TenantConfig"),
        Endpoint::read(
            &quotas,
            "readQuotas",
            "What a tenant may have, and what it has",
            quotas::read,
        )
        .answers(200, "Quotas"),
        Endpoint::change(
            ("PATCH", &quotas),
            "changeQuotas",
            "Gives a tenant quotas of its own; null is its tier's again",
            quotas::change,
        )
        .takes("QuotasChange")
        .answers(200, "Quotas"),
        Endpoint::list(&at("usage"), "listUsage", "What was used, day by day (UTC)", usage::list)
            .narrowed_by(usage::FILTERS)
            .answers(200, "UsageDay"),
    ]
}

pub fn platform() -> Vec<Endpoint> {
    vec![
        Endpoint::list(OPERATIONS, "listOperations", "The newest first", operations::list)
            .narrowed_by(&["kind", "tenant_id"])
            .answers(200, "Operation"),
        Endpoint::read(
            &format!("{OPERATIONS}/{{operation}}"),
            "readOperation",
            "How far an operation is",
            operations::read,
        )
        .answers(200, "Operation"),
        Endpoint::act(
            "/api/v1/factory/signing-keys",
            "rotateSigningKey",
            "Publishes another key; it signs once verifiers had the time to learn it",
            oauth::rotate,
        )
        .answers(201, "SigningKey"),
        Endpoint::act(
            "/api/v1/factory/cache/purge",
            "purgeCache",
            "Has everything that is remembered of a tenant, or of all, forgotten everywhere",
            cache::purge,
        )
        .takes("CachePurge")
        .answers(202, "CachePurge"),
    ]
}
