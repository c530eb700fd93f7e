//! Where in a document something stands, as people read it (a JSON path) and as programs follow it (RFC 6901).
//! Knows no document.

use super::Mistake;

/// The longest pointer that is told, in bytes: names may be a client's.
const MAX_POINTER_BYTES: usize = 256;

impl Mistake {
    /// The place as a JSON pointer (RFC 6901), at most 256 bytes, cut between steps.
    pub fn pointer(&self) -> String {
        let mut pointer = String::new();
        let mut rest = self.path.strip_prefix('$').unwrap_or(&self.path);
        while let Some((name, after)) = next(rest) {
            let step = name.replace('~', "~0").replace('/', "~1");
            if pointer.len().saturating_add(step.len()) >= MAX_POINTER_BYTES {
                break;
            }
            pointer.push('/');
            pointer.push_str(&step);
            rest = after;
        }
        pointer
    }
}

/// `path` and one member more. A name that a path would not be read back from stands in brackets, as JSON.
pub fn member(path: &str, name: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'/' | b':');
    if !name.is_empty() && name.bytes().all(plain) {
        format!("{path}.{name}")
    } else {
        format!("{path}[{}]", serde_json::Value::from(name))
    }
}

/// The first step of a path, and what is behind it.
fn next(path: &str) -> Option<(String, &str)> {
    if let Some(rest) = path.strip_prefix("[\"") {
        // The first quote that is not escaped ends the name.
        let mut escaped = false;
        let end = rest.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        })?;
        let name = serde_json::from_str(&format!("\"{}\"", rest.get(..end)?)).ok()?;
        return Some((name, rest.get(end..)?.strip_prefix("\"]")?));
    }
    if let Some(rest) = path.strip_prefix('[') {
        let (index, after) = rest.split_once(']')?;
        return Some((index.to_owned(), after));
    }
    let rest = path.strip_prefix('.').unwrap_or(path);
    let end = rest.find(['.', '[']).unwrap_or(rest.len());
    let (name, after) = rest.split_at_checked(end)?;
    (!name.is_empty()).then(|| (name.to_owned(), after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, expected: &str) {
        let mistake = Mistake { path: path.to_owned(), cause: String::new(), mend: String::new() };
        assert_eq!(mistake.pointer(), expected, "{path}");
    }

    #[test]
    fn a_path_becomes_a_pointer() {
        check("$", "");
        check("$.a", "/a");
        check("$.a.b-c[12].d_e", "/a/b-c/12/d_e");
        check("$.map[\"x\"].y", "/map/x/y");
        check("query", "/query");
    }

    #[test]
    fn names_of_any_bytes_come_back() {
        for (name, expected) in [
            ("", "/"),
            ("a.b", "/a.b"),
            ("a[0]", "/a[0]"),
            ("a/b~c", "/a~1b~0c"),
            ("\"]", "/\"]"),
            ("\\", "/\\"),
            ("\\\"", "/\\\""),
            ("ü\n\u{0}", "/ü\n\u{0}"),
            ("$", "/$"),
        ] {
            check(&member("$", name), expected);
            check(&format!("{}[3].z", member("$.a", name)), &format!("/a{expected}/3/z"));
        }
    }

    #[test]
    fn a_long_pointer_ends_between_steps() {
        let (just, over) = ("x".repeat(255), "x".repeat(256));
        check(&format!("$.{just}"), &format!("/{just}"));
        check(&format!("$.{over}"), "");
        check(&format!("$.a.{just}.b"), "/a");
    }
}
