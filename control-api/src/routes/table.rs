//! Every endpoint of the public listener, once. Knows no handler's inside.

use super::{
    agents, api_keys, audit,
    endpoint::Endpoint,
    executions, limits,
    members::{self, Kind},
    oauth, reference, tenants, version_pin,
};
use crate::{federation, oidc};

/// An execution's input may have 256 KiB; the rest is the envelope around it.
const EXECUTION_BODY_BYTES: usize = (256 + 8) * 1024;

const TENANT: &str = "/api/v1/factory/tenants/{tenant}";
const AGENTS: &str = "/api/v1/registry/agents";
const EXECUTIONS: &str = "/api/v1/runtime/executions";

/// All of them, in the order of the document.
pub fn endpoints() -> Vec<Endpoint> {
    let groups = [
        tenants(),
        members::endpoints(Kind::User),
        members::endpoints(Kind::Client),
        api_keys(),
        issuers(),
        audited(),
        registry(),
        runtime(),
        platform(),
        oauth(),
        documents(),
    ];
    groups.into_iter().flatten().collect()
}

fn tenants() -> Vec<Endpoint> {
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

fn api_keys() -> Vec<Endpoint> {
    let all = format!("{TENANT}/api-keys");
    let one = format!("{all}/{{key}}");
    vec![
        Endpoint::list(
            &all,
            "listApiKeys",
            "The newest first, those that ended included; below an admin one's own",
            api_keys::list,
        )
        .answers(200, "ApiKey"),
        Endpoint::act(
            &all,
            "createApiKey",
            "Makes a key, never above whoever makes it; it is shown this once",
            api_keys::create,
        )
        .takes("NewApiKey")
        .answers(201, "ApiKeyMade"),
        Endpoint::read(&one, "readApiKey", "A key's record, without the key", api_keys::read)
            .answers(200, "ApiKey"),
        Endpoint::change(
            ("PATCH", &one),
            "renameApiKey",
            "Gives a key another name",
            api_keys::rename,
        )
        .takes("ApiKeyChange")
        .answers(200, "ApiKey"),
        Endpoint::remove(&one, "revokeApiKey", "Ends a key at once", api_keys::revoke),
        Endpoint::act(
            &format!("{one}/rotate"),
            "rotateApiKey",
            "Makes a successor, shown this once; the old key opens until the overlap ends",
            api_keys::rotate,
        )
        .takes("ApiKeyRotation")
        .answers(201, "ApiKeyMade"),
    ]
}

fn issuers() -> Vec<Endpoint> {
    let all = format!("{TENANT}/issuers");
    let one = format!("{all}/{{issuer}}");
    vec![
        Endpoint::list(&all, "listIssuers", "The newest first", federation::list)
            .answers(200, "Issuer"),
        Endpoint::act(
            &all,
            "createIssuer",
            "Lets an OpenID provider speak for the tenant's people",
            federation::create,
        )
        .takes("NewIssuer")
        .answers(201, "Issuer"),
        Endpoint::read(&one, "readIssuer", "An issuer, without its secret", federation::read)
            .answers(200, "Issuer"),
        Endpoint::change(
            ("PATCH", &one),
            "changeIssuer",
            "Replaces what is named (RFC 7396); its sessions end",
            federation::update,
        )
        .takes("IssuerChange")
        .answers(200, "Issuer"),
        Endpoint::remove(
            &one,
            "deleteIssuer",
            "Removes an issuer; its sessions end",
            federation::delete,
        ),
    ]
}

fn audited() -> Vec<Endpoint> {
    let all = format!("{TENANT}/audit");
    vec![
        Endpoint::list(
            &all,
            "listAudit",
            "Who did what, the newest first, with what was before and after",
            audit::list,
        )
        .answers(200, "AuditRow")
        .narrowed_by(audit::FILTERS),
        Endpoint::stream(
            &format!("{all}/export"),
            "exportAudit",
            "The whole sealed audit as JSON lines, for `gatehouse verify audit`",
            audit::export,
        ),
    ]
}

fn registry() -> Vec<Endpoint> {
    let one = format!("{AGENTS}/{{agent}}");
    let versions = format!("{one}/versions");
    vec![
        Endpoint::list(AGENTS, "listAgents", "The newest first", agents::list)
            .narrowed_by(&["name"])
            .answers(200, "Agent"),
        Endpoint::act(AGENTS, "createAgent", "Registers an agent", agents::create)
            .takes("NewAgent")
            .answers(201, "Agent"),
        Endpoint::read(&one, "readAgent", "An agent", agents::read).answers(200, "Agent"),
        Endpoint::remove(
            &one,
            "deleteAgent",
            "Takes an agent out of the registry; its executions stay",
            agents::delete,
        ),
        Endpoint::list(&versions, "listVersions", "The newest first", agents::list_versions)
            .answers(200, "AgentVersion"),
        Endpoint::act(
            &versions,
            "createVersion",
            "Publishes a version; its image lies in the tenant's own store",
            agents::create_version,
        )
        .takes("NewAgentVersion")
        .answers(201, "AgentVersion"),
    ]
}

fn runtime() -> Vec<Endpoint> {
    vec![
        Endpoint::list(EXECUTIONS, "listExecutions", "The newest first", executions::list)
            .answers(200, "Execution"),
        Endpoint::act(
            EXECUTIONS,
            "submitExecution",
            "Submits an execution; look at Location for what becomes of it",
            executions::submit,
        )
        .takes("NewExecution")
        .up_to(EXECUTION_BODY_BYTES)
        .answers(202, "ExecutionAccepted"),
        Endpoint::read(
            &format!("{EXECUTIONS}/{{execution}}"),
            "readExecution",
            "An execution and its result",
            executions::read,
        )
        .answers(200, "Execution"),
    ]
}

fn platform() -> Vec<Endpoint> {
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

fn oauth() -> Vec<Endpoint> {
    vec![
        Endpoint::public(
            ("POST", "/oauth2/token"),
            "issueToken",
            "An access token for a client (RFC 6749 §4.4)",
            oauth::token,
        )
        .answers(200, "Token"),
        Endpoint::public(
            ("POST", "/oauth2/revoke"),
            "revokeToken",
            "Ends a token of the client's own (RFC 7009)",
            oauth::revoke,
        ),
        Endpoint::public(
            ("GET", "/oauth2/login"),
            "beginSignIn",
            "Sends a browser to a tenant's provider",
            oidc::login,
        )
        .answers(303, None),
        Endpoint::public(
            ("GET", "/oauth2/callback"),
            "endSignIn",
            "What a provider sends the browser back with",
            oidc::callback,
        )
        .answers(303, None),
        Endpoint::public(
            ("POST", "/oauth2/logout"),
            "signOut",
            "Ends the browser's session",
            oidc::logout,
        )
        .answers(204, None),
    ]
}

fn documents() -> Vec<Endpoint> {
    vec![
        Endpoint::document(
            "/.well-known/jwks.json",
            "readKeys",
            "The keys that verify our tokens (RFC 7517)",
            oauth::jwks,
        )
        .answers(200, "Document"),
        Endpoint::document(
            "/.well-known/openid-configuration",
            "readDiscovery",
            "Where everything of OAuth is (RFC 8414)",
            oauth::discovery,
        )
        .answers(200, "Document"),
        Endpoint::document(
            "/api/v1/openapi.json",
            "readOpenApi",
            "This document",
            reference::document,
        )
        .answers(200, "Document"),
        Endpoint::document(
            "/api/v1/reference",
            "readReference",
            "This document for people",
            reference::page,
        ),
    ]
}
