//! JSON pointers to claims (RFC 6901). Knows nothing of what a claim means.

use std::str::FromStr;

use crate::strict::{Object, Value};

/// A JSON pointer (RFC 6901) to a claim, through objects only; at least one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer(Vec<String>);

/// The text is not a JSON pointer to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a JSON pointer such as \"/tenant_id\"")]
pub struct NotAPointer;

impl Pointer {
    /// A claim at the top, by its plain name.
    pub fn to(name: &str) -> Self {
        Self(vec![name.to_owned()])
    }

    pub(crate) fn find<'c>(&self, claims: Object<'c>) -> Option<Value<'c>> {
        let mut steps = self.0.iter();
        let first = claims.get(steps.next()?)?;
        steps.try_fold(first, |value, step| value.member(step))
    }
}

impl FromStr for Pointer {
    type Err = NotAPointer;

    fn from_str(text: &str) -> Result<Self, NotAPointer> {
        let steps = text.strip_prefix('/').ok_or(NotAPointer)?;
        steps.split('/').map(unescape).collect::<Option<_>>().map(Self).ok_or(NotAPointer)
    }
}

/// RFC 6901 §4: `~1` first, then `~0`; any other tilde is a mistake.
fn unescape(step: &str) -> Option<String> {
    let mut parts = step.split('~');
    let mut plain = parts.next()?.to_owned();
    for part in parts {
        let (escaped, rest) = match part.split_at_checked(1)? {
            ("0", rest) => ('~', rest),
            ("1", rest) => ('/', rest),
            _ => return None,
        };
        plain.push(escaped);
        plain.push_str(rest);
    }
    Some(plain)
}
