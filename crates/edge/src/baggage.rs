//! W3C baggage: our `tenant.id` member replaces the client's, the others stay (acceptance T10).
//! Knows nothing of where the header comes from.

/// The member that is ours.
const TENANT_MEMBER: &str = "tenant.id";
/// What the specification asks proxies to carry (W3C Baggage §3.3.2), in bytes; more is dropped whole.
const MAX_BYTES: usize = 8192;

/// The client's members without ours, in their order; empty when there is none.
pub fn foreign_members<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut kept = String::new();
    for value in values {
        for member in value.split(|byte| *byte == b',') {
            let Some(member) = printable(member) else { continue };
            let key = member.split(['=', ';']).next().unwrap_or_default().trim();
            if key.is_empty() || key.eq_ignore_ascii_case(TENANT_MEMBER) {
                continue;
            }
            if !kept.is_empty() {
                kept.push(',');
            }
            kept.push_str(member);
        }
    }
    if kept.len() > MAX_BYTES { String::new() } else { kept }
}

/// `foreign` and our member.
pub fn with_tenant(foreign: &str, tenant: &str) -> String {
    let separator = if foreign.is_empty() { "" } else { "," };
    format!("{foreign}{separator}{TENANT_MEMBER}={tenant}")
}

fn printable(member: &[u8]) -> Option<&str> {
    let member = member.trim_ascii();
    let fits = |byte: &u8| byte.is_ascii_graphic() || matches!(byte, b' ' | b'\t');
    if !member.iter().all(fits) {
        return None;
    }
    std::str::from_utf8(member).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(values: &[&str], expected: &str) {
        let got = foreign_members(values.iter().map(|value| value.as_bytes()));
        assert_eq!(got, expected, "{values:?}");
    }

    #[test]
    fn t10_tenant_id_is_replaced_and_other_members_are_kept() {
        check(&["a=1,tenant.id=evil,b=2;p=x"], "a=1,b=2;p=x");
        check(&["tenant.id = evil", " Tenant.ID;p=evil ,c=3", "d=4"], "c=3,d=4");
        check(&["tenant.idx=1,xtenant.id=2"], "tenant.idx=1,xtenant.id=2");
        check(&["", ",,", "=x"], "");
        check(&["a=\u{e9},b=2"], "b=2");
        assert_eq!(with_tenant("a=1", "t"), "a=1,tenant.id=t");
        assert_eq!(with_tenant("", "t"), "tenant.id=t");
    }

    #[test]
    fn oversized_baggage_is_dropped() {
        let fits = format!("a={}", "x".repeat(MAX_BYTES - 2));
        check(&[&fits], &fits);
        check(&[&format!("{fits}x")], "");
    }
}
