//! Which roles there are, and what each may do: the role matrix, by which everybody is judged.
//! Knows no member.

use std::collections::BTreeSet;

use axum::{
    Json,
    extract::{Path, State},
};
use gatehouse_contract::{Role, TenantId, rbac::Access};
use gatehouse_service::Reply;
use serde_json::{Value, json};

use crate::{
    access::Caller,
    routes::{Api, door::open, path_id},
};

/// `GET …/roles`, from the least to the most.
pub async fn read(
    State(api): State<Api>,
    caller: Caller,
    Path(tenant): Path<String>,
) -> Result<Json<Value>, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let op = caller.op();
    // The matrix is everybody's; a tenant that is not there has no roles.
    open(&api, &op, caller.door_to(tenant)?, tenant).await?;
    let permissions = |role: Role| -> BTreeSet<&str> {
        let held = api.matrix.routes().iter().filter_map(|route| match &route.access {
            Access::Held { permission, roles, .. } => roles.holds(role).then_some(permission),
            Access::Public => None,
        });
        held.map(String::as_str).collect()
    };
    let roles =
        Role::ALL.iter().map(|role| json!({"role": role, "permissions": permissions(*role)}));
    let roles: Vec<Value> = roles.collect();
    Ok(Json(json!({"roles": roles})))
}
