//! Figures: what a bench found beside what was promised, as a table for people and as JSON for machines.
//! Knows nothing of how they are measured.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::report::{BOLD, GREEN, RED, colours, paint};

/// The least, the middle and the largest of a figure's rounds.
pub type Spread = [f64; 3];

/// One figure. Smaller is better, unless `more` says otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// Its stable name.
    pub id: String,
    /// The median of the rounds.
    pub value: f64,
    /// Of the value.
    pub unit: String,
    /// What must be held.
    pub floor: f64,
    /// What is wished for.
    pub aim: f64,
    /// Whether the floor is held.
    pub ok: bool,
    /// The spread of the rounds.
    pub runs: Spread,
    /// Whether more is better: floor and aim are the least that is promised and wished for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

impl Figure {
    /// The figure that these rounds give; `None` without any.
    pub fn new(id: &str, unit: &str, (floor, aim): (f64, f64), rounds: &[f64]) -> Option<Self> {
        let runs = spread(rounds)?;
        let [_, value, _] = runs;
        let (id, unit) = (id.to_owned(), unit.to_owned());
        Some(Self { id, value, unit, floor, aim, ok: value <= floor, runs, more: false })
    }

    /// One that must be at least its floor.
    pub fn at_least(id: &str, unit: &str, bounds: (f64, f64), rounds: &[f64]) -> Option<Self> {
        let figure = Self::new(id, unit, bounds, rounds)?;
        Some(Self { ok: figure.value >= figure.floor, more: true, ..figure })
    }

    fn reaches_aim(&self) -> bool {
        if self.more { self.value >= self.aim } else { self.value <= self.aim }
    }
}

/// The least, the middle and the largest; `None` without any.
pub fn spread(rounds: &[f64]) -> Option<Spread> {
    let mut sorted = rounds.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = *sorted.get(sorted.len().checked_sub(1)? / 2)?;
    Some([*sorted.first()?, f64::midpoint(lower, upper), *sorted.last()?])
}

/// The machine that measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// As the processor names itself.
    pub cpu: String,
    /// How many there are.
    pub cores: usize,
    /// The kernel's release.
    pub kernel: String,
    /// The load of the last minute before the bench began: how much the neighbours did.
    pub load: String,
}

impl Machine {
    /// This one.
    pub fn this() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let cpu = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        Self {
            cpu: cpu.map_or_else(|| "unknown".to_owned(), |(_, name)| name.trim().to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
        }
    }
}

/// Everything that a bench found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Where.
    pub machine: Machine,
    /// What.
    pub figures: Vec<Figure>,
}

impl Outcome {
    /// Whether every floor is held.
    pub fn ok(&self) -> bool {
        self.figures.iter().all(|figure| figure.ok)
    }

    /// Writes `<target>/bench/<name>.json`; figures of an earlier run that this one left out stay.
    pub fn write(&self, target: &Path, name: &str) -> anyhow::Result<PathBuf> {
        let folder = target.join("bench");
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let path = folder.join(format!("{name}.json"));
        let earlier = fs::read_to_string(&path).ok();
        let earlier: Option<Self> = earlier.and_then(|text| serde_json::from_str(&text).ok());
        let mut figures = self.figures.clone();
        let kept = earlier.map(|earlier| earlier.figures).unwrap_or_default();
        figures
            .extend(kept.into_iter().filter(|kept| self.figures.iter().all(|f| f.id != kept.id)));
        let all = Self { machine: self.machine.clone(), figures };
        let text = serde_json::to_string_pretty(&all).context("writing JSON")?;
        fs::write(&path, text + "\n").with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    /// The table, on stdout.
    pub fn print(&self) {
        let stdout = std::io::stdout();
        let table = self.table(colours(&stdout));
        // A closed pipe is no reason to fail: the JSON is written already.
        drop(stdout.lock().write_all(table.as_bytes()));
    }

    fn table(&self, colour: bool) -> String {
        let mut out = String::new();
        let head = format!(
            "{:<28} {:>8} {:>8} {:>8}  {:<24} {}",
            "figure", "value", "floor", "aim", "min … median … max", ""
        );
        out.push_str(&format!("{}\n", paint(colour, BOLD, head.trim_end())));
        for figure in &self.figures {
            let [least, middle, most] = figure.runs;
            let verdict = match (figure.ok, figure.reaches_aim()) {
                (false, _) => paint(colour, RED, "MISSED"),
                (true, false) => paint(colour, GREEN, "held"),
                (true, true) => paint(colour, GREEN, "aim reached"),
            };
            out.push_str(&format!(
                "{:<28} {:>8.3} {:>8.2} {:>8.2}  {:<24} {verdict}\n",
                figure.id,
                figure.value,
                figure.floor,
                figure.aim,
                format!("{least:.3} … {middle:.3} … {most:.3}"),
            ));
        }
        let Machine { cpu, cores, kernel, load } = &self.machine;
        out.push_str(&format!("machine: {cpu}, {cores} cores, Linux {kernel}, load {load}\n"));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(rounds: &[f64]) -> Outcome {
        let machine = Machine {
            cpu: "c".to_owned(),
            cores: 2,
            kernel: "6".to_owned(),
            load: "0.1".to_owned(),
        };
        let figure = Figure::new("a_ratio", "ratio", (1.2, 1.1), rounds).unwrap();
        Outcome { machine, figures: vec![figure] }
    }

    #[test]
    fn the_median_counts_and_the_spread_is_kept() {
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[2.0]), Some([2.0; 3]));
        assert_eq!(spread(&[3.0, 1.0, 2.0, 9.0]), Some([1.0, 2.5, 9.0]));
        let missed = outcome(&[1.3, 1.0, 1.21]);
        assert!(!missed.ok());
        assert!(missed.table(false).contains("MISSED"), "{}", missed.table(false));
        let held = outcome(&[1.2]);
        assert!(held.ok());
        assert!(held.table(false).contains("held"));
        assert!(!held.table(false).contains('\u{1b}'));
        assert!(outcome(&[1.1]).table(true).contains("aim reached"));
        let more = |value| Figure::at_least("m", "ratio", (0.5, 0.8), &[value]).unwrap();
        assert!(!more(0.4).ok && more(0.6).ok && !more(0.6).reaches_aim());
        assert!(more(0.9).reaches_aim());
    }

    #[test]
    fn the_document_has_the_agreed_members_and_keeps_what_was_left_out() {
        let target = std::env::temp_dir().join(format!("gatehouse-figures-{}", std::process::id()));
        outcome(&[1.0]).write(&target, "x").unwrap();
        let mut other = outcome(&[1.5]);
        other.figures[0].id = "b_ratio".to_owned();
        let path = other.write(&target, "x").unwrap();
        let text = fs::read_to_string(path).unwrap();
        fs::remove_dir_all(target).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            json["figures"][0],
            serde_json::json!({"id": "b_ratio", "value": 1.5, "unit": "ratio", "floor": 1.2,
                "aim": 1.1, "ok": false, "runs": [1.5, 1.5, 1.5]})
        );
        assert_eq!(json["figures"][1]["id"], "a_ratio");
        assert!(json["machine"]["cores"].is_number());
    }
}
