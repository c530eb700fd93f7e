//! Verifies an export line by line, so that its length is not bounded by memory. Says the first thing that is wrong, and
//! of which row.
//! Knows nothing of files.

#[cfg(test)]
mod tests;

use gatehouse_authn::{KeySet, Refusal, jws};
use gatehouse_contract::TenantId;

use crate::{BEGIN_TYPE, Digest, HEAD_TYPE, Head, Line, MAX_SEAL_ROWS, Row, Seal, VERSION, commit};

/// Takes the lines of one export in their order.
pub struct Verifier<'k> {
    keys: &'k KeySet,
    /// A head that was kept elsewhere: the chain must pass through it.
    kept: Option<Head>,
    tenant: Option<TenantId>,
    /// The seal behind which it begins, where that is not the first.
    begin: Option<Head>,
    rows: Vec<(u64, Digest)>,
    last: Option<Seal>,
    end: Option<Verified>,
}

/// What an export shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Whose audit it is.
    pub tenant: TenantId,
    /// Behind which seal it begins: rows up to there are no longer kept, and not in here. `None` is the first row.
    pub begin: Option<Head>,
    /// How many rows are sealed.
    pub rows: u64,
    /// By how many seals.
    pub seals: u64,
    /// How many rows were too young for a seal, and are not shown.
    pub waiting: u64,
    /// What is signed; none where nothing was sealed.
    pub head: Option<Head>,
    /// The same as it was signed, to be kept.
    pub signed: Option<String>,
}

/// The first thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Broken {
    #[error("it is no line of an audit export: {0}")]
    Form(String),
    #[error("the export has version {0}; this build reads {VERSION}")]
    Version(u32),
    #[error("an export starts with its `start`, once")]
    Start,
    #[error("where it begins is not good: {0}")]
    Begin(HeadFault),
    #[error(
        "the head that was kept is of seal {kept}, and the export begins behind seal {begin}: they cannot be compared"
    )]
    KeptBefore { kept: u64, begin: u64 },
    #[error("there are lines after the end")]
    AfterEnd,
    #[error("row {row} is of tenant {tenant}")]
    OtherTenant { row: u64, tenant: TenantId },
    #[error("row {0} was changed")]
    Changed(u64),
    #[error("row {0} is not what was sealed: its values were changed")]
    Details(u64),
    #[error("row {row} is missing: it was sealed by seal {seal}")]
    Missing { row: u64, seal: u64 },
    #[error("row {row} was added: seal {seal} does not know it")]
    Added { row: u64, seal: u64 },
    #[error("row {row} is not in its place")]
    Moved { row: u64 },
    #[error("rows from {0} on have no seal")]
    Unsealed(u64),
    #[error("seal {found} stands where seal {expected} belongs")]
    Seal { found: u64, expected: u64 },
    #[error("seal {0} is of another tenant")]
    SealTenant(u64),
    #[error("seal {0} does not follow the seal before it")]
    Chain(u64),
    #[error("seal {0} counts its rows wrongly")]
    Count(u64),
    #[error("the head of seal {seal} is not good: {why}")]
    Head { seal: u64, why: HeadFault },
    #[error("it ends without its `end`: the tail is cut off")]
    CutOff,
    #[error("the signed head is of seal {head}, and the last seal is {last}: the tail is cut off")]
    Tail { head: u64, last: u64 },
    #[error("the head that was kept is of seal {0}, which is not in this chain as it was")]
    Kept(u64),
}

/// What is wrong with a signed head.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum HeadFault {
    #[error("{0}")]
    Signature(Refusal),
    #[error("it is no audit head")]
    Type,
    #[error("it is another tenant's")]
    Tenant,
    #[error("it says something else of the seal")]
    Says,
}

impl<'k> Verifier<'k> {
    /// Verifies with `keys`. `kept` is a head that somebody kept: the export must hold it.
    pub const fn new(keys: &'k KeySet, kept: Option<Head>) -> Self {
        Self { keys, kept, tenant: None, begin: None, rows: Vec::new(), last: None, end: None }
    }

