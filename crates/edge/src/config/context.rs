//! What upstreams are told of the caller (design §3.2): which headers, and which signed contexts.
//! Keys are no part of the document: the host's environment holds them. Knows no callers.

use std::{collections::BTreeSet, str::FromStr};

use gatehouse_contract::{Document, header};

use super::words::Printable;

/// What upstreams are told of the caller.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Context {
    /// Names from [`PLAIN`], in its order.
    pub(crate) headers: Vec<&'static str>,
    /// By path, the longest prefix first.
    pub(crate) sign: Vec<Sign>,
}

/// A signed context for one upstream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Sign {
    /// `aud`: the upstream's name.
    pub(crate) audience: String,
    /// Paths under it go to this upstream.
    pub(crate) prefix: String,
    /// The environment variable that holds the key.
    pub(crate) key_env: String,
    /// The one that is used until the first is there.
    pub(crate) previous_key_env: Option<String>,
}

/// The identity headers that are not signed.
pub(crate) const PLAIN: &[&str] = &[
    header::TENANT_ID,
    header::TENANT_TIER,
    header::USER_ID,
    header::USER_ROLES,
    header::AUTH_METHOD,
];

pub(super) fn read(doc: &Document<'_>) -> Option<Context> {
    let context = doc.object_opt("context", |doc| {
        let expected = "x-tenant-id, x-tenant-tier, x-user-id, x-user-roles or x-auth-method";
        let all = doc.raw("headers").is_none();
        let named = doc.parsed_list::<PlainHeader>("headers", expected);
        let sign = doc.objects("sign", read_sign);
        if let Some(sign) = &sign {
            refuse_repeated(doc, sign);
        }
        let named: Vec<_> = named?.into_iter().map(|name| name.0).collect();
        let headers = PLAIN.iter().copied().filter(|name| all || named.contains(name)).collect();
        let mut sign = sign?;
        sign.sort_by_key(|sign| std::cmp::Reverse(sign.prefix.len()));
        Some(Context { headers, sign })
    })?;
    Some(context.unwrap_or_else(|| Context { headers: PLAIN.to_vec(), sign: Vec::new() }))
}

fn read_sign(doc: &Document<'_>) -> Option<Sign> {
    let audience = doc.parsed::<Printable>("audience", "the upstream's name, without spaces");
    let prefix = doc.parsed_or(
        "prefix",
        Prefix("/".to_owned()),
        "a path that begins and ends with a slash, such as \"/api/\"",
    );
    let expected = "the name of an environment variable";
    let key_env = doc.parsed::<Variable>("key_env", expected);
    let previous_key_env = doc.parsed_opt::<Variable>("previous_key_env", expected);
    Some(Sign {
        audience: audience?.0,
        prefix: prefix?.0,
        key_env: key_env?.0,
        previous_key_env: previous_key_env?.map(|name| name.0),
    })
}

/// Two upstreams behind one path, or one key for two upstreams: each could speak as the other.
fn refuse_repeated(doc: &Document<'_>, sign: &[Sign]) {
    let (mut prefixes, mut keys) = (BTreeSet::new(), BTreeSet::new());
    for (index, Sign { prefix, key_env, .. }) in sign.iter().enumerate() {
        if !prefixes.insert(prefix) {
            let name = format!("sign[{index}].prefix");
            doc.note(&name, "this path stands twice", "write one entry per upstream");
        }
        if !keys.insert(key_env) {
            let name = format!("sign[{index}].key_env");
            doc.note(&name, "this key stands twice", "give each upstream a key of its own");
        }
    }
}

struct PlainHeader(&'static str);

impl FromStr for PlainHeader {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        PLAIN.iter().find(|name| name.eq_ignore_ascii_case(text)).map(|name| Self(name)).ok_or(())
    }
}

struct Prefix(String);

impl FromStr for Prefix {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let target = crate::path::normalise(text.as_bytes()).map_err(|_invalid| ())?;
        let plain = !target.rewritten && target.query.is_none() && text.ends_with('/');
        plain.then(|| Self(text.to_owned())).ok_or(())
    }
}

struct Variable(String);

impl FromStr for Variable {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let starts = text.bytes().next().is_some_and(|byte| !byte.is_ascii_digit());
        (starts && text.bytes().all(fits)).then(|| Self(text.to_owned())).ok_or(())
    }
}
