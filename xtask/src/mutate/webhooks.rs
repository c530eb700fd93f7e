//! The guards of webhooks: one delivery per event, one process per endpoint, nothing sent where it must not go.

use super::Guard;

pub(super) const GUARDS: &[Guard] = &[
    Guard {
        name: "aex4 an endpoint that goes fails no event",
        file: "migrations/0024_webhook_deliveries.sql",
        text: " ORDER BY w.id FOR KEY SHARE) e;",
        without: " ORDER BY w.id) e;",
        tests: "store/store: aex4_an_endpoint_that_is_removed",
    },
    Guard {
        name: "aex4 an attempt is settled under its lease",
        file: "crates/store/src/deliveries.rs",
        text: "                delivered_at = CASE WHEN $5 = 'delivered' THEN clock_timestamp() END
             WHERE d.tenant_id = $1 AND d.id = $4 AND d.state = 'pending'
             AND EXISTS (SELECT FROM webhook_endpoints e
                WHERE e.tenant_id = $1 AND e.id = $2 AND d.endpoint_id = e.id AND e.lease_epoch = $3)\",",
        without: "                delivered_at = CASE WHEN $5 = 'delivered' THEN clock_timestamp() END
             WHERE d.tenant_id = $1 AND d.id = $4 AND d.state = 'pending'
             AND EXISTS (SELECT FROM webhook_endpoints e
                WHERE e.tenant_id = $1 AND e.id = $2 AND d.endpoint_id = e.id AND $3 >= 0)\",",
        tests: "store: who_comes_back_after_the_lease",
    },
    Guard {
        name: "aex4 an endpoint is given back by whoever has it",
        file: "crates/store/src/deliveries.rs",
        text: "             WHERE tenant_id = $1 AND id = $2 AND lease_epoch = $3\",",
        without: "             WHERE tenant_id = $1 AND id = $2 AND $3 >= 0\",",
        tests: "store: who_comes_back_after_the_lease",
    },
    Guard {
        name: "aex4 an endpoint is one process's at a time",
        file: "crates/store/src/deliveries.rs",
        text: " AND coalesce(e.leased_until <= clock_timestamp(), true)",
        without: "",
        tests: "store: of_many_processes",
    },
    Guard {
        name: "aex4 a paused endpoint is told nothing",
        file: "crates/store/src/deliveries.rs",
        text: "WHERE e.enabled AND coalesce(",
        without: "WHERE coalesce(",
        tests: "store: what_waits_for_a_paused_endpoint",
    },
    Guard {
        name: "aex4 what agents said is in no webhook",
        file: "crates/events/src/webhook.rs",
        text: "    data.retain(|name, _| !KEPT_BACK.contains(&name.as_str()));\n",
        without: "    let _ = KEPT_BACK;\n",
        tests: "the_bytes_of_an_event",
    },
    Guard {
        name: "aex4 33 a redirect is no delivery",
        file: "control-api/src/deliverer/judge.rs",
        text: "(200..300).contains(&status)",
        without: "(200..400).contains(&status)",
        tests: "aex4_33_each_answer",
    },
    Guard {
        name: "aex4 33 a wish to be left alone has a bound",
        file: "control-api/src/deliverer/judge.rs",
        text: "pause.max(asked.min(MAX_RETRY_AFTER))",
        without: "pause.max(asked)",
        tests: "aex4_33_each_answer",
    },
    Guard {
        name: "aex4 35 each secret signs",
        file: "control-api/src/deliverer/sign.rs",
        text: "        .iter()\n        .map(|secret| {",
        without: "        .iter()\n        .take(1)\n        .map(|secret| {",
        tests: "aex4_the_specifications_example",
    },
    Guard {
        name: "aex4 34 an operator's exception is none for webhooks",
        file: "control-api/src/serve.rs",
        text: "        guard: Guard::new([], own.clone()),",
        without: "        guard: Guard::new(sign_in.iter().flat_map(|one| one.allow.clone()), own.clone()),",
        tests: "api: aex4_34_the_running_service",
    },
    Guard {
        name: "aex4 34 only words of ours are shown of an attempt",
        file: "control-api/src/routes/webhooks.rs",
        text: "    stored.filter(|word| ERRORS.contains(word))",
        without: "    stored.filter(|word| ERRORS.contains(word) || true)",
        tests: "api: deliveries_show_how_far",
    },
];
