//! The meta-test: which acceptance lines had a test in the run that just ended, and which did not. A line is held by
//! a test that begins with its id (`j13_…`) and works from outside: through the compiled module in real Envoy, or
//! over a service's real socket. Tests of the pure code may carry an id as well; they do not count here.
//! Knows nextest's JUnit report, nothing of what the lines say.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use anyhow::Context;

/// The lines that must have a test: beginning, from, to. `ee` are the edge cases of the execution engine, as they come to be
/// held.
const LINES: &[(&str, u32, u32)] = &[
    ("j", 1, 35),
    ("j", 39, 40),
    ("t", 1, 12),
    ("p", 1, 8),
    ("r", 1, 26),
    ("v", 1, 14),
    ("x", 1, 11),
    ("ee", 1, 2),
    ("ee", 5, 12),
    ("ee", 13, 15),
    ("ee", 16, 17),
    ("ee", 18, 20),
    ("ee", 21, 25),
    ("ee", 28, 29),
    ("ee", 31, 31),
    ("ee", 34, 34),
    ("ee", 36, 40),
    ("ee", 32, 32),
    ("ee", 42, 42),
    ("ee", 44, 44),
];

/// Lines that have none yet, and why. Only shrinks.
const PENDING: &[(&str, &str)] = &[];

/// Where tests from outside are: binary (as in the report) and the beginnings of their names.
const OUTSIDE: &[(&str, &[&str])] = &[
    ("gatehouse-tests::integration", &["acceptance::", "faults::", "ratelimit::", "stack::"]),
    ("gatehouse-ratelimit-sidecar::sidecar", &[""]),
    ("gatehouse-control-api::api", &[""]),
    // Over a real database, and over real sandboxes.
    ("gatehouse-store::store", &[""]),
    ("gatehouse-execution-worker::worker", &[""]),
];

/// Where nextest writes its report (`.config/nextest.toml`): beside the sources, wherever cargo builds.
pub fn report(root: &Path) -> PathBuf {
    root.join("target/nextest/default/junit.xml")
}

/// Reads the report of a whole run. `Ok` is a line for the summary, `Err` says what is missing.
pub fn check(report: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(report)
        .with_context(|| format!("reading the tests' report {}", report.display()))?;
    judge(&held(&text), PENDING)
}

fn judge(held: &BTreeMap<String, u32>, pending: &[(&str, &str)]) -> anyhow::Result<String> {
    let lines: BTreeSet<String> = LINES
        .iter()
        .flat_map(|(letter, from, to)| (*from..=*to).map(move |n| format!("{letter}{n}")))
        .collect();
    let pending: BTreeMap<&str, &str> = pending.iter().copied().collect();
    let missing: Vec<&str> = lines
        .iter()
        .map(String::as_str)
        .filter(|id| !held.contains_key(*id) && !pending.contains_key(id))
        .collect();
    anyhow::ensure!(missing.is_empty(), "acceptance lines without a test: {}", missing.join(", "));
    let done: Vec<&str> = pending
        .keys()
        .copied()
        .filter(|id| held.contains_key(*id) || !lines.contains(*id))
        .collect();
    anyhow::ensure!(
        done.is_empty(),
        "no longer pending, take them off the list in xtask/src/test/acceptance.rs: {}",
        done.join(", ")
    );
    let tests: u32 = lines.iter().filter_map(|id| held.get(id)).sum();
    let held = lines.len() - pending.len();
    Ok(format!("{held} of {} acceptance lines held by {tests} tests", lines.len()))
}

/// How many tests from outside ran for each id.
fn held(report: &str) -> BTreeMap<String, u32> {
    let mut held = BTreeMap::new();
    for case in report.split("<testcase ").skip(1) {
        let tag = case.split('>').next().unwrap_or_default();
        let (Some(name), Some(binary)) = (attribute(tag, "name"), attribute(tag, "classname"))
        else {
            continue;
        };
        let outside = OUTSIDE.iter().any(|(known, places)| {
            *known == binary && places.iter().any(|place| name.starts_with(place))
        });
        if outside {
            ids(name).for_each(|id| *held.entry(id).or_default() += 1);
        }
    }
    held
}

/// `v7` and `v9` of `topic::v7_v9_what_it_says`.
fn ids(name: &str) -> impl Iterator<Item = String> {
    let test = name.rsplit("::").next().unwrap_or_default();
    test.split('_').map_while(id)
}

