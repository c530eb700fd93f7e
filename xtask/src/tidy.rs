//! `cargo xtask tidy`: the house rules that no compiler holds: who may depend on whom, what a file must and must
//! not hold, documents that name things which exist. Reports every mistake at once, each with its mend.
//! Knows the repository's text and cargo's metadata; builds and runs nothing of the product.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, ensure};

use crate::repo;

pub mod dependencies;
pub mod docs;
pub mod files;
pub mod layers;
pub mod specification;

/// The options of `cargo xtask tidy`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// One broken rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The file, relative to the root.
    pub path: String,
    /// The line, from 1; 0 is the file as a whole.
    pub line: usize,
    /// What is wrong.
    pub cause: String,
    /// What to do.
    pub mend: String,
}

impl Finding {
    fn new(path: &str, line: usize, cause: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, cause: cause.into(), mend: mend.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, line, cause, mend } = self;
        if *line == 0 {
            write!(f, "{path}: {cause}; {mend}")
        } else {
            write!(f, "{path}:{line}: {cause}; {mend}")
        }
    }
}

/// The text files that belong to the repository, by their path relative to the root. Committed or not: a mistake
/// shall show before the commit.
#[derive(Debug, Default)]
pub struct Tree {
    texts: BTreeMap<String, String>,
    /// Paths of all files, binary ones too.
    paths: Vec<String>,
}

impl Tree {
    /// Reads what git knows and what it would add.
    pub fn read(root: &Path) -> anyhow::Result<Self> {
        let list = Command::new("git")
            .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
            .current_dir(root)
            .output()
            .context("starting git")?;
        ensure!(list.status.success(), "git ls-files failed; tidy needs the repository's history");
        let mut tree = Self::default();
        for path in String::from_utf8_lossy(&list.stdout).split('\0').filter(|p| !p.is_empty()) {
            // A file deleted but not yet committed is still listed.
            let Ok(bytes) = std::fs::read(root.join(path)) else { continue };
            tree.paths.push(path.to_owned());
            if let Ok(text) = String::from_utf8(bytes) {
                tree.texts.insert(path.to_owned(), text);
            }
        }
        Ok(tree)
    }

    /// A tree made by hand, for the tests of the rules.
    pub fn of<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let texts: BTreeMap<String, String> =
            files.into_iter().map(|(path, text)| (path.to_owned(), text.to_owned())).collect();
        Self { paths: texts.keys().cloned().collect(), texts }
    }

    /// The text of a file.
    pub fn text(&self, path: &str) -> Option<&str> {
        self.texts.get(path).map(String::as_str)
    }

    /// All texts whose path ends with `suffix`.
    pub fn ending<'a>(&'a self, suffix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.texts
            .iter()
            .filter(move |(path, _)| path.ends_with(suffix))
            .map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// Whether `path` (relative to the root, `.` and `..` resolved) is a file or a folder that holds one.
    pub fn has(&self, path: &Path) -> bool {
        let mut plain = PathBuf::new();
        for part in path.components() {
            match part {
                // The guard steps up; above the root there is nothing of ours.
                std::path::Component::ParentDir if !plain.pop() => return false,
                std::path::Component::Normal(name) => plain.push(name),
                _ => {}
            }
        }
        self.paths.iter().any(|known| Path::new(known).starts_with(&plain))
    }
}

/// Runs it.
pub fn run(_args: &Args) -> anyhow::Result<ExitCode> {
    let root = repo::root()?;
    let findings = check(&root)?;
    for finding in &findings {
        eprintln!("{finding}");
    }
    if findings.is_empty() {
        println!("tidy: nothing to mend");
        Ok(ExitCode::SUCCESS)
    } else {
        eprintln!("tidy: {} to mend", findings.len());
        Ok(ExitCode::FAILURE)
    }
}

/// Applies every rule to the repository at `root`.
pub fn check(root: &Path) -> anyhow::Result<Vec<Finding>> {
    let tree = Tree::read(root)?;
    let mut findings = files::check(&tree);
    findings.extend(dependencies::check(&tree));
    findings.extend(docs::check(&tree));
    findings.extend(specification::check(&tree));
    findings.extend(layers::check(&layers::read(root)?));
    findings.extend(layers::check_wasm_features(root)?);
    findings.sort();
    findings.dedup();
    Ok(findings)
}
