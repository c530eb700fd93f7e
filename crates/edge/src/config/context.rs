//! What upstreams are told of the caller (design §3.2): which headers, and which signed contexts.
//! Keys are no part of the document: the host's environment holds them. Knows no callers.

use std::{collections::BTreeSet, str::FromStr};

use gatehouse_authn::context::{Key, Signer};
use gatehouse_contract::{Document, Mistake, header};

use super::{
    Suite, Warning, Warnings,
    words::{Host, Printable},
};

/// What upstreams are told of the caller.
#[derive(Debug)]
pub(crate) struct Context {
    /// Names from [`PLAIN`], in its order.
    pub(crate) headers: Vec<&'static str>,
    /// By path, the longest prefix first.
    pub(crate) sign: Vec<Sign>,
}

/// Asks the host's environment for a variable's value.
pub type Environment<'e> = &'e dyn Fn(&str) -> Option<String>;

/// A signed context for one upstream.
#[derive(Debug)]
pub(crate) struct Sign {
    /// `aud`: the upstream's name.
    pub(crate) audience: String,
    /// Paths under it go to this upstream.
    pub(crate) prefix: String,
    /// The environment variable that holds the key.
    pub(crate) key_env: String,
    /// The one that is used until the first is there.
    pub(crate) previous_key_env: Option<String>,
    /// `None` until [`Suite::with_keys`].
    pub(crate) signer: Option<Signer>,
    /// Where it stands in the document.
    at: usize,
}

/// The identity headers that are not signed.
pub(crate) const PLAIN: &[&str] = &[
    header::TENANT_ID,
    header::TENANT_TIER,
    header::USER_ID,
    header::USER_ROLES,
    header::AUTH_METHOD,
];

impl Suite {
    /// Takes the keys of signed contexts from the host's environment, by the names that the document gives. Without
    /// them a document that signs contexts passes no caller on.
    pub fn with_keys(
        mut self,
        environment: Environment<'_>,
    ) -> Result<(Self, Vec<Warning>), Vec<Mistake>> {
        let (mut warnings, mut mistakes) = (Warnings::default(), Vec::new());
        for Sign { audience, key_env, previous_key_env, signer, at, .. } in &mut self.context.sign {
            let path = |name: &str| format!("$.context.sign[{at}].{name}");
            let mut name = ("key_env", key_env.as_str());
            let mut value = environment(name.1);
            if let (None, Some(previous)) = (&value, previous_key_env.as_deref())
                && let Some(found) = environment(previous)
            {
                warnings.add(path(name.0), format!("{key_env} is not set: {previous} signs"));
                name = ("previous_key_env", previous);
                value = Some(found);
            }
            let key = match value.as_deref().map(str::parse::<Key>) {
                Some(Ok(key)) => key,
                Some(Err(not_a_key)) => {
                    mistakes.push(Mistake {
                        path: path(name.0),
                        cause: format!("what {} holds is no key", name.1),
                        mend: not_a_key.to_string(),
                    });
                    continue;
                }
                None => {
                    mistakes.push(Mistake {
                        path: path(name.0),
                        cause: format!("{} is not set", name.1),
                        mend: "give the VM this environment variable".to_owned(),
                    });
                    continue;
                }
            };
            *signer = Some(Signer::new(audience.as_str(), key));
        }
        if mistakes.is_empty() { Ok((self, warnings.0)) } else { Err(mistakes) }
    }
}

pub(super) fn read(doc: &Document<'_>, host: Option<Host>) -> Option<Context> {
    let context = doc.object_opt("context", |doc| {
        let expected = "x-tenant-id, x-tenant-tier, x-user-id, x-user-roles or x-auth-method";
        let all = doc.raw("headers").is_none();
        let named = doc.parsed_list::<PlainHeader>("headers", expected);
        let sign = doc.objects("sign", read_sign);
        if let Some(sign) = &sign {
            refuse_repeated(doc, sign);
            if host == Some(Host::Kong) && !sign.is_empty() {
                let mend = "remove it: there the service verifies the credential itself";
                doc.note("sign", "Kong gives filters no environment to take keys from", mend);
            }
        }
        let named: Vec<_> = named?.into_iter().map(|name| name.0).collect();
        let headers = PLAIN.iter().copied().filter(|name| all || named.contains(name)).collect();
        let mut sign = sign?;
        (0..).zip(&mut sign).for_each(|(at, sign)| sign.at = at);
        sign.sort_by_key(|sign| std::cmp::Reverse(sign.prefix.len()));
        Some(Context { headers, sign })
    })?;
    Some(context.unwrap_or_else(|| Context { headers: PLAIN.to_vec(), sign: Vec::new() }))
}

fn read_sign(doc: &Document<'_>) -> Option<Sign> {
    let audience = doc.parsed::<Printable>("audience", "the upstream's name, without spaces");
    let prefix = doc.parsed_or_text::<Prefix>(
        "prefix",
        "/",
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
        signer: None,
        at: 0,
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
