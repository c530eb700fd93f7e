//! What can go wrong at a door that is open. Connecting has its own errors ([`crate::connect::Error`]).

use time::OffsetDateTime;

use crate::{master_keys::CannotOpen, usage::Counted};

/// An operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// PostgreSQL cannot be reached, or did not answer in time.
    #[error("the database cannot be reached")]
    Unavailable(#[source] sqlx::Error),
    /// A row with this key is there already.
    #[error("it exists already ({constraint})")]
    Conflict {
        /// The constraint's name in the schema.
        constraint: String,
    },
    /// What the row refers to is not there, or is another tenant's.
    #[error("what it refers to does not exist ({constraint})")]
    Missing {
        /// The constraint's name in the schema.
        constraint: String,
    },
    /// Without this member the tenant would have no admin who may act.
    #[error("the tenant's last active admin stays")]
    LastAdmin,
    /// It would be more than the tenant may have.
    #[error("the tenant's quota of {} is used up", what.as_str())]
    QuotaExceeded {
        /// Of what.
        what: Counted,
        /// The most.
        limit: u64,
        /// What is used already.
        used: u64,
        /// When it begins anew.
        resets_at: Option<OffsetDateTime>,
    },
    /// The service was started without this door's URL.
    #[error("the {0} door is closed in this process")]
    DoorClosed(&'static str),
    /// A stored value does not mean anything to this build.
    #[error("stored {what} is not understood")]
    Unreadable {
        /// Which value.
        what: &'static str,
    },
    /// The store was opened without the keys from the file.
    #[error("there is no key file: what is personal or secret can be neither read nor written")]
    NoKeyFile,
    /// What a key of the file sealed does not open.
    #[error("a data key does not open with this key file")]
    Locked(#[source] CannotOpen),
    /// The tenant's key was destroyed.
    #[error("the tenant was erased")]
    Erased,
    /// The sealed audit is ahead of this cluster's transactions: the database was restored from a dump.
    #[error(
        "the audit's seals are of another cluster; replace audit_clock_base() as docs/audit.md says"
    )]
    YoungerThanSealed,
    /// The newest seal of the audit does not end where its last row is: somebody changed one of them.
    #[error("the audit's newest seal was moved past rows; docs/audit.md says how to look")]
    SealMoved,
    /// A statement failed in a way that no rule foresaw; grants and policies fail here, too.
    #[error("a statement failed")]
    Statement(#[source] sqlx::Error),
}

impl Error {
    /// Whether trying again later may help.
    pub const fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }

    /// The SQLSTATE of the statement that failed, e.g. `42501` where a grant or a policy refused it.
    pub fn sqlstate(&self) -> Option<String> {
        match self {
            Self::Unavailable(error) | Self::Statement(error) => {
                error.as_database_error()?.code().map(Into::into)
            }
            _ => None,
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let named = |database: &dyn sqlx::error::DatabaseError| {
            database.constraint().unwrap_or("unnamed").to_owned()
        };
        match &error {
            sqlx::Error::Database(database) if database.is_unique_violation() => {
                Self::Conflict { constraint: named(database.as_ref()) }
            }
            sqlx::Error::Database(database) if database.is_foreign_key_violation() => {
                Self::Missing { constraint: named(database.as_ref()) }
            }
            // Class 57 is operator intervention (shutdown, cancel by timeout), 53 insufficient resources, 08
            // connection exceptions, 40 a transaction that was undone for another's sake (40P01: two that waited for each
            // other), 55P03 a lock that was not had in time.
            sqlx::Error::Database(database)
                if database.code().is_some_and(|code| {
                    ["57", "53", "40", "08"].iter().any(|class| code.starts_with(class))
                        || code == "55P03"
                }) =>
            {
                Self::Unavailable(error)
            }
            sqlx::Error::Io(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::Tls(_) => Self::Unavailable(error),
            _ => Self::Statement(error),
        }
    }
}
