//! Filters of a few instructions, for what a real one would never do.

use wasm_encoder::{
    CodeSection, EntityType, ExportKind, ExportSection, Function, FunctionSection, ImportSection,
    Instruction, MemorySection, MemoryType, Module, TypeSection, ValType,
};

const NOTHING_TO_NOTHING: u32 = 0;
const ONE_TO_ONE: u32 = 1;
const TWO_TO_NOTHING: u32 = 2;
const TWO_TO_ONE: u32 = 3;
const THREE_TO_ONE: u32 = 4;

/// A module whose `on_request_headers` (context, number of headers, end of stream) is `body`. It imports
/// `env.<import>` as function 0, which takes one number and gives one.
pub fn module(import: &str, body: &[Instruction<'_>]) -> Vec<u8> {
    let mut types = TypeSection::new();
    types.ty().function([], []);
    types.ty().function([ValType::I32], [ValType::I32]);
    types.ty().function([ValType::I32; 2], []);
    types.ty().function([ValType::I32; 2], [ValType::I32]);
    types.ty().function([ValType::I32; 3], [ValType::I32]);
    let mut imports = ImportSection::new();
    imports.import("env", import, EntityType::Function(ONE_TO_ONE));
    let mut functions = FunctionSection::new();
    let mut exports = ExportSection::new();
    let mut code = CodeSection::new();
    let yes = [Instruction::I32Const(1)];
    let callbacks: [(u32, &str, &[Instruction<'_>]); 7] = [
        (NOTHING_TO_NOTHING, "proxy_abi_version_0_2_1", &[]),
        (NOTHING_TO_NOTHING, "_initialize", &[]),
        (ONE_TO_ONE, "proxy_on_memory_allocate", &[Instruction::I32Const(1024)]),
        (TWO_TO_NOTHING, "proxy_on_context_create", &[]),
        (TWO_TO_ONE, "proxy_on_vm_start", &yes),
        (TWO_TO_ONE, "proxy_on_configure", &yes),
        (THREE_TO_ONE, "proxy_on_request_headers", body),
    ];
    for (kind, name, body) in callbacks {
        functions.function(kind);
        exports.export(name, ExportKind::Func, functions.len());
        let mut function = Function::new([]);
        for instruction in body {
            function.instruction(instruction);
        }
        function.instruction(&Instruction::End);
        code.function(&function);
    }
    let mut memories = MemorySection::new();
    memories.memory(MemoryType {
        minimum: 1,
        maximum: None,
        memory64: false,
        shared: false,
        page_size_log2: None,
    });
    exports.export("memory", ExportKind::Memory, 0);
    let mut module = Module::new();
    module.section(&types).section(&imports).section(&functions).section(&memories);
    module.section(&exports).section(&code);
    module.finish()
}
