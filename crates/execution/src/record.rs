//! What an attempt leaves behind beside how it ended: what it used, how long it took, where its result came from.
//! Knows nothing of who is charged for it.

use std::time::Duration;

use crate::{
    outcome::{Captured, Usage},
    provenance::Provenance,
};

/// What is stored with the end of an attempt. Of a run that never began everything is nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Record {
    /// What it used.
    pub usage: Usage,
    /// How long the agent ran: from its start until nothing of it was left.
    pub wall: Duration,
    /// Where its result came from; for [`crate::EndReason::Completed`] only.
    pub provenance: Option<Provenance>,
    /// What it logged: the end of its standard error.
    pub log: Captured,
}
