//! The scopes of a token (RFC 6749 §3.3, RFC 9068 §2.2.3), in the forms that issuers write them: one string, or a
//! list of strings. Knows nothing of what a scope allows.

use std::fmt;

use crate::strict::Value;

/// The scopes that a token carries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scopes(String);

impl Scopes {
    /// Reads `scope` or `scp`; `None` where it has another form or a character that no scope has.
    pub(crate) fn read(claim: Value<'_>) -> Option<Self> {
        let scopes = match claim {
            Value::Text(scopes) => scopes.to_owned(),
            Value::List(scopes) => {
                let mut joined = String::new();
                for scope in scopes.iter() {
                    // One element is one scope: a space within it would make it two.
                    let scope = scope.as_str().filter(|scope| !scope.contains(' '))?;
                    joined.push_str(scope);
                    joined.push(' ');
                }
                joined
            }
            _ => return None,
        };
        let fits = |byte: u8| byte == b' ' || is_scope_byte(byte);
        scopes.bytes().all(fits).then_some(Self(scopes))
    }

    /// Whether `scope` is among them, whole and byte for byte.
    pub fn has(&self, scope: &str) -> bool {
        self.iter().any(|known| known == scope)
    }

    /// One by one, as the token lists them.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.split(' ').filter(|scope| !scope.is_empty())
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.trim_end())
    }
}

/// RFC 6749 §3.3: printable ASCII without the space, the quote and the backslash.
const fn is_scope_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\')
}
