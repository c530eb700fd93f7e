//! Where a mesh finds the modules. Knows no manifest.

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};

/// A module where a mesh finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// `oci://…`.
    pub url: String,
    /// 64 hex digits.
    pub sha256: String,
}

/// Every module that manifests name.
pub const MODULES: [&str; 6] = ["suite", "version", "auth", "ratelimit", "transform", "validate"];

/// The modules' images.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Images(BTreeMap<String, Image>);

impl Images {
    /// Stand in the committed manifests: no image has this digest, so that a manifest applied as it is fails closed
    /// instead of fetching whatever the tag points at.
    pub fn unpublished() -> Self {
        let image = |module: &str| Image {
            url: format!(
                "oci://registry.greenlang.local/gatehouse/{module}:{}",
                env!("CARGO_PKG_VERSION")
            ),
            sha256: "0".repeat(64),
        };
        Self(MODULES.iter().map(|module| ((*module).to_owned(), image(module))).collect())
    }

    /// Reads `MODULE=oci://…@sha256:…`, one for every module: what is left out would not be pinned.
    pub fn parse(given: &[String]) -> anyhow::Result<Self> {
        let mut images = BTreeMap::new();
        for text in given {
            let (module, image) = text.split_once('=').with_context(|| {
                format!("--image {text}: write MODULE=oci://HOST/NAME:TAG@sha256:DIGEST")
            })?;
            ensure!(
                MODULES.contains(&module),
                "--image {text}: there is no module {module}; there are {}",
                MODULES.join(", ")
            );
            let (url, sha256) = image
                .split_once("@sha256:")
                .with_context(|| format!("--image {text}: has no @sha256:DIGEST"))?;
            let hex = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            ensure!(
                sha256.len() == 64 && sha256.bytes().all(hex),
                "--image {text}: {sha256} is not 64 lower-case hex digits"
            );
            ensure!(
                url.strip_prefix("oci://").is_some_and(|rest| !rest.is_empty()),
                "--image {text}: {url} does not start with oci://"
            );
            let image = Image { url: url.to_owned(), sha256: sha256.to_owned() };
            if images.insert(module.to_owned(), image).is_some() {
                bail!("--image {module} stands twice");
            }
        }
        let missing: Vec<&str> =
            MODULES.into_iter().filter(|module| !images.contains_key(*module)).collect();
        ensure!(missing.is_empty(), "--image is missing for {}", missing.join(", "));
        Ok(Self(images))
    }

    /// A module's image; of one that is not known an image that cannot be loaded.
    pub fn of(&self, module: &str) -> Image {
        self.0.get(module).cloned().unwrap_or_else(|| Image {
            url: format!("oci://invalid/{module}"),
            sha256: "0".repeat(64),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> Vec<String> {
        let image = |(at, module): (usize, &&str)| {
            let digest = at.to_string().repeat(64);
            format!("{module}=oci://r.example/gatehouse/{module}:1@sha256:{digest}")
        };
        MODULES.iter().enumerate().map(image).collect()
    }

    #[test]
    fn every_module_has_its_own_image_and_digest() -> anyhow::Result<()> {
        let images = Images::parse(&whole())?;
        for (at, module) in MODULES.iter().enumerate() {
            let image = images.of(module);
            assert_eq!(image.url, format!("oci://r.example/gatehouse/{module}:1"));
            assert_eq!(image.sha256, at.to_string().repeat(64));
        }
        Ok(())
    }

    #[test]
    fn an_image_that_pins_nothing_is_refused() {
        let check = |change: &dyn Fn(&mut Vec<String>), expected: &str| {
            let mut given = whole();
            change(&mut given);
            let told = Images::parse(&given).map_err(|error| error.to_string());
            assert!(told.as_ref().is_err_and(|told| told.contains(expected)), "{told:?}");
        };
        check(&|given| drop(given.pop()), "missing for validate");
        check(&|given| given.push("suite".to_owned()), "write MODULE=");
        check(&|given| given.push("suit=oci://x@sha256:0".to_owned()), "no module suit");
        check(&|given| given.push("suite=oci://x:1".to_owned()), "has no @sha256:");
        check(&|given| given.push("suite=oci://x@sha256:AB".to_owned()), "64 lower-case");
        let digest = "0".repeat(64);
        check(&|given| given.push(format!("suite=http://x@sha256:{digest}")), "oci://");
        check(&|given| given.push(format!("suite=oci://x@sha256:{digest}")), "stands twice");
    }
}
