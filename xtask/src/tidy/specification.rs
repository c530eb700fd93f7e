//! `docs/SPECIFICATION.md` has one line per task of the specification and per promised number. Each names the
//! tests that hold it, which must exist, or says what is pending and why.

use std::collections::BTreeMap;

use super::{Finding, Tree};

/// Where it lies.
pub const PATH: &str = "docs/SPECIFICATION.md";

/// The sixteen groups of the specification, five tasks each.
const GROUPS: &[&str] = &[
    "MTD", "NSI", "RLS", "TCP", "TIV", "GWC", "GAA", "GRL", "GAV", "AEX", "PIS", "RES", "LFH",
    "SMI", "STM", "SOI",
];
const TASKS_PER_GROUP: u32 = 5;

/// Numbers promised in the specification's tables and in the design have ids of this group.
const NUMBER: &str = "NUM";
/// Fewer than this means that lines were lost.
const LEAST_NUMBERS: usize = 30;

/// How a line is held.
#[derive(Debug, Default, PartialEq, Eq)]
struct Held<'a> {
    tests: Vec<(&'a str, &'a str)>,
    pending: Option<&'a str>,
}

/// Applies the rule.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let Some(text) = tree.text(PATH) else {
        return vec![Finding::new(PATH, 0, "is missing", "write a line per task and per number")];
    };
    let mut findings = Vec::new();
    let mut lines: BTreeMap<&str, usize> = BTreeMap::new();
    for (at, line) in text.lines().enumerate() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, id, _, held, _] = cells.as_slice() else { continue };
        if !is_id(id) {
            continue;
        }
        if let Some(first) = lines.insert(id, at + 1) {
            findings.push(Finding::new(
                PATH,
                at + 1,
                format!("{id} stands here again, first in line {first}"),
                "keep one line",
            ));
        }
        for cause in wrong(tree, &read(held)) {
            findings.push(Finding::new(
                PATH,
                at + 1,
                format!("{id}: {cause}"),
                "name a test as `path::name`, or write pending: why",
            ));
        }
    }
    for group in GROUPS {
        for task in 1..=TASKS_PER_GROUP {
            let id = format!("{group}-{task:03}");
            if !lines.contains_key(id.as_str()) {
                findings.push(Finding::new(PATH, 0, format!("{id} has no line"), "add it"));
            }
        }
    }
    let known = |id: &str| {
        id.split_once('-').is_some_and(|(group, number)| {
            group == NUMBER
                || GROUPS.contains(&group)
                    && number.parse().is_ok_and(|task: u32| (1..=TASKS_PER_GROUP).contains(&task))
        })
    };
    for (id, at) in lines.iter().filter(|(id, _)| !known(id)) {
        let cause = format!("{id} is no task of the specification");
        findings.push(Finding::new(PATH, *at, cause, "correct the id"));
    }
    let numbers = lines.keys().filter(|id| id.starts_with(NUMBER)).count();
    if numbers < LEAST_NUMBERS {
        findings.push(Finding::new(
            PATH,
            0,
            format!("{numbers} promised numbers, at least {LEAST_NUMBERS} are known"),
            "put back what was lost",
        ));
    }
    findings
}

