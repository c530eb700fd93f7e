//! A crate of others needs a line in `docs/DEPENDENCIES.md` that says why, and two versions of one crate need a
//! reason in `deny.toml`, whose number only shrinks. Knows text only.

use super::{Finding, Tree};

const MANIFEST: &str = "Cargo.toml";
const REASONS: &str = "docs/DEPENDENCIES.md";
const DENY: &str = "deny.toml";

/// As many crates stand twice in the tree now. Lower it whenever one goes.
const DUPLICATES: usize = 15;

/// Applies both rules.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let reasons = tree.text(REASONS).unwrap_or_default();
    let named: Vec<&str> = reasons
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|line| line.split_once('`').map(|(name, _)| name))
        .collect();
    let used: Vec<(usize, &str)> = dependencies(tree.text(MANIFEST).unwrap_or_default()).collect();
    for (at, name) in used.iter().filter(|(_, name)| !named.contains(name)) {
        findings.push(Finding::new(
            MANIFEST,
            *at,
            format!("{name} has no reason"),
            format!("give it a line in {REASONS}"),
        ));
    }
    for name in named.iter().filter(|name| used.iter().all(|(_, used)| used != *name)) {
        findings.push(Finding::new(
            REASONS,
            0,
            format!("{name} is no dependency of the workspace"),
            "take its line out",
        ));
    }
    let twice = skipped(tree.text(DENY).unwrap_or_default());
    if twice != DUPLICATES {
        findings.push(Finding::new(
            DENY,
            0,
            format!("{twice} crates stand twice in the tree, the ceiling is {DUPLICATES}"),
            "remove the new one, or lower DUPLICATES in xtask/src/tidy/dependencies.rs",
        ));
    }
    findings
}

/// The crates of others under `[workspace.dependencies]`, with their lines.
fn dependencies(manifest: &str) -> impl Iterator<Item = (usize, &str)> {
    manifest
        .lines()
        .enumerate()
        .skip_while(|(_, line)| *line != "[workspace.dependencies]")
        .skip(1)
        .take_while(|(_, line)| !line.starts_with('['))
        .filter_map(|(at, line)| Some((at + 1, line.split_once(" = ")?.0)))
        .filter(|(_, name)| !name.starts_with('#') && !name.starts_with("gatehouse-"))
}

fn skipped(deny: &str) -> usize {
    deny.lines()
        .skip_while(|line| *line != "skip = [")
        .skip(1)
        .take_while(|line| *line != "]")
        .filter(|line| line.trim_start().starts_with("{ crate = "))
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CARGO: &str = "[workspace.dependencies]\ngatehouse-x = { path = \"x\" }\n# Others.\na = \"1\"\n[profile.dev]\nb = 1\n";

    fn check_texts(reasons: &str, twice: usize, expected: &[&str]) {
        let deny = format!("skip = [\n{}]\n", "    { crate = \"c@1\" },\n".repeat(twice));
        let tree = Tree::of([(MANIFEST, CARGO), (REASONS, reasons), (DENY, deny.as_str())]);
        let found: Vec<String> = check(&tree).into_iter().map(|finding| finding.cause).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_dependency_needs_a_reason_and_a_reason_a_dependency() {
        check_texts("| `a` | why |\n", DUPLICATES, &[]);
        check_texts("", DUPLICATES, &["a has no reason"]);
        check_texts(
            "| `a` | why |\n| `d` | why |\n",
            DUPLICATES,
            &["d is no dependency of the workspace"],
        );
    }

    #[test]
    fn the_number_of_duplicates_is_exact() {
        let cause =
            |twice| format!("{twice} crates stand twice in the tree, the ceiling is {DUPLICATES}");
        check_texts("| `a` | why |\n", DUPLICATES + 1, &[&cause(DUPLICATES + 1)]);
        check_texts("| `a` | why |\n", DUPLICATES - 1, &[&cause(DUPLICATES - 1)]);
    }
}
