//! Where a result came from, as it was stored with it: sealed, so that with the tenant's key its salt is gone, and what was
//! published of it says nothing any more.
//! Knows nothing of how the document is made.

use gatehouse_contract::ExecutionId;
use serde_json::Value;

use crate::{
    Error, TenantTx,
    executions::{INPUT, OUTPUT, PROVENANCE},
};

/// A result and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Proven {
    /// The document, as it was hashed.
    pub document: Value,
    /// Its hash.
    pub hash: String,
    /// What the agent read.
    pub input: Value,
    /// What it wrote.
    pub output: Value,
}

type Row = (Option<Vec<u8>>, Option<String>, Option<Vec<u8>>, Option<Vec<u8>>);

impl TenantTx<'_> {
    /// Where the result of an execution came from. `None` where there is no such execution; within, where it has no result,
    /// or one of a build that stored no provenance.
    pub async fn provenance(&mut self, id: ExecutionId) -> Result<Option<Option<Proven>>, Error> {
        let row: Option<Row> = sqlx::query_as(
            "SELECT sealed_provenance, provenance_hash, sealed_input, sealed_output FROM executions WHERE id = $1",
        )
        .bind(id.as_uuid())
        .fetch_optional(self.connection())
        .await?;
        let Some(row) = row else { return Ok(None) };
        let (Some(document), Some(hash), Some(input), Some(output)) = row else {
            return Ok(Some(None));
        };
        let cipher = self.cipher().await?;
        let open = |column, sealed: &[u8]| cipher.open_json(column, id, sealed);
        Ok(Some(Some(Proven {
            document: open(PROVENANCE, &document)?,
            hash,
            input: open(INPUT, &input)?,
            output: open(OUTPUT, &output)?,
        })))
    }
}
