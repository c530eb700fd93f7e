//! The pools, and the refusals at start: a role that could see past row security never gets a pool.
//! Knows nothing of what the doors are used for.

use std::{str::FromStr, sync::Arc, time::Duration};

use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tracing::debug;

use crate::{data_keys::Vault, master_keys::MasterKeys, replica::Replica};

/// One URL per door that the service may use; a door without one stays closed.
#[derive(Clone, Default)]
pub struct Urls {
    /// `postgres://gatehouse_app:…`, for [`Store::tenant`] and [`Store::lookup`].
    pub app: String,
    /// `postgres://gatehouse_admin:…`, for [`Store::admin`].
    pub admin: Option<String>,
    /// `postgres://gatehouse_system:…`, for [`Store::system`].
    pub system: Option<String>,
}

/// Pools to one database, one per door.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) vault: Option<Arc<Vault>>,
    pub(crate) app: PgPool,
    pub(crate) admin: Option<PgPool>,
    pub(crate) system: Option<PgPool>,
    pub(crate) replica: Option<Arc<Replica>>,
    pub(crate) admin_limit: Duration,
}

/// Why the store does not open.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL cannot be read. Its text is not repeated: it holds a password.
    #[error(
        "the {door} URL is not a PostgreSQL URL; write postgres://user:password@host:port/database"
    )]
    Url {
        /// Which.
        door: &'static str,
    },
    /// Nobody answers, or the password is wrong.
    #[error("the {door} database cannot be reached")]
    Unreachable {
        /// Which.
        door: &'static str,
        /// What happened.
        #[source]
        source: sqlx::Error,
    },
    /// The role could see or do more than the door allows.
    #[error("the {door} URL connects as \"{role}\", which {why}; {mend}")]
    Refused {
        /// Which.
        door: &'static str,
        /// The role.
        role: String,
        /// What is wrong with it.
        why: &'static str,
        /// What to do.
        mend: &'static str,
    },
    /// The schema is not there.
    #[error(
        "the database has no Gatehouse schema; run `gatehouse-control-api migrate --database URL`"
    )]
    NotMigrated,
    /// The replica is another database's.
    #[error("the replica URL {why}; name a streaming replica of its server, and the same database")]
    NoReplica {
        /// What is wrong.
        why: String,
    },
}

/// Refused are connections that take longer.
const CONNECT: Duration = Duration::from_secs(5);
/// Waited for a free connection at most this long.
const ACQUIRE: Duration = Duration::from_secs(3);

/// How many connections a door may hold.
const APP_CONNECTIONS: u32 = 16;
const ADMIN_CONNECTIONS: u32 = 4;
const SYSTEM_CONNECTIONS: u32 = 4;

impl Store {
    /// Opens a pool per URL.
    ///
    /// # Errors
    /// [`Error::Refused`] where a role is not the door's own, is a superuser, has BYPASSRLS, owns a table, or can
    /// become a role that is or does; [`Error::NotMigrated`] where the schema is missing.
    pub async fn connect(urls: &Urls) -> Result<Self, Error> {
        Self::connect_over(urls, APP_CONNECTIONS).await
    }

    /// The same with at most so many connections for [`Store::tenant`] and [`Store::lookup`].
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn connect_over(urls: &Urls, app_connections: u32) -> Result<Self, Error> {
        let app = pool("app", "gatehouse_app", &urls.app, app_connections).await?;
        let admin = match &urls.admin {
            Some(url) => Some(pool("admin", "gatehouse_admin", url, ADMIN_CONNECTIONS).await?),
            None => None,
        };
        let system = match &urls.system {
            Some(url) => Some(pool("system", "gatehouse_system", url, SYSTEM_CONNECTIONS).await?),
            None => None,
        };
        Ok(Self {
            vault: None,
            app,
            admin,
            system,
            replica: None,
            admin_limit: crate::admin::LIMIT,
        })
    }

    /// With the keys from the file: without them nothing personal or secret is read or written.
    #[must_use]
    pub fn with_keys(self, keys: MasterKeys) -> Self {
        Self { vault: Some(Arc::new(Vault::new(keys))), ..self }
    }

