//! The endpoints of signing in, and the documents that anybody may read. Knows no handler's inside.

use crate::{
    oidc,
    routes::{endpoint::Endpoint, oauth, reference, tenant_config},
};

pub fn sign_in() -> Vec<Endpoint> {
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

pub fn documents() -> Vec<Endpoint> {
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
            tenant_config::SCHEMA_PATH,
            "readTenantConfigSchema",
            "What a tenant's configuration may say (JSON Schema 2020-12)",
            tenant_config::schema,
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
