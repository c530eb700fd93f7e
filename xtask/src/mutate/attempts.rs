//! The guards of what an attempt leaves behind: what is charged, what is given back, where results came from.

use super::Guard;

pub(super) const GUARDS: &[Guard] = &[
    Guard {
        name: "res3 what the platform failed is not charged",
        file: "crates/store/src/metering.rs",
        text: "        if reason.is_charged() {\n            self.charge_attempt",
        without: "        if true {\n            self.charge_attempt",
        tests: "store: metering::res3_each",
    },
    Guard {
        name: "res4 a day that is used up lets nothing in",
        file: "crates/store/src/metering.rs",
        text: "FROM day WHERE used >= most ORDER",
        without: "FROM day WHERE used > 2 * most + 100 ORDER",
        tests: "store: metering::res4",
    },
    Guard {
        name: "ee32 what was poisoned is given back",
        file: "crates/store/src/sweep.rs",
        text: "                    WHERE next = 'dead_letter' AND NOT refunded GROUP",
        without: "                    WHERE false GROUP",
        tests: "store: metering::ee32_what_was_poisoned",
    },
    Guard {
        name: "ee32 a submit is given back once",
        file: "crates/store/src/sweep.rs",
        text: "                    WHERE next = 'dead_letter' AND NOT refunded GROUP",
        without: "                    WHERE next = 'dead_letter' GROUP",
        tests: "store: metering::ee32_what_was_poisoned",
    },
    Guard {
        name: "ee42 what did not complete has no provenance",
        file: "crates/store/src/attempts.rs",
        text: ".filter(|_| to == ExecutionState::Completed)",
        without: ".filter(|_| to != ExecutionState::Pending)",
        tests: "store: metering::ee42",
    },
    Guard {
        name: "ee42 a number that has two spellings has no hash",
        file: "crates/execution/src/provenance.rs",
        text: "            if whole.is_some_and(|whole| whole > MAX_INTEGER) { Err(Error::Number) } else { Ok(()) }\n",
        without: "            if whole.is_none() && false { Err(Error::Number) } else { Ok(()) }\n",
        tests: "provenance::",
    },
];
