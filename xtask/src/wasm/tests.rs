//! Hands hand-made modules to the checks. Knows the rules' names, not how the cut works.

use wasm_encoder::{
    CodeSection, ConstExpr, DataSection, EntityType, ExportKind, ExportSection, Function,
    FunctionSection, ImportSection, MemorySection, MemoryType, Module, TypeSection, ValType,
};

use super::*;

/// A module whose callbacks all call `imports` and which carries `data_bytes` of data.
fn sample(imports: &[&str], exports: &[&str], data_bytes: usize) -> Vec<u8> {
    let mut types = TypeSection::new();
    types.ty().function([], [ValType::I32]);
    let mut imported = ImportSection::new();
    for name in imports {
        let (module, name) = name.split_once('.').unwrap();
        imported.import(module, name, EntityType::Function(0));
    }
    let mut functions = FunctionSection::new();
    functions.function(0);
    let mut memories = MemorySection::new();
    memories.memory(MemoryType {
        minimum: 100,
        maximum: None,
        memory64: false,
        shared: false,
        page_size_log2: None,
    });
    let ours = u32::try_from(imports.len()).unwrap();
    let mut exported = ExportSection::new();
    for name in exports {
        match *name {
            "memory" => exported.export(name, ExportKind::Memory, 0),
            name => exported.export(name, ExportKind::Func, ours),
        };
    }
    let mut body = Function::new([]);
    for call in 0..ours {
        body.instructions().call(call).drop();
    }
    body.instructions().i32_const(0).end();
    let mut code = CodeSection::new();
    code.function(&body);
    let mut data = DataSection::new();
    data.active(0, &ConstExpr::i32_const(0), vec![7; data_bytes]);
    let mut module = Module::new();
    module.section(&types).section(&imported).section(&functions).section(&memories);
    module.section(&exported).section(&code).section(&data);
    module.finish()
}

/// As a build does it, but for Binaryen.
fn fitted(filter: Filter, host: Host, module: &[u8]) -> anyhow::Result<Vec<u8>> {
    let bytes = cut(filter, host, module)?;
    fit(filter, host, &bytes)?;
    Ok(bytes)
}

fn check(filter: Filter, host: Host, module: &[u8], expected: Result<(), &str>) {
    let got = fitted(filter, host, module).map(drop).map_err(|error| error.to_string());
    match (&got, expected) {
        (Ok(()), Ok(())) => {}
        (Err(error), Err(part)) if error.contains(part) => {}
        _ => panic!("{filter:?} {host:?}: {got:?}, expected {expected:?}"),
    }
}

#[test]
fn a_module_over_its_budget_is_refused() {
    for filter in Filter::ALL {
        let most = filter.max_bytes();
        let of = |bytes| sample(&[], filter.exports(), bytes);
        let room = usize::try_from(most).unwrap() - of(0).len();
        check(filter, Host::Envoy, &of(room - 100), Ok(()));
        let error = format!("{most} are allowed");
        check(filter, Host::Envoy, &of(room + 1), Err(&error));
    }
}

#[test]
fn an_import_that_a_host_must_not_see_is_refused() {
    for host in Host::ALL {
        check(Filter::Suite, host, &sample(&["env.proxy_log"], EXPORTS, 0), Ok(()));
        for name in ["env.proxy_get_log_level", "wasi_snapshot_preview1.poll_oneoff"] {
            let error = format!("it imports {name}");
            check(Filter::Suite, host, &sample(&[name], EXPORTS, 0), Err(&error));
        }
    }
}

#[test]
fn what_the_sdk_never_calls_is_answered_inside_the_module() {
    let module = sample(NEVER_CALLED, EXPORTS, 0);
    for host in Host::ALL {
        let cut = fitted(Filter::Suite, host, &module).unwrap();
        assert_eq!(module::surface(&cut).unwrap().imports, BTreeSet::new(), "{host:?}");
    }
}

#[test]
fn what_traps_on_kong_is_envoys_alone() {
    let names: Vec<&str> = ENVOYS.iter().map(|(name, _)| *name).collect();
    let module = sample(&names, EXPORTS, 0);
    let imports =
        |host| module::surface(&fitted(Filter::Suite, host, &module).unwrap()).unwrap().imports;
    assert_eq!(imports(Host::Envoy), names.into_iter().map(str::to_owned).collect());
    assert_eq!(imports(Host::Kong), BTreeSet::new());
}

#[test]
fn a_callback_that_is_missing_is_refused_and_a_needless_one_is_cut() {
    let without: Vec<&str> =
        EXPORTS.iter().copied().filter(|name| *name != "proxy_on_delete").collect();
    let error = "it does not export proxy_on_delete";
    check(Filter::Suite, Host::Envoy, &sample(&[], &without, 0), Err(error));
    let more: Vec<&str> = EXPORTS.iter().copied().chain(["proxy_on_log"]).collect();
    let cut = fitted(Filter::Suite, Host::Envoy, &sample(&[], &more, 0)).unwrap();
    assert!(!module::surface(&cut).unwrap().exports.contains("proxy_on_log"));
}

/// `gatehouse lint` judges by these names what a manifest's restriction of capabilities leaves of a module.
#[test]
fn lint_knows_every_call_between_modules_and_hosts() {
    let lint = include_str!("../../../cli/src/lint/vm.rs");
    let callbacks = EXPORTS.iter().chain(BODY_EXPORTS).chain(ENVELOPE_EXPORTS);
    // Memory is no capability.
    let callbacks = callbacks
        .filter(|name| name.starts_with("proxy_on_") && **name != "proxy_on_memory_allocate");
    let calls = IMPORTS.iter().chain(ENVOYS.iter().map(|(name, _)| name));
    let calls = calls.filter_map(|name| Some(name.split_once('.')?.1));
    let missing: Vec<&str> = callbacks
        .copied()
        .chain(calls)
        .filter(|name| !lint.contains(&format!("\"{name}\"")))
        .collect();
    assert_eq!(missing, [""; 0]);
}
