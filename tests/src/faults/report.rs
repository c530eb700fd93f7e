//! What a fault run found, for people and for a file. Knows nothing of how it was made.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use gatehouse_execution::ExecutionState;

use super::Run;
use crate::history::{Finding, History, Wrong};

/// How many findings are shown.
const SHOWN: usize = 20;

/// A run and its verdict.
#[derive(Debug)]
pub struct Report {
    /// What was done.
    pub run: Run,
    /// How long all of it took.
    pub took: Duration,
    /// Promises that were not kept.
    pub findings: Vec<Finding>,
    /// Planted faults that the checker did not report: with one of them its silence means nothing.
    pub missed: Vec<&'static str>,
    /// How many kills hit each state.
    pub coverage: BTreeMap<ExecutionState, usize>,
    /// How often each transition was made.
    pub transitions: BTreeMap<(ExecutionState, String), usize>,
    /// How often each fault was made.
    pub faults: BTreeMap<&'static str, usize>,
    /// What was judged.
    pub history: History,
    /// What had not ended in the time that was given.
    pub unsettled: Option<String>,
}

impl Report {
    /// Executions that were lost.
    pub fn lost(&self) -> usize {
        self.count(|wrong| matches!(wrong, Wrong::Lost | Wrong::OtherEnd))
    }

    /// Ones that counted twice.
    pub fn doubled(&self) -> usize {
        self.count(|wrong| matches!(wrong, Wrong::Doubled | Wrong::SecondEnd | Wrong::Unasked))
    }

    fn count(&self, of: impl Fn(Wrong) -> bool) -> usize {
        self.findings.iter().filter(|finding| of(finding.wrong)).count()
    }

    /// Why the run proves nothing, whatever it found.
    pub fn void(&self) -> Vec<String> {
        let states = self.coverage.iter().filter(|(_, hits)| **hits == 0);
        let mut void: Vec<String> =
            states.map(|(state, _)| format!("no kill hit {state}")).collect();
        void.extend(self.missed.iter().map(|what| format!("planted and not reported: {what}")));
        void
    }

    /// Whether it proves something, and nothing is wrong.
    pub fn is_good(&self) -> bool {
        self.findings.is_empty() && self.void().is_empty() && self.unsettled.is_none()
    }

    /// Writes it to `<target>/bench/`.
    pub fn write(&self, target: &Path) -> Result<PathBuf> {
        let folder = target.join("bench");
        std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let driver = format!("{:?}", self.run.driver).to_lowercase();
        let path = folder.join(format!("execution-history-{driver}-{}.txt", self.run.seed));
        std::fs::write(&path, self.to_string())
            .with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let history = &self.history;
        let (seed, took) = (self.run.seed, self.took.as_secs());
        writeln!(
            f,
            "seed {seed}, driver {:?}: {} executions, {} events, {} kills, {took} s",
            self.run.driver,
            history.submitted.len(),
            history.events.len(),
            history.kills.len(),
        )?;
        let runs = history.runs.as_ref().map_or(0, |runs| runs.iter().filter(|r| r.began).count());
        writeln!(
            f,
            "  runs that the drivers wrote down: {runs}; cancels asked: {}; counts of the observer: {}",
            history.cancelled.len(),
            history.samples.len(),
        )?;
        let list = |pairs: &mut dyn Iterator<Item = (String, usize)>| {
            let mut line = String::new();
            for (name, count) in pairs {
                line.push_str(&format!(" {name} {count}"));
            }
            line
        };
        let mut faults = self.faults.iter().map(|(name, n)| ((*name).to_owned(), *n));
        writeln!(f, "  faults:{}", list(&mut faults))?;
        let mut coverage = self.coverage.iter().map(|(state, n)| (state.to_string(), *n));
        writeln!(f, "  kills that hit a state:{}", list(&mut coverage))?;
        let made = self.transitions.iter();
        let mut made = made.map(|((from, event), n)| (format!("{from}>{event}"), *n));
        writeln!(f, "  transitions:{}", list(&mut made))?;
        let mut ends = BTreeMap::new();
        for row in &history.rows {
            *ends.entry(row.state.to_string()).or_insert(0) += 1;
        }
        writeln!(f, "  ends:{}", list(&mut ends.into_iter()))?;
        for finding in self.findings.iter().take(SHOWN) {
            writeln!(f, "  WRONG {finding}")?;
        }
        for void in self.void() {
            writeln!(f, "  VOID {void}")?;
        }
        if let Some(unsettled) = &self.unsettled {
            writeln!(f, "  UNSETTLED {unsettled}")?;
        }
        writeln!(
            f,
            "  verdict: {} lost, {} doubled, {} wrong in all: {}",
            self.lost(),
            self.doubled(),
            self.findings.len(),
            if self.is_good() { "kept" } else { "NOT KEPT" },
        )
    }
}
