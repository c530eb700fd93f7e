//! Refusals: the closed list of reasons, and the body that a client sees (RFC 9457).
//! Knows no HTTP library: callers turn a [`Problem`] into their response.

use serde::Serialize;
use serde_json::{Map, Value};

/// Where each reason is explained; a reason's `type` is this and its code as the fragment.
pub const TYPE_BASE: &str = "https://docs.greenlang.ai/problems#";

/// A refusal's `instance` is this and the request's id (RFC 9457 §3.1.5): the occurrence's name, and no address. Ids are
/// letters, digits, `-`, `_`, `.` and `:`, all of which may stand in a URN.
const INSTANCE_BASE: &str = "urn:request:";

/// The media type of every refusal's body.
pub const MEDIA_TYPE: &str = "application/problem+json";

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $status:literal, $title:literal;)+) => {
        /// Why a request was refused: metric label, log field and problem `code` in one word.
        /// Append only; a code never changes its meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $($(#[$doc])* $variant),+ }

        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The stable word for metrics, logs and the problem's `code`.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$variant => $code),+ }
            }

            /// The HTTP status that goes with it.
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status),+ }
            }

            /// The problem's `title`, the same for every occurrence.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title),+ }
            }
        }
    };
}

reasons! {
    /// No credential where one is needed.
    CredentialMissing = "credential_missing", 401, "Authentication is required";
    /// More than one credential, or one in a broken form (RFC 6750 `invalid_request`).
    CredentialMalformed = "credential_malformed", 400, "The credential is malformed";
    /// The token is forged, expired, or not meant for us (RFC 6750 `invalid_token`).
    TokenInvalid = "token_invalid", 401, "The access token is not valid";
    /// The credential names no tenant.
    TenantMissing = "tenant_missing", 403, "The credential names no tenant";
    /// The issuer may not speak for this tenant, or the tenant's id is not one.
    TenantInvalid = "tenant_invalid", 403, "The credential's tenant is not valid";
    /// The tenant is not active.
    TenantInactive = "tenant_inactive", 403, "The tenant is not active";
    /// The roles held do not allow this.
    PermissionDenied = "permission_denied", 403, "The caller's roles do not allow this";
    /// The token's scope does not reach this far (RFC 6750 `insufficient_scope`).
    ScopeInsufficient = "scope_insufficient", 403, "The access token's scope does not reach this far";
    /// The caller was suspended within its tenant.
    PrincipalInactive = "principal_inactive", 403, "The caller is not active";
    /// No such thing, or another tenant's.
    NotFound = "not_found", 404, "There is no such resource";
    /// The path names an API version that is not served.
    VersionUnknown = "version_unknown", 404, "This API version does not exist";
    /// The path is ambiguous or broken.
    PathInvalid = "path_invalid", 400, "The path is not valid";
    /// A protected header came twice or broken.
    HeaderInvalid = "header_invalid", 400, "A header is not valid";
    /// A rate limit is used up.
    QuotaExceeded = "quota_exceeded", 429, "The rate limit is used up";
    /// The limiter could not be asked and the tier's policy is closed.
    LimiterUnavailable = "limiter_unavailable", 503, "The rate limiter cannot be reached";
    /// Keys or the principal could not be asked for.
    IdentityUnavailable = "identity_unavailable", 503, "Identities cannot be checked at the moment";
    /// A dependency of a service is away.
    DependencyUnavailable = "dependency_unavailable", 503, "A part of the service cannot be reached";
    /// The method is not served on this path.
    MethodNotAllowed = "method_not_allowed", 405, "The method is not allowed here";
    /// The body is not of a media type that is taken.
    MediaTypeUnsupported = "media_type_unsupported", 415, "The media type is not supported";
    /// The body is larger than the bound.
    BodyTooLarge = "body_too_large", 413, "The body is too large";
    /// The body is not what the operation takes.
    BodyInvalid = "body_invalid", 422, "The body is not valid";
    /// The request clashes with what is there.
    Conflict = "conflict", 409, "The request conflicts with the current state";
    /// Something broke on our side.
    Internal = "internal", 500, "Something went wrong on our side";
    /// `Accept` names API versions that are not served, and nothing else.
    VersionNotAcceptable = "version_not_acceptable", 406, "No API version that is served is acceptable";
    /// A version's parameter is malformed, or path and `Accept` name two versions where that is refused.
    VersionInvalid = "version_invalid", 400, "The API version is not named in a valid way";
    /// The API version is not served any more, or not at the moment.
    VersionGone = "version_gone", 410, "This API version is gone";
    /// The body is not JSON, or JSON in a form that is not taken.
    BodyMalformed = "body_malformed", 400, "The body is not well-formed";
    /// The request's headers are larger, or more, than the bound.
    HeadersTooLarge = "headers_too_large", 431, "The request's headers are too large";
    /// The upstream answered with what the gateway is told not to pass on.
    UpstreamInvalid = "upstream_invalid", 502, "The service's answer is not valid";
    /// A parameter of the query is unknown, stands twice or has no value that it may have.
    QueryInvalid = "query_invalid", 400, "The query is not valid";
    /// `If-Match` names another state than there is (RFC 9110 §13.1.1).
    PreconditionFailed = "precondition_failed", 412, "The resource is not in the state that was named";
    /// A change of something that exists must say which state it changes (RFC 6585 §3).
    PreconditionMissing = "precondition_missing", 428, "The request must name the state that it changes";
    /// The first request with this `Idempotency-Key` is still being answered.
    KeyInFlight = "key_in_flight", 409, "A request with this Idempotency-Key is being answered";
    /// The `Idempotency-Key` was used for another request.
    KeyReused = "key_reused", 422, "The Idempotency-Key was used for another request";
    /// The request did not arrive whole in time.
    RequestTimeout = "request_timeout", 408, "The request did not arrive in time";
    /// The service did not answer in time; what it did is not known.
    AnswerTimeout = "answer_timeout", 504, "The answer was not ready in time";
    /// As many executions wait as the tenant may have waiting.
    QueueFull = "queue_full", 429, "Too many executions are waiting";
    /// `Accept` takes none of the media types in which the operation answers.
    MediaTypeNotAcceptable = "media_type_not_acceptable", 406, "No media type that can be answered is acceptable";
}

