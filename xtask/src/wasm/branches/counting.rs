//! The module that counts which way its branches go, for those who run it. Knows nothing of what is made of it.

use wasm_encoder::{
    CodeSection, Function, Instruction, MemArg, MemorySection, ValType,
    reencode::{self, Reencode},
};
use wasmparser::{FunctionBody, Parser, Payload};

use super::{Malformed, is_branch};

/// A page of linear memory.
const PAGE: u64 = 65_536;
/// Two numbers of 32 bits.
const SITE: u32 = 8;

/// A module that counts.
#[derive(Debug)]
pub struct Counted {
    /// It does what the one did that it was made of.
    pub module: Vec<u8>,
    /// Where in its memory the counts begin.
    base: u32,
    branches: u32,
}

impl Counted {
    /// Where the counts are in its memory.
    pub fn range(&self) -> std::ops::Range<usize> {
        let base = self.base as usize;
        base..base.saturating_add((self.branches as usize).saturating_mul(SITE as usize))
    }

    /// The counts as they lie there: how often each branch was not taken, and taken.
    pub fn read(bytes: &[u8]) -> Vec<(u32, u32)> {
        let pairs = bytes.as_chunks::<4>().0.as_chunks::<2>().0;
        let number = |bytes: &[u8; 4]| u32::from_le_bytes(*bytes);
        pairs.iter().map(|[not_taken, taken]| (number(not_taken), number(taken))).collect()
    }
}

/// Makes `module` count. The counts lie behind what it knows of its memory: it asks for more by growing it.
pub fn counted(module: &[u8]) -> Result<Counted, Malformed> {
    let mut parameters: Vec<u32> = Vec::new();
    let mut functions = Vec::new();
    let mut pages = 0;
    let mut branches = 0_u32;
    for payload in Parser::new(0).parse_all(module) {
        match payload? {
            Payload::TypeSection(section) => {
                for ty in section.into_iter_err_on_gc_types() {
                    parameters.push(u32::try_from(ty?.params().len()).unwrap_or(u32::MAX));
                }
            }
            Payload::FunctionSection(section) => {
                for ty in section {
                    functions.push(parameters.get(ty? as usize).copied().unwrap_or_default());
                }
            }
            Payload::MemorySection(section) => {
                for memory in section {
                    pages = memory?.initial;
                }
            }
            Payload::CodeSectionEntry(body) => {
                for operator in body.get_operators_reader()? {
                    branches += u32::from(is_branch(&operator?));
                }
            }
            _ => {}
        }
    }
    let base = u32::try_from(pages.saturating_mul(PAGE))
        .map_err(|_pages| Malformed("no room behind its memory".to_owned()))?;
    let more = u64::from(branches).saturating_mul(SITE.into()).div_ceil(PAGE);
    let mut counter = Counter { functions: functions.into_iter(), next: base.into(), more };
    let mut out = wasm_encoder::Module::new();
    counter
        .parse_core_module(&mut out, Parser::new(0), module)
        .map_err(|error| Malformed(error.to_string()))?;
    let module = out.finish();
    wasmparser::validate(&module)?;
    Ok(Counted { module, base, branches })
}

struct Counter {
    /// How many parameters each function has.
    functions: std::vec::IntoIter<u32>,
    /// Where the next branch is counted.
    next: u64,
    /// Pages that the counts need.
    more: u64,
}

// === impl Counter ===

type Outcome<T> = Result<T, reencode::Error<Malformed>>;

impl Reencode for Counter {
    type Error = Malformed;

    fn parse_memory_section(
        &mut self,
        memories: &mut MemorySection,
        section: wasmparser::MemorySectionReader<'_>,
    ) -> Outcome<()> {
        for memory in section {
            let mut memory = self.memory_type(memory?)?;
            memory.minimum = memory.minimum.saturating_add(self.more);
            memories.memory(memory);
        }
        Ok(())
    }

    fn parse_function_body(
        &mut self,
        code: &mut CodeSection,
        body: FunctionBody<'_>,
    ) -> Outcome<()> {
        let mut condition = self.functions.next().unwrap_or_default();
        let mut locals = Vec::new();
        for pair in body.get_locals_reader()? {
            let (count, ty) = pair?;
            condition = condition.saturating_add(count);
            locals.push((count, self.val_type(ty)?));
        }
        locals.push((1, ValType::I32));
        let mut function = Function::new(locals);
        for operator in body.get_operators_reader()? {
            let operator = operator?;
            if is_branch(&operator) {
                let count = MemArg { offset: self.next, align: 2, memory_index: 0 };
                self.next = self.next.saturating_add(SITE.into());
                let place = |function: &mut Function| {
                    // 0, or 4 where it is taken.
                    for instruction in [
                        Instruction::LocalGet(condition),
                        Instruction::I32Eqz,
                        Instruction::I32Eqz,
                        Instruction::I32Const(2),
                        Instruction::I32Shl,
                    ] {
                        function.instruction(&instruction);
                    }
                };
                function.instruction(&Instruction::LocalTee(condition));
                place(&mut function);
                place(&mut function);
                for instruction in [
                    Instruction::I32Load(count),
                    Instruction::I32Const(1),
                    Instruction::I32Add,
                    Instruction::I32Store(count),
                ] {
                    function.instruction(&instruction);
                }
            }
            function.instruction(&self.instruction(operator)?);
        }
        code.function(&function);
        Ok(())
    }

    /// Hints of the module are for other places.
    fn parse_custom_section(
        &mut self,
        _: &mut wasm_encoder::Module,
        _: wasmparser::CustomSectionReader<'_>,
    ) -> Outcome<()> {
        Ok(())
    }
}
