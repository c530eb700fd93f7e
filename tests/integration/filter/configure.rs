//! Configuration: taken whole or refused whole, with every mistake named.

use serde_json::{Value, json};

use super::gate::{document, start};

/// The error lines of a refused document.
fn refused(document: &str) -> Vec<String> {
    let mut vm = start(true);
    assert!(!vm.configure(document).unwrap(), "taken: {document}");
    vm.take_log().into_iter().filter(|line| line.level >= 4).map(|line| line.text).collect()
}

#[test]
fn three_mistakes_are_three_lines_with_path_and_mend() {
    let mut document = document();
    document["signatures"] = json!("magic");
    document["sidecar"]["timeout_ms"] = json!(-1);
    document["issuers"][0]["algoritms"] = json!(["RS256"]);
    let lines = refused(&document.to_string());
    assert_eq!(lines.len(), 3, "{lines:#?}");
    for path in ["$.signatures", "$.sidecar.timeout_ms", "$.issuers[0].algoritms"] {
        let line = lines.iter().find(|line| line.contains(path));
        let line = line.unwrap_or_else(|| panic!("{path} in {lines:#?}"));
        assert!(line.contains("; "), "cause and mend: {line}");
    }
}

#[test]
fn what_is_no_document_is_refused_in_one_line() {
    for text in ["", "{", "[]", "null", "7", "\u{0}"] {
        let lines = refused(text);
        assert_eq!(lines.len(), 1, "{text:?}: {lines:#?}");
    }
}

#[test]
fn the_repository_s_document_is_taken_without_a_word() {
    let mut vm = start(true);
    assert!(vm.configure(&document().to_string()).unwrap());
    let loud: Vec<_> = vm.take_log().into_iter().filter(|line| line.level >= 3).collect();
    assert_eq!(loud, []);
}

#[test]
fn every_member_left_out_or_broken_is_refused_or_has_a_default_but_never_traps() {
    let whole = document();
    let members: Vec<String> = whole.as_object().unwrap().keys().cloned().collect();
    for member in members {
        for value in [Value::Null, json!(0), json!("x"), json!([]), json!({}), json!(true)] {
            let mut vm = start(true);
            let mut document = whole.clone();
            document[&member] = value;
            vm.configure(&document.to_string()).unwrap();
        }
        let mut vm = start(true);
        let mut document = whole.clone();
        document.as_object_mut().unwrap().remove(&member);
        vm.configure(&document.to_string()).unwrap();
    }
}
