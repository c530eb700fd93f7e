//! The peppers of API keys, as the control API's own file has them. Knows no key.

use std::collections::BTreeSet;

use gatehouse_authn::api_key::Peppers;
use gatehouse_contract::Document;
use gatehouse_service::peppers;

/// The peppers, and which there are.
#[derive(Debug, Clone)]
pub struct Known {
    pub peppers: Peppers,
    pub ids: BTreeSet<String>,
}

/// The file that the document names, if any.
pub fn read(doc: &Document<'_>) -> Option<Option<Known>> {
    let Some(file) = peppers::read(doc)? else { return Some(None) };
    let ids = file.by_id.keys().cloned().collect();
    let peppers = Peppers::new(file.current, file.by_id).ok()?;
    Some(Some(Known { peppers, ids }))
}