impl Reason {
    /// The problem's `type`.
    pub fn type_uri(self) -> String {
        format!("{TYPE_BASE}{}", self.fragment())
    }

    /// What of the page at [`TYPE_BASE`] explains it.
    pub fn fragment(self) -> String {
        self.code().replace('_', "-")
    }

    /// The gRPC status that goes with it: gRPC's own mapping of HTTP statuses where it has one (401, 403, 404, 429,
    /// 502 to 504), else the status whose meaning is the same.
    pub const fn grpc_code(self) -> u8 {
        match self.status() {
            400 | 406 | 415 | 422 => 3,
            401 => 16,
            403 => 7,
            404 | 405 | 410 => 12,
            408 => 4,
            409 => 10,
            412 | 428 => 9,
            413 | 429 | 431 => 8,
            502..=504 => 14,
            _ => 13,
        }
    }
}

/// A refusal's body (RFC 9457 §3), with `code` and `request_id` as extensions. `instance` says the
/// request's id once more, as the standard's own member.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Problem {
    /// Where the reason is explained.
    pub r#type: String,
    /// The same for every occurrence of the reason.
    pub title: &'static str,
    /// The HTTP status, repeated.
    pub status: u16,
    /// What happened this time, in words that a client may see.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The occurrence: the request's id as a URI.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// [`Reason::code`].
    pub code: &'static str,
    /// The request's id, to ask support about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// What else the reason carries, e.g. the versions that are served.
    #[serde(flatten)]
    pub extensions: Map<String, Value>,
}

impl Problem {
    /// A problem with nothing but its reason.
    pub fn new(reason: Reason) -> Self {
        Self {
            r#type: reason.type_uri(),
            title: reason.title(),
            status: reason.status(),
            detail: None,
            instance: None,
            code: reason.code(),
            request_id: None,
            extensions: Map::new(),
        }
    }

    /// Adds what happened this time. Never pass text from a library's error or from a credential.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds the request's id.
    #[must_use]
    pub fn request_id(mut self, id: impl Into<String>) -> Self {
        let id = id.into();
        self.instance = Some(format!("{INSTANCE_BASE}{id}"));
        self.request_id = Some(id);
        self
    }

    /// Adds an extension member.
    #[must_use]
    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.extensions.insert(name.to_owned(), value);
        self
    }

    /// The body's bytes.
    pub fn to_json(&self) -> Vec<u8> {
        // A `Problem` has string keys only, so that this cannot fail; an empty body is the safe answer.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_words_and_statuses_are_refusals() {
        let mut seen = std::collections::BTreeSet::new();
        for reason in Reason::ALL {
            assert!(seen.insert(reason.code()), "{} twice", reason.code());
            assert!((400..600).contains(&reason.status()));
            assert!(reason.code().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        }
    }

    #[test]
    fn body_has_the_members_of_rfc_9457() {
        let body = Problem::new(Reason::QuotaExceeded).request_id("r1").with("limit", 60.into());
        assert_eq!(
            String::from_utf8(body.to_json()).unwrap(),
            r#"{"type":"https://docs.greenlang.ai/problems#quota-exceeded","title":"The rate limit is used up","status":429,"instance":"urn:request:r1","code":"quota_exceeded","request_id":"r1","limit":60}"#
        );
    }

    #[test]
    fn j34_every_reason_has_a_grpc_status_of_its_meaning() {
        for reason in Reason::ALL {
            let expected = match reason.status() {
                400 | 406 | 415 | 422 => "invalid argument 3",
                401 => "unauthenticated 16",
                403 => "permission denied 7",
                404 | 405 | 410 => "unimplemented 12",
                408 => "deadline exceeded 4",
                409 => "aborted 10",
                412 | 428 => "failed precondition 9",
                413 | 429 | 431 => "resource exhausted 8",
                500 => "internal 13",
                502..=504 => "unavailable 14",
                other => panic!("{other} has no gRPC status yet"),
            };
            assert!(expected.ends_with(&format!(" {}", reason.grpc_code())), "{reason:?}");
        }
    }
}
