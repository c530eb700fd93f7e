//! What a version and a submit say of a run, kept by the worker in gVisor. What they may say is the control API's.

use std::time::Duration;

use gatehouse_contract::{AgentId, AgentVersionId, ExecutionId};
use gatehouse_execution::{
    EndReason, ExecutionState,
    limits::{Limit, Named},
};
use gatehouse_store::{
    OpCtx,
    executions::{NewExecution, Terms},
    versions::{self, NewVersion},
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::system::System;

/// Submits to a new version with this schema of outputs, for so many seconds.
async fn submit(
    system: &System,
    op: &OpCtx,
    image: &str,
    schema: Option<Value>,
    timeout_s: u64,
) -> ExecutionId {
    let (agent, id) = (AgentId::new(Uuid::new_v4()), AgentVersionId::new(Uuid::new_v4()));
    let name = format!("a-{}", &agent.to_string()[..8]);
    let terms = versions::Terms { output_schema: schema, ..versions::Terms::default() };
    let (version, image) = ("1.0.0".to_owned(), image.to_owned());
    let mut limits = Named::default();
    limits.set(Limit::Timeout, timeout_s).unwrap();
    let run = NewExecution {
        id: ExecutionId::new(Uuid::new_v4()),
        agent,
        version: id,
        input: json!({"litres": 1}),
        terms: Terms { limits, max_attempts: 1, ..Terms::default() },
    };
    let mut tx = system.store.tenant(op).await.unwrap();
    tx.create_agent(agent, &name, None).await.unwrap();
    tx.create_version(&NewVersion { id, agent, version, image, terms }).await.unwrap();
    tx.submit_execution(&run).await.unwrap();
    tx.commit().await.unwrap();
    run.id
}

#[tokio::test]
async fn ee22_an_output_that_does_not_fit_its_versions_schema_is_told_and_not_kept() {
    let system = System::start().await;
    let op = system.tenant().await;
    let image = system.publish_test_agent(&op, &["print", r#"{"kg": -1}"#]);
    let _worker = system.worker(json!({})).await;
    let schema = |least: i32| json!({"type": "object", "properties": {"kg": {"type": "number", "minimum": least}}});
    let fits = submit(&system, &op, &image, Some(schema(-1)), 60).await;
    let does_not = submit(&system, &op, &image, Some(schema(0)), 60).await;
    let done = system.reaches(&op, fits, ExecutionState::Completed).await;
    assert_eq!(done.output, Some(json!({"kg": -1})));
    let failed = system.reaches(&op, does_not, ExecutionState::Failed).await;
    assert_eq!((failed.end_reason, failed.output), (Some(EndReason::OutputInvalid), None));
    let why = "the output does not fit its schema: \"/kg\" is too small";
    assert_eq!(failed.error.as_deref(), Some(why));
}

#[tokio::test]
async fn res1_a_run_has_the_time_that_was_asked_for() {
    let system = System::start().await;
    let op = system.tenant().await;
    let image = system.publish_test_agent(&op, &["sleep"]);
    let _worker = system.worker(json!({})).await;
    let id = submit(&system, &op, &image, None, 1).await;
    let ended = system.reaches(&op, id, ExecutionState::Timeout).await;
    assert_eq!(ended.end_reason, Some(EndReason::Timeout));
    let took = ended.completed_at.unwrap() - ended.started_at.unwrap();
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(60), "{took}");
}
