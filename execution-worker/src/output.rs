//! Judges what an agent wrote by its version's schema, before it is reported. Knows nothing of how it ran.

use gatehouse_execution::{EndReason, outcome::Outcome};
use gatehouse_validate::{Refusal, Schema};
use serde_json::Value;
use tracing::error;

/// `outcome`, or that its output does not fit.
pub fn judged(schema: Option<&Value>, outcome: Outcome) -> Outcome {
    let (Some(schema), EndReason::Completed) = (schema, outcome.reason) else { return outcome };
    let output = outcome.output.as_ref().unwrap_or(&Value::Null);
    let message = match Schema::compile(schema) {
        Ok(schema) => match schema.judge(output.to_string().as_bytes()) {
            Ok(()) => return outcome,
            Err(refusal) => told(&refusal),
        },
        Err(faults) => {
            // It was compiled before it was stored.
            error!(?faults, "a version's schema is none for this build");
            "its version's output schema cannot be used".to_owned()
        }
    };
    Outcome { reason: EndReason::OutputInvalid, output: None, message: Some(message) }
}

/// Where it does not fit, in the words that inputs are refused with.
fn told(refusal: &Refusal) -> String {
    if refusal.findings.is_empty() {
        return format!("the output does not fit its schema: {}", refusal.detail);
    }
    let places = refusal.findings.iter().map(|one| format!("\"{}\" {}", one.pointer, one.detail));
    format!("the output does not fit its schema: {}", places.collect::<Vec<_>>().join("; "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(schema: Option<Value>, output: Value, expected: Result<(), &str>) {
        let outcome =
            Outcome { reason: EndReason::Completed, output: Some(output.clone()), message: None };
        let judged = judged(schema.as_ref(), outcome.clone());
        match expected {
            Ok(()) => assert_eq!(judged, outcome, "{output}"),
            Err(why) => {
                let message = Some(format!("the output does not fit its schema: {why}"));
                let expected = Outcome { reason: EndReason::OutputInvalid, output: None, message };
                assert_eq!(judged, expected, "{output}");
            }
        }
    }

    #[test]
    fn an_output_that_does_not_fit_is_none() {
        let schema =
            json!({"type": "object", "required": ["kg"], "properties": {"kg": {"minimum": 0}}});
        let schema = Some(schema);
        check(None, json!([1]), Ok(()));
        check(schema.clone(), json!({"kg": 1.5}), Ok(()));
        check(schema.clone(), json!({}), Err("\"/kg\" is missing"));
        check(schema.clone(), json!({"kg": -1}), Err("\"/kg\" is too small"));
        check(schema, Value::Null, Err("\"\" is of another type than it must be"));
        check(Some(json!(false)), json!(1), Err("\"\" must not be there"));
        // What did not complete is not judged.
        let failed = Outcome { reason: EndReason::Failed, output: None, message: None };
        assert_eq!(judged(Some(&json!(false)), failed.clone()), failed);
    }
}
