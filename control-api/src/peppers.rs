//! Reads the peppers of API keys from their file: `{"current": "p1", "peppers": {"p1": "<64 hex digits>"}}`.
//! Knows no key.

use std::{collections::BTreeMap, path::Path};

use gatehouse_authn::api_key::Peppers;
use gatehouse_contract::Document;
use serde::Deserialize;

use crate::seal::hex;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    current: String,
    peppers: BTreeMap<String, String>,
}

/// The required file that the document names. Its text is never echoed.
pub fn read(doc: &Document<'_>) -> Option<Peppers> {
    let path = doc.text("peppers_file")?;
    match load(Path::new(&path)) {
        Ok(peppers) => Some(peppers),
        Err(cause) => {
            doc.note(
                "peppers_file",
                format!("{path} {cause}"),
                r#"write {"current":"p1","peppers":{"p1":"…"}} with 64 hex digits from `openssl rand -hex 32`"#,
            );
            None
        }
    }
}

fn load(path: &Path) -> Result<Peppers, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
    // The parser's words could quote a pepper.
    let file: File = serde_json::from_str(&text).map_err(|_| "is not in the form".to_owned())?;
    let mut by_id = BTreeMap::new();
    for (id, digits) in file.peppers {
        if id.is_empty() || id.len() > 64 {
            return Err("has a pepper whose name has not 1 to 64 bytes".to_owned());
        }
        let bytes = hex(&digits).ok_or(format!("has a pepper {id:?} that is not 64 hex digits"))?;
        by_id.insert(id, bytes);
    }
    Peppers::new(file.current, by_id).map_err(|error| format!("does not fit: {error}"))
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
        check(
            r#"{"current":"a","peppers":{"a":"0a"}}"#,
            Err(r#"has a pepper "a" that is not 64 hex digits"#),
        );
        for broken in ["", "{}", r#"{"current":"a","peppers":{},"x":1}"#] {
            check(broken, Err("is not in the form"));
        }
    }
}
