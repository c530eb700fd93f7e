//! Applies the migrations that this build carries. Runs as the schema's owner; no service does.
//! Knows nothing of roles: `migrations/bootstrap/roles.sql` makes them before the first migration.

use std::time::Duration;

use sqlx::{migrate::Migrator, postgres::PgPoolOptions};

/// Waited for a connection at most this long.
const CONNECT: Duration = Duration::from_secs(10);

static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations");

/// Why the schema is not up to date.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers at the URL, or the password is wrong.
    #[error("the database cannot be reached")]
    Unreachable(#[source] sqlx::Error),
    /// The role is not the owner's, so that the tables would belong to somebody else.
    #[error("migrations run as gatehouse_owner, not as \"{0}\"")]
    Role(String),
    /// A migration failed; nothing of it is left.
    #[error("a migration failed")]
    Failed(#[source] sqlx::migrate::MigrateError),
}

/// The migrations' texts, in order: two builds with the same ones make the same schema.
pub fn sources() -> impl Iterator<Item = &'static str> {
    MIGRATIONS.iter().map(|migration| migration.sql.as_str())
}

/// Applies what is missing to the database at `url`; a second run changes nothing. Returns how many migrations
/// the schema has then.
pub async fn run(url: &str) -> Result<usize, Error> {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(CONNECT)
        .connect(url)
        .await
        .map_err(Error::Unreachable)?;
    let role: String = sqlx::query_scalar("SELECT current_user::text")
        .fetch_one(&pool)
        .await
        .map_err(Error::Unreachable)?;
    if role != "gatehouse_owner" {
        return Err(Error::Role(role));
    }
    MIGRATIONS.run(&pool).await.map_err(Error::Failed)?;
    pool.close().await;
    Ok(MIGRATIONS.iter().count())
}
