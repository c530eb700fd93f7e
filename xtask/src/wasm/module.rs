//! Cuts a compiled filter down to what one host needs: exports the host would otherwise call for nothing, imports
//! the host must not see, and the functions that only those reached. Knows neither cargo nor the file system.

use std::collections::{BTreeMap, BTreeSet};

use wasm_encoder::reencode::{self, Reencode};
use wasmparser::{ElementItems, ExternalKind, Operator, Parser, Payload, TypeRef};

/// What may go wrong while cutting.
#[derive(Debug)]
pub struct Malformed(pub(super) String);

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "not a module that can be cut: {}", self.0)
    }
}

impl std::error::Error for Malformed {}

impl From<wasmparser::BinaryReaderError> for Malformed {
    fn from(error: wasmparser::BinaryReaderError) -> Self {
        Self(error.to_string())
    }
}

/// The names a module imports as `module.name` and exports as `name`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Surface {
    /// What it asks of its host.
    pub imports: BTreeSet<String>,
    /// What its host may call or read.
    pub exports: BTreeSet<String>,
}

/// Reads what `module` imports and exports.
pub fn surface(module: &[u8]) -> Result<Surface, Malformed> {
    let mut surface = Surface::default();
    for payload in Parser::new(0).parse_all(module) {
        match payload? {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import?;
                    surface.imports.insert(format!("{}.{}", import.module, import.name));
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    surface.exports.insert(export?.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok(surface)
}

/// Keeps only the exports `keep` names, answers calls of the imports in `refused` inside the module with the given
/// status (all of them return an `i32`), and drops whatever is then unreachable, imports included.
pub fn cut(
    module: &[u8],
    keep: &BTreeSet<&str>,
    refused: &BTreeMap<&str, i32>,
) -> Result<Vec<u8>, Malformed> {
    let graph = Graph::read(module, keep)?;
    let mut cutter = Cutter::new(&graph, keep, refused)?;
    let mut out = wasm_encoder::Module::new();
    cutter
        .parse_core_module(&mut out, Parser::new(0), module)
        .map_err(|error| Malformed(error.to_string()))?;
    let out = out.finish();
    wasmparser::validate(&out)?;
    Ok(out)
}

/// Who calls whom, by the index space of functions (imports first).
#[derive(Default)]
struct Graph {
    imports: Vec<(String, u32)>,
    defined: usize,
    roots: Vec<u32>,
    calls: Vec<Vec<u32>>,
    /// Whether a type's result is one `i32`, so that a refused import can be answered with a status.
    status_types: Vec<bool>,
}

impl Graph {
    fn read(module: &[u8], keep: &BTreeSet<&str>) -> Result<Self, Malformed> {
        let mut graph = Self::default();
        for payload in Parser::new(0).parse_all(module) {
            match payload? {
                Payload::TypeSection(section) => {
                    for ty in section.into_iter_err_on_gc_types() {
                        graph.status_types.push(ty?.results() == [wasmparser::ValType::I32]);
                    }
                }
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        let import = import?;
                        let TypeRef::Func(ty) = import.ty else {
                            return Err(Malformed(format!("{} is no function", import.name)));
                        };
                        graph.imports.push((format!("{}.{}", import.module, import.name), ty));
                    }
                }
                Payload::ExportSection(section) => {
                    for export in section {
                        let export = export?;
                        if export.kind == ExternalKind::Func && keep.contains(export.name) {
                            graph.roots.push(export.index);
                        }
                    }
                }
                Payload::StartSection { func, .. } => graph.roots.push(func),
                Payload::ElementSection(section) => {
                    for element in section {
                        match element?.items {
                            ElementItems::Functions(functions) => {
                                for function in functions {
                                    graph.roots.push(function?);
                                }
                            }
                            ElementItems::Expressions(..) => {
                                return Err(Malformed("element expressions".to_owned()));
                            }
                        }
                    }
                }
                Payload::CodeSectionEntry(body) => {
                    let mut calls = Vec::new();
                    for operator in body.get_operators_reader()? {
                        match operator? {
                            Operator::Call { function_index }
                            | Operator::ReturnCall { function_index }
                            | Operator::RefFunc { function_index } => calls.push(function_index),
                            _ => {}
                        }
                    }
                    graph.calls.push(calls);
                    graph.defined += 1;
                }
                _ => {}
            }
        }
        Ok(graph)
    }

    fn reachable(&self) -> BTreeSet<u32> {
        let mut seen = BTreeSet::new();
        let mut open = self.roots.clone();
        while let Some(function) = open.pop() {
            if !seen.insert(function) {
                continue;
            }
            let body = (function as usize).checked_sub(self.imports.len());
            open.extend(body.and_then(|body| self.calls.get(body)).into_iter().flatten());
        }
        seen
    }
}

struct Cutter<'a> {
    keep: &'a BTreeSet<&'a str>,
    /// Old function index to new; absent means dropped.
    places: BTreeMap<u32, u32>,
    kept_imports: BTreeSet<u32>,
    /// Type and status of each refused import that is still called.
    stubs: Vec<(u32, i32)>,
    first_defined: u32,
}

