//! The guards of the audit's chain, of what is sealed at rest, and of erasure.

use super::Guard;

pub(super) const GUARDS: &[Guard] = &[
    Guard {
        name: "mtd5 nothing late is passed over",
        file: "crates/store/src/seals.rs",
        text: "             AND tx < pg_snapshot_xmin(pg_current_snapshot())::text::bigint + audit_clock_base()\n             ORDER BY tx, id LIMIT $3",
        without: "             ORDER BY tx, id LIMIT $3",
        tests: "store: seals::",
    },
    Guard {
        name: "mtd5 another cluster's numbers are said",
        file: "crates/store/src/seals.rs",
        text: "        if younger {",
        without: "        if false {",
        tests: "store: seals::",
    },
    Guard {
        name: "mtd5 a seal that was changed is not extended",
        file: "control-api/src/sealer.rs",
        text: "    if stored.hash != seal.hash() {",
        without: "    if false {",
        tests: "api: audit::mtd5_a_chain",
    },
    Guard {
        name: "mtd5 a seal follows the one before",
        file: "crates/audit/src/verify.rs",
        text: "        if seq != expected {",
        without: "        if false {",
        tests: "verify::",
    },
    Guard {
        name: "mtd5 a head is of its type",
        file: "crates/audit/src/verify.rs",
        text: "    if message.header.typ.as_deref() != Some(typ) {",
        without: "    if false {",
        tests: "verify::",
    },
    Guard {
        name: "mtd5 only a signer says where an export begins",
        file: "crates/audit/src/verify.rs",
        text: "signed_as(BEGIN_TYPE, self.keys, signed).map_err(Broken::Begin)?",
        without: "signed_as(HEAD_TYPE, self.keys, signed).map_err(Broken::Begin)?",
        tests: "verify::",
    },
    Guard {
        name: "mtd5 a head is its tenant's",
        file: "crates/audit/src/verify.rs",
        text: "    if head.tenant != tenant {",
        without: "    if false {",
        tests: "verify::",
    },
    Guard {
        name: "mtd5 values are those that were committed to",
        file: "crates/audit/src/verify.rs",
        text: "if commit(salt, details) == *commitment =>",
        without: "if true =>",
        tests: "verify::",
    },
    Guard {
        name: "sealed values stay in their place",
        file: "crates/store/src/data_keys.rs",
        text: r#"format!("{}/{column}/{row}", self.tenant)"#,
        without: r#"{ drop(row); format!("{}/{column}", self.tenant) }"#,
        tests: "data_keys::",
    },
    Guard {
        name: "an erased tenant's key is not made again",
        file: "crates/store/src/data_keys.rs",
        text: "vault.unwrap(tenant, &found.ok_or(Error::Erased)?)?",
        without: "vault.unwrap(tenant, &found.unwrap_or_default())?",
        tests: "store: erasure::",
    },
];
