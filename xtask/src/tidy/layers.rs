//! Who may depend on whom (DESIGN §2), as data, held over cargo's metadata: every normal, build and development
//! dependency that a package names. Knows names, no code.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, ensure};
use serde::Deserialize;

use super::Finding;
use crate::repo;

/// No async, no IO, no clock, no randomness.
const PURE: &[&str] =
    &["contract", "edge", "authn", "ratelimit", "execution", "validate", "audit", "events"];
/// One per outside thing; they never see each other.
#[cfg(test)]
const ADAPTERS: &[&str] = &["wasm-host", "service", "store", "redis-kit", "kafka-kit", "outbound"];

/// What each package of ours may name of ours, beside nothing. `*pure` and `*all` are the groups.
const MAY: &[(&str, &[&str])] = &[
    ("contract", &[]),
    ("authn", &["contract"]),
    ("ratelimit", &["contract"]),
    ("execution", &["contract"]),
    ("validate", &["contract"]),
    ("audit", &["contract", "authn"]),
    ("events", &["contract", "execution"]),
    // The order of the steps is the edge's; the steps themselves are the others'.
    ("edge", &["contract", "authn", "ratelimit"]),
    ("wasm-host", &["*pure"]),
    ("service", &["*pure"]),
    ("store", &["*pure"]),
    ("redis-kit", &["*pure"]),
    ("kafka-kit", &["*pure"]),
    ("outbound", &["*pure"]),
    ("suite", &["contract", "edge", "wasm-host"]),
    ("probe", &[]),
    ("auth", &["contract", "edge", "wasm-host"]),
    ("version", &["wasm-host"]),
    ("ratelimit-filter", &["wasm-host"]),
    ("transform", &["wasm-host"]),
    // The package of `filters/validate`; the plain name is its crate's.
    ("validate-filter", &["wasm-host"]),
    ("ratelimit-sidecar", &["*pure", "service", "redis-kit", "outbound"]),
    ("control-api", &["*pure", "service", "store", "redis-kit", "kafka-kit", "outbound"]),
    ("execution-worker", &["*pure", "service", "store", "redis-kit", "outbound"]),
    ("cli", &["*pure"]),
    ("fuzz", &["*pure"]),
    ("xtask", &["*all"]),
    ("tests", &["*all"]),
    // Optimised for benches, beside the harness with its compilers.
    ("load", &["validate"]),
    ("fuel-emissions", &[]),
];

/// Crates of others that only some of ours may name.
const WRAPPED: &[(&str, &[&str])] = &[
    ("sqlx", &["store"]),
    ("redis", &["redis-kit"]),
    // Tests of the control API start its broker.
    ("rdkafka", &["kafka-kit", "control-api", "tests"]),
    ("apache-avro", &["kafka-kit"]),
    ("proxy-wasm", &["wasm-host"]),
    // The edge signs tokens in its own tests only.
    ("jwt-compact", &["authn", "edge"]),
    // xtask checks rendered documents in its tests.
    ("jsonschema", &["validate", "xtask"]),
    ("wasmtime", &["tests"]),
    ("wasm-encoder", &["xtask", "tests"]),
    ("wasmparser", &["xtask"]),
];

/// Crates that do IO, run tasks, read clocks or roll dice: no pure crate names them, not even in its tests.
const IMPURE: &[&str] = &[
    "axum",
    "getrandom",
    "hyper",
    "rand",
    "reqwest",
    "rustix",
    "tokio",
    "tracing-subscriber",
    "ureq",
];

/// A package of the workspace and what it names.
#[derive(Debug, Deserialize)]
pub struct Package {
    name: String,
    manifest_path: String,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_root: String,
}

