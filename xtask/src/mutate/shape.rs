//! The guards of CORS, transforms, sizes and the envelope. Knows no tokens.

use super::Guard;

pub(super) const GUARDS: &[Guard] = &[
    Guard {
        name: "x9 whole labels before a domain",
        file: "crates/edge/src/cors.rs",
        text: "are_labels(labels).then(|| theirs.to_owned().into())",
        without: "Some(theirs.to_owned().into())",
        tests: "cors::",
    },
    Guard {
        name: "x9 the upstream's own words",
        file: "crates/edge/src/cors.rs",
        text: "if !known {",
        without: "if false {",
        tests: "cors::",
    },
    Guard {
        name: "x9 every origin with credentials",
        file: "crates/edge/src/config/cors.rs",
        text: "        if credentials {\n",
        without: "        if false {\n",
        tests: "config::tests::cors::",
    },
    Guard {
        name: "x9 null with credentials",
        file: "crates/edge/src/config/cors.rs",
        text: "if opaque && credentials {",
        without: "if false {",
        tests: "config::tests::cors::",
    },
    Guard {
        name: "t2 identity headers are no transform's",
        file: "crates/edge/src/config/transforms.rs",
        text: "if is_protected(name.as_bytes()) || OURS.contains(&name) {",
        without: "if OURS.contains(&name) {",
        tests: "config::tests::shape::",
    },
    Guard {
        name: "t8 the tenant's parameter is no transform's",
        file: "crates/edge/src/config/transforms.rs",
        text: "if name == crate::flow::TENANT_PARAMETER {",
        without: "if false {",
        tests: "config::tests::shape::",
    },
    Guard {
        name: "j26 a token's parameter is no transform's",
        file: "crates/edge/src/config/transforms.rs",
        text: "} else if token == Some(name) {",
        without: "} else if false {",
        tests: "j26_the_module_transform",
    },
    Guard {
        name: "j26 who changes queries knows where tokens stand",
        file: "crates/edge/src/config.rs",
        text: "if token == Some(None) && changes.is_some_and(",
        without: "if false && changes.is_some_and(",
        tests: "j26_the_module_transform",
    },
    Guard {
        name: "t2 nobody stands in for a caller who is not known",
        file: "crates/edge/src/transform.rs",
        text: "None => vanish(theirs, &gone, host, edits),",
        without: "None => {}",
        tests: "flow::tests::shape::",
    },
    Guard {
        name: "x3 a body by its length",
        file: "crates/edge/src/sizes.rs",
        text: "(said > most).then_some(Reason::BodyTooLarge)",
        without: "(said > most && false).then_some(Reason::BodyTooLarge)",
        tests: "flow::tests::shape::",
    },
    Guard {
        name: "x3 a body as it comes",
        file: "crates/edge/src/sizes.rs",
        text: "self.sizes.body_bytes.is_some_and(|most| bytes > most)",
        without: "self.sizes.body_bytes.is_some_and(|most| bytes > most && false)",
        tests: "flow::tests::shape::",
    },
    Guard {
        name: "x1 problems have their own form",
        file: "crates/edge/src/envelope.rs",
        text: " && kind != PROBLEM",
        without: "",
        tests: "envelope::",
    },
    Guard {
        name: "x1 encoded bodies",
        file: "crates/edge/src/envelope.rs",
        text: "|| is(b\"content-encoding\") && !value.eq_ignore_ascii_case(b\"identity\")",
        without: "",
        tests: "envelope::",
    },
    Guard {
        name: "x6 broken JSON",
        file: "crates/edge/src/envelope.rs",
        text: "let IgnoredAny = serde_json::from_str(text).ok()?;",
        without: "let IgnoredAny = serde_json::from_str(text).unwrap_or_default();",
        tests: "envelope::",
    },
];
