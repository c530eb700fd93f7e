//! Tells a host's compiler which branches are never gone (the custom section `metadata.code.branch_hint`), as it was
//! counted while typical requests passed, so that what they run through lies together. Hints change no meaning, and a
//! host that does not know them passes over them. What was counted is kept by the shape of functions, not by their
//! places: a function that has changed since has no hints. Knows neither hosts nor requests.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt::Write as _,
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

use anyhow::Context;
use sha2::{Digest, Sha256};
use wasm_encoder::{BranchHint, BranchHints, RawSection};
use wasmparser::{FunctionBody, Operator, Parser, Payload};

use super::module::Malformed;

mod counting;

pub use counting::{Counted, counted};

/// What `cargo xtask bench branches` counted.
pub fn file(root: &Path) -> PathBuf {
    root.join("filters/branches.txt")
}

/// Which way each branch of a function goes, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Both, or it is not known.
    Open,
    Never,
    Always,
}

/// Bytes of a function's digest that stand in the file.
const SHAPE_BYTES: usize = 8;
/// An opcode whose second half follows.
const PREFIXES: Range<u8> = 0xfb..0xff;

/// The branches of functions, by the functions' shapes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Branches(BTreeMap<String, Vec<Way>>);

/// How much of what was counted is in a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Functions that were counted.
    pub counted: usize,
    /// Those of them whose shape the module has.
    pub found: usize,
}

impl Branches {
    /// Reads what was counted.
    pub fn read(root: &Path) -> anyhow::Result<Self> {
        let file = file(root);
        let text =
            fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        Self::parse(&text).with_context(|| {
            format!("{}: write it anew by `cargo xtask bench branches`", file.display())
        })
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let line = |line: &str| {
            let (shape, ways) = line.split_once(' ').context("a line without a space")?;
            let ways: anyhow::Result<Vec<Way>> = ways.chars().map(Way::of).collect();
            Ok((shape.to_owned(), ways?))
        };
        let lines = text.lines().filter(|line| !line.starts_with('#')).map(line);
        Ok(Self(lines.collect::<anyhow::Result<_>>()?))
    }

    /// As [`Self::read`] reads it.
    pub fn text(&self) -> String {
        let mut text = String::from(
            "# Which branches typical requests never (0) or always (1) take, by the shape of functions.\n\
             # Written by `cargo xtask bench branches`; see docs/adr/0042.\n",
        );
        for (shape, ways) in &self.0 {
            let ways: String = ways.iter().map(|way| way.letter()).collect();
            // Writing to a String cannot fail.
            let _written: Result<(), std::fmt::Error> = writeln!(text, "{shape} {ways}");
        }
        text
    }

    /// Of a module: how often its branches were not taken, and taken, in their order.
    pub fn of(module: &[u8], counts: &[(u32, u32)]) -> Result<Self, Malformed> {
        let mut branches = BTreeMap::new();
        let mut counts = counts.iter();
        each_function(module, |_, body| {
            let read = Shaped::read(&body)?;
            let ways: Vec<Way> = counts
                .by_ref()
                .take(read.branches.len())
                .map(|(not_taken, taken)| match (not_taken, taken) {
                    (0, 0) => Way::Open,
                    (0, _) => Way::Always,
                    (_, 0) => Way::Never,
                    _ => Way::Open,
                })
                .collect();
            if ways.iter().all(|way| *way == Way::Open) {
                return Ok(());
            }
            match branches.entry(read.shape) {
                Entry::Vacant(vacant) => {
                    vacant.insert(ways);
                }
                // Two functions of one shape: only what holds for both.
                Entry::Occupied(mut known) => {
                    for (known, way) in known.get_mut().iter_mut().zip(ways) {
                        if *known != way {
                            *known = Way::Open;
                        }
                    }
                }
            }
            Ok(())
        })?;
        Ok(Self(branches))
    }

