//! The compiled schemas of agents' versions. What a version is never changes, so that a schema that is compiled stays right;
//! it is found under its tenant and its version. Bounded by bytes: what nobody asks for goes first, and what is heavier than
//! all may be is compiled each time. Knows no table, and nothing of what is judged.

use std::sync::Arc;

use gatehouse_contract::{AgentVersionId, TenantId};
use gatehouse_validate::{Refusal, Schema};
use quick_cache::{Weighter, sync::Cache};
use serde_json::Value;

/// What all that are kept may take.
const BYTES: u64 = 128 * 1024 * 1024;
/// So few that they are counted together: one that is heavy finds a place still.
const SHARES: usize = 32;
/// What one takes beside what it says, and for each byte of that: a wide one of 15 KiB takes 330 KiB.
const OVERHEAD_BYTES: u64 = 16 * 1024;
const PER_BYTE: u64 = 32;

/// Whose version's.
type Of = (TenantId, AgentVersionId);

/// All that are kept.
#[derive(Clone)]
pub struct Schemas(Arc<Cache<Of, Arc<Kept>, ByBytes>>);

struct Kept {
    schema: Schema,
    bytes: u64,
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<Of, Arc<Kept>> for ByBytes {
    fn weight(&self, _: &Of, kept: &Arc<Kept>) -> u64 {
        kept.bytes
    }
}

impl Default for Schemas {
    fn default() -> Self {
        Self::of(BYTES)
    }
}

impl Schemas {
    fn of(bytes: u64) -> Self {
        Self(Arc::new(Cache::with_weighter(SHARES, bytes, ByBytes)))
    }

    /// Judges `input` by `version`'s schema, compiled now or before. The outer error is what is wrong with the schema.
    pub fn judge(
        &self,
        version: Of,
        schema: &Value,
        input: &[u8],
    ) -> Result<Result<(), Refusal>, Vec<String>> {
        let kept = self.0.get_or_insert_with(&version, || Kept::compile(schema))?;
        Ok(kept.schema.judge(input))
    }
}

impl Kept {
    fn compile(schema: &Value) -> Result<Arc<Self>, Vec<String>> {
        let said = schema.to_string().len() as u64;
        let schema = Schema::compile(schema)?;
        let patterns = schema.patterns().saturating_mul(Schema::PATTERN_BYTES) as u64;
        let bytes = OVERHEAD_BYTES.saturating_add(said.saturating_mul(PER_BYTE));
        Ok(Arc::new(Self { schema, bytes: bytes.saturating_add(patterns) }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    fn of(tenant: u128, version: u128) -> Of {
        (TenantId::new(Uuid::from_u128(tenant)), AgentVersionId::new(Uuid::from_u128(version)))
    }

    #[track_caller]
    fn check(schemas: &Schemas, version: Of, schema: &Value, input: &Value, fits: bool) {
        let judged = schemas.judge(version, schema, input.to_string().as_bytes());
        assert_eq!(judged.unwrap().is_ok(), fits, "{version:?}: {input}");
    }

    #[test]
    fn each_tenants_version_has_its_own_schema_however_its_id_is_called() {
        let schemas = Schemas::default();
        let (number, text) = (json!({"type": "number"}), json!({"type": "string"}));
        // Twice: compiled, and as it was kept.
        for _ in 0..2 {
            for (version, schema, number_fits) in
                [(of(1, 1), &number, true), (of(2, 1), &text, false), (of(1, 2), &text, false)]
            {
                check(&schemas, version, schema, &json!(1), number_fits);
                check(&schemas, version, schema, &json!("1"), !number_fits);
            }
        }
        assert_eq!(schemas.0.len(), 3);
    }

    #[test]
    fn what_is_no_schema_is_told_and_not_kept() {
        let schemas = Schemas::default();
        let broken = json!({"type": "strnig"});
        for _ in 0..2 {
            assert!(schemas.judge(of(1, 1), &broken, b"1").is_err());
        }
        assert_eq!(schemas.0.len(), 0);
    }

    #[test]
    fn all_take_no_more_than_they_may_and_patterns_count() {
        let bytes = 2 * 1024 * 1024;
        let schemas = Schemas::of(bytes);
        let plain = json!({"type": "number"});
        for version in 0..500 {
            check(&schemas, of(1, version), &plain, &json!(1), true);
        }
        assert!((bytes / 2..=bytes).contains(&schemas.0.weight()), "{}", schemas.0.weight());
        let kept = schemas.0.len();
        let patterned =
            json!({"patternProperties": {"^a": true, "^b": true, "^c": true, "^d": true}});
        check(&schemas, of(2, 1), &patterned, &json!({"a": 1}), true);
        assert_eq!(schemas.0.len(), kept, "heavier than all may be: nothing made place for it");
        check(&schemas, of(2, 1), &patterned, &json!({"a": 1}), true);
    }
}
