//! An open transaction within one tenant, through whichever door leads the caller there.
//! Knows no operation.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use gatehouse_contract::{Reason, TenantId};
use gatehouse_service::Reply;
use gatehouse_store::{AdminTx, Error, OpCtx, TenantTx, Within};
use serde_json::Value;

use crate::{
    access::Door,
    cache::{Entity, Fresh},
    routes::{Api, refused},
};

/// Either door.
pub enum Tx<'op> {
    /// The caller's own tenant.
    Own(TenantTx<'op>),
    /// Any tenant, for the platform.
    Platform(AdminTx<'op>, TenantId),
}

/// Goes through `door` to `tenant`. The platform's way to a tenant that is not there is a 404.
pub async fn open<'op>(
    api: &Api,
    op: &'op OpCtx,
    door: Door,
    tenant: TenantId,
) -> Result<Tx<'op>, Reply> {
    match door {
        Door::Own => Ok(Tx::Own(api.store.tenant(op).await.map_err(refused)?)),
        Door::Platform(reason) => {
            let mut tx = api.store.admin(op, &reason).await.map_err(refused)?;
            tx.tenant(tenant).await.map_err(refused)?.ok_or(Reason::NotFound)?;
            Ok(Tx::Platform(tx, tenant))
        }
    }
}

/// Reads in `tenant` through `door`: what is the caller's own at a replica, where there is one that shows everything; what
/// is another's at the primary, where it is recorded.
pub async fn read<'op, T, F: Future<Output = Result<T, Error>>>(
    api: &Api,
    op: &'op OpCtx,
    door: Door,
    tenant: TenantId,
    read: impl Fn(Tx<'op>) -> F,
) -> Result<T, Reply> {
    match door {
        Door::Own => api.store.read(op, |tx| read(Tx::Own(tx))).await,
        Door::Platform(_) => read(open(api, op, door, tenant).await?).await,
    }
    .map_err(refused)
}

/// As [`read`], in the caller's own tenant, whichever it is.
pub async fn read_own<'op, T, F: Future<Output = Result<T, Error>>>(
    api: &Api,
    op: &'op OpCtx,
    read: impl Fn(TenantTx<'op>) -> F,
) -> Result<T, Reply> {
    api.store.read(op, read).await.map_err(refused)
}

/// A document of `tenant` as `show` makes it: of the caller's own tenant it may be remembered, the platform's way to another
/// one is taken and recorded every time.
pub async fn shown(
    api: &Api,
    op: &OpCtx,
    door: Door,
    (tenant, entity, fresh): (TenantId, Entity, Fresh),
    show: impl AsyncFnOnce(&mut Tx<'_>) -> Result<Value, Reply>,
) -> Result<Response, Reply> {
    match door {
        Door::Own => {
            let record = async { show(&mut own(api, op).await?).await };
            api.cache.document((tenant, entity), fresh, record).await
        }
        Door::Platform(_) => {
            Ok(Json(show(&mut open(api, op, door, tenant).await?).await?).into_response())
        }
    }
}

/// The caller's own tenant, whichever it is.
pub async fn own<'op>(api: &Api, op: &'op OpCtx) -> Result<Tx<'op>, Reply> {
    Ok(Tx::Own(api.store.tenant(op).await.map_err(refused)?))
}

/// The platform's way to a tenant that need not be there.
pub async fn platform<'op>(
    api: &Api,
    op: &'op OpCtx,
    reason: &str,
    tenant: TenantId,
) -> Result<Tx<'op>, Reply> {
    Ok(Tx::Platform(api.store.admin(op, reason).await.map_err(refused)?, tenant))
}

impl<'op> Tx<'op> {
    /// What lies in one tenant alone: agents and executions, to which the platform has no way.
    pub fn of_tenant(&mut self) -> Result<&mut TenantTx<'op>, Reply> {
        match self {
            Self::Own(tx) => Ok(tx),
            Self::Platform(..) => Err(Reason::Internal.into()),
        }
    }

    /// What lies across tenants.
    pub fn of_platform(&mut self) -> Result<&mut AdminTx<'op>, Reply> {
        match self {
            Self::Platform(tx, _) => Ok(tx),
            Self::Own(_) => Err(Reason::Internal.into()),
        }
    }

    /// The tenant's members and credentials.
    pub fn within(&mut self) -> Within<'_> {
        match self {
            Self::Own(tx) => tx.within(),
            Self::Platform(tx, tenant) => tx.within(*tenant),
        }
    }

    /// Makes it last.
    pub async fn commit(self) -> Result<(), Reply> {
        match self {
            Self::Own(tx) => tx.commit().await,
            Self::Platform(tx, _) => tx.commit().await,
        }
        .map_err(refused)
    }
}
