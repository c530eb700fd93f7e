//! Members as they are written and shown. Knows nothing of who may change whom.

use gatehouse_contract::{Document, Reason, Role};
use gatehouse_service::Reply;
use gatehouse_store::members::{Member, MemberRecord, Which};
use serde_json::{Value, json};

use crate::{
    paging::Listing,
    routes::{tenants::named, timestamp},
};

/// What a list is narrowed to.
pub fn which(listing: &Listing) -> Result<Which, Reply> {
    let invalid = |detail: &str| Reply::new(Reason::QueryInvalid).detail(detail.to_owned());
    let suspended = match listing.filter("status") {
        None => None,
        Some("active") => Some(false),
        Some("suspended") => Some(true),
        Some(_) => return Err(invalid("status is active or suspended")),
    };
    let role = listing.filter("role").map(str::parse).transpose();
    let role = role.map_err(|_| invalid("role is viewer, operator, developer or admin"))?;
    Ok(Which { suspended, role })
}

pub fn shown(record: &MemberRecord) -> Value {
    let mut shown = json!({
        "id": record.member.id(),
        "status": if record.suspended { "suspended" } else { "active" },
        "roles": record.roles,
        "created_at": timestamp(record.created_at),
    });
    let (email, name) = match record.member {
        Member::User(_) => (Some(&record.name), record.full_name.as_ref()),
        Member::Client(_) => (None, Some(&record.name)),
    };
    if let Some(members) = shown.as_object_mut() {
        members.extend(email.map(|email| ("email".to_owned(), json!(email))));
        members.insert("name".to_owned(), json!(name));
    }
    shown
}

/// A name that need not be there.
pub fn named_opt(doc: &Document<'_>) -> Option<Option<String>> {
    match doc.raw("name") {
        None => Some(None),
        Some(_) => named(doc).map(Some),
    }
}

pub fn email(doc: &Document<'_>) -> Option<String> {
    let email = doc.text("email")?;
    let parts = email.split_once('@');
    let fits = email.len() <= 254
        && email.bytes().all(|c| c.is_ascii_graphic())
        && parts.is_some_and(|(local, domain)| {
            !local.is_empty() && domain.contains('.') && !domain.contains('@')
        });
    if fits {
        return Some(email);
    }
    doc.note("email", "not an e-mail address", "write one such as \"name@example.com\"");
    None
}

pub fn role(doc: &Document<'_>) -> Option<Role> {
    doc.parsed("role", "viewer, operator, developer or admin")
}
