//! The one credential that a request presents, wherever it stands: a token in `Authorization`, a cookie or the
//! query; an API key; a browser session. More than one is none (acceptance J4). Knows nothing of what they are worth.

use std::borrow::Cow;

use gatehouse_authn::{Refusal, bearer, cookie, query};

use crate::{
    config::{SESSION_COOKIE, Sources},
    state,
    view::{Scan, Single},
};

/// What a request presents.
#[derive(PartialEq, Eq)]
pub(crate) enum Presented<'a> {
    /// No credential.
    Nothing,
    /// One, in a form that may be asked about.
    One(Credential<'a>),
    /// One that is broken.
    Broken(Refusal),
    /// More than one.
    Several,
}

/// A credential and its place.
#[derive(PartialEq, Eq)]
pub(crate) struct Credential<'a> {
    pub(crate) kind: Kind,
    pub(crate) text: Cow<'a, [u8]>,
    pub(crate) place: Place,
}

/// What a credential is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A signed token.
    Token,
    /// Something that only the record can tell.
    Recorded(state::Kind),
}

/// Where a credential stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Authorization,
    ApiKey,
    Cookie,
    Query,
}

/// Finds the request's credential. `query` is that of its normalised target.
pub(crate) fn find<'a>(
    sources: &Sources,
    scan: &Scan<'a>,
    query: Option<&'a str>,
) -> Presented<'a> {
    let mut presented = Presented::Nothing;
    match scan.authorization {
        Single::Absent => {}
        Single::One(value) => match bearer::token(value) {
            Ok(Some(token)) => presented.add(Kind::Token, token.into(), Place::Authorization),
            // Another scheme is no credential of ours (acceptance J5).
            Ok(None) => {}
            Err(refusal) => presented = Presented::Broken(refusal),
        },
        Single::Many => presented = Presented::Several,
    }
    // A key beside a token is one credential too many, whether keys are taken here or not.
    match scan.api_key {
        Single::Absent => {}
        Single::One(_) if !sources.api_keys && presented == Presented::Nothing => {}
        Single::One(key) => {
            presented.add(Kind::Recorded(state::Kind::ApiKey), key.into(), Place::ApiKey);
        }
        Single::Many => presented = Presented::Several,
    }
    if !scan.cookies.is_empty() {
        let names = [
            (sources.cookie.as_deref(), Kind::Token),
            (sources.sessions.then_some(SESSION_COOKIE), Kind::Recorded(state::Kind::Session)),
        ];
        for (name, kind) in names {
            let Some(name) = name else { continue };
            match cookie::find(scan.cookies.iter().copied(), name) {
                Ok(None) => {}
                Ok(Some(value)) => presented.add(kind, value.into(), Place::Cookie),
                Err(_twice) => presented = Presented::Several,
            }
        }
    }
    if let (Some(name), Some(query)) = (&sources.query, query) {
        match query::find(query, name) {
            Ok(None) => {}
            Ok(Some(value)) => presented.add(Kind::Token, value, Place::Query),
            Err(_twice) => presented = Presented::Several,
        }
    }
    presented
}

impl<'a> Presented<'a> {
    fn add(&mut self, kind: Kind, text: Cow<'a, [u8]>, place: Place) {
        *self = match self {
            Self::Nothing => Self::One(Credential { kind, text, place }),
            Self::One(_) | Self::Broken(_) | Self::Several => Self::Several,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::{RequestView, scan};

    fn sources() -> Sources {
        Sources {
            cookie: Some("token".to_owned()),
            query: Some("access_token".to_owned()),
            forward: true,
            api_keys: true,
            sessions: true,
        }
    }

    fn check(sources: &Sources, headers: &[(&str, &str)], query: &str, expected: &str) {
        let view = RequestView::new(headers);
        let got = match find(sources, &scan(&view), Some(query)) {
            Presented::Nothing => "nothing".to_owned(),
            Presented::One(Credential { kind, text, place }) => {
                format!("{kind:?} {} in {place:?}", String::from_utf8_lossy(&text))
            }
            Presented::Broken(_) => "broken".to_owned(),
            Presented::Several => "several".to_owned(),
        };
        assert_eq!(got, expected, "{headers:?} ?{query}");
    }

    #[test]
    fn j4_one_credential_over_all_places_and_kinds() {
        let token = ("authorization", "Bearer a");
        let key = ("x-api-key", "k");
        let cookie = ("cookie", "x=1; token=c");
        let session = ("cookie", "__Host-gatehouse=s");
        let all = sources();
        check(&all, &[], "a=1", "nothing");
        check(&all, &[token], "a=1", "Token a in Authorization");
        check(&all, &[key], "", "Recorded(ApiKey) k in ApiKey");
        check(&all, &[cookie], "", "Token c in Cookie");
        check(&all, &[session], "", "Recorded(Session) s in Cookie");
        check(&all, &[], "access_token=q", "Token q in Query");
        check(&all, &[("authorization", "Basic a"), key], "", "Recorded(ApiKey) k in ApiKey");
        check(&all, &[("authorization", "Bearer")], "", "broken");
        for two in [
            vec![token, key],
            vec![token, cookie],
            vec![token, session],
            vec![key, session],
            vec![cookie, session],
            vec![cookie, cookie],
            vec![key, key],
            vec![key, ("X_API_KEY", "k")],
            vec![token, token],
            vec![("authorization", "Bearer"), key],
        ] {
            check(&all, &two, "", "several");
        }
        check(&all, &[token], "access_token=q", "several");
        check(&all, &[], "access_token=q&access_token=q", "several");
        check(&all, &[], "access_token=q&access%5Ftoken=", "several");
    }

    #[test]
    fn what_is_not_asked_for_is_no_credential() {
        let none =
            Sources { cookie: None, query: None, api_keys: false, sessions: false, ..sources() };
        check(&none, &[("x-api-key", "k")], "access_token=q", "nothing");
        check(&none, &[("cookie", "token=c; __Host-gatehouse=s")], "", "nothing");
        check(&none, &[("x-api-key", "k"), ("authorization", "Bearer a")], "", "several");
    }
}
