//! Reads the peppers of API keys from their file, one for the control API and its sidecars:
//! `{"current": "p1", "peppers": {"p1": "<64 hex digits>"}}`. Knows no key, and not what a pepper is used for.

use std::{collections::BTreeMap, path::Path};

use gatehouse_contract::Document;
use serde_json::{Map, Value};

/// What the file says. `current` is among the names.
#[derive(Clone, PartialEq, Eq)]
pub struct File {
    /// The pepper that marks new keys.
    pub current: String,
    /// 256 bits by name, which has 1 to 64 bytes.
    pub by_id: BTreeMap<String, [u8; 32]>,
}

/// The file that the document names in `peppers_file`; `Some(None)` where it names none. The file's text is never
/// echoed.
pub fn read(doc: &Document<'_>) -> Option<Option<File>> {
    let Some(path) = doc.text_opt("peppers_file")? else { return Some(None) };
    match load(Path::new(&path)) {
        Ok(file) => Some(Some(file)),
        Err(cause) => {
            let mend = r#"write {"current":"p1","peppers":{"p1":"…"}} with 64 hex digits from `openssl rand -hex 32`, the same for the control API and its sidecars"#;
            doc.note("peppers_file", format!("{path} {cause}"), mend);
            None
        }
    }
}

/// 256 bits from 64 hex digits.
pub fn hex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(bytes)
}

fn load(path: &Path) -> Result<File, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
    // The parser's words could quote a pepper.
    let parsed = serde_json::from_str(&text).ok().and_then(parts);
    let (current, peppers) = parsed.ok_or("is not in the form")?;
    let mut by_id = BTreeMap::new();
    for (id, digits) in peppers {
        if id.is_empty() || id.len() > 64 {
            return Err("has a pepper whose name has not 1 to 64 bytes".to_owned());
        }
        let bytes = digits.as_str().and_then(hex);
        let bytes = bytes.ok_or(format!("has a pepper {id:?} that is not 64 hex digits"))?;
        by_id.insert(id, bytes);
    }
    if !by_id.contains_key(&current) {
        return Err("does not fit: the current pepper is not among the peppers".to_owned());
    }
    Ok(File { current, by_id })
}

/// These two members and no others.
fn parts(mut file: Map<String, Value>) -> Option<(String, Map<String, Value>)> {
    match (file.remove("current")?, file.remove("peppers")?) {
        (Value::String(current), Value::Object(peppers)) if file.is_empty() => {
            Some((current, peppers))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<(), &str>) {
        let file = std::env::temp_dir().join(format!("gatehouse-peppers-{}", uuid::Uuid::new_v4()));
        std::fs::write(&file, text).unwrap();
        let got = load(&file).map(drop);
        std::fs::remove_file(file).unwrap();
        assert_eq!(got, expected.map_err(ToOwned::to_owned), "{text}");
    }

    #[test]
    fn the_current_pepper_is_among_them_and_each_has_256_bits() {
        let pepper = "0a".repeat(32);
        check(&format!(r#"{{"current":"a","peppers":{{"a":"{pepper}"}}}}"#), Ok(()));
        check(
            &format!(r#"{{"current":"b","peppers":{{"a":"{pepper}"}}}}"#),
            Err("does not fit: the current pepper is not among the peppers"),
        );
        let short = r#"has a pepper "a" that is not 64 hex digits"#;
        for digits in ["0a", &"+a".repeat(32), &"ä".repeat(32)] {
            check(&format!(r#"{{"current":"a","peppers":{{"a":"{digits}"}}}}"#), Err(short));
        }
        check(r#"{"current":"a","peppers":{"a":7}}"#, Err(short));
        for name in [String::new(), "n".repeat(65)] {
            check(
                &format!(r#"{{"current":"{name}","peppers":{{"{name}":"{pepper}"}}}}"#),
                Err("has a pepper whose name has not 1 to 64 bytes"),
            );
        }
        for broken in [
            "",
            "{}",
            "[]",
            r#"{"current":"a"}"#,
            r#"{"current":1,"peppers":{}}"#,
            r#"{"current":"a","peppers":{},"x":1}"#,
        ] {
            check(broken, Err("is not in the form"));
        }
    }

    #[test]
    fn hex_is_64_digits() {
        assert_eq!(hex(&"aF".repeat(32)), Some([0xaf; 32]));
        for bad in ["", &"a".repeat(63), &"a".repeat(65), &"g".repeat(64), &"é".repeat(32)] {
            assert_eq!(hex(bad), None, "{bad}");
        }
    }
}