    /// Takes the next line.
    pub fn line(&mut self, text: &str) -> Result<(), Broken> {
        let line = serde_json::from_str(text).map_err(|error| Broken::Form(error.to_string()))?;
        if self.end.is_some() {
            return Err(Broken::AfterEnd);
        }
        match (line, self.tenant) {
            (Line::Start { version, tenant, begin }, None) => {
                if version != VERSION {
                    return Err(Broken::Version(version));
                }
                self.tenant = Some(tenant);
                begin.map_or(Ok(()), |signed| self.begin(&signed, tenant))
            }
            (Line::Start { .. }, Some(_)) | (_, None) => Err(Broken::Start),
            (Line::Row { row, details, salt }, Some(tenant)) => {
                if row.tenant != tenant {
                    return Err(Broken::OtherTenant { row: row.id, tenant: row.tenant });
                }
                opens(&row, details.as_ref(), salt.as_ref())?;
                if self.rows.len() >= MAX_SEAL_ROWS {
                    return Err(Broken::Unsealed(self.rows.first().map_or(row.id, |row| row.0)));
                }
                self.rows.push((row.id, row.hash()));
                Ok(())
            }
            (Line::Seal { seal, head }, Some(tenant)) => self.seal(seal, &head, tenant),
            (Line::End { seals, rows, waiting, head, .. }, Some(tenant)) => {
                self.end = Some(self.ended(tenant, (seals, rows, waiting), head.as_deref())?);
                Ok(())
            }
        }
    }

    /// After the last line.
    pub fn finish(self) -> Result<Verified, Broken> {
        self.end.ok_or(Broken::CutOff)
    }

    /// Only who signs our heads says that rows are no longer kept: else whoever removes them would.
    fn begin(&mut self, signed: &str, tenant: TenantId) -> Result<(), Broken> {
        let begin = signed_as(BEGIN_TYPE, self.keys, signed).map_err(Broken::Begin)?;
        if begin.tenant != tenant {
            return Err(Broken::Begin(HeadFault::Tenant));
        }
        if let Some(kept) = &self.kept {
            if kept.seq < begin.seq {
                return Err(Broken::KeptBefore { kept: kept.seq, begin: begin.seq });
            }
            if kept.seq == begin.seq && kept.hash != begin.hash {
                return Err(Broken::Kept(kept.seq));
            }
        }
        self.begin = Some(begin);
        Ok(())
    }

    fn seal(&mut self, seal: Seal, signed: &str, tenant: TenantId) -> Result<(), Broken> {
        let seq = seal.seq;
        let (expected, prev, total) = match (&self.last, &self.begin) {
            (Some(last), _) => (last.seq.saturating_add(1), last.hash(), last.total),
            (None, Some(begin)) => (begin.seq.saturating_add(1), begin.hash, begin.total),
            (None, None) => (1, Digest::ZERO, 0),
        };
        if seq != expected {
            return Err(Broken::Seal { found: seq, expected });
        }
        if seal.tenant != tenant {
            return Err(Broken::SealTenant(seq));
        }
        self.compare(&seal)?;
        if seal.prev != prev {
            return Err(Broken::Chain(seq));
        }
        let count = u64::try_from(seal.rows.len()).unwrap_or(u64::MAX);
        if seal.total != total.saturating_add(count) {
            return Err(Broken::Count(seq));
        }
        // Keys of long ago are no longer published; the last head, which ties all of them, is always judged whole.
        match head(self.keys, signed, tenant) {
            Ok(head) => says(&head, &seal)?,
            Err(HeadFault::Signature(Refusal::KeyUnknown)) => {}
            Err(why) => return Err(Broken::Head { seal: seq, why }),
        }
        if let Some(kept) = &self.kept
            && kept.seq == seq
            && kept.hash != seal.hash()
        {
            return Err(Broken::Kept(seq));
        }
        self.rows.clear();
        self.last = Some(seal);
        Ok(())
    }

