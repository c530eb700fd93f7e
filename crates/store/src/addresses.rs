//! The addresses and names of users: sealed under the tenant's key; an address is found by a keyed hash.
//! Knows nothing of what a user may do.

use gatehouse_contract::UserId;

use crate::{Error, Within, data_keys::Cipher};

/// Where an address is sealed.
pub(crate) const EMAIL: &str = "users.email";

/// Where a name is sealed.
pub(crate) const NAME: &str = "users.name";

/// Who a user is to people.
pub(crate) struct Person<'a> {
    pub(crate) email: &'a str,
    pub(crate) name: Option<&'a str>,
}

/// What stands in the place of an address that is sealed.
pub(crate) fn placeholder(id: UserId) -> String {
    format!("sealed:{id}")
}

/// By what an address is found, however it is written.
pub(crate) fn email_index(cipher: &Cipher, email: &str) -> [u8; 32] {
    cipher.index(EMAIL, &email.to_lowercase())
}

impl Within<'_> {
    /// Its address is sealed, and found by a keyed hash.
    pub(crate) async fn insert_user(
        &mut self,
        id: UserId,
        person: &Person<'_>,
        federated: bool,
    ) -> Result<(), Error> {
        let Person { email, name } = *person;
        let taken = || Error::Conflict { constraint: "users_email".to_owned() };
        // One that is not sealed yet is beyond the index.
        if !federated && self.invited_in_the_clear(email).await? {
            return Err(taken());
        }
        let cipher = self.cipher().await?;
        let done = sqlx::query(
            "INSERT INTO users (tenant_id, id, email, sealed_email, email_index, sealed_name, federated)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(self.tenant.as_uuid())
        .bind(id.as_uuid())
        .bind(placeholder(id))
        .bind(cipher.seal(EMAIL, id, email.as_bytes())?)
        .bind(email_index(&cipher, email).as_slice())
        .bind(name.map(|name| cipher.seal(NAME, id, name.as_bytes())).transpose()?)
        .bind(federated)
        .execute(&mut *self.connection)
        .await
        .map_err(Error::from);
        match done {
            Ok(_) => Ok(()),
            Err(Error::Conflict { constraint }) if constraint == "users_email_index" => {
                Err(taken())
            }
            Err(error) => Err(error),
        }
    }

    async fn invited_in_the_clear(&mut self, email: &str) -> Result<bool, Error> {
        let there = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM users WHERE tenant_id = $1 AND lower(email) = lower($2) AND NOT federated
                AND sealed_email IS NULL)",
        )
        .bind(self.tenant.as_uuid())
        .bind(email)
        .fetch_one(&mut *self.connection)
        .await?;
        Ok(there)
    }
}
