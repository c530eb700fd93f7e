//! The guards of what people check before they push: the reader of documents and the command line. Knows no requests.

use super::Guard;

const READER: &str = "crates/contract/src/document.rs";
const KONG: &str = "cli/src/lint/kong.rs";
const MANIFEST: &str = "cli/src/lint/manifest.rs";
const TESTS: &str = "cli: ";

pub(super) const GUARDS: &[Guard] = &[
    Guard {
        name: "lint unknown members",
        file: READER,
        text: "here.refuse_unknown();",
        without: "",
        tests: "document",
    },
    Guard {
        name: "lint members that stand twice",
        file: READER,
        text: "RefCell::new(twins::find(text))",
        without: "RefCell::new(Vec::new())",
        tests: "document",
    },
    Guard {
        name: "lint members that stand twice in a manifest",
        file: "cli/src/source.rs",
        text: "before.name == member.name",
        without: "false",
        tests: "",
    },
    Guard {
        name: "lint headers that Kong leaves in place",
        file: KONG,
        text: "if !missing.is_empty() {",
        without: "if false {",
        tests: TESTS,
    },
    Guard {
        name: "lint the nearest transformer of Kong's",
        file: KONG,
        text: "[Some(route.value), service.map(|service| service.value), Some(document)]",
        without: "[service.map(|service| service.value), Some(route.value), Some(document)]",
        tests: TESTS,
    },
    Guard {
        name: "lint modules that are skipped when they fail",
        file: MANIFEST,
        text: "policy == Some(\"FAIL_OPEN\")",
        without: "false",
        tests: TESTS,
    },
    Guard {
        name: "lint plugins that are skipped when they fail",
        file: MANIFEST,
        text: "Some(\"FAIL_OPEN\") => {",
        without: "Some(\"\") => {",
        tests: TESTS,
    },
    Guard {
        name: "lint documents for another host",
        file: "cli/src/lint.rs",
        text: "&& wanted != written",
        without: "&& false",
        tests: TESTS,
    },
    Guard {
        name: "lint v7 another day's weekday",
        file: "cli/src/lint/headers.rs",
        text: "(written != right).then(||",
        without: "false.then(||",
        tests: TESTS,
    },
    Guard {
        name: "lint claims that Kong does not verify",
        file: "cli/src/convert/kong/jwt.rs",
        text: "if ![\"exp\", \"nbf\"].contains(&claim) {",
        without: "if false {",
        tests: TESTS,
    },
    Guard {
        name: "convert names what has no equivalent",
        file: "cli/src/convert.rs",
        text: "if !known.contains(&name.as_str()) && !by_default && !is_empty(value) {",
        without: "if false {",
        tests: TESTS,
    },
    Guard {
        name: "explain prints no credential of a query",
        file: "cli/src/explain/told.rs",
        text: "Some((of, _)) if of == name => format!(\"{of}=…\"),",
        without: "Some((of, _)) if of == name && false => String::new(),",
        tests: TESTS,
    },
    Guard {
        name: "explain prints no credential of a header",
        file: "cli/src/explain/told.rs",
        text: "if name == \"cookie\" =>",
        without: "if name == \"no cookie\" =>",
        tests: TESTS,
    },
    Guard {
        name: "lint headers that wait for bodies in a WasmPlugin",
        file: "cli/src/lint/manifest.rs",
        text: "if let Some((name, cause)) = waits(module, &parsed) {",
        without: "if let (Some((name, cause)), true) = (waits(module, &parsed), path.is_empty()) {",
        tests: TESTS,
    },
    Guard {
        name: "lint headers that wait for bodies in Envoy",
        file: "cli/src/lint/manifest.rs",
        text: "waits(module, &parsed), lets) {",
        without: "waits(module, &parsed), true) {",
        tests: TESTS,
    },
    Guard {
        name: "lint keys that the VM does not get",
        file: "cli/src/lint/vm.rs",
        text: "findings.push(missing(at, name, &mend));",
        without: "drop(missing(at, name, &mend));",
        tests: TESTS,
    },
    Guard {
        name: "lint callbacks that the host may not make",
        file: "cli/src/lint/vm.rs",
        text: "if !unasked.is_empty() {",
        without: "if false {",
        tests: TESTS,
    },
    Guard {
        name: "lint modules that stand too early",
        file: "cli/src/lint/chain.rs",
        text: "(Some(own), Some(others)) => others < own,",
        without: "(Some(own), Some(others)) => others < own && false,",
        tests: TESTS,
    },
    Guard {
        name: "lint the same work twice",
        file: "cli/src/lint/chain.rs",
        text: "other == module\n",
        without: "false\n",
        tests: TESTS,
    },
    Guard {
        name: "lint documents of a chain that differ",
        file: "cli/src/lint/chain.rs",
        text: "if own.is_null() || own == theirs {",
        without: "if true {",
        tests: TESTS,
    },
    Guard {
        name: "convert keys of another kind",
        file: "cli/src/convert/pem.rs",
        text: "match is == Some(fits) {",
        without: "match is.is_some() {",
        tests: TESTS,
    },
];
