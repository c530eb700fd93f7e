//! Renders the manifests of Envoy, Istio and Kong from one configuration document of the filter, and its schema.
//! Only `host`, `signatures` and `sidecar` differ between them; what the fields mean is the filter's business.

use std::{borrow::Cow, path::Path};

use anyhow::Context;
use gatehouse_edge::Suite;
use serde_json::{Value, json};

pub mod envoy;
pub mod executions;
mod image;
pub mod istio;
pub mod kong;
pub mod openapi;
pub mod problems;
pub mod validate;
pub mod versions;
pub mod yaml;

pub use image::{Image, Images};

/// The document that everything is rendered from, relative to the root.
pub const DOCUMENT: &str = "examples/gateway/suite.json";

/// The name under which hosts load the module: file, plugin and statistics.
pub const NAME: &str = "suite";

/// Where the sidecar listens inside a pod.
pub const SIDECAR_PORT: u16 = 7070;

/// A configuration document of the filter.
#[derive(Debug, Clone, PartialEq)]
pub struct Document(Value);

impl Document {
    /// Reads the repository's document.
    pub fn read(root: &Path) -> anyhow::Result<Self> {
        let path = root.join(DOCUMENT);
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("reading {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("reading {}", path.display()))
    }

    /// Reads a document's text.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        Ok(Self(sorted(serde_json::from_str(text)?)))
    }

    /// The same policy with another sidecar, named in the host's way.
    pub fn with_sidecar(mut self, target: &str, authority: &str) -> Self {
        if let Some(sidecar) = self.0.get_mut("sidecar").and_then(Value::as_object_mut) {
            sidecar.insert("target".to_owned(), json!(target));
            sidecar.insert("authority".to_owned(), json!(authority));
        }
        self
    }

    /// Whether answers' headers wait for their bodies (the envelope's `refuse`).
    pub fn holds_responses(&self) -> bool {
        self.0.pointer("/envelope/on_broken") == Some(&json!("refuse"))
    }

    /// The same policy on Kong, which has no native signatures.
    pub fn for_kong(mut self) -> Self {
        if let Some(members) = self.0.as_object_mut() {
            members.insert("host".to_owned(), json!("kong"));
            members.insert("signatures".to_owned(), json!("portable"));
        }
        self
    }

    /// One field replaced, for instances that differ from the example (issuers, times to live).
    pub fn with(mut self, name: &str, value: Value) -> Self {
        if let Some(members) = self.0.as_object_mut() {
            members.insert(name.to_owned(), sorted(value));
        }
        self
    }

    /// What Envoy calls the sidecar's cluster.
    pub fn sidecar_target(&self) -> &str {
        self.0.pointer("/sidecar/target").and_then(Value::as_str).unwrap_or_default()
    }

    /// Environment variables that the document takes keys from, each once.
    pub fn variables(&self) -> Vec<&str> {
        let sign = self.0.pointer("/context/sign").and_then(Value::as_array);
        let mut names: Vec<&str> = sign
            .into_iter()
            .flatten()
            .flat_map(|entry| [entry.get("key_env"), entry.get("previous_key_env")])
            .filter_map(|name| name?.as_str())
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The document as JSON.
    pub fn value(&self) -> &Value {
        &self.0
    }

    /// The document as text, indented for people.
    pub fn text(&self) -> String {
        format!("{:#}", self.0)
    }
}

/// A generated file: its path relative to the root, and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// Relative to the root.
    pub path: Cow<'static, str>,
    /// The whole content.
    pub text: String,
}

/// All manifests.
pub fn all(document: &Document, images: &Images) -> Vec<Rendered> {
    let documents = |path: &'static str, values: &[Value]| {
        let body: Vec<String> = values.iter().map(yaml::write).collect();
        let text = format!(
            "# Rendered from {DOCUMENT} by `cargo xtask codegen`: change that and render again.\n{}",
            body.join("---\n")
        );
        Rendered { path: path.into(), text }
    };
    vec![
        documents("istio/base/wasmplugin.yaml", &istio::wasm_plugin(document, images)),
        documents("istio/base/envoyfilter.yaml", &[istio::envoy_filter(document)]),
        documents("istio/base/telemetry.yaml", &[istio::telemetry()]),
        documents("istio/chain/wasmplugins.yaml", &istio::chain(document, images)),
        documents("istio/istiod-values.yaml", &[istio::mesh_values()]),
        documents("kong/kong.yaml", &[kong::declarative(document)]),
        Rendered { path: "kong/suite.meta.json".into(), text: format!("{:#}\n", kong::meta()) },
        Rendered {
            path: "docs/schema/edge.json".into(),
            text: format!("{:#}\n", sorted(Suite::schema())),
        },
        Rendered { path: "docs/problems.md".into(), text: problems::page() },
    ]
}

/// Members in alphabetical order, however serde_json was built, so that what is rendered is always the same.
pub fn sorted(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut members: Vec<(String, Value)> = members.into_iter().collect();
            members.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(members.into_iter().map(|(name, value)| (name, sorted(value))).collect())
        }
        Value::Array(values) => Value::Array(values.into_iter().map(sorted).collect()),
        value => value,
    }
}
