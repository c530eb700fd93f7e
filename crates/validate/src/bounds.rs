//! What a schema may say before it is compiled: only words that are known, only references within itself, and no shape
//! that makes a small body dear. Knows no bodies.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// The subschemas that a schema may have.
const MAX_SUBSCHEMAS: usize = 2_000;
/// The patterns that a schema may have; each is a program of its own.
const MAX_PATTERNS: usize = 200;
/// The longest pattern, in bytes.
const MAX_PATTERN_LETTERS: usize = 512;
/// How large one pattern's program may be: a class of all letters of Unicode fits, tens of thousands of states do not.
pub(crate) const MAX_PATTERN_KIB: usize = 64;
/// The sizes by which programs are told apart.
const PATTERN_SIZES_KIB: [usize; 5] = [2, 4, 8, 16, 32];
/// How many schemas may be asked of one value, one by another, each on top of the stack.
const MAX_CHAIN: usize = 32;
/// How many schemas may be asked of one value in all.
const MAX_TOGETHER: usize = 1_000;

/// The formats that are asserted. In 2020-12 a format is a remark unless somebody says otherwise; here every format that
/// is written is checked, so that one that cannot be is refused.
pub(crate) const FORMATS: &[&str] = &[
    "date",
    "date-time",
    "duration",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "json-pointer",
    "time",
    "uri",
    "uri-reference",
    "uuid",
];

/// One thing that is wrong with a schema: where (a JSON pointer), what, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) pointer: String,
    pub(crate) cause: String,
    pub(crate) mend: String,
}

/// Where other schemas stand below a keyword.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Below {
    None,
    One,
    List,
    Map,
}

/// Every keyword that may be written, what stands below it, and whether that is asked of the very value at hand.
const KEYWORDS: &[(&str, Below, bool)] = &[
    ("$comment", Below::None, false),
    ("$defs", Below::Map, false),
    ("$id", Below::None, false),
    ("$ref", Below::None, true),
    ("$schema", Below::None, false),
    ("additionalProperties", Below::One, false),
    ("allOf", Below::List, true),
    ("anyOf", Below::List, true),
    ("const", Below::None, false),
    ("contains", Below::One, false),
    ("default", Below::None, false),
    ("dependentRequired", Below::None, false),
    ("dependentSchemas", Below::Map, true),
    ("deprecated", Below::None, false),
    ("description", Below::None, false),
    ("else", Below::One, true),
    ("enum", Below::None, false),
    ("examples", Below::None, false),
    ("exclusiveMaximum", Below::None, false),
    ("exclusiveMinimum", Below::None, false),
    ("format", Below::None, false),
    ("if", Below::One, true),
    ("items", Below::One, false),
    ("maxContains", Below::None, false),
    ("maxItems", Below::None, false),
    ("maxLength", Below::None, false),
    ("maxProperties", Below::None, false),
    ("maximum", Below::None, false),
    ("minContains", Below::None, false),
    ("minItems", Below::None, false),
    ("minLength", Below::None, false),
    ("minProperties", Below::None, false),
    ("minimum", Below::None, false),
    ("multipleOf", Below::None, false),
    ("not", Below::One, true),
    ("oneOf", Below::List, true),
    ("pattern", Below::None, false),
    ("patternProperties", Below::Map, false),
    ("prefixItems", Below::List, false),
    ("properties", Below::Map, false),
    ("propertyNames", Below::One, false),
    ("readOnly", Below::None, false),
    ("required", Below::None, false),
    ("then", Below::One, true),
    ("title", Below::None, false),
    ("type", Below::None, false),
    ("unevaluatedItems", Below::One, false),
    ("unevaluatedProperties", Below::One, false),
    ("uniqueItems", Below::None, false),
    ("writeOnly", Below::None, false),
];

/// The dialect that every schema is in.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Says whether a pattern is matched in linear time by a program of at most so many bytes.
pub(crate) type Compiles<'c> = &'c dyn Fn(&str, usize) -> bool;

/// What a schema that may be compiled costs at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cost {
    /// For each byte of a text, in steps.
    pub(crate) text_steps: usize,
    /// How many patterns it has.
    pub(crate) patterns: usize,
}

