//! Where a result came from, written down by who ran it: the document of `gatehouse_execution::provenance`.
//! Knows nothing of where it is stored.

use gatehouse_contract::TenantId;
use gatehouse_execution::{
    outcome::Outcome,
    provenance::{self, Config, Error, FORM, Provenance},
};
use gatehouse_store::attempts::Claimed;
use uuid::Uuid;

/// What ran it.
#[derive(Debug, Clone, Copy)]
pub struct Ran<'a> {
    /// The driver's name.
    pub driver: &'a str,
    /// The version of what it makes sandboxes with.
    pub runtime: &'a str,
    /// The version of the worker's configuration.
    pub config_version: &'a str,
}

/// The document of a result, with a salt of its own; none where there is no result.
///
/// # Errors
/// Where the input has no canonical form: one from before inputs were judged at their submit.
pub fn of(
    tenant: TenantId,
    claimed: &Claimed,
    ran: Ran<'_>,
    outcome: &Outcome,
) -> Result<Option<Provenance>, Error> {
    let Some(output) = &outcome.output else { return Ok(None) };
    let worker = (env!("CARGO_PKG_VERSION"), ran.config_version);
    Ok(Some(Provenance {
        form: FORM.to_owned(),
        salt: salt(),
        tenant,
        execution: claimed.execution,
        attempt: claimed.attempt,
        agent: claimed.agent,
        version: claimed.version_id,
        image: claimed.image.clone(),
        config: Config::new(
            (ran.driver, ran.runtime),
            worker,
            &claimed.limits,
            &claimed.egress.named(),
        ),
        input: provenance::digest(&claimed.input)?,
        output: provenance::digest(output)?,
    }))
}

/// 244 bits by chance.
fn salt() -> String {
    [Uuid::new_v4(), Uuid::new_v4()].map(|part| part.simple().to_string()).concat()
}
