//! `cargo xtask wasm`: builds the filters, cuts each for its hosts, makes it small and tells the hosts' compiler which
//! branches are rare (ADR 0042), holds sizes and imports.
//! Knows the rules of the hosts (measured, DESIGN §3); decides nothing about requests.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use sha2::{Digest, Sha256};

use self::branches::{Branches, Share};
use crate::{command, install, repo, report::Report};

pub mod branches;
pub mod module;
pub mod probe;

/// The options of `cargo xtask wasm`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// A module made for one host.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// Which filter it is.
    pub filter: Filter,
    /// Which host it is for.
    pub host: Host,
    /// Where it lies.
    pub path: PathBuf,
    /// Its size.
    pub size_bytes: u64,
    /// Its digest, 64 hex digits.
    pub sha256: String,
    /// How much of what was counted of branches it knows.
    pub hints: Share,
}

/// The filters that are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// All steps fused: the default.
    Suite,
    /// Who calls, and what that caller may do.
    Auth,
    /// Which API version answers.
    Version,
    /// How much a caller may.
    RateLimit,
    /// What is changed of requests and responses.
    Transform,
    /// Judges bodies by JSON Schema.
    Validate,
}

/// The two hosts that modules are cut for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// Envoy, alone or under Istio.
    Envoy,
    /// Kong 3.9 (ngx_wasm_module).
    Kong,
}

/// A host calls every callback that is exported, so only those that the filters need stay (each costs two entries
/// into the VM). `proxy_on_delete` must stay or no context is ever freed; `proxy_on_request_body` must stay or a
/// host that lets bodies run ahead of paused headers passes them on unjudged; `proxy_on_request_trailers` holds T5.
const EXPORTS: &[&str] = &[
    "memory",
    "_initialize",
    "proxy_abi_version_0_2_1",
    "proxy_on_memory_allocate",
    "proxy_on_vm_start",
    "proxy_on_configure",
    "proxy_on_context_create",
    "proxy_on_tick",
    "proxy_on_request_headers",
    "proxy_on_request_body",
    "proxy_on_request_trailers",
    "proxy_on_response_headers",
    "proxy_on_http_call_response",
    "proxy_on_delete",
];

/// The module that judges bodies: it sees no responses, asks nobody and has no ticks.
const BODY_EXPORTS: &[&str] = &[
    "memory",
    "_initialize",
    "proxy_abi_version_0_2_1",
    "proxy_on_memory_allocate",
    "proxy_on_vm_start",
    "proxy_on_configure",
    "proxy_on_context_create",
    "proxy_on_request_headers",
    "proxy_on_request_body",
    "proxy_on_request_trailers",
    "proxy_on_delete",
];
/// Of the envelope, in Envoy alone: modules that do not wrap are not asked about answers' bodies.
const ENVELOPE_EXPORTS: &[&str] = &["proxy_on_response_body", "proxy_on_response_trailers"];

/// What both hosts answer. Everything else is refused: log level (Kong cannot load such a module), gRPC and status
/// (Kong traps), queues (unused).
const IMPORTS: &[&str] = &[
    "env.proxy_add_header_map_value",
    "env.proxy_continue_stream",
    "env.proxy_get_buffer_bytes",
    "env.proxy_get_current_time_nanoseconds",
    "env.proxy_get_header_map_pairs",
    "env.proxy_get_property",
    "env.proxy_http_call",
    "env.proxy_log",
    "env.proxy_remove_header_map_value",
    "env.proxy_replace_header_map_value",
    "env.proxy_send_local_response",
    // Of the SDK, which makes the calls of a call-out's answer mean the stream that waits for it.
    "env.proxy_set_effective_context",
    "env.proxy_set_property",
    "env.proxy_set_tick_period_milliseconds",
    "wasi_snapshot_preview1.clock_time_get",
    "wasi_snapshot_preview1.environ_get",
    "wasi_snapshot_preview1.environ_sizes_get",
    "wasi_snapshot_preview1.fd_write",
    "wasi_snapshot_preview1.proc_exit",
    "wasi_snapshot_preview1.random_get",
];

/// Calls that only default methods of the SDK's traits make: we call none of them, but the methods stand in virtual
/// tables and would keep the imports alive. They are answered inside the module with [`INTERNAL_FAILURE`], at which
/// the SDK panics: loud, should one be called after all.
const NEVER_CALLED: &[&str] = &[
    "env.proxy_close_stream",
    "env.proxy_dequeue_shared_queue",
    "env.proxy_done",
    "env.proxy_enqueue_shared_queue",
    "env.proxy_get_header_map_value",
    "env.proxy_get_status",
    "env.proxy_grpc_call",
    "env.proxy_grpc_cancel",
    "env.proxy_grpc_close",
    "env.proxy_grpc_send",
    "env.proxy_grpc_stream",
    "env.proxy_register_shared_queue",
    "env.proxy_resolve_shared_queue",
    "env.proxy_set_header_map_pairs",
];