/// What `schema` costs; `Err` holds everything that is wrong with it.
pub(crate) fn check(schema: &Value, compiles: Compiles<'_>) -> Result<Cost, Vec<Fault>> {
    let mut walk = Walk {
        compiles,
        text_steps: 1,
        faults: Vec::new(),
        schemas: BTreeMap::new(),
        references: Vec::new(),
        patterns: 0,
    };
    walk.schema(schema, String::new());
    walk.references();
    if walk.faults.is_empty() {
        walk.shape();
    }
    let Walk { faults, text_steps, patterns, .. } = walk;
    if faults.is_empty() { Ok(Cost { text_steps, patterns }) } else { Err(faults) }
}

struct Walk<'s> {
    compiles: Compiles<'s>,
    text_steps: usize,
    faults: Vec<Fault>,
    /// Every subschema by its pointer, with the pointers of those that are asked of the same value.
    schemas: BTreeMap<String, Vec<String>>,
    /// Where a reference stands, whose it is, and what it names.
    references: Vec<(String, String)>,
    patterns: usize,
}

impl<'s> Walk<'s> {
    fn fault(&mut self, pointer: String, cause: impl Into<String>, mend: impl Into<String>) {
        self.faults.push(Fault { pointer, cause: cause.into(), mend: mend.into() });
    }

    fn schema(&mut self, schema: &'s Value, at: String) {
        if self.schemas.len() == MAX_SUBSCHEMAS {
            let cause = format!("the schema has more than {MAX_SUBSCHEMAS} subschemas");
            self.fault(at, cause, "share them by $ref");
            // Told once: the count is above the bound from here on.
            self.schemas.insert("#".to_owned(), Vec::new());
            return;
        }
        if self.schemas.len() > MAX_SUBSCHEMAS {
            return;
        }
        self.schemas.insert(at.clone(), Vec::new());
        match schema {
            Value::Object(members) => self.keywords(members, &at),
            Value::Bool(_) => {}
            _ => self.fault(at, "a schema is an object, true or false", "write one of them"),
        }
    }

    fn keywords(&mut self, members: &'s Map<String, Value>, at: &str) {
        for (name, value) in members {
            let here = child(at, name);
            let Some((_, below, together)) = KEYWORDS.iter().find(|(known, ..)| known == name)
            else {
                self.fault(
                    here,
                    "an unknown keyword",
                    "remove it, or write a keyword of JSON Schema 2020-12",
                );
                continue;
            };
            self.check(name, value, at, &here);
            let mut below_here = Vec::new();
            match (below, value) {
                (Below::One, schema) => below_here.push((here, schema)),
                (Below::List, Value::Array(items)) => {
                    let items = items.iter().enumerate();
                    below_here.extend(items.map(|(place, item)| (format!("{here}/{place}"), item)));
                }
                (Below::Map, Value::Object(members)) => {
                    let members = members.iter();
                    below_here.extend(members.map(|(name, item)| (child(&here, name), item)));
                }
                // The library says what a keyword of another type should be.
                (Below::None | Below::List | Below::Map, _) => {}
            }
            for (pointer, schema) in below_here {
                if *together {
                    self.ask_together(at, &pointer);
                }
                self.schema(schema, pointer);
            }
        }
    }

    fn ask_together(&mut self, at: &str, other: &str) {
        if let Some(together) = self.schemas.get_mut(at) {
            together.push(other.to_owned());
        }
    }

    fn check(&mut self, name: &str, value: &'s Value, at: &str, here: &str) {
        match (name, value) {
            ("$schema", value) if value != DIALECT => {
                self.fault(
                    here.to_owned(),
                    "another dialect",
                    format!("write {DIALECT}, or nothing"),
                );
            }
            ("$id", _) if !at.is_empty() => {
                self.fault(
                    here.to_owned(),
                    "a subschema with a name of its own",
                    "remove it and refer by pointer",
                );
            }
            ("$ref", value) => match value.as_str().and_then(local) {
                Some(target) => self.references.push((at.to_owned(), target.to_owned())),
                None => self.fault(
                    here.to_owned(),
                    "refers to something outside this schema, which is never fetched",
                    "copy it under $defs and write \"#/$defs/…\"",
                ),
            },
            ("format", Value::String(format)) if !FORMATS.contains(&format.as_str()) => {
                self.fault(
                    here.to_owned(),
                    "a format that is not checked",
                    format!("remove it, or write one of {}", FORMATS.join(", ")),
                );
            }
            ("pattern", Value::String(pattern)) => self.pattern(pattern, here),
            ("patternProperties", Value::Object(members)) => {
                for pattern in members.keys() {
                    self.pattern(pattern, &child(here, pattern));
                }
            }
            _ => {}
        }
    }

