//! The peppers of API keys, as the configuration's file has them. Knows no key.

use gatehouse_authn::api_key::Peppers;
use gatehouse_contract::Document;
use gatehouse_service::peppers;

/// The required file that the document names.
pub fn read(doc: &Document<'_>) -> Option<Peppers> {
    match peppers::read(doc)? {
        Some(file) => Peppers::new(file.current, file.by_id).ok(),
        // Says that it is missing.
        None => doc.text("peppers_file").and(None),
    }
}