/// What Envoy alone answers. On Kong a call traps (shared data and metrics: unless the operator declared a zone), so
/// that there the module answers itself with a status of the ABI.
const ENVOYS: &[(&str, i32)] = &[
    ("env.proxy_call_foreign_function", NOT_FOUND),
    ("env.proxy_define_metric", INTERNAL_FAILURE),
    ("env.proxy_get_shared_data", NOT_FOUND),
    ("env.proxy_increment_metric", NOT_FOUND),
    // The envelope, which no document for Kong may have.
    ("env.proxy_set_buffer_bytes", INTERNAL_FAILURE),
    ("env.proxy_set_shared_data", INTERNAL_FAILURE),
];
/// What has one answer where there is one thread, and what no host is asked for: the locks of the pattern library yield
/// before they wait, and they never wait.
const ANSWERED: &[(&str, i32)] = &[("wasi_snapshot_preview1.sched_yield", 0)];
/// `Status::NotFound` of the ABI: what any host says that does not have it.
const NOT_FOUND: i32 = 1;
/// `Status::InternalFailure` of the ABI.
const INTERNAL_FAILURE: i32 = 10;

impl Filter {
    /// Every filter.
    pub const ALL: [Self; 6] =
        [Self::Suite, Self::Auth, Self::Version, Self::RateLimit, Self::Transform, Self::Validate];

    const fn name(self) -> &'static str {
        match self {
            Self::Suite => "suite",
            Self::Auth => "auth",
            Self::Version => "version",
            Self::RateLimit => "ratelimit",
            Self::Transform => "transform",
            Self::Validate => "validate",
        }
    }

    /// Pure crates stand in the way of two short names.
    const fn package(self) -> &'static str {
        match self {
            Self::Suite => "suite",
            Self::Auth => "auth",
            Self::Version => "version",
            Self::RateLimit => "ratelimit-filter",
            Self::Transform => "transform",
            Self::Validate => "validate-filter",
        }
    }

    const fn exports(self) -> &'static [&'static str] {
        match self {
            Self::Suite | Self::Auth | Self::Version | Self::RateLimit | Self::Transform => EXPORTS,
            Self::Validate => BODY_EXPORTS,
        }
    }

    /// Filters that hand over by filter state need a host that has it.
    const fn hosts(self) -> &'static [Host] {
        match self {
            Self::Suite => &[Host::Envoy, Host::Kong],
            Self::Auth | Self::Version | Self::RateLimit | Self::Transform | Self::Validate => {
                &[Host::Envoy]
            }
        }
    }

    /// DESIGN §3.5.
    const fn max_bytes(self) -> u64 {
        match self {
            Self::Suite => 1_572_864,
            Self::Auth | Self::Version | Self::RateLimit | Self::Transform => 1_048_576,
            Self::Validate => 4_194_304,
        }
    }
}

impl Host {
    /// Every host.
    pub const ALL: [Self; 2] = [Self::Envoy, Self::Kong];

    fn file_name(self, filter: Filter) -> String {
        match self {
            Self::Envoy => format!("{}.wasm", filter.name()),
            Self::Kong => format!("{}-kong.wasm", filter.name()),
        }
    }

    fn imports(self) -> BTreeSet<&'static str> {
        let mut allowed: BTreeSet<&str> = IMPORTS.iter().copied().collect();
        if self == Self::Envoy {
            allowed.extend(ENVOYS.iter().map(|(name, _)| *name));
        }
        allowed
    }

    fn refused(self) -> BTreeMap<&'static str, i32> {
        let mut refused: BTreeMap<&str, i32> =
            NEVER_CALLED.iter().map(|name| (*name, INTERNAL_FAILURE)).collect();
        refused.extend(ANSWERED.iter().copied());
        if self == Self::Kong {
            refused.extend(ENVOYS.iter().copied());
        }
        refused
    }
}