fn is_id(cell: &str) -> bool {
    cell.split_once('-').is_some_and(|(group, number)| {
        group.len() == 3
            && group.bytes().all(|byte| byte.is_ascii_uppercase())
            && number.len() == 3
            && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// Reads the last cell: code spans `path::test`, then perhaps `pending: why`.
fn read(cell: &str) -> Held<'_> {
    let (tests, pending) = match cell.split_once("pending:") {
        Some((tests, why)) => (tests, Some(why.trim())),
        None => (cell, None),
    };
    let tests = tests.split('`').skip(1).step_by(2);
    Held {
        tests: tests.map(|span| span.rsplit_once("::").unwrap_or((span, ""))).collect(),
        pending,
    }
}

fn wrong(tree: &Tree, held: &Held<'_>) -> Vec<String> {
    let mut causes = Vec::new();
    match held.pending {
        Some("") => causes.push("pending without a why".to_owned()),
        None if held.tests.is_empty() => causes.push("neither a test nor pending".to_owned()),
        _ => {}
    }
    for (path, name) in &held.tests {
        match tree.text(path) {
            None => causes.push(format!("{path} does not exist")),
            Some(source) if !has_test(source, name) => {
                causes.push(format!("{path} has no test {name}"));
            }
            Some(_) => {}
        }
    }
    causes
}

/// Whether `source` has a function `name` marked as a test.
fn has_test(source: &str, name: &str) -> bool {
    let mut marked = false;
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[") {
            marked |= line == "#[test]" || line.starts_with("#[tokio::test");
        } else if let Some((_, rest)) = line.split_once("fn ") {
            let found = rest.strip_prefix(name).is_some_and(|rest| rest.starts_with('('));
            if marked && found {
                return true;
            }
            marked = false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str =
        "#[test]\nfn denies() {}\nfn helper() {}\n#[tokio::test]\nasync fn waits() {}\n";

    fn document(change: impl Fn(&str) -> Option<String>) -> String {
        let tasks =
            GROUPS.iter().flat_map(|group| (1..=5).map(move |task| format!("{group}-{task:03}")));
        let numbers = (1..=LEAST_NUMBERS).map(|number| format!("NUM-{number:03}"));
        tasks
            .chain(numbers)
            .filter_map(|id| change(&id).map(|held| format!("| {id} | promise | {held} |\n")))
            .collect()
    }

    fn check_cell(cell: &str, expected: &[&str]) {
        let text =
            document(|id| Some(if id == "GRL-004" { cell } else { "pending: later" }.to_owned()));
        let tree = Tree::of([(PATH, text.as_str()), ("a/tests/b.rs", SOURCE)]);
        let found: Vec<String> = check(&tree).into_iter().map(|finding| finding.cause).collect();
        let expected: Vec<String> =
            expected.iter().map(|cause| format!("GRL-004: {cause}")).collect();
        assert_eq!(found, expected, "{cell}");
    }

    #[test]
    fn a_line_names_tests_that_exist_or_says_why_not() {
        check_cell("`a/tests/b.rs::denies`", &[]);
        check_cell("`a/tests/b.rs::denies`, `a/tests/b.rs::waits`; pending: the rest", &[]);
        check_cell("pending: the versions issue", &[]);
        check_cell("done", &["neither a test nor pending"]);
        check_cell("pending:", &["pending without a why"]);
        check_cell("`a/tests/c.rs::denies`", &["a/tests/c.rs does not exist"]);
        check_cell("`a/tests/b.rs::helper`", &["a/tests/b.rs has no test helper"]);
        check_cell("`a/tests/b.rs::deni`", &["a/tests/b.rs has no test deni"]);
    }

    #[test]
    fn a_lost_doubled_or_invented_line_is_found() {
        let causes = |text: &str| {
            check(&Tree::of([(PATH, text)]))
                .into_iter()
                .map(|found| found.cause)
                .collect::<Vec<_>>()
        };
        let lost = document(|id| (id != "MTD-003").then(|| "pending: x".to_owned()));
        assert_eq!(causes(&lost), ["MTD-003 has no line"]);
        let whole = document(|_| Some("pending: x".to_owned()));
        let doubled = format!("{whole}| MTD-003 | again | pending: x |\n");
        assert_eq!(causes(&doubled), ["MTD-003 stands here again, first in line 3"]);
        let invented = format!("{whole}| MTD-006 | new | pending: x |\n");
        assert_eq!(causes(&invented), ["MTD-006 is no task of the specification"]);
        let fewer = document(|id| (id != "NUM-030").then(|| "pending: x".to_owned()));
        assert_eq!(causes(&fewer), ["29 promised numbers, at least 30 are known"]);
    }
}
