//! Hands small modules to what counts and hints. Knows the custom section by its name alone.

use wasm_encoder::{
    BlockType, CodeSection, Function, FunctionSection, MemorySection, MemoryType, Module,
    TypeSection, ValType,
};
use wasmparser::KnownCustom;

use super::*;

/// A module of one function per given constant: a branch of each form over a call of the function at `called`.
fn sample(constants: &[i32], called: u32) -> Vec<u8> {
    let mut types = TypeSection::new();
    types.ty().function([ValType::I32], [ValType::I32]);
    let mut functions = FunctionSection::new();
    let mut memories = MemorySection::new();
    memories.memory(MemoryType {
        minimum: 2,
        maximum: None,
        memory64: false,
        shared: false,
        page_size_log2: None,
    });
    let mut code = CodeSection::new();
    for constant in constants {
        functions.function(0);
        let mut body = Function::new([]);
        body.instructions()
            .block(BlockType::Empty)
            .local_get(0)
            .br_if(0)
            .i32_const(*constant)
            .call(called)
            .drop()
            .end()
            .local_get(0)
            .if_(BlockType::Empty)
            .end()
            .i32_const(*constant)
            .end();
        code.function(&body);
    }
    let mut module = Module::new();
    module.section(&types).section(&functions).section(&memories).section(&code);
    module.finish()
}

/// Function, place and value of every hint.
fn hints(module: &[u8]) -> Vec<(u32, u32, bool)> {
    let mut all = Vec::new();
    for payload in Parser::new(0).parse_all(module) {
        if let Payload::CustomSection(section) = payload.unwrap()
            && let KnownCustom::BranchHints(functions) = section.as_known()
        {
            for function in functions {
                let function = function.unwrap();
                for hint in function.hints {
                    let hint = hint.unwrap();
                    all.push((function.func, hint.func_offset, hint.taken));
                }
            }
        }
    }
    all
}

/// Where [`sample`]'s branches are: behind no locals, the block's two bytes and the look at the parameter.
const AT: [u32; 2] = [5, 15];

fn check(counts: &[(u32, u32)], expected: &[(u32, u32, bool)]) {
    let module = sample(&[1], 0);
    let branches = Branches::of(&module, counts).unwrap();
    let (hinted, share) = branches.hint(&module).unwrap();
    assert_eq!(hints(&hinted), expected, "{counts:?}");
    let known = usize::from(!expected.is_empty());
    assert_eq!(share, Share { counted: known, found: known });
    assert_eq!(Branches::parse(&branches.text()).unwrap(), branches, "as it is kept");
    // Hints again: nothing is doubled.
    assert_eq!(branches.hint(&hinted).unwrap().0, hinted);
}

#[test]
fn what_was_never_gone_is_told_and_what_goes_both_ways_is_not() {
    check(&[(3, 0), (0, 2)], &[(0, AT[0], false), (0, AT[1], true)]);
    check(&[(3, 1), (0, 2)], &[(0, AT[1], true)]);
    check(&[(0, 0), (1, 1)], &[]);
}

#[test]
fn functions_are_known_by_their_shape_wherever_they_are_linked() {
    let of = sample(&[1], 0);
    let branches = Branches::of(&of, &[(3, 0), (3, 0)]).unwrap();
    let moved = sample(&[700_000, 1], 1);
    let (hinted, share) = branches.hint(&moved).unwrap();
    assert_eq!(share, Share { counted: 1, found: 1 });
    // Its constant is longer there, and so is the way to its second branch.
    assert_eq!(
        hints(&hinted),
        [(0, 5, false), (0, 17, false), (1, AT[0], false), (1, AT[1], false)]
    );
    // Two of one shape that go different ways: nothing holds for both.
    let both = Branches::of(&moved, &[(3, 0), (3, 0), (0, 3), (3, 0)]).unwrap();
    assert_eq!(hints(&both.hint(&of).unwrap().0), [(0, AT[1], false)]);
}

#[test]
fn what_counts_does_what_it_did_and_keeps_its_counts_behind_its_memory() {
    let module = sample(&[1, 2], 0);
    let Counted { module: counting, .. } = &counted(&module).unwrap();
    assert_ne!(*counting, module);
    let range = counted(&module).unwrap().range();
    assert_eq!(range, 131_072..131_072 + 4 * 8);
    let mut bytes = [0; 16];
    bytes[4] = 7;
    bytes[9] = 1;
    assert_eq!(Counted::read(&bytes), [(0, 7), (256, 0)]);
}

#[test]
fn a_file_that_says_something_else_is_refused() {
    for wrong in ["0123456789abcdef", "0123456789abcdef 01x"] {
        assert!(Branches::parse(wrong).is_err(), "{wrong}");
    }
}
