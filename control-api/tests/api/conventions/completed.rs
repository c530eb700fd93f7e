//! Brings an execution to its result as a worker does, through the store: what an attempt leaves behind is then there to be
//! read. Knows no endpoint.

use gatehouse_contract::{ExecutionId, TenantId};
use gatehouse_execution::{
    EndReason, ExecutionState, Record,
    outcome::Outcome,
    provenance::{self, Config, FORM, Provenance},
};
use gatehouse_store::{Actor, MasterKeys, OffsetDateTime, OpCtx, Store, Urls};
use serde_json::json;

use crate::{
    watching::tell,
    world::{Tenant, World},
};

/// Claims and completes it.
pub fn complete(world: &World, tenant: &Tenant, execution: &str) {
    world.database.query(&format!(
        "UPDATE executions SET state = 'queued', queued_at = now() WHERE id = '{execution}'"
    ));
    tell(world, tenant, execution, "execution.queued", &json!({}));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(as_worker(world, tenant.id.parse().unwrap(), execution.parse().unwrap()));
}

async fn as_worker(world: &World, tenant: TenantId, execution: ExecutionId) {
    let urls = Urls { app: world.database.url("gatehouse_app"), admin: None, system: None };
    let keys = MasterKeys::from_file(&world.setup.dir.path().join("key")).unwrap();
    let store = Store::connect(&urls).await.unwrap().with_keys(keys);
    let op = OpCtx {
        tenant,
        subject: "worker:w".to_owned(),
        actor: Actor::System,
        request_id: "r".to_owned(),
        traceparent: None,
        now: OffsetDateTime::UNIX_EPOCH,
    };
    let mut tx = store.tenant(&op).await.unwrap();
    let claimed = tx.claim_execution(execution, "w").await.unwrap().unwrap();
    let output = json!({"kg": 2.3});
    let document = Provenance {
        form: FORM.to_owned(),
        salt: "0".repeat(64),
        tenant,
        execution,
        attempt: claimed.attempt,
        agent: claimed.agent,
        version: claimed.version_id,
        image: claimed.image,
        config: Config::new(("sim", "1"), ("0.1.0", "c1"), &claimed.limits, &[]),
        input: provenance::digest(&claimed.input).unwrap(),
        output: provenance::digest(&output).unwrap(),
    };
    let outcome = Outcome { reason: EndReason::Completed, output: Some(output), message: None };
    let record = Record { provenance: Some(document), ..Record::default() };
    let epoch = claimed.lease_epoch;
    let state = tx.complete_execution(execution, epoch, &outcome, &record).await.unwrap();
    assert_eq!(state, Some(ExecutionState::Completed));
    tx.commit().await.unwrap();
}
