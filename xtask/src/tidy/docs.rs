//! Paths that documents name must exist. A path is a relative link, or a code span that starts with a folder of
//! this repository or ends like a file of it; spans with placeholders are patterns, not paths.

use std::path::Path;

use super::{Finding, Tree};

/// The folders at the root, those to come included: naming what is not there yet misleads as well.
const FOLDERS: &[&str] = &[
    "filters",
    "ratelimit-sidecar",
    "control-api",
    "execution-worker",
    "migrations",
    "istio",
    "kong",
    "deploy",
    "tests",
    "crates",
    "cli",
    "xtask",
    "docs",
    "examples",
    "fuzz",
    ".ci",
    ".config",
    ".cargo",
];

/// Endings by which a span with a slash is a file.
const ENDINGS: &[&str] = &[".rs", ".md", ".toml", ".sql", ".yaml", ".yml", ".json", ".lua", ".sh"];

/// What the commands write: it need not exist.
const MADE: &[&str] = &["target/", ".gatehouse/"];

/// The specification asks for at least as many decision records.
const DECISIONS: usize = 4;

/// Applies the rules to every document.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = paths(tree);
    let decisions = tree
        .ending(".md")
        .filter_map(|(path, _)| path.strip_prefix("docs/adr/"))
        .filter(|name| name.starts_with(|c: char| c.is_ascii_digit()))
        .count();
    if decisions < DECISIONS {
        findings.push(Finding::new(
            "docs/adr",
            0,
            format!("{decisions} decisions are recorded, at least {DECISIONS} are promised"),
            "put back what was lost",
        ));
    }
    findings
}

fn paths(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.ending(".md") {
        let folder = Path::new(path).parent().unwrap_or(Path::new(""));
        let mut fenced = false;
        for (at, line) in text.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                fenced = !fenced;
            }
            if fenced {
                continue;
            }
            let links = links(line).filter(|link| !tree.has(&folder.join(link)));
            let spans = spans(line)
                .filter(|span| is_path(span))
                .filter(|span| !tree.has(Path::new(span)) && !tree.has(&folder.join(span)));
            for named in links.chain(spans) {
                findings.push(Finding::new(
                    path,
                    at + 1,
                    format!("names {named}, which does not exist"),
                    "correct the path or take it out",
                ));
            }
        }
    }
    findings
}

/// The code spans of one line, without a test's name or a line number behind the path.
pub fn spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2).map(|span| {
        let span = span.split("::").next().unwrap_or(span);
        match span.rsplit_once(':') {
            Some((path, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => path,
            _ => span,
        }
    })
}

fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](")
        .skip(1)
        .filter_map(|rest| rest.split([')', ' ', '#']).next())
        .filter(|link| !link.is_empty() && !link.contains("://") && !link.starts_with("mailto:"))
}

fn is_path(span: &str) -> bool {
    let pattern = span.chars().any(|c| c.is_whitespace() || "<>*{}…$()=\"".contains(c));
    if pattern || span.starts_with('/') || span.starts_with("..") {
        return false;
    }
    if MADE.iter().any(|made| span.starts_with(made)) {
        return false;
    }
    match span.split_once('/') {
        Some((first, _)) => {
            FOLDERS.contains(&first) || ENDINGS.iter().any(|ending| span.ends_with(ending))
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_line(line: &str, missing: &[&str]) {
        let tree =
            Tree::of([("docs/A.md", line), ("docs/B.md", ""), ("crates/edge/src/lib.rs", "")]);
        let found: Vec<String> = paths(&tree).iter().map(|finding| finding.cause.clone()).collect();
        let expected: Vec<String> =
            missing.iter().map(|path| format!("names {path}, which does not exist")).collect();
        assert_eq!(found, expected, "{line}");
    }

    #[test]
    fn a_path_that_exists_may_be_named() {
        check_line(
            "`crates/edge`, `crates/edge/src/lib.rs:12`, [b](B.md#x), [c](../crates/edge/)",
            &[],
        );
        check_line("`docs/A.md::name`, `target/wasm/suite.wasm`, `crates/<name>`, `/api/v1`", &[]);
    }

    #[test]
    fn a_path_that_does_not_exist_is_found() {
        check_line("`crates/egde`", &["crates/egde"]);
        check_line("`deploy/`", &["deploy/"]);
        check_line("`src/nothing.rs`", &["src/nothing.rs"]);
        check_line("[b](b.md) and [c](../../up.md)", &["b.md", "../../up.md"]);
    }

    #[test]
    fn at_least_four_decisions_are_recorded() {
        let all = ["docs/adr/1.md", "docs/adr/2.md", "docs/adr/3.md", "docs/adr/4.md"];
        assert_eq!(check(&Tree::of(all.map(|path| (path, "")))), []);
        let fewer =
            all.map(|path| (if path.ends_with("4.md") { "docs/adr/README.md" } else { path }, ""));
        let found = check(&Tree::of(fewer));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].cause, "3 decisions are recorded, at least 4 are promised");
    }
}
