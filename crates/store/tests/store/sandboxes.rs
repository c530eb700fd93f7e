//! Which sandbox runs an attempt: written under its lease and no other.

use gatehouse_contract::ExecutionId;
use gatehouse_execution::sandbox::SandboxId;
use gatehouse_store::OpCtx;
use uuid::Uuid;

use crate::{
    executions::{claim, completed, report},
    harness::{Db, offer, with_db},
};

async fn name(db: &Db, op: &OpCtx, id: ExecutionId, epoch: u64, sandbox: SandboxId) -> bool {
    let mut tx = db.store.tenant(op).await.unwrap();
    let named = tx.name_sandbox(id, epoch, sandbox).await.unwrap();
    tx.commit().await.unwrap();
    named
}

#[tokio::test]
async fn a_sandbox_is_named_under_the_lease_and_no_other() {
    with_db(async |db| {
        let (a, b) = (db.tenant("tenant-a").await, db.tenant("tenant-b").await);
        let id = db.execution(&a, db.agent(&a, "fuel").await).await;
        let sandbox = SandboxId { execution: ExecutionId::new(Uuid::new_v4()), epoch: 0 };
        assert!(!name(&db, &a, id, 0, sandbox).await, "it does not run");
        offer(&db).await;
        let claimed = claim(&db, &a, id, "w1").await.unwrap();
        assert!(!name(&db, &a, id, claimed.lease_epoch + 1, sandbox).await, "another lease");
        assert!(!name(&db, &b, id, claimed.lease_epoch, sandbox).await, "another tenant");
        assert!(name(&db, &a, id, claimed.lease_epoch, sandbox).await);
        report(&db, &a, &claimed, &completed()).await;
        assert!(!name(&db, &a, id, claimed.lease_epoch, sandbox).await, "it has ended");
    })
    .await;
}
