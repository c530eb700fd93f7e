//! Rules over single files: the opening line, length, tests that do not run, traces of one machine.
//! Knows text only.

use super::{Finding, Tree};

/// A file this long has two reasons to change (STYLE: split at about 400).
const MAX_LINES: usize = 500;

/// Files that are longer, with the length they have now. The list only shrinks: a file that got shorter must be
/// entered with its new length, or taken off.
const LONGER: &[(&str, usize)] = &[];

/// What a source file must not hold, and what to write instead.
const FORBIDDEN: &[(&str, &str)] = &[
    (concat!("#[", "ignore"), "let it run or remove it"),
    (concat!("#[", "should_panic"), "assert the error"),
    (concat!("#[", "allow("), "use #[expect(…, reason = \"…\")]"),
    (concat!("#![", "allow("), "use #[expect(…, reason = \"…\")] on the item"),
];

/// Traces of the machine a file was written on, and addresses of package archives: both are wrong elsewhere.
const TRACES: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("/Us", "ers/"),
    concat!("static.", "crates.io"),
    concat!("index.", "crates.io"),
    concat!("py", "pi.org"),
    concat!("files.", "pythonhosted.org"),
    concat!("registry.", "npmjs.org"),
    concat!("deb.", "debian.org"),
    concat!("security.", "debian.org"),
    concat!("snapshot.", "debian.org"),
    concat!("proxy.", "golang.org"),
    concat!("registry.", "yarnpkg.com"),
];

/// Applies the rules to every file.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.ending(".rs") {
        source(path, text, &mut findings);
    }
    for (path, text) in tree.ending("") {
        for (at, line) in text.lines().enumerate() {
            for trace in TRACES.iter().filter(|trace| line.contains(**trace)) {
                findings.push(Finding::new(
                    path,
                    at + 1,
                    format!("names {trace}, which is this machine or one archive"),
                    "ask the machine's own configuration at run time",
                ));
            }
        }
    }
    if let Some(lock) = tree.text("Cargo.lock") {
        for (at, line) in lock.lines().enumerate() {
            let foreign = line.starts_with("source = ")
                && line != "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
            if foreign {
                findings.push(Finding::new(
                    "Cargo.lock",
                    at + 1,
                    "a package from elsewhere than crates.io",
                    "use a published version",
                ));
            }
        }
    }
    for (path, _) in LONGER.iter().filter(|(path, _)| tree.text(path).is_none()) {
        findings.push(Finding::new(
            path,
            0,
            "is gone",
            "take it off LONGER in xtask/src/tidy/files.rs",
        ));
    }
    findings
}

fn source(path: &str, text: &str, findings: &mut Vec<Finding>) {
    if !text.starts_with("//!") {
        findings.push(Finding::new(
            path,
            1,
            "does not open with //!",
            "say what the file is for and what it must not know",
        ));
    }
    if path.ends_with("/mod.rs") {
        findings.push(Finding::new(path, 0, "is a mod.rs", "name it after its folder, beside it"));
    }
    let lines = text.lines().count();
    match LONGER.iter().find(|(known, _)| *known == path) {
        None if lines > MAX_LINES => findings.push(Finding::new(
            path,
            0,
            format!("has {lines} lines, {MAX_LINES} are allowed"),
            "split it by reason to change",
        )),
        Some((_, most)) if lines > *most => findings.push(Finding::new(
            path,
            0,
            format!("grew to {lines} lines, it had {most}"),
            "split it by reason to change",
        )),
        Some((_, most)) if lines < *most => findings.push(Finding::new(
            path,
            0,
            format!("shrank to {lines} lines"),
            "enter that in LONGER in xtask/src/tidy/files.rs",
        )),
        _ => {}
    }
    for (at, line) in text.lines().enumerate() {
        for (word, mend) in FORBIDDEN.iter().filter(|(word, _)| line.contains(word)) {
            findings.push(Finding::new(path, at + 1, format!("holds {word}"), *mend));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_text(path: &str, text: &str, expected: &[&str]) {
        let found: Vec<String> =
            check(&Tree::of([(path, text)])).iter().map(|finding| finding.cause.clone()).collect();
        assert_eq!(found, expected, "{path}");
    }

    #[test]
    fn a_source_file_says_what_it_is_for() {
        check_text("a/src/lib.rs", "//! Good.\n", &[]);
        check_text("a/src/lib.rs", "// Bad.\n", &["does not open with //!"]);
        check_text("a/src/b/mod.rs", "//! Good.\n", &["is a mod.rs"]);
    }

    #[test]
    fn a_file_is_split_before_it_is_too_long() {
        let long = |lines: usize| format!("//! Long.\n{}", "\n".repeat(lines - 1));
        check_text("a/src/lib.rs", &long(500), &[]);
        check_text("a/src/lib.rs", &long(501), &["has 501 lines, 500 are allowed"]);
    }

    #[test]
    fn a_test_that_does_not_run_is_refused() {
        let ignored = concat!("//! T.\n#[", "ignore]\n");
        check_text("a/src/lib.rs", ignored, &[concat!("holds #[", "ignore")]);
    }

    #[test]
    fn traces_of_a_machine_are_refused_in_every_file() {
        check_text("README.md", "see ./work and run", &[]);
        let trace = concat!("/wo", "rk/");
        check_text(
            "README.md",
            &format!("cd {trace}main"),
            &[&format!("names {trace}, which is this machine or one archive")],
        );
    }

    #[test]
    fn a_lock_file_names_one_registry() {
        let index = "source = \"registry+https://github.com/rust-lang/crates.io-index\"\n";
        check_text("Cargo.lock", index, &[]);
        check_text(
            "Cargo.lock",
            "source = \"git+https://example.com/x\"\n",
            &["a package from elsewhere than crates.io"],
        );
    }
}
