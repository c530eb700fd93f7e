//! `docs/versions.md` and one guide per version that leads to another: what the examples' gateways answer, said by the
//! policy itself. Knows the pages' form; what a version is, and how it ends, is the filter's business.

use std::{fmt::Write as _, path::Path, time::Duration};

use anyhow::{Context, bail};
use gatehouse_authn::Portable;
use gatehouse_contract::rbac::Matrix;
use gatehouse_edge::{Parts, RequestView, Step, Suite, VmState};
use serde_json::Value;

use super::Rendered;

/// The documents whose versions are told.
const EXAMPLES: &[&str] = &["examples/gateway/suite.json", "examples/gateway/versions.json"];

const RULES: &str = include_str!("versions/rules.txt");

/// A path that needs a caller: the refusal says all that there is to say of its version.
const BELOW: &str = "/registry/agents/7";

/// The pages of the repository at `root`.
pub fn pages(root: &Path) -> anyhow::Result<Vec<Rendered>> {
    let mut page = RULES.to_owned();
    let mut guides = Vec::new();
    for example in EXAMPLES {
        let text = std::fs::read_to_string(root.join(example))
            .with_context(|| format!("reading {example}"))?;
        let document: Value = serde_json::from_str(&text)?;
        let versions = document.get("versions").with_context(|| format!("{example} has none"))?;
        page.push_str(&matrix(example, versions)?);
        for end in list(versions, "lifecycle") {
            if end.get("successor").is_some() {
                guides.push(guide(example, &text, end)?);
            }
        }
    }
    guides.insert(0, Rendered { path: "docs/versions.md".into(), text: page });
    Ok(guides)
}

/// What one gateway serves, and how it ends.
fn matrix(example: &str, versions: &Value) -> anyhow::Result<String> {
    let routes = Matrix::builtin()?;
    let surfaces = ["registry", "runtime", "factory"];
    let mut page = format!("\n## `{example}`\n");
    page.push_str("| version | released | deprecated | sunset | successor |");
    for surface in surfaces {
        write!(page, " `{surface}` |")?;
    }
    page.push_str("\n| --- | --- | --- | --- | --- | --- | --- | --- |\n");
    for version in list(versions, "served") {
        let version = text(version)?;
        let none = Value::Null;
        let end = list(versions, "lifecycle").iter().find(|end| end["version"] == version);
        let end = end.unwrap_or(&none);
        let default = if versions["default"] == version { " (default)" } else { "" };
        write!(page, "| `{version}`{default} |")?;
        for date in ["released", "deprecated", "sunset"] {
            write!(page, " {} |", end[date].as_str().unwrap_or("–"))?;
        }
        match end["successor"].as_str() {
            Some(next) => write!(page, " [`{next}`](versions/{version}-to-{next}.md) |")?,
            None => page.push_str(" – |"),
        }
        for surface in surfaces {
            let count = |version: &str| {
                let prefix = format!("/api/{version}/{surface}/");
                routes.routes().iter().filter(|route| route.template.starts_with(&prefix)).count()
            };
            match (count(version), count("v1")) {
                (0, first) => write!(page, " the {first} of `v1` |")?,
                (own, _) => write!(page, " {own} |")?,
            }
        }
        page.push('\n');
    }
    page.push_str("\nThe last columns count the operations that the role matrix knows.\n");
    Ok(page)
}

/// How to get from a version to the next.
fn guide(example: &str, document: &str, end: &Value) -> anyhow::Result<Rendered> {
    let (from, to) = (text(&end["version"])?, text(&end["successor"])?);
    let mut page = format!(
        "# From {from} to {to}\n\n<!-- Rendered from {example} by `cargo xtask codegen`. -->\n\n\
         ## When\n| what | when (UTC) |\n| --- | --- |\n"
    );
    for (name, what) in [
        ("released", "released"),
        ("deprecated", "deprecated: every response says so"),
        ("sunset", "gone: 410 `version_gone`"),
    ] {
        if let Some(date) = end[name].as_str() {
            writeln!(page, "| {from} {what} | {date} |")?;
        }
    }
    for window in list(end, "brownouts") {
        let (from_s, until) = (text(&window["from"])?, text(&window["until"])?);
        writeln!(page, "| brown-out: 410 for a while | {from_s} until {until} |")?;
    }
    write!(
        page,
        "\n## What changes for a client\n| {from} | {to} |\n| --- | --- |\n\
         | `/api/{from}{BELOW}` | `/api/{to}{BELOW}` |\n\
         | `Accept: {of}.{from}+json` | `Accept: {of}.{to}+json` |\n\
         | `Content-Type: {of}.{from}+json` | `Content-Type: {of}.{to}+json`, else 415 |\n\
         | `PUT /api/{from}/factory/tenants/{{tenant}}/version-pin` with `{from}` | with `{to}` |\n\n\
         ## What a response of {from} says\n```http\n",
        of = "application/vnd.greenlang",
    )?;
    for (name, value) in said(document, from)? {
        writeln!(page, "{name}: {value}")?;
    }
    page.push_str("```\n\n[All the rules](../versions.md)\n");
    Ok(Rendered { path: format!("docs/versions/{from}-to-{to}.md").into(), text: page })
}

/// The headers of an answer that tell of its version, from the policy.
fn said(document: &str, version: &str) -> anyhow::Result<Vec<(&'static str, String)>> {
    let suite = match Suite::compile(document, Parts::Suite) {
        Ok((suite, _warnings)) => suite,
        Err(mistakes) => bail!("{mistakes:?}"),
    };
    let path = format!("/api/{version}{BELOW}");
    let headers = [(":method", "GET"), (":path", path.as_str()), (":authority", "api")];
    // Long before any end: what is said of it does not depend on the time.
    let view = RequestView::new(&headers);
    let step = suite.on_request(&mut VmState::new([1, 2]), &view, Duration::ZERO, &Portable);
    let Step::Reply(reply) = step else { bail!("nobody was asked who calls") };
    let told = ["api-version", "deprecation", "sunset", "link"];
    let headers = reply.headers.iter().filter(|(name, _)| told.contains(name));
    Ok(headers.map(|(name, value)| (*name, value.to_string())).collect())
}

fn list<'v>(value: &'v Value, name: &str) -> &'v [Value] {
    value.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> anyhow::Result<&str> {
    value.as_str().with_context(|| format!("{value} is no text"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo;

    #[test]
    fn the_pages_tell_what_the_examples_serve() {
        let pages = pages(&repo::root().unwrap()).unwrap();
        let page = |path: &str| &pages.iter().find(|page| page.path == path).unwrap().text;
        for row in [
            "| `v1` (default) | 2025-01-01 | 2026-06-01 | 2027-06-01 | [`v2`](versions/v1-to-v2.md) |",
            "| `v3-beta` | 2026-10-01 | – | – | – |",
        ] {
            assert!(page("docs/versions.md").contains(row), "{row}");
        }
        let guide = page("docs/versions/v1-to-v2.md");
        for line in [
            "sunset: Tue, 01 Jun 2027 00:00:00 GMT\n",
            "deprecation: @1780272000\n",
            "link: </api/v2/registry/agents/7>; rel=\"successor-version\"",
        ] {
            assert!(guide.contains(line), "{line}");
        }
    }
}
