//! Lists, page by page (design §4): `limit` and `cursor` in the query, the next page's place in the answer. A cursor says
//! behind which row to go on; it is signed for its tenant, its list and the list's filters, so that nobody makes one up or
//! carries it elsewhere. Knows no list.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use aws_lc_rs::{
    error::Unspecified,
    hkdf::{HKDF_SHA256, Salt},
    hmac::{self, HMAC_SHA256},
};
use axum::{
    Json,
    extract::FromRequestParts,
    http::{HeaderValue, header, request::Parts},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use gatehouse_contract::{Reason, TenantId};
use gatehouse_service::Reply;
use gatehouse_store::{
    OffsetDateTime,
    paging::{Page, Place},
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{access::Caller, routes::Api};

/// How many rows a page has unless the client says.
pub const DEFAULT_LIMIT: i64 = 50;
/// And at most.
pub const MAX_LIMIT: i64 = 100;

const TAG_BYTES: usize = 32;
const MAX_VALUE_BYTES: usize = 500;

/// Signs cursors.
pub struct Cursors(hmac::Key);

/// The parameters that a list takes beside `limit` and `cursor`.
#[derive(Debug, Clone, Copy)]
pub struct Filters(pub &'static [&'static str]);

/// What a client asks of a list.
pub struct Listing {
    page: Page,
    path: String,
    filters: BTreeMap<String, String>,
    tenant: TenantId,
    cursors: Arc<Cursors>,
}

// === impl Cursors ===

impl Cursors {
    /// Derives the key from what is in the file; whoever replaces the file ends all cursors.
    pub fn from_file(path: &Path) -> Result<Self, Unspecified> {
        let secret = std::fs::read(path).map_err(|_| Unspecified)?;
        Self::derive(secret.trim_ascii())
    }

    fn derive(secret: &[u8]) -> Result<Self, Unspecified> {
        let extracted = Salt::new(HKDF_SHA256, b"gatehouse").extract(secret);
        let key = extracted.expand(&[b"cursors of lists"], HMAC_SHA256)?;
        Ok(Self(key.into()))
    }

    fn write(&self, list: &[u8], place: Place) -> String {
        let micros = i64::try_from(place.created_at.unix_timestamp_nanos() / 1000).unwrap_or(0);
        let mut bytes = micros.to_be_bytes().to_vec();
        bytes.extend_from_slice(place.id.as_bytes());
        let tag = hmac::sign(&self.0, &[list, &bytes].concat());
        bytes.extend_from_slice(tag.as_ref());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn read(&self, list: &[u8], cursor: &str) -> Option<Place> {
        let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
        let (place, tag) = bytes.split_at_checked(bytes.len().checked_sub(TAG_BYTES)?)?;
        hmac::verify(&self.0, &[list, place].concat(), tag).ok()?;
        let (micros, id) = place.split_first_chunk()?;
        let nanos = i128::from(i64::from_be_bytes(*micros)) * 1000;
        let created_at = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()?;
        Some(Place { created_at, id: Uuid::from_slice(id).ok()? })
    }
}

// === impl Listing ===

impl FromRequestParts<Api> for Listing {
    type Rejection = Reply;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Reply> {
        let tenant = parts.extensions.get::<Caller>().ok_or(Reason::PermissionDenied)?.tenant;
        let known = parts.extensions.get::<Filters>().map_or(&[][..], |filters| filters.0);
        let query = parts.uri.query().unwrap_or_default();
        Self::read(tenant, parts.uri.path(), query, known, Arc::clone(&api.cursors))
    }
}

impl Listing {
    fn read(
        tenant: TenantId,
        path: &str,
        query: &str,
        known: &[&str],
        cursors: Arc<Cursors>,
    ) -> Result<Self, Reply> {
        let mut listing = Self {
            page: Page::first(DEFAULT_LIMIT),
            path: path.to_owned(),
            filters: BTreeMap::new(),
            tenant,
            cursors,
        };
        let (mut limit, mut cursor) = (None, None);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            // No text that we keep has it, and PostgreSQL takes none.
            if value.len() > MAX_VALUE_BYTES || value.contains('\0') {
                return Err(invalid("a value is too long, or has the character U+0000"));
            }
            let before = match name.as_ref() {
                "limit" => limit.replace(value.into_owned()),
                "cursor" => cursor.replace(value.into_owned()),
                name if known.contains(&name) => {
                    listing.filters.insert(name.to_owned(), value.into_owned())
                }
                _ => {
                    let known: Vec<&str> =
                        ["limit", "cursor"].iter().chain(known).copied().collect();
                    return Err(invalid(format!("known here are {}", known.join(", "))));
                }
            };
            if before.is_some() {
                return Err(invalid("a parameter stands twice"));
            }
        }
        if let Some(text) = limit {
            let fits = |limit: &i64| (1..=MAX_LIMIT).contains(limit);
            listing.page.limit = text
                .parse()
                .ok()
                .filter(fits)
                .ok_or_else(|| invalid(format!("limit is a number from 1 to {MAX_LIMIT}")))?;
        }
        if let Some(cursor) = cursor {
            // Which of all that it may be is nobody's business.
            listing.page.after = listing
                .cursors
                .read(&listing.list(), &cursor)
                .ok_or_else(|| invalid("the cursor is none of this list: begin without one"))?;
        }
        Ok(listing)
    }

    /// What a cursor is bound to.
    fn list(&self) -> Vec<u8> {
        let filters =
            form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.filters).finish();
        format!("{}\0{}\0{filters}\0", self.tenant, self.path).into_bytes()
    }

    /// The rows to read: one more than are shown tells whether there is another page.
    pub fn page(&self) -> Page {
        Page { limit: self.page.limit + 1, ..self.page }
    }

    /// What the list is narrowed to.
    pub fn filter(&self, name: &str) -> Option<&str> {
        self.filters.get(name).map(String::as_str)
    }

    /// What the list is narrowed to, read: `what` says what it must be.
    pub fn parsed<T: std::str::FromStr>(&self, name: &str, what: &str) -> Result<Option<T>, Reply> {
        let wrong = |_| invalid(format!("{name} is {what}"));
        self.filter(name).map(|text| text.parse().map_err(wrong)).transpose()
    }

    /// As [`Self::filter`], of a closed list.
    pub fn one_of(
        &self,
        name: &str,
        known: &[&'static str],
    ) -> Result<Option<&'static str>, Reply> {
        let Some(text) = self.filter(name) else { return Ok(None) };
        let found = known.iter().find(|one| **one == text).copied();
        found.map(Some).ok_or_else(|| invalid(format!("{name} is one of {}", known.join(", "))))
    }

    /// The page, and where the next one is (RFC 8288): `rows` are those of [`Self::page`].
    pub fn answer<T>(
        &self,
        rows: &[T],
        place: impl Fn(&T) -> Place,
        shown: impl Fn(&T) -> Value,
    ) -> Response {
        let limit = usize::try_from(self.page.limit).unwrap_or(usize::MAX);
        let items: Vec<Value> = rows.iter().take(limit).map(shown).collect();
        let last = rows.get(limit.saturating_sub(1)).filter(|_| rows.len() > limit);
        let next = last.map(|last| self.next(place(last)));
        let mut response = Json(json!({"items": items, "next": next})).into_response();
        if let Some(next) = next
            && let Ok(link) = HeaderValue::from_str(&format!("<{next}>; rel=\"next\""))
        {
            response.headers_mut().insert(header::LINK, link);
        }
        response
    }

    fn next(&self, last: Place) -> String {
        let query = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(&self.filters)
            .append_pair("limit", &self.page.limit.to_string())
            .append_pair("cursor", &self.cursors.write(&self.list(), last))
            .finish();
        format!("{}?{query}", self.path)
    }
}

fn invalid(detail: impl Into<String>) -> Reply {
    Reply::new(Reason::QueryInvalid).detail(detail)
}

#[cfg(test)]
mod tests;