    /// The rows before a seal are those that it names, in its order. Says the first that is not.
    fn compare(&self, seal: &Seal) -> Result<(), Broken> {
        let has = |rows: &[(u64, Digest)], id| rows.iter().any(|row| row.0 == id);
        let mut shown = self.rows.iter();
        let mut sealed = seal.rows.iter();
        loop {
            match (shown.next(), sealed.next()) {
                (None, None) => return Ok(()),
                (Some(ours), Some(theirs)) if ours == theirs => {}
                (Some((id, _)), Some((same, _))) if id == same => return Err(Broken::Changed(*id)),
                (_, Some((id, _))) if !has(&self.rows, *id) => {
                    return Err(Broken::Missing { row: *id, seal: seal.seq });
                }
                (Some((id, _)), _) if !has(&seal.rows, *id) => {
                    return Err(Broken::Added { row: *id, seal: seal.seq });
                }
                (Some((id, _)), _) | (None, Some((id, _))) => {
                    return Err(Broken::Moved { row: *id });
                }
            }
        }
    }

    fn ended(
        &self,
        tenant: TenantId,
        (seals, rows, waiting): (u64, u64, u64),
        signed: Option<&str>,
    ) -> Result<Verified, Broken> {
        if let Some((id, _)) = self.rows.first() {
            return Err(Broken::Unsealed(*id));
        }
        let begin = self.begin.as_ref().map_or((0, 0), |begin| (begin.seq, begin.total));
        let (last, total) = self.last.as_ref().map_or(begin, |seal| (seal.seq, seal.total));
        if let Some(kept) =
            self.kept.as_ref().filter(|kept| kept.seq > last || kept.tenant != tenant)
        {
            return Err(Broken::Kept(kept.seq));
        }
        if (seals, rows) != (last, total) {
            return Err(Broken::Tail { head: seals, last });
        }
        let head = match (signed, &self.last) {
            (None, None) => None,
            (None, Some(_)) => return Err(Broken::CutOff),
            (Some(signed), last_seal) => {
                let head = head(self.keys, signed, tenant)
                    .map_err(|why| Broken::Head { seal: last, why })?;
                match last_seal {
                    Some(seal) if seal.seq == head.seq => says(&head, seal)?,
                    _ => return Err(Broken::Tail { head: head.seq, last }),
                }
                Some(head)
            }
        };
        let begin = self.begin.clone();
        Ok(Verified {
            tenant,
            begin,
            rows,
            seals,
            waiting,
            head,
            signed: signed.map(str::to_owned),
        })
    }
}

/// A signed head whose signature one of `keys` verifies, of `tenant`.
pub fn head(keys: &KeySet, signed: &str, tenant: TenantId) -> Result<Head, HeadFault> {
    let head = kept(keys, signed)?;
    if head.tenant != tenant {
        return Err(HeadFault::Tenant);
    }
    Ok(head)
}

/// A signed head of whichever tenant, for [`Verifier::new`].
pub fn kept(keys: &KeySet, signed: &str) -> Result<Head, HeadFault> {
    signed_as(HEAD_TYPE, keys, signed)
}

fn signed_as(typ: &str, keys: &KeySet, signed: &str) -> Result<Head, HeadFault> {
    let message = jws::verify(keys, signed.as_bytes()).map_err(HeadFault::Signature)?;
    if message.header.typ.as_deref() != Some(typ) {
        return Err(HeadFault::Type);
    }
    serde_json::from_slice(&message.payload).map_err(|_| HeadFault::Type)
}

fn says(head: &Head, seal: &Seal) -> Result<(), Broken> {
    if *head == seal.head(&head.iss) {
        return Ok(());
    }
    Err(Broken::Head { seal: seal.seq, why: HeadFault::Says })
}

/// Values that are shown are those that the row commits to; after an erasure none are.
fn opens(
    row: &Row,
    details: Option<&serde_json::Value>,
    salt: Option<&Digest>,
) -> Result<(), Broken> {
    match (&row.commitment, details, salt) {
        (_, None, None) => Ok(()),
        (Some(commitment), Some(details), Some(salt)) if commit(salt, details) == *commitment => {
            Ok(())
        }
        _ => Err(Broken::Details(row.id)),
    }
}
