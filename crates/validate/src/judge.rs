//! What a client is told of a body that is refused: where, and words that are the same for everybody.
//! Nothing of the body's values, nothing of a library's texts. Knows no HTTP.

use gatehouse_contract::{Problem, Reason};
use jsonschema::{ValidationError, error::ValidationErrorKind as Kind};
use serde::Serialize;
use serde_json::Value;

use crate::{body::Malformed, node};

/// The errors that a client is told at most (acceptance X7).
pub const MAX_FINDINGS: usize = 10;
/// The longest pointer that is told, in bytes; of a longer one its beginning, up to a whole step.
const MAX_POINTER_BYTES: usize = 256;

/// One thing that is wrong with a body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Where in the body (RFC 6901).
    pub pointer: String,
    /// The keyword of the schema that is not met; clients are told what it means.
    #[serde(skip)]
    pub keyword: &'static str,
    /// What that means, the same words for every body.
    pub detail: &'static str,
}

/// Why a body is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The reason, with its status.
    pub reason: Reason,
    /// What is wrong with the body as a whole.
    pub detail: &'static str,
    /// What is wrong within it, at most [`MAX_FINDINGS`].
    pub findings: Vec<Finding>,
}

impl Refusal {
    pub(crate) fn new(reason: Reason, detail: &'static str) -> Self {
        Self { reason, detail, findings: Vec::new() }
    }

    pub(crate) fn malformed(malformed: Malformed) -> Self {
        Self::new(Reason::BodyMalformed, malformed.words())
    }

    pub(crate) fn too_dear() -> Self {
        Self::new(Reason::BodyInvalid, "the body costs more to check than is allowed")
    }

    /// A body of more bytes than are taken.
    pub fn too_large() -> Self {
        Self::new(Reason::BodyTooLarge, "the body has more bytes than are taken here")
    }

    /// What a client is answered.
    pub fn problem(&self) -> Problem {
        let problem = Problem::new(self.reason).detail(self.detail);
        if self.reason != Reason::BodyInvalid {
            return problem;
        }
        // The same members in every refusal of a body, and in those of a service's own.
        let whole = [Finding { pointer: String::new(), keyword: "", detail: self.detail }];
        let findings = if self.findings.is_empty() { &whole } else { self.findings.as_slice() };
        // Findings are texts: this cannot fail.
        problem.with("errors", serde_json::to_value(findings).unwrap_or_default())
    }
}

/// The refusal for these errors of the schema library.
pub(crate) fn refusal<'b>(errors: impl Iterator<Item = ValidationError<'b>>) -> Refusal {
    let findings: Vec<Finding> = errors
        .filter(|error| node::was_in_time(error.instance()))
        .take(MAX_FINDINGS)
        .map(|error| finding(&error))
        .collect();
    if findings.is_empty() {
        return Refusal::too_dear();
    }
    Refusal { reason: Reason::BodyInvalid, detail: "the body does not fit its schema", findings }
}

fn finding(error: &ValidationError<'_>) -> Finding {
    let (keyword, detail) = words(error.kind());
    let at = error.instance_path().as_str();
    let pointer = match error.kind() {
        // The schema's word, not the client's.
        Kind::Required { property: Value::String(name) } => child(at, name),
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            unexpected.first().map_or_else(|| at.to_owned(), |name| child(at, name))
        }
        _ => at.to_owned(),
    };
    Finding { pointer: bounded(pointer), keyword, detail }
}

fn child(at: &str, name: &str) -> String {
    format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// `pointer`, or as many of its first steps as may be told.
fn bounded(mut pointer: String) -> String {
    while pointer.len() > MAX_POINTER_BYTES {
        let end = pointer.rfind('/').unwrap_or_default();
        pointer.truncate(end);
    }
    pointer
}

fn words(kind: &Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::AdditionalItems { .. } => ("additionalItems", "has more items than the schema knows"),
        Kind::AdditionalProperties { .. } => {
            ("additionalProperties", "is no member that the schema knows")
        }
        Kind::AnyOf { .. } => ("anyOf", "fits none of the alternatives"),
        Kind::Constant { .. } => ("const", "is not the one value that is taken"),
        Kind::Contains => ("contains", "does not contain as many fitting items as it must"),
        Kind::Enum { .. } => ("enum", "is none of the values that are taken"),
        Kind::ExclusiveMaximum { .. } => ("exclusiveMaximum", "is too large"),
        Kind::ExclusiveMinimum { .. } => ("exclusiveMinimum", "is too small"),
        Kind::FalseSchema => ("false", "must not be there"),
        Kind::Format { .. } => ("format", "is not in the format that it must have"),
        Kind::MaxItems { .. } => ("maxItems", "has too many items"),
        Kind::Maximum { .. } => ("maximum", "is too large"),
        Kind::MaxLength { .. } => ("maxLength", "is too long"),
        Kind::MaxProperties { .. } => ("maxProperties", "has too many members"),
        Kind::MinItems { .. } => ("minItems", "has too few items"),
        Kind::Minimum { .. } => ("minimum", "is too small"),
        Kind::MinLength { .. } => ("minLength", "is too short"),
        Kind::MinProperties { .. } => ("minProperties", "has too few members"),
        Kind::MultipleOf { .. } => ("multipleOf", "is no multiple of what it must be"),
        Kind::Not { .. } => ("not", "fits what it must not fit"),
        Kind::OneOfMultipleValid { .. } => ("oneOf", "fits more than one of the alternatives"),
        Kind::OneOfNotValid { .. } => ("oneOf", "fits none of the alternatives"),
        Kind::Pattern { .. } => ("pattern", "does not match the pattern"),
        Kind::PropertyNames { .. } => ("propertyNames", "has a member whose name does not fit"),
        Kind::Required { .. } => ("required", "is missing"),
        Kind::Type { .. } => ("type", "is of another type than it must be"),
        Kind::UnevaluatedItems { .. } => {
            ("unevaluatedItems", "has items that the schema does not know")
        }
        Kind::UnevaluatedProperties { .. } => {
            ("unevaluatedProperties", "is no member that the schema knows")
        }
        Kind::UniqueItems => ("uniqueItems", "has the same item twice"),
        // A pattern that could not be finished, and what no schema here can bring about.
        Kind::BacktrackLimitExceeded { .. } | Kind::RegexEngineFailure { .. } => {
            ("pattern", "could not be matched against the pattern")
        }
        Kind::ContentEncoding { .. }
        | Kind::FromUtf8 { .. }
        | Kind::ContentMediaType { .. }
        | Kind::Custom { .. }
        | Kind::Referencing(_) => ("schema", "does not fit"),
    }
}

#[cfg(test)]
mod tests;
