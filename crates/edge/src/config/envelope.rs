//! The `envelope` object of the edge document. Knows no responses.

use std::str::FromStr;

use gatehouse_contract::Document;

use super::words::{Host, OnBroken};
use crate::{envelope::Envelope, path};

/// Where answers are the product's own; `/oauth2/` and `/.well-known/` have forms that standards give.
const ROUTES: &str = "/api/";
/// As much as Envoy holds of a body where nobody says otherwise.
const MAX_BODY_BYTES: u64 = 1024 * 1024;
const MOST_BODY_BYTES: u64 = 16 * 1024 * 1024;

pub(super) fn read(doc: &Document<'_>, host: Option<Host>) -> Option<Envelope> {
    let routes = doc.parsed_list::<Prefix>(
        "routes",
        "a path that begins and ends with a slash, such as \"/api/\"",
    );
    let most = doc.integer("max_body_bytes", Some(MAX_BODY_BYTES), 1..=MOST_BODY_BYTES);
    let on_broken = doc.word_or("on_broken", OnBroken::Pass, "\"pass\" or \"refuse\"");
    if host == Some(Host::Kong) {
        let cause = "Kong's Wasm host cannot hold a response until its body is whole";
        doc.note("routes", cause, "leave the envelope out, or use Envoy");
    }
    let mut routes: Vec<String> = routes?.into_iter().map(|route| route.0).collect();
    if routes.is_empty() {
        routes.push(ROUTES.to_owned());
    }
    Some(Envelope { routes, max_body_bytes: usize::try_from(most?).ok()?, on_broken: on_broken? })
}

struct Prefix(String);

impl FromStr for Prefix {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let target = path::normalise(text.as_bytes()).map_err(|_invalid| ())?;
        let plain = !target.rewritten && target.query.is_none() && text.ends_with('/');
        plain.then(|| Self(text.to_owned())).ok_or(())
    }
}
