//! The guards of reads that a replica answers: what it must have replayed, and whose it must be.

use super::Guard;

pub(super) const GUARDS: &[Guard] = &[
    Guard {
        name: "adr40 a replica that has not replayed it answers nothing",
        file: "crates/store/src/replica/standing.rs",
        text: "        primary.position.saturating_sub(replayed)",
        without: "        primary.position.min(0).saturating_sub(replayed)",
        tests: "control-api/api: replicas::a_write_is_in_the_next_read",
    },
    Guard {
        name: "adr40 the position covers commits that are not flushed",
        file: "crates/store/src/replica/standing.rs",
        text: "SELECT (pg_current_wal_insert_lsn() - ",
        without: "SELECT (pg_current_wal_flush_lsn() - ",
        tests: "control-api/api: replicas::a_commit_that_nobody_waited_for",
    },
    Guard {
        name: "adr40 a position in a page's header is the end of the page before",
        file: "crates/store/src/replica/standing.rs",
        text: "Some(within @ 1..=PAGE_HEADER_BYTES) => position - within,",
        without: "Some(within @ 1..=PAGE_HEADER_BYTES) => position.max(within),",
        tests: "standing::",
    },
    Guard {
        name: "adr40 a promoted replica is refused",
        file: "crates/store/src/replica/standing.rs",
        text: "        if !self.recovering {",
        without: "        if false {",
        tests: "standing::",
    },
    Guard {
        name: "adr40 another cluster is refused",
        file: "crates/store/src/replica/standing.rs",
        text: "        if self.cluster != primary.cluster {",
        without: "        if false {",
        tests: "control-api/api: replicas::strangers::a_stranger",
    },
    Guard {
        name: "adr40 another database is refused",
        file: "crates/store/src/replica/standing.rs",
        text: "        if self.database != primary.database {",
        without: "        if false {",
        tests: "control-api/api: replicas::strangers::a_stranger",
    },
    Guard {
        name: "adr40 another timeline is refused",
        file: "crates/store/src/replica/standing.rs",
        text: "        if !same(self.timeline) || ",
        without: "        if ",
        tests: "standing::",
    },
    Guard {
        name: "adr40 the replica's role is judged",
        file: "crates/store/src/replica.rs",
        text: r#"        judge(DOOR, "gatehouse_app", &self.pool).await.map_err(Unfit::Door)?;"#,
        without: r#"        drop(judge(DOOR, "gatehouse_app", &self.pool));"#,
        tests: "control-api/api: replicas::strangers::a_stranger",
    },
    Guard {
        name: "adr40 nobody has the answer to a question of before",
        file: "crates/store/src/replica/together.rs",
        text: "            && mine < covers",
        without: "            && mine <= covers",
        tests: "together::",
    },
    Guard {
        name: "adr40 what fails at the replica is the primary's",
        file: "crates/store/src/replica.rs",
        text: "                Ok(Err(why)) => replica.answered_by_primary(why),",
        without: "                Ok(Err(_)) => return Err(Error::DoorClosed(DOOR)),",
        tests: "control-api/api: replicas::strangers::a_read_that_recovery_ends",
    },
];
