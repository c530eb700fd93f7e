//! Reads the peppers of API keys from their file: `{"current": "p1", "peppers": {"p1": "<64 hex digits>"}}`, the
//! control API's own. Knows no key.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use gatehouse_authn::api_key::Peppers;
use gatehouse_contract::Document;
use serde::Deserialize;

/// The peppers, and which there are.
#[derive(Debug, Clone)]
pub struct Known {
    pub peppers: Peppers,
    pub ids: BTreeSet<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    current: String,
    peppers: BTreeMap<String, String>,
}

/// The file that the document names, if any. Its text is never echoed.
pub fn read(doc: &Document<'_>) -> Option<Option<Known>> {
    let Some(path) = doc.text_opt("peppers_file")? else { return Some(None) };
    match load(Path::new(&path)) {
        Ok(known) => Some(Some(known)),
        Err(cause) => {
            doc.note(
                "peppers_file",
                format!("{path} {cause}"),
                r#"name the control API's file: {"current":"p1","peppers":{"p1":"…"}} with 64 hex digits"#,
            );
            None
        }
    }
}

fn load(path: &Path) -> Result<Known, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
    // The parser's words could quote a pepper.
    let file: File = serde_json::from_str(&text).map_err(|_| "is not in the form".to_owned())?;
    let mut by_id = BTreeMap::new();
    for (id, digits) in file.peppers {
        let bytes = hex(&digits).ok_or(format!("has a pepper {id:?} that is not 64 hex digits"))?;
        by_id.insert(id, bytes);
    }
    let ids = by_id.keys().cloned().collect();
    let peppers =
        Peppers::new(file.current, by_id).map_err(|error| format!("does not fit: {error}"))?;
    Ok(Known { peppers, ids })
}

fn hex(digits: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if digits.len() != 2 * bytes.len() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<(), &str>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let got = load(file.path()).map(drop);
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
        for broken in ["", "{}", r#"{"current":"a","peppers":{},"x":1}"#] {
            check(broken, Err("is not in the form"));
        }
    }
}
