//! What a cursor opens, and what it does not.

use super::*;

const PATH: &str = "/api/v1/registry/agents";

fn read(tenant: u128, path: &str, query: &str) -> Result<Listing, Reply> {
    let cursors = Arc::new(Cursors::derive(b"secret").unwrap());
    Listing::read(TenantId::new(Uuid::from_u128(tenant)), path, query, &["name"], cursors)
}

fn place() -> Place {
    let created_at = OffsetDateTime::from_unix_timestamp_nanos(1_700_000_000_123_456_000).unwrap();
    Place { created_at, id: Uuid::from_u128(7) }
}

/// The query of the page that follows.
fn next_of(tenant: u128, path: &str, query: &str) -> String {
    let next = read(tenant, path, query).unwrap().next(place());
    next.split_once('?').unwrap().1.to_owned()
}

#[test]
fn a_cursor_opens_its_own_list_and_no_other() {
    let next = next_of(1, PATH, "limit=2&name=a%26b");
    let back = read(1, PATH, &next).unwrap();
    assert_eq!((back.page.after, back.page.limit), (place(), 2));
    assert_eq!((back.filter("name"), back.page().limit), (Some("a&b"), 3));
    // The limit may change from page to page; nothing else may.
    assert!(read(1, PATH, &next.replace("limit=2", "limit=9")).is_ok());
    let other_filter = next.replace("name=a%26b", "name=b");
    let without_filter = next.replace("name=a%26b&", "");
    for (tenant, path, query) in [
        (2, PATH, next.as_str()),
        (1, "/api/v1/registry/agents/x/versions", &next),
        (1, PATH, &other_filter),
        (1, PATH, &without_filter),
    ] {
        let refused = read(tenant, path, query).err().expect(query);
        assert_eq!(refused.problem().code, "query_invalid");
        let forged = read(1, PATH, "cursor=AAAA").err().unwrap();
        assert_eq!(refused.problem().detail, forged.problem().detail);
    }
}

#[test]
fn a_changed_cursor_opens_nothing() {
    let next = next_of(1, PATH, "");
    let cursor = next.split_once("cursor=").unwrap().1;
    let bytes = URL_SAFE_NO_PAD.decode(cursor).unwrap();
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        let query = format!("cursor={}", URL_SAFE_NO_PAD.encode(changed));
        assert!(read(1, PATH, &query).is_err(), "byte {at}");
    }
    for cut in ["", &cursor[..10], &format!("{cursor}A"), &"A".repeat(10_000)] {
        assert!(read(1, PATH, &format!("cursor={cut}")).is_err(), "{cut}");
    }
    let other = Cursors::derive(b"another secret").unwrap();
    let listing = read(1, PATH, "").unwrap();
    assert_eq!(other.read(&listing.list(), cursor), None);
}

#[test]
fn what_a_list_does_not_take_is_refused() {
    for good in ["", "limit=1", "limit=100", "name="] {
        assert!(read(1, PATH, good).is_ok(), "{good}");
    }
    for bad in [
        "limit=0",
        "limit=101",
        "limit=-1",
        "limit=",
        "limit=x",
        "limit=1&limit=1",
        "lmit=1",
        "offset=3",
        "name=a&name=b",
        "cursor=",
        "limit",
        "name=%00",
    ] {
        let refused = read(1, PATH, bad).err().expect(bad);
        assert_eq!(
            (refused.problem().status, refused.problem().code),
            (400, "query_invalid"),
            "{bad}"
        );
    }
}
