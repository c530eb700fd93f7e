//! The endpoints of who may act in a tenant, and of what they did. Knows no handler's inside.

use super::TENANT;
use crate::{
    federation,
    routes::{api_keys, audit, endpoint::Endpoint, roles},
};

pub fn roles() -> Vec<Endpoint> {
    let at = format!("{TENANT}/roles");
    vec![
        Endpoint::read(
            &at,
            "readRoles",
            "Which roles there are, and what each may do",
            roles::read,
        )
        .answers(200, "Roles"),
    ]
}

pub fn api_keys() -> Vec<Endpoint> {
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

pub fn issuers() -> Vec<Endpoint> {
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

pub fn audited() -> Vec<Endpoint> {
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
