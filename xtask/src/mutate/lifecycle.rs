//! The guards of the worker's life: hooks that end once, results that wait, files that are kept out, drains.

use super::Guard;

pub(super) const GUARDS: &[Guard] = &[
    Guard {
        name: "ee36 a hook ends once, for who has it",
        file: "crates/store/src/hooks.rs",
        text: "                WHERE h.state = 'owed' AND h.run_id = $5 AND h.worker = $7\",",
        without: "                WHERE h.run_id = $5\",",
        tests: "store: hooks::",
    },
    Guard {
        name: "ee36 what an attempt owes is its own while it runs",
        file: "crates/store/src/hooks.rs",
        text: "                    AND e.state = 'running' AND e.lease_epoch = o.lease_epoch)",
        without: "                    AND e.state = 'running' AND e.lease_epoch < 0)",
        tests: "store: hooks::",
    },
    Guard {
        name: "ee36 who lives keeps what it took",
        file: "crates/store/src/hooks.rs",
        text: "                    WHERE b.worker = o.worker AND b.beat_at > now() - $3 * interval '1 second'))",
        without: "                    WHERE b.worker = o.worker AND b.beat_at > now() + $3 * interval '1 second'))",
        tests: "store: hooks::",
    },
    Guard {
        name: "ee36 on_error comes before cleanup",
        file: "crates/store/src/hooks.rs",
        text: "                    AND p.hook = 'on_error' AND p.state = 'owed'))",
        without: "                    AND p.hook = 'on_error' AND p.state = 'done'))",
        tests: "store: hooks::",
    },
    Guard {
        name: "ee36 a hook that fails keeps the agent out",
        file: "execution-worker/src/hooks.rs",
        text: "            if let Some(refusal) = hook.refusal(&outcome) {",
        without: "            if let Some(refusal) = hook.refusal(&outcome).filter(|_| false) {",
        tests: "worker: hooks::",
    },
    Guard {
        name: "ee36 a hook before the agent has its own time",
        file: "crates/execution/src/hooks.rs",
        text: "            EndReason::Timeout => EndReason::Failed,\n",
        without: "",
        tests: "hooks::",
    },
    Guard {
        name: "ee09 nothing is taken while results wait",
        file: "execution-worker/src/consume.rs",
        text: "        } else if self.shared.spool.waiting() > 0 {",
        without: "        } else if false {",
        tests: "worker: outages::ee09_nothing",
    },
    Guard {
        name: "ee09 a result is on the disk before it counts",
        file: "execution-worker/src/report.rs",
        text: "        match self.in_spool(report.clone(), |spool, report| spool.put(report)).await {",
        without: "        match self.in_spool(report.clone(), |_, _| Ok(())).await {",
        tests: "worker: outages::ee09_a",
    },
    Guard {
        name: "ee09 a kept result opens in its own place alone",
        file: "execution-worker/src/spool.rs",
        text: "    format!(\"gatehouse/spool/{name}\")",
        without: "    format!(\"gatehouse/spool/{}\", name.len())",
        tests: "spool::",
    },
    Guard {
        name: "ee37 what needs a restart is kept out",
        file: "execution-worker/src/reload.rs",
        text: "        if fixed.is_empty() {",
        without: "        if true {",
        tests: "worker: reload::ee37_a_change",
    },
    Guard {
        name: "ee37 a lower limit binds what is new",
        file: "execution-worker/src/consume.rs",
        text: "            let free = self.limit().saturating_sub(self.runs.len());",
        without: "            let free = 100_usize.saturating_sub(self.runs.len());",
        tests: "worker: reload::ee37_a_hundred",
    },
    Guard {
        name: "ee38 liveness lasts as long as the drain",
        file: "execution-worker/src/worker.rs",
        text: "    loops.spawn(listen::serve(\"admin_listen\", listener, router, until_drained));",
        without: "    drop(until_drained);\n    loops.spawn(listen::serve(\"admin_listen\", listener, router, shutdown.clone()));",
        tests: "worker: lifecycle::ee38_while",
    },
];
