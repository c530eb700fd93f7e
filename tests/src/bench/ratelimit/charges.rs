//! What the sidecars of a fleet say that they charged, by the store's clock: the burst guard is a rate of charges, and a
//! lease is charged to it whole at the grant (design §3.4). Knows no clients.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use gatehouse_contract::TenantId;
use serde_json::Value;

use crate::fleet::Fleet;

/// What makes sidecars say so.
pub(super) const LOG: &str = "info,charges=trace";
/// The guard's window.
const SECOND_MS: u64 = 1000;

/// Charges of one tenant by the millisecond of their grant; what was handed back is taken off where it was granted.
#[derive(Debug, Default)]
pub(super) struct Charges(BTreeMap<u64, i64>);

impl Charges {
    /// What this fleet charged to `tenant`.
    pub(super) fn of(fleet: &Fleet, tenant: TenantId) -> Result<Self> {
        let logs: Vec<String> =
            fleet.sidecars.iter().map(|sidecar| sidecar.process.log()).collect();
        Self::read(logs.iter().flat_map(|log| log.lines()), &tenant.to_string())
    }

    fn read<'l>(lines: impl Iterator<Item = &'l str>, tenant: &str) -> Result<Self> {
        let mut charges = Self::default();
        for line in lines {
            // A panic's text is no JSON, and none of ours.
            let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
            let text = |name: &str| line.get(name).and_then(Value::as_str);
            if text("target") != Some("charges") || text("tenant") != Some(tenant) {
                continue;
            }
            let number = |name: &str| line.get(name).and_then(Value::as_i64);
            let at_ms = number("at_ms").and_then(|at| u64::try_from(at).ok());
            let by = number("charged").or_else(|| number("credited").map(|credited| -credited));
            let (at_ms, by) = at_ms.zip(by).with_context(|| format!("a strange charge: {line}"))?;
            *charges.0.entry(at_ms).or_default() += by;
        }
        Ok(charges)
    }

    /// All of them.
    pub(super) fn total(&self) -> i64 {
        self.0.values().sum()
    }

    /// The most within any second.
    pub(super) fn fullest_second(&self) -> i64 {
        let within = |from: u64| self.0.range(from..from + SECOND_MS).map(|(_, by)| by).sum();
        self.0.keys().map(|from| within(*from)).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fullest_second_is_found_whatever_log_it_is_in() {
        let line = |tenant: &str, at_ms: u64, what: &str, by: u32| {
            format!(
                r#"{{"level":"TRACE","message":"{what}","target":"charges","tenant":"{tenant}","at_ms":{at_ms},"{what}":{by}}}"#
            )
        };
        let lines = [
            line("a", 1000, "charged", 5),
            line("a", 1999, "charged", 4),
            line("a", 2000, "charged", 3),
            line("b", 1500, "charged", 90),
            line("a", 1999, "credited", 1),
            r#"{"level":"INFO","message":"charged","target":"x","tenant":"a","charged":9}"#
                .to_owned(),
            "thread panicked".to_owned(),
        ];
        let read = |lines: &[String]| Charges::read(lines.iter().map(String::as_str), "a");
        let charges = read(&lines).unwrap();
        assert_eq!((charges.total(), charges.fullest_second()), (11, 8));
        assert_eq!(Charges::default().fullest_second(), 0);
        assert!(read(&[r#"{"target":"charges","tenant":"a","charged":1}"#.to_owned()]).is_err());
    }
}