impl<'a> Cutter<'a> {
    fn new(
        graph: &Graph,
        keep: &'a BTreeSet<&'a str>,
        refused: &BTreeMap<&str, i32>,
    ) -> Result<Self, Malformed> {
        let reachable = graph.reachable();
        let first_defined = index(graph.imports.len())?;
        let mut cutter = Self {
            keep,
            places: BTreeMap::new(),
            kept_imports: BTreeSet::new(),
            stubs: Vec::new(),
            first_defined,
        };
        let mut refused_places = Vec::new();
        let mut next = 0;
        for (place, (name, ty)) in (0..).zip(&graph.imports) {
            if !reachable.contains(&place) {
                continue;
            }
            match refused.get(name.as_str()) {
                Some(status) if graph.status_types.get(*ty as usize) == Some(&true) => {
                    refused_places.push(place);
                    cutter.stubs.push((*ty, *status));
                }
                Some(_) => return Err(Malformed(format!("{name} does not return a status"))),
                None => {
                    cutter.kept_imports.insert(place);
                    cutter.places.insert(place, next);
                    next += 1;
                }
            }
        }
        let total = index(graph.imports.len() + graph.defined)?;
        let defined = (first_defined..total).filter(|place| reachable.contains(place));
        for place in refused_places.into_iter().chain(defined) {
            cutter.places.insert(place, next);
            next += 1;
        }
        Ok(cutter)
    }

    fn kept<T>(&self, place: &mut u32, value: T) -> Option<T> {
        let here = *place;
        *place += 1;
        self.places.contains_key(&here).then_some(value)
    }
}

fn index(count: usize) -> Result<u32, Malformed> {
    u32::try_from(count).map_err(|_| Malformed("too many functions".to_owned()))
}

// === impl Cutter ===

type Outcome<T> = Result<T, reencode::Error<Malformed>>;

impl Reencode for Cutter<'_> {
    type Error = Malformed;

    fn function_index(&mut self, function: u32) -> Outcome<u32> {
        self.places.get(&function).copied().ok_or_else(|| {
            reencode::Error::UserError(Malformed(format!("function {function} is gone")))
        })
    }

    fn parse_import_section(
        &mut self,
        imports: &mut wasm_encoder::ImportSection,
        section: wasmparser::ImportSectionReader<'_>,
    ) -> Outcome<()> {
        for (place, import) in (0..).zip(section.into_imports()) {
            let import = import?;
            if self.kept_imports.contains(&place) {
                imports.import(import.module, import.name, self.entity_type(import.ty)?);
            }
        }
        Ok(())
    }

    fn parse_function_section(
        &mut self,
        functions: &mut wasm_encoder::FunctionSection,
        section: wasmparser::FunctionSectionReader<'_>,
    ) -> Outcome<()> {
        for (ty, _) in &self.stubs {
            functions.function(*ty);
        }
        let mut place = self.first_defined;
        for ty in section {
            if let Some(ty) = self.kept(&mut place, ty?) {
                functions.function(ty);
            }
        }
        Ok(())
    }

    fn parse_code_section(
        &mut self,
        code: &mut wasm_encoder::CodeSection,
        section: wasmparser::CodeSectionReader<'_>,
    ) -> Outcome<()> {
        for (_, status) in &self.stubs {
            let mut body = wasm_encoder::Function::new([]);
            body.instructions().i32_const(*status).end();
            code.function(&body);
        }
        let mut place = self.first_defined;
        for body in section {
            if let Some(body) = self.kept(&mut place, body?) {
                self.parse_function_body(code, body)?;
            }
        }
        Ok(())
    }

    fn parse_export(
        &mut self,
        exports: &mut wasm_encoder::ExportSection,
        export: wasmparser::Export<'_>,
    ) -> Outcome<()> {
        if self.keep.contains(export.name) {
            reencode::utils::parse_export(self, exports, export)?;
        }
        Ok(())
    }

    /// Names of functions and producers cost size and say nothing to a host.
    fn parse_custom_section(
        &mut self,
        _: &mut wasm_encoder::Module,
        _: wasmparser::CustomSectionReader<'_>,
    ) -> Outcome<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
