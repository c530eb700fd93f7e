//! The guards of events: whose a message is, what follows what, and what is told of an erased tenant.

use super::Guard;

pub(super) const GUARDS: &[Guard] = &[
    Guard {
        name: "tcp4 a key names the header's tenant",
        file: "crates/kafka-kit/src/received.rs",
        text: "    if of_key.parse() != Ok(tenant) {",
        without: "    if false {",
        tests: "kafka: a_message_whose_tenants_differ",
    },
    Guard {
        name: "tcp4 a payload names the header's tenant",
        file: "crates/kafka-kit/src/received.rs",
        text: "    if of(\"tenant_id\").and_then(|text| text.parse().ok()) != Some(tenant) {",
        without: "    if false {",
        tests: "kafka: a_message_whose_tenants_differ",
    },
    Guard {
        name: "tcp4 a header stands once",
        file: "crates/kafka-kit/src/received.rs",
        text: "        if header.key == name && found.replace(header.value).is_some() {",
        without: "        if header.key == name && found.replace(header.value).is_some() && false {",
        tests: "kafka: a_message_whose_tenants_differ",
    },
    Guard {
        name: "adr4 an execution's events follow the table",
        file: "crates/events/src/execution.rs",
        text: "        let step = |state: ExecutionState, step| state.after(step).map_err(|_| illegal);",
        without: "        let step = |state: ExecutionState, step| Ok(state.after(step).unwrap_or(ExecutionState::Running));",
        tests: "events_follow_the_table",
    },
    Guard {
        name: "adr4 nothing happens to a deleted agent",
        file: "crates/events/src/agent.rs",
        text: "        if agent.deleted_at.is_some() {",
        without: "        if false {",
        tests: "what_cannot_follow",
    },
    Guard {
        name: "adr4 inputs are not published",
        file: "crates/events/src/published.rs",
        text: "        members.retain(|name, _| !KEPT_BACK.contains(&name.as_str()));\n",
        without: "        members.retain(|_, _| true);\n",
        tests: "inputs_are_kept_back",
    },
    Guard {
        name: "adr4 a state at a time knows nothing later",
        file: "crates/store/src/events.rs",
        text: "             AND ($4::timestamptz IS NULL OR seq <= (SELECT max(e.seq)",
        without: "             AND ($4::timestamptz IS NOT NULL OR seq <= (SELECT max(e.seq)",
        tests: "store: an_agent_is_what_its_events",
    },
    Guard {
        name: "adr4 a compacted topic forgets an erased tenant",
        file: "crates/store/src/erasure.rs",
        text: "        if self.bury(tenant, limit).await? {",
        without: "        if false {",
        tests: "store: an_erased_tenant_leaves_tombstones",
    },
    Guard {
        name: "adr4 nobody overtakes a publisher that may be sending",
        file: "crates/store/src/publisher.rs",
        text: "             WHERE busy_until <= clock_timestamp() RETURNING epoch",
        without: "             WHERE true RETURNING epoch",
        tests: "store: publisher::",
    },
    Guard {
        name: "adr4 a publisher whose term is over reads nothing",
        file: "crates/store/src/publisher.rs",
        text: "        if ours.rows_affected() == 0 {",
        without: "        if false {",
        tests: "store: publisher::",
    },
    Guard {
        name: "adr4 what is behind what cannot be read waits",
        file: "crates/store/src/publisher.rs",
        text: "                AND p.seq > 0 AND p.id < o.id)",
        without: "                AND p.seq > 0 AND false)",
        tests: "store: publisher::",
    },
    Guard {
        name: "adr4 kafka beyond this machine is said to be protected",
        file: "control-api/src/config.rs",
        text: "!is_loopback(broker.host())",
        without: "broker.host().is_empty()",
        tests: "api: brokers_elsewhere",
    },
];