    /// The same module with hints, in place of those that it had.
    pub fn hint(&self, module: &[u8]) -> Result<(Vec<u8>, Share), Malformed> {
        let mut hints = BranchHints::new();
        let mut told_any = false;
        let mut found = BTreeMap::new();
        each_function(module, |function, body| {
            let read = Shaped::read(&body)?;
            let Some(ways) = self.0.get(&read.shape) else { return Ok(()) };
            found.insert(read.shape, ());
            let told: Vec<BranchHint> = read
                .branches
                .iter()
                .zip(ways)
                .filter_map(|(at, way)| {
                    let value = match way {
                        Way::Open => return None,
                        Way::Never => 0,
                        Way::Always => 1,
                    };
                    let at = u32::try_from(*at).ok()?;
                    Some(BranchHint { branch_func_offset: at, branch_hint_value: value })
                })
                .collect();
            if !told.is_empty() {
                told_any = true;
                hints.function_hints(function, told);
            }
            Ok(())
        })?;
        let mut out = wasm_encoder::Module::new();
        for payload in Parser::new(0).parse_all(module) {
            let payload = payload?;
            match &payload {
                Payload::CustomSection(_) => continue,
                Payload::CodeSectionStart { .. } if told_any => {
                    out.section(&hints);
                }
                _ => {}
            }
            if let Some((id, range)) = payload.as_section() {
                let data = module.get(range).unwrap_or_default();
                out.section(&RawSection { id, data });
            }
        }
        let out = out.finish();
        wasmparser::validate(&out)?;
        Ok((out, Share { counted: self.0.len(), found: found.len() }))
    }
}

impl Way {
    fn of(letter: char) -> anyhow::Result<Self> {
        match letter {
            '-' => Ok(Self::Open),
            '0' => Ok(Self::Never),
            '1' => Ok(Self::Always),
            other => anyhow::bail!("{other:?} is no way that a branch goes"),
        }
    }

    const fn letter(self) -> char {
        match self {
            Self::Open => '-',
            Self::Never => '0',
            Self::Always => '1',
        }
    }
}

/// A function without what linking moves: the places of functions, types, globals and data.
struct Shaped {
    shape: String,
    /// Where its branches are, from the beginning of its body.
    branches: Vec<usize>,
}

impl Shaped {
    fn read(body: &FunctionBody<'_>) -> Result<Self, Malformed> {
        let start = body.range().start;
        let bytes = body.as_bytes();
        let mut hash = Sha256::new();
        let mut branches = Vec::new();
        let mut reader = body.get_operators_reader()?;
        while !reader.eof() {
            let at = reader.original_position().saturating_sub(start);
            let operator = reader.read()?;
            let end = reader.original_position().saturating_sub(start);
            if is_branch(&operator) {
                branches.push(at);
            }
            let whole = bytes.get(at..end).unwrap_or_default();
            let kept = match whole.first() {
                Some(opcode) if is_moved(&operator) => 1 + usize::from(PREFIXES.contains(opcode)),
                _ => whole.len(),
            };
            hash.update(whole.get(..kept).unwrap_or_default());
        }
        let digest = hash.finalize();
        Ok(Self { shape: super::hex(digest.get(..SHAPE_BYTES).unwrap_or_default()), branches })
    }
}

/// Hands each function that the module defines to `visit`, with its index.
fn each_function<'m>(
    module: &'m [u8],
    mut visit: impl FnMut(u32, FunctionBody<'m>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    let mut function = 0_u32;
    for payload in Parser::new(0).parse_all(module) {
        match payload? {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    function += u32::from(matches!(import?.ty, wasmparser::TypeRef::Func(_)));
                }
            }
            Payload::CodeSectionEntry(body) => {
                visit(function, body)?;
                function += 1;
            }
            _ => {}
        }
    }
    Ok(())
}

fn is_branch(operator: &Operator<'_>) -> bool {
    matches!(operator, Operator::BrIf { .. } | Operator::If { .. })
}

/// Whether what it names moves with the linking.
fn is_moved(operator: &Operator<'_>) -> bool {
    matches!(
        operator,
        Operator::Call { .. }
            | Operator::CallIndirect { .. }
            | Operator::RefFunc { .. }
            | Operator::GlobalGet { .. }
            | Operator::GlobalSet { .. }
            | Operator::I32Const { .. }
            | Operator::I32Load { .. }
            | Operator::I64Load { .. }
            | Operator::I32Load8U { .. }
            | Operator::I32Load8S { .. }
            | Operator::I32Load16U { .. }
            | Operator::I32Load16S { .. }
            | Operator::I64Load8U { .. }
            | Operator::I64Load16U { .. }
            | Operator::I64Load32U { .. }
            | Operator::I32Store { .. }
            | Operator::I64Store { .. }
            | Operator::I32Store8 { .. }
            | Operator::I32Store16 { .. }
    )
}

#[cfg(test)]
mod tests;
