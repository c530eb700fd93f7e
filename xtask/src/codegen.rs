//! `cargo xtask codegen`: writes what is generated and committed, or says what differs.
//! Knows which files there are; what they hold is [`crate::render`]'s.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;

use crate::{
    render::{self, Document, Images, Rendered},
    repo,
};

/// The options of `cargo xtask codegen`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write nothing; fail when a committed file is not what would be written.
    #[arg(long)]
    pub check: bool,
    /// Render for published images (MODULE=oci://HOST/NAME:TAG@sha256:DIGEST, once for every module) instead of the
    /// committed stand-ins; needs --out.
    #[arg(long, value_name = "MODULE=IMAGE", requires = "out", conflicts_with = "check")]
    pub image: Vec<String>,
    /// The folder to write to instead of the repository.
    #[arg(long)]
    pub out: Option<PathBuf>,
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let root = repo::root()?;
    let images = match args.image.as_slice() {
        [] => Images::unpublished(),
        given => Images::parse(given)?,
    };
    let rendered = rendered(&root, &images)?;
    if args.check {
        let wrong = differences(&root, &rendered);
        for line in &wrong {
            eprintln!("{line}; run `cargo xtask codegen`");
        }
        return Ok(if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let out = args.out.as_deref().unwrap_or(&root);
    for file in &rendered {
        let path = out.join(file.path.as_ref());
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("making {}", folder.display()))?;
        }
        std::fs::write(&path, &file.text).with_context(|| format!("writing {}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Everything that is generated and committed.
pub fn rendered(root: &Path, images: &Images) -> anyhow::Result<Vec<Rendered>> {
    let mut rendered = render::all(&Document::read(root)?, images);
    rendered.extend(render::versions::pages(root)?);
    rendered.push(render::executions::page()?);
    let documents = render::openapi::documents(root)?;
    for bodies in documents.iter().filter(|file| file.path == render::validate::DOCUMENT) {
        rendered.extend(render::validate::manifests(&bodies.text, images)?);
    }
    rendered.extend(documents);
    Ok(rendered)
}

/// One line per committed file that is not what would be written.
pub fn differences(root: &Path, rendered: &[Rendered]) -> Vec<String> {
    let mut lines = Vec::new();
    for file in rendered {
        let Ok(committed) = std::fs::read_to_string(root.join(file.path.as_ref())) else {
            lines.push(format!("{}: is missing", file.path));
            continue;
        };
        if committed == file.text {
            continue;
        }
        let same = committed.lines().zip(file.text.lines()).take_while(|(a, b)| a == b).count();
        lines.push(format!("{}:{}: differs from what is rendered", file.path, same + 1));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_differs_is_named() {
        let folder = std::env::temp_dir().join(format!("gatehouse-codegen-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join("a.yaml"), "x\ny\n").expect("a file");
        let check = |path: &'static str, text: &str, expected: &[&str]| {
            let rendered = [Rendered { path: path.into(), text: text.to_owned() }];
            assert_eq!(differences(&folder, &rendered), expected);
        };
        check("a.yaml", "x\ny\n", &[]);
        check("a.yaml", "x\nz\n", &["a.yaml:2: differs from what is rendered"]);
        check("a.yaml", "x\n", &["a.yaml:2: differs from what is rendered"]);
        check("b.yaml", "", &["b.yaml: is missing"]);
        std::fs::remove_dir_all(&folder).expect("removed");
    }
}
