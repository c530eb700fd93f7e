//! The OpenAPI document of the control API, and the schemas that bodies are judged by: the service prints both, as it
//! serves them. Knows nothing of what is in them.

use std::{path::Path, process::Command, time::Duration};

use anyhow::Context;

use super::Rendered;
use crate::command;

/// The document.
pub const DOCUMENT: &str = "control-api/openapi.json";
/// Building it is what takes time.
const BUILD: Duration = Duration::from_secs(30 * 60);

/// Both files.
pub fn documents(root: &Path) -> anyhow::Result<Vec<Rendered>> {
    let print = |path: &'static str, more: &[&str]| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(root).args(["run", "--quiet", "-p", "gatehouse-control-api", "--"]);
        cargo.arg("openapi").args(more);
        let text = command::run(&mut cargo, "gatehouse-control-api openapi", BUILD)
            .with_context(|| format!("rendering {path}"))?;
        anyhow::Ok(Rendered { path: path.into(), text })
    };
    Ok(vec![print(DOCUMENT, &[])?, print(super::validate::DOCUMENT, &["--bodies"])?])
}
