//! The guards of what is remembered: whose it is, since when, and for how long.

use super::Guard;

pub(super) const GUARDS: &[Guard] = &[
    Guard {
        name: "adr3 a change makes what memory has unfindable",
        file: "control-api/src/cache/stamps.rs",
        text: "            tenant: place(&self.tenants, &tenant.as_uuid()).map_or(0, |one| one.load(SeqCst)),",
        without: "            tenant: 0,",
        tests: "stamps::",
    },
    Guard {
        name: "adr3 what is heard no longer is not used",
        file: "control-api/src/cache/follower.rs",
        text: "        stands.heard.is_some_and(|at| at.elapsed() < HEARD)",
        without: "        stands.heard.is_some()",
        tests: "api: cache::without_redis_everything_is_read",
    },
    Guard {
        name: "adr3 another process's change is heard",
        file: "control-api/src/cache/follower.rs",
        text: "                stamps.forget(*tenant);\n                counts.forgot(\"tenant\");\n            }\n            Change::Credential",
        without: "                counts.forgot(\"tenant\");\n            }\n            Change::Credential",
        tests: "api: cache::what_was_read_is_read_once",
    },
    Guard {
        name: "adr3 a document says whose it is",
        file: "crates/redis-kit/src/cache.rs",
        text: "            stored.tenant == place.tenant && stored.entity == place.entity && stored.id == place.id",
        without: "            stored.entity == place.entity && stored.id == place.id",
        tests: "cache: a_document_in_anothers_place",
    },
    Guard {
        name: "adr3 the version stands for the tenant's generation",
        file: "crates/redis-kit/src/cache.rs",
        text: "        hash.update(mark.unwrap_or_default());",
        without: "        drop(mark);",
        tests: "cache: a_document_is_found_until",
    },
    Guard {
        name: "a stream ends with its caller's right",
        file: "control-api/src/access.rs",
        text: "    check(api, parts).await.map(drop)",
        without: "    drop((api, parts));\n    Ok(())",
        tests: "api: audit::an_export_ends",
    },
];