    /// With another bound on the platform's transactions than [`crate::admin::LIMIT`].
    #[must_use]
    pub fn with_admin_limit(self, limit: Duration) -> Self {
        Self { admin_limit: limit, ..self }
    }

    /// Whether the database answers, for readiness.
    pub async fn is_reachable(&self) -> bool {
        match sqlx::query("SELECT 1").execute(&self.app).await {
            Ok(_) => true,
            Err(error) => {
                debug!(error = %error, "the database does not answer");
                false
            }
        }
    }

    /// Closes the pools after their last users.
    pub async fn close(&self) {
        self.app.close().await;
        for pool in [&self.admin, &self.system].into_iter().flatten() {
            pool.close().await;
        }
        if let Some(replica) = &self.replica {
            replica.close().await;
        }
    }
}

async fn pool(
    door: &'static str,
    expected: &'static str,
    url: &str,
    connections: u32,
) -> Result<PgPool, Error> {
    let options = PgConnectOptions::from_str(url)
        .map_err(|_| Error::Url { door })?
        .application_name(&format!("gatehouse-{door}"));
    let pool = PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE)
        .connect_lazy_with(options);
    match tokio::time::timeout(CONNECT, judge(door, expected, &pool)).await {
        Ok(verdict) => verdict.map(|()| pool),
        Err(_) => Err(Error::Unreachable { door, source: sqlx::Error::PoolTimedOut }),
    }
}

#[derive(sqlx::FromRow)]
struct Standing {
    role: String,
    superuser: bool,
    bypasses: bool,
    owns: bool,
    becomes: bool,
    migrated: bool,
}

pub(crate) async fn judge(
    door: &'static str,
    expected: &'static str,
    pool: &PgPool,
) -> Result<(), Error> {
    let standing: Standing = sqlx::query_as(
        "SELECT current_user::text AS role, me.rolsuper AS superuser, me.rolbypassrls AS bypasses,
            EXISTS (
                SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                WHERE c.relowner = me.oid AND c.relkind IN ('r', 'p', 'v', 'm')
                AND n.nspname NOT LIKE 'pg\\_%') AS owns,
            EXISTS (
                SELECT FROM pg_catalog.pg_roles r
                WHERE r.oid <> me.oid AND pg_catalog.pg_has_role(me.oid, r.oid, 'MEMBER')
                AND (r.rolsuper OR r.rolbypassrls OR r.rolname LIKE 'gatehouse\\_%'
                    OR EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n
                        ON n.oid = c.relnamespace WHERE c.relowner = r.oid
                        AND n.nspname NOT IN ('pg_catalog', 'information_schema')
                        AND n.nspname NOT LIKE 'pg\\_toast%'))) AS becomes,
            EXISTS (
                SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                WHERE n.nspname = 'public' AND c.relname = 'worker_heartbeats') AS migrated
        FROM pg_catalog.pg_roles me WHERE me.rolname = current_user",
    )
    .fetch_one(pool)
    .await
    .map_err(|source| Error::Unreachable { door, source })?;
    let refused = |why, mend| Err(Error::Refused { door, role: standing.role.clone(), why, mend });
    if standing.superuser {
        return refused("is a superuser and would see every tenant", mend_of(expected));
    }
    if standing.bypasses {
        return refused(
            "has BYPASSRLS and would see every tenant",
            "run migrations/bootstrap/roles.sql, which takes it away",
        );
    }
    if standing.owns {
        return refused("owns tables and could switch their policies off", mend_of(expected));
    }
    if standing.becomes {
        return refused(
            "is a member of a role that could see past the policies",
            "revoke that membership",
        );
    }
    if standing.role != expected {
        return refused("is not this door's role", mend_of(expected));
    }
    if standing.migrated { Ok(()) } else { Err(Error::NotMigrated) }
}

fn mend_of(expected: &str) -> &'static str {
    match expected {
        "gatehouse_app" => "use gatehouse_app",
        "gatehouse_admin" => "use gatehouse_admin",
        _ => "use gatehouse_system",
    }
}
