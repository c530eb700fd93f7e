//! The chain of a tenant's audit: what of a row is hashed, how rows are sealed, what a signed head says, and the
//! export that carries all of it ([`Line`]). The service that seals and the command that verifies offline are held
//! together here.
//! Knows neither the store nor how anything is signed; secrets and old and new values come as commitments, so that the
//! chain holds after they were erased.
#![warn(missing_docs)]

mod digest;
mod verify;

use gatehouse_contract::TenantId;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use digest::{Digest, commit};
pub use verify::{Broken, HeadFault, Verified, Verifier, head, kept};

/// `typ` of a signed head: no token is one, and a head is no token.
pub const HEAD_TYPE: &str = "audit-head";
/// `typ` of the statement where an export begins whose first rows are no longer kept: a [`Head`] of the last seal before.
pub const BEGIN_TYPE: &str = "audit-begin";
/// The version of what is hashed and exported.
pub const VERSION: u32 = 1;
/// Most rows that one seal covers.
pub const MAX_SEAL_ROWS: usize = 1000;

/// A row of the audit as it is hashed. The members stand in the order of RFC 8785, whose canonical form the compact
/// serialisation of text, whole numbers and null in that order is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// `kind.verb`.
    pub action: String,
    /// RFC 3339, UTC.
    pub at: String,
    /// Of the old and new values, where there are any ([`commit`]).
    pub commitment: Option<Digest>,
    /// Unique within the installation; grows, with gaps.
    pub id: u64,
    /// Why a platform member acted here.
    pub reason: Option<String>,
    /// The request that did it.
    pub request_id: String,
    /// Who did it.
    pub subject: String,
    /// `user`, `client`, `api_key`, `system`; unknown of rows from before it was recorded.
    pub subject_kind: Option<String>,
    /// To which one.
    pub target_id: String,
    /// To what.
    pub target_kind: String,
    /// In which tenant.
    pub tenant: TenantId,
}

/// What is sealed at a time: rows in their order, tied to the seal before. Members in the order of RFC 8785.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seal {
    /// [`Seal::hash`] of the seal before; [`Digest::ZERO`] before the first.
    pub prev: Digest,
    /// Each row's id and [`Row::hash`].
    pub rows: Vec<(u64, Digest)>,
    /// In seconds since the Unix epoch.
    pub sealed_at: u64,
    /// 1 is the first.
    pub seq: u64,
    /// Whose chain.
    pub tenant: TenantId,
    /// How many rows the chain has, with these.
    pub total: u64,
}

/// What is signed of a seal (the payload of a JWS of type [`HEAD_TYPE`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// [`Seal::hash`].
    pub hash: Digest,
    /// Who signs.
    pub iss: String,
    /// In seconds since the Unix epoch.
    pub sealed_at: u64,
    /// [`Seal::seq`].
    pub seq: u64,
    /// Whose chain.
    pub tenant: TenantId,
    /// [`Seal::total`].
    pub total: u64,
}

/// A line of an export: one `start`, then each seal after its rows, one `end`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Line {
    /// Whose audit it is.
    Start {
        /// [`VERSION`].
        version: u32,
        /// The tenant.
        tenant: TenantId,
        /// Where the first rows are no longer kept: the [`Head`] of the seal behind which it begins, signed as
        /// [`BEGIN_TYPE`] when it was exported.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        begin: Option<String>,
    },
    /// A row.
    Row {
        /// What is hashed.
        row: Box<Row>,
        /// The old and new values, while they can be read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        details: Option<Value>,
        /// What hides them in the commitment.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        salt: Option<Digest>,
    },
    /// The seal of the rows since the seal before.
    Seal {
        /// What is hashed.
        seal: Seal,
        /// Its [`Head`], signed when it was sealed.
        head: String,
    },
    /// The end, without which an export was cut off.
    End {
        /// How many seals there were.
        seals: u64,
        /// How many rows they cover.
        rows: u64,
        /// How many rows were not sealed yet and are not in here.
        waiting: u64,
        /// The [`Head`] of the last seal; none where there is no seal.
        head: Option<String>,
        /// The id of the key that signed it.
        kid: Option<String>,
    },
}

// === impl Row ===

impl Row {
    /// What a seal says of it.
    pub fn hash(&self) -> Digest {
        Digest::of("gatehouse audit row v1", &canonical(self))
    }
}

// === impl Seal ===

impl Seal {
    /// What the next seal and the head say of it.
    pub fn hash(&self) -> Digest {
        Digest::of("gatehouse audit seal v1", &canonical(self))
    }

    /// What is signed of it, by `issuer`.
    pub fn head(&self, issuer: &str) -> Head {
        Head {
            hash: self.hash(),
            iss: issuer.to_owned(),
            sealed_at: self.sealed_at,
            seq: self.seq,
            tenant: self.tenant,
            total: self.total,
        }
    }
}

/// Of our own types alone, whose members are in order; they hold nothing that cannot be written.
fn canonical(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hashed_is_in_canonical_form() {
        let row = Row {
            action: "user.create".to_owned(),
            at: "2026-01-02T03:04:05.000006Z".to_owned(),
            commitment: Some(Digest::ZERO),
            id: 7,
            reason: Some("line\n\u{1}\u{e9}\"".to_owned()),
            request_id: "r".to_owned(),
            subject: "s".to_owned(),
            subject_kind: None,
            target_id: "t".to_owned(),
            target_kind: "user".to_owned(),
            tenant: TenantId::new(uuid::Uuid::from_u128(1)),
        };
        let text = String::from_utf8(canonical(&row)).unwrap();
        assert_eq!(
            text,
            "{\"action\":\"user.create\",\"at\":\"2026-01-02T03:04:05.000006Z\",\
             \"commitment\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\",\"id\":7,\
             \"reason\":\"line\\n\\u0001\u{e9}\\\"\",\"request_id\":\"r\",\"subject\":\"s\",\
             \"subject_kind\":null,\"target_id\":\"t\",\"target_kind\":\"user\",\
             \"tenant\":\"00000000-0000-0000-0000-000000000001\"}"
        );
        let seal = Seal {
            prev: Digest::ZERO,
            rows: vec![(7, row.hash())],
            sealed_at: 1,
            seq: 1,
            tenant: row.tenant,
            total: 1,
        };
        for text in [text, String::from_utf8(canonical(&seal)).unwrap()] {
            // A map sorts its members by their bytes, which for ASCII is RFC 8785's order.
            let sorted: std::collections::BTreeMap<String, Value> =
                serde_json::from_str(&text).unwrap();
            assert_eq!(serde_json::to_string(&sorted).unwrap(), text);
        }
        // What was sealed once is verified for ever: neither value may change.
        assert_eq!(row.hash().to_string(), "LyeQ60UJE5DuJkoxdwSz_tjj_ZGTooC2KVwznxG2xT4");
        assert_eq!(seal.hash().to_string(), "zl7GR3vIYaDvg_8BlAHCuWwPA2DCPiLPg-0GCZBtAe8");
    }
}