/// Runs it.
pub fn run(_args: &Args) -> anyhow::Result<ExitCode> {
    install::ensure(install::Part::OF_FILTERS, &mut Report::new())?;
    for artifact in build(&repo::root()?)? {
        println!(
            "{}  {} bytes of {}  {}  hints for {} of {} functions",
            artifact.path.display(),
            artifact.size_bytes,
            artifact.filter.max_bytes(),
            artifact.sha256,
            artifact.hints.found,
            artifact.hints.counted
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds each filter once and writes one module per host, with its digest beside it, to `target/wasm/`.
/// The files are touched only when their content changes.
pub fn build(root: &Path) -> anyhow::Result<Vec<Artifact>> {
    let branches = Branches::read(root)?;
    let mut artifacts = Vec::new();
    for filter in Filter::ALL {
        artifacts.extend(build_one(root, filter, &branches)?);
    }
    Ok(artifacts)
}

fn build_one(root: &Path, filter: Filter, branches: &Branches) -> anyhow::Result<Vec<Artifact>> {
    let name = filter.package();
    // One package at a time: a workspace build would unify features and bring 64-bit digits into rsa.
    let mut cargo = repo::cargo(root);
    cargo.args(["build", "--package", &format!("gatehouse-{name}"), "--lib", "--quiet"]).args([
        "--target",
        "wasm32-wasip1",
        "--profile",
        "wasm",
    ]);
    let built = cargo.status().context("starting cargo")?;
    ensure!(built.success(), "the filter {name} did not build");
    let target = repo::target(root);
    let built =
        target.join(format!("wasm32-wasip1/wasm/gatehouse_{}.wasm", name.replace('-', "_")));
    let whole = fs::read(&built).with_context(|| format!("reading {}", built.display()))?;
    let folder = target.join("wasm");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let make = |host: &Host| {
        let cut = cut(filter, *host, &whole)?;
        // What judges bodies is built to be fast, not small.
        let small = match filter {
            Filter::Validate => cut,
            _ => small(&folder, &host.file_name(filter), cut)?,
        };
        let (bytes, hints) = branches.hint(&small)?;
        fit(filter, *host, &bytes)?;
        write(&folder, (filter, *host), &bytes, hints)
    };
    filter.hosts().iter().map(make).collect()
}

/// The same module in fewer instructions; made anew only where it is another one than the last time.
fn small(folder: &Path, name: &str, module: Vec<u8>) -> anyhow::Result<Vec<u8>> {
    let file = |what: &str| folder.join(format!("{name}.{what}"));
    let (before, after) = (file("before"), file("after"));
    if fs::read(&before).ok().as_ref() == Some(&module)
        && let Ok(small) = fs::read(&after)
    {
        return Ok(small);
    }
    let wasm_opt =
        install::WASM_OPT.find().context("there is no wasm-opt: run `cargo xtask wasm`")?;
    // Another run may do the same: each has files of its own, and what was made lies there before what it was made of.
    let own = |what: &str| file(&format!("{what}.{}", std::process::id()));
    let (given, made) = (own("before"), own("after"));
    fs::write(&given, &module).with_context(|| format!("writing {}", given.display()))?;
    let mut command = Command::new(wasm_opt);
    command.args(FEATURES).arg("-Oz").arg(&given).arg("-o").arg(&made);
    command::run(&mut command, "wasm-opt", SHRINKING)?;
    let small = fs::read(&made).with_context(|| format!("reading {}", made.display()))?;
    // A run that is stopped between the two must not leave an old pair.
    if before.exists() {
        fs::remove_file(&before).with_context(|| format!("removing {}", before.display()))?;
    }
    for (from, to) in [(made, after), (given, before)] {
        fs::rename(&from, &to).with_context(|| format!("writing {}", to.display()))?;
    }
    Ok(small)
}

/// Those of Rust's target: with all of them on, Binaryen writes what hosts refuse.
const FEATURES: &[&str] = &[
    "--enable-bulk-memory",
    "--enable-multivalue",
    "--enable-mutable-globals",
    "--enable-nontrapping-float-to-int",
    "--enable-reference-types",
    "--enable-sign-ext",
];
/// The largest takes a quarter of a minute.
const SHRINKING: Duration = Duration::from_secs(600);

fn write(
    folder: &Path,
    (filter, host): (Filter, Host),
    bytes: &[u8],
    hints: Share,
) -> anyhow::Result<Artifact> {
    let file_name = host.file_name(filter);
    let sha256 = hex(&Sha256::digest(bytes));
    let path = folder.join(&file_name);
    if fs::read(&path).ok().as_deref() != Some(bytes) {
        // Another run may be loading the file: replace it whole.
        let fresh = folder.join(format!("{file_name}.{}", std::process::id()));
        fs::write(&fresh, bytes).with_context(|| format!("writing {}", fresh.display()))?;
        fs::rename(&fresh, &path).with_context(|| format!("writing {}", path.display()))?;
    }
    let line = format!("{sha256}  {file_name}\n");
    fs::write(path.with_extension("wasm.sha256"), line).context("writing the digest")?;
    Ok(Artifact { filter, host, path, size_bytes: bytes.len() as u64, sha256, hints })
}

/// Cuts `whole` for `host`.
fn cut(filter: Filter, host: Host, whole: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut keep: BTreeSet<&str> = filter.exports().iter().copied().collect();
    if let (Filter::Suite | Filter::Transform, Host::Envoy) = (filter, host) {
        keep.extend(ENVELOPE_EXPORTS);
    }
    Ok(module::cut(whole, &keep, &host.refused())?)
}

/// Refuses what the host must not get.
fn fit(filter: Filter, host: Host, bytes: &[u8]) -> anyhow::Result<()> {
    let surface = module::surface(bytes)?;
    let mut wrong = Vec::new();
    for name in surface.imports.iter().filter(|name| !host.imports().contains(name.as_str())) {
        wrong.push(format!("it imports {name}, which {host:?} must not see"));
    }
    for name in filter.exports().iter().filter(|name| !surface.exports.contains(**name)) {
        wrong.push(format!("it does not export {name}"));
    }
    let most = filter.max_bytes();
    if bytes.len() as u64 > most {
        wrong.push(format!("it has {} bytes, {most} are allowed", bytes.len()));
    }
    if !wrong.is_empty() {
        bail!("{filter:?} for {host:?} is refused: {}", wrong.join("; "));
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
