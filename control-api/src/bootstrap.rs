//! `bootstrap`: the platform's own tenant and a client that holds the platform membership. Runs as gatehouse_admin
//! and repeats without harm.

use std::path::Path;

use gatehouse_contract::{ClientId, TenantId, Tier};
use gatehouse_service::{Stop, exit::chain};
use gatehouse_store::{Actor, AdminTx, Error, OpCtx, members::NewClient};
use serde_json::json;
use uuid::Uuid;

use crate::{clock, config, random, random::ClientSecret, serve};

/// The platform's tenant; no other may take this slug.
pub const PLATFORM_SLUG: &str = "platform";

/// Makes what is missing and prints `{"client_id","tenant_id"}`, with `client_secret` where one was made.
pub async fn run(path: &Path, name: &str, rotate: bool) -> Result<(), Stop> {
    if name.is_empty() || name.chars().count() > 200 {
        return Err(Stop::usage(vec!["--name: write 1 to 200 characters".to_owned()]));
    }
    let config = config::load(path)?;
    let store = serve::open(&config.database).await?.with_keys(config.sealer.keys());
    let op = OpCtx {
        tenant: TenantId::new(Uuid::nil()),
        subject: "bootstrap".to_owned(),
        actor: Actor::System,
        request_id: "bootstrap".to_owned(),
        traceparent: None,
        now: clock::now(),
    };
    let mut tx = store.admin(&op, "bootstrap of the platform").await.map_err(stop)?;
    let secret = ClientSecret::generate().map_err(|error| Stop::software(&error))?;
    let (tenant, client, shown) = make(&mut tx, name, rotate, &secret).await.map_err(stop)?;
    tx.commit().await.map_err(stop)?;
    store.close().await;
    let mut answer = json!({"client_id": client, "tenant_id": tenant});
    if let (true, Some(members)) = (shown, answer.as_object_mut()) {
        members.insert("client_secret".to_owned(), secret.expose().into());
    }
    println!("{answer}");
    Ok(())
}

async fn make(
    tx: &mut AdminTx<'_>,
    name: &str,
    rotate: bool,
    secret: &ClientSecret,
) -> Result<(TenantId, ClientId, bool), Error> {
    let tenant = match tx.tenant_by_slug(PLATFORM_SLUG).await? {
        Some(tenant) => tenant.id,
        None => {
            let id = TenantId::new(random::id());
            tx.create_tenant(id, PLATFORM_SLUG, "Platform", Tier::Enterprise).await?.id
        }
    };
    let Some(client) = tx.platform_client(tenant, name).await? else {
        let new = NewClient { id: ClientId::new(random::id()), name, secret_sha256: secret.hash() };
        tx.create_platform_client(tenant, &new).await?;
        return Ok((tenant, new.id, true));
    };
    if rotate {
        tx.within(tenant).replace_client_secret(client, secret.hash()).await?;
    }
    Ok((tenant, client, rotate))
}

fn stop(error: Error) -> Stop {
    if error.is_unavailable() {
        return Stop::unavailable(format!(
            "$.database.admin: {}; check that PostgreSQL runs",
            chain(&error)
        ));
    }
    Stop::software(&error)
}
