//! The guards of what a tenant may have and may say of itself.

use super::Guard;

pub(super) const GUARDS: &[Guard] = &[
    Guard {
        name: "mtd3 a quota bounds the first",
        file: "crates/store/src/entitlements.rs",
        text: "SELECT $1, $2, $3, $4 FROM may WHERE others + $4 <= most",
        without: "SELECT $1, $2, $3, $4 FROM may",
        tests: "store: entitlements::",
    },
    Guard {
        name: "mtd3 a quota bounds the next",
        file: "crates/store/src/entitlements.rs",
        text: "WHERE c.used + $4 <= (SELECT most - others FROM may)",
        without: "",
        tests: "store: entitlements::",
    },
    Guard {
        name: "mtd3 who registers an agent takes one",
        file: "crates/store/src/agents.rs",
        text: "self.take(Counted::Agents, 1).await?;",
        without: "",
        tests: "store: entitlements::",
    },
    Guard {
        name: "mtd3 who submits takes one",
        file: "crates/store/src/executions.rs",
        text: "self.take(Counted::Executions, 1).await?;",
        without: "",
        tests: "api: mtd3_two_hundred",
    },
    Guard {
        name: "res4 once per threshold and window",
        file: "crates/store/src/entitlements.rs",
        text: "AS percent ON CONFLICT DO NOTHING",
        without: "AS percent",
        tests: "store: entitlements::",
    },
    Guard {
        name: "mtd1 a slug is given once",
        file: "migrations/0017_operations.sql",
        text: "CREATE UNIQUE INDEX IF NOT EXISTS tenants_slug_given ON tenants (slug_sha256);",
        without: "",
        tests: "api: mtd1_a_tenant",
    },
    Guard {
        name: "mtd1 the platform keeps itself",
        file: "control-api/src/routes/tenants.rs",
        text: r#"return Err(Reply::new(Reason::Conflict).detail("the platform's own tenant stays"));"#,
        without: "",
        tests: "api: mtd1_tenants",
    },
    Guard {
        name: "mtd4 the whole configuration is judged",
        file: "control-api/src/routes/tenant_config.rs",
        text: "    judge(&now)?;",
        without: "",
        tests: "api: mtd4_configuration",
    },
];
