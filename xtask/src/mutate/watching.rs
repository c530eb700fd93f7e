//! The guards of what is seen while an execution goes on: whose it is, until when, and what a log may do.

use super::Guard;

pub(super) const GUARDS: &[Guard] = &[
    Guard {
        name: "ee44 an idle stream ends with its reader's right",
        file: "control-api/src/watchers/rights.rs",
        text: "                        held.lost.send_replace(true);\n",
        without: "                        held.lost.send_replace(false);\n",
        tests: "api: watching::a_stream_ends_with",
    },
    Guard {
        name: "ee44 the look knows tenants",
        file: "migrations/0028_watching.sql",
        text: "ON h.tenant_id = w.tenant_id AND h.aggregate_kind",
        without: "ON h.aggregate_kind",
        tests: "store/store: watching::one_query",
    },
    Guard {
        name: "res1 a warning counts under its own lease",
        file: "crates/store/src/watching.rs",
        text: "WHERE id = $1 AND lease_epoch = $2 AND state = 'running' AND warned_epoch",
        without: "WHERE id = $1 AND state = 'running' AND $2 > 0 AND warned_epoch",
        tests: "store: watching::res1",
    },
    Guard {
        name: "res1 a warning is told once",
        file: "crates/store/src/watching.rs",
        text: " AND warned_epoch IS DISTINCT FROM $2",
        without: " AND true",
        tests: "store: watching::res1",
    },
    Guard {
        name: "ee21 who listens holds nobody up",
        file: "execution-worker/src/live.rs",
        text: "    mpsc::channel(WAITING)\n",
        without: "    mpsc::channel(WAITING * 1000)\n",
        tests: "capture::",
    },
    Guard {
        name: "ee21 no character that steers a terminal stands as itself",
        file: "control-api/src/routes/streams/sse.rs",
        text: "        matches!(c, '\\u{7f}'..='\\u{9f}'",
        without: "        matches!(c, '\\u{7f}'..='\\u{7f}'",
        tests: "sse::",
    },
];
