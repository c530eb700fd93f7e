//! Cuts a hand-made module and looks at what is left. Knows nothing of proxy-wasm.

use wasm_encoder::{
    CodeSection, EntityType, ExportKind, ExportSection, Function, FunctionSection, ImportSection,
    Module, TypeSection, ValType,
};

use super::*;

/// `wanted` calls the host's `wanted` and `foreign`; `unwanted` calls the host's `unwanted`.
fn sample() -> Vec<u8> {
    let mut types = TypeSection::new();
    types.ty().function([], [ValType::I32]);
    let mut imports = ImportSection::new();
    for name in ["unwanted", "foreign", "wanted"] {
        imports.import("env", name, EntityType::Function(0));
    }
    let mut functions = FunctionSection::new();
    functions.function(0).function(0);
    let mut exports = ExportSection::new();
    exports.export("unwanted", ExportKind::Func, 3).export("wanted", ExportKind::Func, 4);
    let mut unwanted = Function::new([]);
    unwanted.instructions().call(0).end();
    let mut wanted = Function::new([]);
    wanted.instructions().call(2).call(1).i32_add().end();
    let mut code = CodeSection::new();
    code.function(&unwanted).function(&wanted);
    let mut module = Module::new();
    module.section(&types).section(&imports).section(&functions).section(&exports).section(&code);
    module.finish()
}

fn check(refused: &[(&str, i32)], imports: &[&str]) {
    let cut = cut(
        &sample(),
        &BTreeSet::from(["wanted", "absent"]),
        &refused.iter().copied().collect::<BTreeMap<_, _>>(),
    )
    .expect("cut");
    let expected = Surface {
        imports: imports.iter().map(ToString::to_string).collect(),
        exports: BTreeSet::from(["wanted".to_owned()]),
    };
    assert_eq!(surface(&cut).expect("surface"), expected);
}

#[test]
fn exports_that_are_not_kept_take_their_imports_with_them() {
    check(&[], &["env.foreign", "env.wanted"]);
}

#[test]
fn a_refused_import_is_answered_inside_the_module() {
    check(&[("env.foreign", 1)], &["env.wanted"]);
    check(&[("env.foreign", 1), ("env.unwanted", 1)], &["env.wanted"]);
}

#[test]
fn other_bytes_are_refused() {
    assert!(cut(b"\0asm", &BTreeSet::new(), &BTreeMap::new()).is_err());
}
