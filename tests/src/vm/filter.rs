//! A compiled filter, from which VMs start, and how one ends. Knows nothing of what a VM holds.

use std::{path::Path, sync::OnceLock};

use anyhow::{Context, Result, anyhow, ensure};
use wasmtime::{Engine, Module};

/// The ABI that the host speaks.
const ABI: &str = "proxy_abi_version_0_2_1";

/// The filter trapped: in Envoy this stream gets 503 and the worker's VM is lost.
#[derive(Debug, thiserror::Error)]
#[error("{callback} trapped: {cause}\n{backtrace}")]
pub struct Trap {
    /// The callback that ran.
    pub callback: &'static str,
    /// Why, with its causes.
    pub cause: String,
    /// The Wasm frames.
    pub backtrace: String,
}

/// A compiled filter, from which any number of VMs start. A clone is the same code.
#[derive(Clone)]
pub struct Filter {
    pub(super) engine: Engine,
    pub(super) module: Module,
}

impl Filter {
    /// The fused filter that `cargo xtask test` built, compiled once per process.
    pub fn suite() -> Result<&'static Self> {
        static SUITE: OnceLock<Result<Filter>> = OnceLock::new();
        SUITE
            .get_or_init(|| Self::load(&crate::env::path(crate::env::SUITE)?))
            .as_ref()
            .map_err(|error| anyhow!("{error:#}"))
    }

    /// Compiles the module in a file.
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        Self::compile(&bytes).with_context(|| format!("loading {}", path.display()))
    }

    /// Compiles a module, quickly rather than well: a test runs few of its instructions.
    pub fn compile(bytes: &[u8]) -> Result<Self> {
        let mut config = wasmtime::Config::new();
        config.consume_fuel(true);
        config.cranelift_opt_level(wasmtime::OptLevel::None);
        let engine = Engine::new(&config)?;
        let module = Module::new(&engine, bytes)?;
        ensure!(module.get_export(ABI).is_some(), "the module does not export {ABI}");
        Ok(Self { engine, module })
    }
}