/// Reads the packages of the workspace at `root`.
pub fn read(root: &Path) -> anyhow::Result<Vec<Package>> {
    let output = repo::cargo(root)
        .args(["metadata", "--format-version=1", "--no-deps", "--locked"])
        .output()
        .context("starting cargo metadata")?;
    ensure!(
        output.status.success(),
        "cargo metadata failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let metadata: Metadata = serde_json::from_slice(&output.stdout).context("reading metadata")?;
    let mut packages = metadata.packages;
    for package in &mut packages {
        if let Ok(path) = Path::new(&package.manifest_path).strip_prefix(&metadata.workspace_root) {
            package.manifest_path = path.display().to_string();
        }
    }
    Ok(packages)
}

/// Applies the tables.
pub fn check(packages: &[Package]) -> Vec<Finding> {
    let may: BTreeMap<&str, Vec<&str>> =
        MAY.iter().map(|(name, allowed)| (*name, expand(allowed))).collect();
    let mut findings = Vec::new();
    for package in packages {
        let mut find = |cause: String, mend: &str| {
            findings.push(Finding::new(&package.manifest_path, 0, cause, mend));
        };
        let Some(name) = package.name.strip_prefix("gatehouse-") else {
            find(format!("the package is called {}", package.name), "call it gatehouse-<folder>");
            continue;
        };
        let Some(allowed) = may.get(name) else {
            find(format!("{name} stands in no layer"), "enter it in xtask/src/tidy/layers.rs");
            continue;
        };
        for dependency in &package.dependencies {
            if let Some(ours) = dependency.name.strip_prefix("gatehouse-") {
                if !allowed.contains(&ours) {
                    find(
                        format!("{name} names {ours}"),
                        "move the shared part down a layer (DESIGN §2)",
                    );
                }
                continue;
            }
            let wrapper = WRAPPED.iter().find(|(theirs, _)| *theirs == dependency.name);
            if let Some((theirs, wrappers)) = wrapper.filter(|(_, all)| !all.contains(&name)) {
                find(
                    format!("{name} names {theirs}, which is for {} only", wrappers.join(", ")),
                    "ask the wrapping crate for what is missing",
                );
            }
            if PURE.contains(&name) && IMPURE.contains(&dependency.name.as_str()) {
                find(
                    format!("{name} is pure and names {}", dependency.name),
                    "let the caller bring the value",
                );
            }
        }
    }
    findings
}

fn expand(allowed: &[&'static str]) -> Vec<&'static str> {
    let mut names = Vec::new();
    for name in allowed {
        match *name {
            "*pure" => names.extend(PURE),
            "*all" => names.extend(MAY.iter().map(|(name, _)| *name)),
            name => names.push(name),
        }
    }
    names
}

/// RS256 in Wasm is 1.6 times slower with 64-bit digits: nothing may turn them on in the filter's build.
pub fn check_wasm_features(root: &Path) -> anyhow::Result<Vec<Finding>> {
    let output = repo::cargo(root)
        .args(["tree", "--locked", "--package", "gatehouse-suite", "--target", "wasm32-wasip1"])
        .args(["--edges", "normal", "--prefix", "none", "--format", "{p}|{f}"])
        .output()
        .context("starting cargo tree")?;
    ensure!(
        output.status.success(),
        "cargo tree failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(wide_digits(&String::from_utf8_lossy(&output.stdout)))
}

fn wide_digits(tree: &str) -> Vec<Finding> {
    tree.lines()
        .filter_map(|line| line.split_once('|'))
        .filter(|(_, features)| {
            features.trim_end_matches(" (*)").split(',').any(|feature| feature == "u64_digit")
        })
        .map(|(package, _)| {
            Finding::new(
                "filters/suite/Cargo.toml",
                0,
                format!("the filter is built with u64_digit of {package}"),
                "turn off the default features that bring it",
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_package(name: &str, dependencies: &[&str], expected: &[&str]) {
        let package = Package {
            name: name.to_owned(),
            manifest_path: "x/Cargo.toml".to_owned(),
            dependencies: dependencies
                .iter()
                .map(|name| Dependency { name: (*name).to_owned() })
                .collect(),
        };
        let found: Vec<String> = check(&[package]).into_iter().map(|found| found.cause).collect();
        assert_eq!(found, expected, "{name}");
    }

    #[test]
    fn a_layer_sees_only_what_is_below_it() {
        check_package("gatehouse-store", &["gatehouse-contract", "sqlx"], &[]);
        check_package("gatehouse-store", &["gatehouse-redis-kit"], &["store names redis-kit"]);
        check_package("gatehouse-cli", &["gatehouse-authn"], &[]);
        check_package("gatehouse-cli", &["gatehouse-store"], &["cli names store"]);
        check_package("gatehouse-ratelimit-sidecar", &["gatehouse-redis-kit"], &[]);
        check_package(
            "gatehouse-ratelimit-sidecar",
            &["gatehouse-store"],
            &["ratelimit-sidecar names store"],
        );
        check_package("gatehouse-tests", &["gatehouse-store", "gatehouse-xtask"], &[]);
    }

    #[test]
    fn an_outside_crate_has_one_wrapper() {
        check_package("gatehouse-redis-kit", &["redis"], &[]);
        check_package(
            "gatehouse-control-api",
            &["redis", "sqlx"],
            &[
                "control-api names redis, which is for redis-kit only",
                "control-api names sqlx, which is for store only",
            ],
        );
    }

    #[test]
    fn a_pure_crate_names_no_runtime() {
        check_package("gatehouse-edge", &["serde"], &[]);
        check_package("gatehouse-edge", &["tokio"], &["edge is pure and names tokio"]);
    }

    #[test]
    fn a_new_package_needs_a_layer() {
        check_package("gatehouse-newcomer", &[], &["newcomer stands in no layer"]);
        check_package("newcomer", &[], &["the package is called newcomer"]);
    }

    #[test]
    fn every_package_and_group_in_the_tables_is_known() {
        let names: Vec<&str> = MAY.iter().map(|(name, _)| *name).collect();
        for (_, allowed) in MAY {
            assert!(expand(allowed).iter().all(|name| names.contains(name)), "{allowed:?}");
        }
        for name in PURE.iter().chain(ADAPTERS).chain(WRAPPED.iter().flat_map(|(_, all)| *all)) {
            assert!(names.contains(name), "{name}");
        }
    }

    #[test]
    fn wide_digits_in_the_filter_are_found() {
        let tree = "rsa v0.9|pem\nnum-bigint-dig v0.8.4|i128,u64_digit,zeroize (*)\n";
        assert_eq!(wide_digits(tree).len(), 1);
        assert_eq!(wide_digits("num-bigint-dig v0.8.4|i128,zeroize\n"), []);
    }
}
