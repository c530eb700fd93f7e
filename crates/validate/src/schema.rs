//! One schema, compiled: refused with every fault named, or ready to judge. Knows no routes.

use jsonschema::{Draft, PatternOptions, ValidationOptions, Validator};
use serde_json::{Value, json};

use crate::{
    body,
    bounds::{self, Cost, Fault, MAX_PATTERN_KIB},
    judge::{self, Refusal},
    meter::Meter,
    node::{Body, Metered},
};

/// What the automaton of one pattern may remember of its texts.
const PATTERN_CACHE_BYTES: usize = 512 * 1024;

/// A compiled schema.
pub struct Schema {
    validator: Validator<Body>,
    cost: Cost,
}

impl std::fmt::Debug for Schema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Schema")
    }
}

impl Schema {
    /// Compiles `schema` (JSON Schema 2020-12). `Err` holds everything that is wrong with it, a line each, which begins
    /// with the JSON pointer of the place.
    pub fn compile(schema: &Value) -> Result<Self, Vec<String>> {
        let line =
            |Fault { pointer, cause, mend }: &Fault| format!("at \"{pointer}\": {cause}; {mend}");
        Self::compiled(schema).map_err(|faults| faults.iter().map(line).collect())
    }

    pub(crate) fn compiled(schema: &Value) -> Result<Self, Vec<Fault>> {
        let cost = bounds::check(schema, &|pattern, bytes| {
            options(bytes).build(&json!({"pattern": pattern})).is_ok()
        })?;
        match options(MAX_PATTERN_KIB * 1024).build(schema) {
            Ok(validator) => Ok(Self { validator, cost }),
            Err(error) => Err(vec![Fault {
                pointer: error.instance_path().to_string(),
                cause: format!("not a schema: {error:.200}"),
                mend: "write JSON Schema 2020-12".to_owned(),
            }]),
        }
    }

    /// How many patterns it has: each is a program of its own, and remembers what it was asked.
    pub const fn patterns(&self) -> usize {
        self.cost.patterns
    }

    /// The most bytes that a pattern takes, with what it remembers while one thread asks.
    pub const PATTERN_BYTES: usize = MAX_PATTERN_KIB * 1024 + PATTERN_CACHE_BYTES;

    /// Judges `bytes`, which are not longer than the caller allows.
    pub fn judge(&self, bytes: &[u8]) -> Result<(), Refusal> {
        let value = body::read(bytes).map_err(Refusal::malformed)?;
        let meter = Meter::for_body(bytes.len(), self.cost.text_steps);
        let fits = self.validator.is_valid(Metered::new(&value, &meter));
        if meter.is_spent() {
            return Err(Refusal::too_dear());
        }
        if fits {
            return Ok(());
        }
        // Only now: the first pass keeps no errors, and remembers what it judged before.
        let meter = Meter::for_body(bytes.len(), self.cost.text_steps);
        Err(judge::refusal(self.validator.iter_errors(Metered::new(&value, &meter))))
    }
}

fn options(
    pattern_bytes: usize,
) -> ValidationOptions<'static, std::sync::Arc<dyn jsonschema::Retrieve>, Body> {
    let patterns = PatternOptions::regex();
    jsonschema::options_for::<Body>()
        .with_draft(Draft::Draft202012)
        .offline()
        .should_validate_formats(true)
        .should_ignore_unknown_formats(false)
        .with_pattern_options(
            patterns.size_limit(pattern_bytes).dfa_size_limit(PATTERN_CACHE_BYTES),
        )
}

#[cfg(test)]
mod tests;
