//! The guards of the bodies: what they cost, what is fetched, what is told. Knows lines, not what they guard.

use super::Guard;

pub(super) const GUARDS: &[Guard] = &[
    Guard {
        name: "x7-depth",
        file: "crates/validate/src/body.rs",
        text: "if self.depth >= MAX_DEPTH {",
        without: "if self.depth >= u32::MAX {",
        tests: "x7_nesting",
    },
    Guard {
        name: "x7-twins",
        file: "crates/validate/src/body.rs",
        text: "if pairs.any(|((one, _), (other, _))| one == other) {",
        without: "if pairs.any(|((one, _), (other, _))| one == other && one.is_empty()) {",
        tests: "x7_a_member_that_stands_twice",
    },
    Guard {
        name: "x7-references",
        file: "crates/validate/src/bounds.rs",
        text: "(\"$ref\", value) => match value.as_str().and_then(local) {",
        without: "(\"$ref\", value) => match value.as_str() {",
        tests: "x7_nothing_outside",
    },
    Guard {
        name: "x7-chain",
        file: "crates/validate/src/bounds.rs",
        text: "Some(Asked { chain, .. }) if chain > MAX_CHAIN => {",
        without: "Some(Asked { chain, .. }) if chain > 2 * MAX_CHAIN => {",
        tests: "x7_what_is_asked_of_one_value",
    },
    Guard {
        name: "x7-steps",
        file: "crates/validate/src/schema.rs",
        text: "if meter.is_spent() {\n            return Err(Refusal::too_dear());",
        without: "if meter.is_spent() && bytes.is_empty() {\n            return Err(Refusal::too_dear());",
        tests: "x7_hostile_bodies",
    },
    Guard {
        name: "x7-ten-errors",
        file: "crates/validate/src/judge.rs",
        text: ".take(MAX_FINDINGS)",
        without: ".take(2 * MAX_FINDINGS)",
        tests: "x7_at_most_ten",
    },
    Guard {
        name: "x7-pointer-length",
        file: "crates/validate/src/judge.rs",
        text: "while pointer.len() > MAX_POINTER_BYTES {",
        without: "while pointer.len() > 2 * MAX_POINTER_BYTES {",
        tests: "x7_a_long_pointer",
    },
    Guard {
        name: "x7-too-large",
        file: "crates/validate/src/document.rs",
        text: "if body.len() > self.max_body_bytes {",
        without: "if body.len() > 2 * self.max_body_bytes {",
        tests: "x7_media_type_then_size",
    },
    Guard {
        name: "x7-encoded",
        file: "crates/validate/src/document.rs",
        text: "if is_encoded {",
        without: "if is_encoded && content_type.is_none() {",
        tests: "x7_media_type_then_size",
    },
    Guard {
        name: "x7-no-path",
        file: "crates/validate/src/request.rs",
        text: "let Some(path) = normal(target) else { return Begin::Refuse(no_path()) };",
        without: "let Some(path) = normal(target) else { return Begin::Pass };",
        tests: "x7_a_request_passes_waits",
    },
];
