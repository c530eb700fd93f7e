//! The guards of the queue: fences, slots, cancels, poison.

use super::Guard;

pub(super) const GUARDS: &[Guard] = &[
    Guard {
        name: "ee2 a result counts under its own lease",
        file: "crates/store/src/attempts.rs",
        text: "        let ours = held.lease_epoch == lease_epoch;\n",
        without: "        let ours = true;\n",
        tests: "store: executions::a_lost_worker",
    },
    Guard {
        name: "ee2 only who holds it hands it back",
        file: "crates/store/src/attempts.rs",
        text: "(true, Ok(to)) = (held.lease_epoch == lease_epoch, ",
        without: "(true, Ok(to)) = (true, ",
        tests: "store: executions::",
    },
    Guard {
        name: "ee3 what is not queued is not claimed",
        file: "crates/store/src/attempts.rs",
        text: "        if state(&found)?.after(Event::Claim).is_err() {\n",
        without: "        if false {\n",
        tests: "store: executions::many_workers",
    },
    Guard {
        name: "ee31 slots are counted",
        file: "crates/store/src/attempts.rs",
        text: "             AND (SELECT slots FROM may) > (SELECT count(*)",
        without: "             AND (SELECT slots FROM may) + 1 > (SELECT count(*)",
        tests: "store: slots::",
    },
    Guard {
        name: "ee31 those who count take turns",
        file: "crates/store/src/attempts.rs",
        text: "             AND (SELECT true FROM pg_advisory_xact_lock(hashtextextended('gatehouse slots ' || $2::text, 0)))\n",
        without: "             AND $2::text IS NOT NULL\n",
        tests: "store: slots::ee31",
    },
    Guard {
        name: "ee14 who wants it ended gets no further attempt",
        file: "crates/store/src/attempts.rs",
        text: "            Event::Retry | Event::GiveUp if held.cancel_asked => {",
        without: "            Event::Retry | Event::GiveUp if false => {",
        tests: "store: dead_letters::ee1",
    },
    Guard {
        name: "res1 nobody asks for more than the version has",
        file: "control-api/src/routes/terms.rs",
        text: "        if value > most || named.set(limit, value).is_err() {\n",
        without: "        if named.set(limit, value).is_err() {\n",
        tests: "api: executions::a_version_says",
    },
    Guard {
        name: "res1 nothing is named beyond the platform's bounds",
        file: "crates/execution/src/limits.rs",
        text: "        if !limit.range().contains(&value) {\n",
        without: "        if false {\n",
        tests: "limits::tests",
    },
    Guard {
        name: "ee22 an input fits its version's schema",
        file: "control-api/src/routes/executions.rs",
        text: "    terms::judge_input(&api.schemas, (op.tenant, &version), &input)?;\n",
        without: "",
        tests: "api: executions::an_input",
    },
    Guard {
        name: "ee22 an input is judged by its own tenant's version",
        file: "control-api/src/schemas.rs",
        text: "        let kept = self.0.get_or_insert_with(&version, || Kept::compile(schema))?;\n",
        without: "        let version = (TenantId::new(uuid::Uuid::nil()), version.1);\n        let kept = self.0.get_or_insert_with(&version, || Kept::compile(schema))?;\n",
        tests: "schemas::tests",
    },
    Guard {
        name: "ee22 an output fits its version's schema",
        file: "execution-worker/src/output.rs",
        text: "            Ok(()) => return outcome,\n            Err(refusal) => told(&refusal),\n",
        without: "            _ => return outcome,\n",
        tests: "output::tests",
    },
    Guard {
        name: "p0 is not everybody's",
        file: "control-api/src/routes/executions.rs",
        text: "    if priority > 0 || caller.roles.iter().any(|role| role >= Role::Developer) {\n",
        without: "    if true {\n",
        tests: "api: executions::p0_",
    },
    Guard {
        name: "ee25 a third lost worker is the last",
        file: "crates/store/src/sweep.rs",
        text: "WHEN e.losses + 1 >= $2 THEN 'dead_letter'",
        without: "WHEN e.losses + 1 >= $2 + 100 THEN 'dead_letter'",
        tests: "store: executions::ee25",
    },
];
