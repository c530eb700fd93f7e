//! The guards of the queue: fences, slots, cancels, poison.

use super::Guard;

pub(super) const GUARDS: &[Guard] = &[
    Guard {
        name: "ee2 a result counts under its own lease",
        file: "crates/store/src/attempts.rs",
        text: "        if held.lease_epoch != lease_epoch {\n",
        without: "        if false {\n",
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
        name: "ee25 a third lost worker is the last",
        file: "crates/store/src/sweep.rs",
        text: "WHEN e.losses + 1 >= $2 THEN 'dead_letter'",
        without: "WHEN e.losses + 1 >= $2 + 100 THEN 'dead_letter'",
        tests: "store: executions::ee25",
    },
];
