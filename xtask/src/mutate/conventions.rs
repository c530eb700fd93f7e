//! The guards of what every endpoint of the control API does alike: cursors, conditions, repeated requests.

use super::Guard;

pub(super) const GUARDS: &[Guard] = &[
    Guard {
        name: "t8 another tenant's path, before its body",
        file: "control-api/src/access.rs",
        text: "if tenant.is_some_and(|tenant| caller.sees(tenant)) {",
        without: "if tenant.is_some_and(|_: TenantId| true) {",
        tests: "api: another_tenants_things",
    },
    Guard {
        name: "a cursor's signature",
        file: "control-api/src/paging.rs",
        text: "hmac::verify(&self.0, &[list, place].concat(), tag).ok()?;",
        without: "",
        tests: "cursor",
    },
    Guard {
        name: "a cursor's list",
        file: "control-api/src/paging.rs",
        text: r#"format!("{}\0{}\0{filters}\0", self.tenant, self.path).into_bytes()"#,
        without: r#"format!("{filters}").into_bytes()"#,
        tests: "cursor",
    },
    Guard {
        name: "a change names its state",
        file: "control-api/src/condition.rs",
        text: "if request.headers().contains_key(header::IF_MATCH) {",
        without: "if true {",
        tests: "api: what_exists_is_changed",
    },
    Guard {
        name: "a change of another state",
        file: "control-api/src/condition.rs",
        text: "Self::One(_) => Err(Reason::PreconditionFailed.into()),",
        without: "Self::One(_) => Ok(()),",
        tests: "only_the_state",
    },
    Guard {
        name: "the row behind a condition is kept",
        file: "control-api/src/routes/version_pin.rs",
        text: "let known = tx.within().lock_tenant().await.map_err(refused)?;",
        without: "let known = true;",
        tests: "api: of_many_who_change",
    },
    Guard {
        name: "another request under a key",
        file: "control-api/src/once.rs",
        text: "if kept.request_sha256 != of.request_sha256 {",
        without: "if false {",
        tests: "api: every_post",
    },
    Guard {
        name: "a caller's key is its own",
        file: "control-api/src/once.rs",
        text: "caller.subject.as_bytes(),",
        without: "",
        tests: "api: a_key_is_its_callers",
    },
    Guard {
        name: "a request that runs keeps its repetition out",
        file: "control-api/src/once.rs",
        text: "if had.map_err(refused)? {",
        without: "if had.map_err(refused).is_ok() {",
        tests: "api: while_the_first_one_runs",
    },
    Guard {
        name: "a kept answer is sealed",
        file: "control-api/src/once.rs",
        text: "let sealed = api.sealer.seal(&name(of), plain.as_bytes()).map_err(|_| broken())?;",
        without: "let sealed = plain.into_bytes();",
        tests: "api: every_post",
    },
    Guard {
        name: "what is not acceptable is not done",
        file: "control-api/src/accept.rs",
        text: "Ok(true) => next.run(request).await,",
        without: "Ok(_) => next.run(request).await,",
        tests: "api: what_can_be_answered",
    },
    Guard {
        name: "a weight of 0 excludes",
        file: "control-api/src/accept.rs",
        text: "(closeness > 0 && weight > 0)",
        without: "(closeness > 0)",
        tests: "closest_range",
    },
    Guard {
        name: "few bytes of Accept",
        file: "control-api/src/accept.rs",
        text: "if bytes > MAX_BYTES {",
        without: "if false {",
        tests: "what_is_read_is_bounded",
    },
    Guard {
        name: "few ranges of Accept",
        file: "control-api/src/accept.rs",
        text: "if ranges > MAX_RANGES {",
        without: "if false {",
        tests: "what_is_read_is_bounded",
    },
];