    fn pattern(&mut self, pattern: &str, here: &str) {
        self.patterns += 1;
        if self.patterns > MAX_PATTERNS {
            let cause = format!("the schema has more than {MAX_PATTERNS} patterns");
            self.fault(here.to_owned(), cause, "share subschemas by $ref");
            return;
        }
        match self.text_steps_of(pattern) {
            Some(steps) => self.text_steps = self.text_steps.max(steps),
            None => self.fault(
                here.to_owned(),
                "the pattern cannot be matched in linear time, is too large or is none",
                "write it without look-around, back-references and large counts",
            ),
        }
    }

    /// The states that a pattern keeps alive at one character are as many as it has letters, or as its counts unfold to:
    /// where no automaton can be built that remembers them together, each is visited.
    fn text_steps_of(&self, pattern: &str) -> Option<usize> {
        let fits = |kib: usize| (self.compiles)(pattern, kib * 1024);
        if pattern.len() > MAX_PATTERN_LETTERS || !fits(MAX_PATTERN_KIB) {
            return None;
        }
        let unfolded = match pattern.contains('{') {
            true => PATTERN_SIZES_KIB.into_iter().find(|kib| fits(*kib)).unwrap_or(MAX_PATTERN_KIB),
            false => 1,
        };
        Some(unfolded.max(pattern.len() / 8))
    }

    /// References name a subschema of this very schema.
    fn references(&mut self) {
        for (at, target) in std::mem::take(&mut self.references) {
            if self.schemas.contains_key(&target) {
                self.ask_together(&at, &target);
            } else {
                let cause = "refers to no subschema of this schema";
                self.fault(
                    child(&at, "$ref"),
                    cause,
                    "write the pointer of one, such as \"#/$defs/…\"",
                );
            }
        }
    }

    /// How much is asked of one value at most.
    fn shape(&mut self) {
        let mut known = BTreeMap::new();
        let worst = self.schemas.keys().find_map(|pointer| {
            let asked = asked(&self.schemas, pointer, &mut BTreeSet::new(), &mut known);
            let cause = match asked {
                None => "the schema is asked of the same value again and again".to_owned(),
                Some(Asked { chain, .. }) if chain > MAX_CHAIN => {
                    format!("more than {MAX_CHAIN} schemas are asked of one value, one by another")
                }
                Some(Asked { total, .. }) if total > MAX_TOGETHER => {
                    format!("more than {MAX_TOGETHER} schemas are asked of one value")
                }
                Some(_) => return None,
            };
            Some((pointer.clone(), cause))
        });
        if let Some((pointer, cause)) = worst {
            self.fault(pointer, cause, "write fewer $ref, allOf, anyOf and oneOf in each other");
        }
    }
}

/// What one value is asked.
#[derive(Debug, Clone, Copy)]
struct Asked {
    chain: usize,
    total: usize,
}

/// What a value is asked by the schema at `pointer`; `None` if that never ends.
fn asked<'s>(
    schemas: &'s BTreeMap<String, Vec<String>>,
    pointer: &'s str,
    open: &mut BTreeSet<&'s str>,
    known: &mut BTreeMap<&'s str, Asked>,
) -> Option<Asked> {
    if let Some(asked) = known.get(pointer) {
        return Some(*asked);
    }
    // Deep enough to be refused, whatever follows: this walk has a stack of its own to keep.
    if open.len() > MAX_CHAIN {
        return Some(Asked { chain: 1, total: 1 });
    }
    if !open.insert(pointer) {
        return None;
    }
    let mut sum = Asked { chain: 1, total: 1 };
    for other in schemas.get(pointer).map(Vec::as_slice).unwrap_or_default() {
        let more = asked(schemas, other, open, known)?;
        sum.chain = sum.chain.max(more.chain + 1);
        sum.total = sum.total.saturating_add(more.total);
    }
    open.remove(pointer);
    known.insert(pointer, sum);
    Some(sum)
}

/// The pointer that a reference within the same schema names.
fn local(reference: &str) -> Option<&str> {
    let pointer = reference.strip_prefix('#')?;
    let plain = !pointer.contains('%') && (pointer.is_empty() || pointer.starts_with('/'));
    plain.then_some(pointer)
}

fn child(at: &str, name: &str) -> String {
    format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests;
