//! The guards of warm starts: whose a prepared sandbox is, how many there are, and when it may not be used.

use super::Guard;

pub(super) const GUARDS: &[Guard] = &[
    Guard {
        name: "ee40 what was made for one key is not another's",
        file: "execution-worker/src/sandbox/pool.rs",
        text: "while let Some(at) = self.ready.iter().position(|ready| ready.key == *key) {",
        without: "while let Some(at) = self.ready.iter().position(|_| true) {",
        tests: "pool::tests::ee40",
    },
    Guard {
        name: "ee40 a key says whose it is",
        file: "execution-worker/src/driver/warm.rs",
        text: "tenant: task.tenant, image",
        without: "tenant: TenantId::new(Uuid::nil()), image",
        tests: "worker: warm::ee40_a_prepared",
    },
    Guard {
        name: "ee40 no more wait than may",
        file: "execution-worker/src/sandbox/pool.rs",
        text: "self.ready.len() < self.bounds.max && ",
        without: "",
        tests: "pool::tests::",
    },
    Guard {
        name: "ee40 no more memory is held than may be",
        file: "execution-worker/src/sandbox/pool.rs",
        text: " && held + self.largest <= self.bounds.memory_bytes",
        without: " && held < u64::MAX",
        tests: "pool::tests::",
    },
    Guard {
        name: "ee39 a dead sandbox is not set aside",
        file: "execution-worker/src/sandbox/prepared.rs",
        text: "(!self.guest.is_alive()).then_some(Fallback::Died)",
        without: "None",
        tests: "worker: warm::ee39_whatever",
    },
    Guard {
        name: "ee39 another runsc starts no sandbox of the one before",
        file: "execution-worker/src/sandbox/prepared.rs",
        text: "        if stamp != Some(self.stamp) {\n",
        without: "        if false {\n",
        tests: "worker: warm::ee39_another_runsc",
    },
    Guard {
        name: "ee39 a sandbox is named under its lease",
        file: "crates/store/src/sandboxes.rs",
        text: " AND lease_epoch = $2 AND state = $3",
        without: " AND $2::bigint IS NOT NULL AND $3::text IS NOT NULL",
        tests: "store: sandboxes::",
    },
];