/// `ee7` of `ee07`: two digits, so that they sort.
fn id(word: &str) -> Option<String> {
    let (line, number) = match word.strip_prefix("ee") {
        Some(number) if number.len() == 2 => ("ee", number.trim_start_matches('0')),
        Some(_) => return None,
        None => word.split_at_checked(1)?,
    };
    let known = LINES.iter().any(|(known, ..)| *known == line);
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    (known && digits && !number.starts_with('0')).then(|| format!("{line}{number}"))
}

fn attribute<'t>(tag: &'t str, name: &str) -> Option<&'t str> {
    let key = format!("{name}=\"");
    // The name of another attribute may end with this one's.
    let at = tag
        .match_indices(&key)
        .map(|(at, _)| at)
        .find(|at| *at == 0 || tag.get(..*at).is_some_and(|before| before.ends_with(' ')))?;
    tag.get(at + key.len()..)?.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(binary: &str, name: &str) -> String {
        format!("<testcase name=\"{name}\" classname=\"{binary}\" time=\"0.1\">\n</testcase>\n")
    }

    /// A report in which every line but these has a test.
    fn without(missing: &[&str]) -> String {
        LINES
            .iter()
            .flat_map(|(letter, from, to)| (*from..=*to).map(move |n| format!("{letter}{n}")))
            .filter(|id| !missing.contains(&id.as_str()))
            .map(|id| match id.strip_prefix("ee") {
                Some(number) => format!("acceptance::a::ee{number:0>2}_holds"),
                None => format!("acceptance::a::{id}_holds"),
            })
            .map(|name| case("gatehouse-tests::integration", &name))
            .collect()
    }

    #[test]
    fn a_line_without_a_test_is_red_and_a_whole_list_is_not() {
        let verdict = |report: &str| judge(&held(report), &[]).map_err(|error| error.to_string());
        let lines: u32 = LINES.iter().map(|(_, from, to)| to - from + 1).sum();
        assert_eq!(
            verdict(&without(&[])),
            Ok(format!("{lines} of {lines} acceptance lines held by {lines} tests"))
        );
        assert_eq!(
            verdict(&without(&["j7", "t12"])),
            Err("acceptance lines without a test: j7, t12".to_owned())
        );
        // What is no test from outside does not hold a line.
        for (binary, name) in [
            ("gatehouse-edge", "flow::tests::j7_unsigned"),
            ("gatehouse-tests::integration", "filter::tokens::j7_unsigned"),
            ("gatehouse-tests", "acceptance::j7_unsigned"),
            ("gatehouse-tests::integration", "acceptance::tokens::j70_x"),
            ("gatehouse-tests::integration", "acceptance::tokens::xj7_x"),
            ("gatehouse-tests::integration", "acceptance::j7_tokens::unsigned"),
        ] {
            let report = without(&["j7"]) + &case(binary, name);
            assert!(verdict(&report).is_err(), "{binary} {name}");
        }
        let report = without(&["j7"]) + &case("gatehouse-ratelimit-sidecar::sidecar", "k::j7_x");
        assert!(verdict(&report).is_ok());
        let report = without(&["ee13"]) + &case("gatehouse-store::store", "k::ee013_x");
        assert!(verdict(&report).is_err(), "two digits");
        let report = without(&["ee13"]) + &case("gatehouse-store::store", "k::ee13_x");
        assert!(verdict(&report).is_ok());
        // One test may hold several.
        let report =
            without(&["v7", "v9"]) + &case("gatehouse-tests::integration", "stack::v7_v9_x");
        assert!(verdict(&report).is_ok());
    }

    #[test]
    fn the_list_of_pending_lines_only_shrinks() {
        let report = without(&["j7"]);
        let verdict = |pending: &[(&str, &str)]| judge(&held(&report), pending);
        assert!(verdict(&[]).is_err());
        assert!(verdict(&[("j7", "why")]).is_ok());
        for wrong in ["j8", "j36", "x1"] {
            let error = verdict(&[("j7", "why"), (wrong, "why")]).unwrap_err().to_string();
            assert!(error.ends_with(&format!(": {wrong}")), "{error}");
        }
        assert_eq!(PENDING, [], "every line has its test");
    }
}
