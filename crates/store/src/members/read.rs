//! What the record says of members, opened: pages of them, and one. Knows nothing of how they are changed.

use gatehouse_contract::{ClientId, Role, UserId};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Member, MemberRecord, roles};
use crate::{
    Error, Within,
    addresses::{EMAIL, NAME},
    data_keys::Cipher,
    paging::Page,
};

/// Which members of a list; what is `None` is not asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Which {
    /// Those who are kept from acting, or those who are not.
    pub suspended: Option<bool>,
    /// Those who hold this role.
    pub role: Option<Role>,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: Uuid,
    /// A client's name, or a user's address where that is not sealed yet.
    name: String,
    sealed_email: Option<Vec<u8>>,
    sealed_name: Option<Vec<u8>>,
    status: String,
    roles: Vec<String>,
    created_at: OffsetDateTime,
}

/// One query per kind of member; `$rest` narrows it.
macro_rules! users {
    ($rest:literal) => {
        concat!(
            "SELECT x.id, x.email AS name, x.sealed_email, x.sealed_name, x.status, ARRAY(SELECT m.role FROM memberships m
                WHERE m.tenant_id = x.tenant_id AND m.subject = x.id) AS roles, x.created_at
             FROM users x WHERE x.tenant_id = $1 AND ",
            $rest
        )
    };
}
macro_rules! clients {
    ($rest:literal) => {
        concat!(
            "SELECT x.id, x.name, NULL::bytea AS sealed_email, NULL::bytea AS sealed_name, x.status,
                ARRAY(SELECT m.role FROM memberships m
                    WHERE m.tenant_id = x.tenant_id AND m.subject = x.id) AS roles, x.created_at
             FROM oauth_clients x WHERE x.tenant_id = $1 AND ",
            $rest
        )
    };
}
macro_rules! page {
    ($kind:ident) => {
        $kind!(
            "(x.created_at, x.id) < ($2, $3) AND ($5::text IS NULL OR x.status = $5)
             AND ($6::text IS NULL OR EXISTS (SELECT FROM memberships h
                WHERE h.tenant_id = x.tenant_id AND h.subject = x.id AND h.role = $6))
             ORDER BY x.created_at DESC, x.id DESC LIMIT $4"
        )
    };
}

impl Within<'_> {
    /// A page of the users.
    pub async fn list_users(
        &mut self,
        page: &Page,
        which: Which,
    ) -> Result<Vec<MemberRecord>, Error> {
        let rows = self.page_of(page!(users), page, which).await?;
        self.records(rows, |id| Member::User(UserId::new(id))).await
    }

    /// A page of the clients.
    pub async fn list_clients(
        &mut self,
        page: &Page,
        which: Which,
    ) -> Result<Vec<MemberRecord>, Error> {
        let rows = self.page_of(page!(clients), page, which).await?;
        self.records(rows, |id| Member::Client(ClientId::new(id))).await
    }

    /// What the record says of a member.
    pub async fn member(&mut self, member: Member) -> Result<Option<MemberRecord>, Error> {
        let query = match member {
            Member::User(_) => users!("x.id = $2"),
            Member::Client(_) => clients!("x.id = $2"),
        };
        let row: Option<Row> = sqlx::query_as(query)
            .bind(self.tenant.as_uuid())
            .bind(member.id())
            .fetch_optional(&mut *self.connection)
            .await?;
        Ok(self.records(row.into_iter().collect(), |_| member).await?.pop())
    }

    async fn page_of(
        &mut self,
        query: &'static str,
        page: &Page,
        which: Which,
    ) -> Result<Vec<Row>, Error> {
        let status = which.suspended.map(|yes| if yes { "suspended" } else { "active" });
        let rows = sqlx::query_as(query)
            .bind(self.tenant.as_uuid())
            .bind(page.after.created_at)
            .bind(page.after.id)
            .bind(page.limit)
            .bind(status)
            .bind(which.role.map(Role::as_str))
            .fetch_all(&mut *self.connection)
            .await?;
        Ok(rows)
    }

    async fn records(
        &mut self,
        rows: Vec<Row>,
        member: impl Fn(Uuid) -> Member,
    ) -> Result<Vec<MemberRecord>, Error> {
        let sealed = |row: &Row| row.sealed_email.is_some() || row.sealed_name.is_some();
        let cipher = if rows.iter().any(sealed) { Some(self.cipher().await?) } else { None };
        rows.into_iter().map(|row| record(row, cipher.as_deref(), &member)).collect()
    }
}

fn record(
    row: Row,
    cipher: Option<&Cipher>,
    member: impl Fn(Uuid) -> Member,
) -> Result<MemberRecord, Error> {
    let open = |column, sealed: Option<Vec<u8>>| match (sealed, cipher) {
        (Some(sealed), Some(cipher)) => cipher.open_text(column, row.id, &sealed).map(Some),
        _ => Ok(None),
    };
    Ok(MemberRecord {
        member: member(row.id),
        name: open(EMAIL, row.sealed_email)?.unwrap_or(row.name),
        full_name: open(NAME, row.sealed_name)?,
        suspended: row.status == "suspended",
        roles: roles(&row.roles)?,
        created_at: row.created_at,
    })
}
