//! How a client shows who it is to the OAuth endpoints (RFC 6749 §2.3), and how these refuse.
//! Knows no endpoint.

use axum::{
    Extension, Json,
    body::Bytes,
    extract::Request,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use gatehouse_contract::{ClientId, Reason};
use gatehouse_service::{Reply, app::Verbatim, body};
use gatehouse_store::lookup::OauthClient;
use serde_json::json;
use tracing::{Span, info};

use crate::{
    random,
    routes::{Api, refused},
};

/// A refusal of these endpoints (RFC 6749 §5.2): their own JSON, not a problem.
pub enum OauthError {
    InvalidRequest(&'static str),
    InvalidClient,
    UnauthorizedClient(&'static str),
    UnsupportedGrantType,
    InvalidScope,
}

impl OauthError {
    pub const fn parts(&self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::InvalidRequest(why) => ("invalid_request", Some(why)),
            Self::InvalidClient => ("invalid_client", None),
            Self::UnauthorizedClient(why) => ("unauthorized_client", Some(why)),
            Self::UnsupportedGrantType => {
                ("unsupported_grant_type", Some("use client_credentials"))
            }
            Self::InvalidScope => ("invalid_scope", Some("tokens have no scopes")),
        }
    }
}

impl IntoResponse for OauthError {
    fn into_response(self) -> Response {
        let (error, description) = self.parts();
        info!(oauth.error = error, "no token issued");
        let mut body = json!({"error": error});
        if let (Some(text), Some(members)) = (description, body.as_object_mut()) {
            members.insert("error_description".to_owned(), text.into());
        }
        let status = match self {
            Self::InvalidClient => StatusCode::UNAUTHORIZED,
            _ => StatusCode::BAD_REQUEST,
        };
        let mut response = (status, Extension(Verbatim), Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::UNAUTHORIZED {
            let basic = HeaderValue::from_static(r#"Basic realm="gatehouse", charset="UTF-8""#);
            headers.insert(header::WWW_AUTHENTICATE, basic);
        }
        response
    }
}

/// A form's fields. Those that we do not know are ignored (RFC 6749 §3.2).
pub struct Form(Bytes);

/// What a client shows.
pub struct Shown {
    id: String,
    secret: Vec<u8>,
}

/// Takes the form of a request.
pub async fn form(request: Request) -> Result<(HeaderMap, Form), Reply> {
    let headers = request.headers().clone();
    if body::media_type(&headers).as_deref() != Some("application/x-www-form-urlencoded") {
        return Err(Reply::new(Reason::MediaTypeUnsupported)
            .detail("send the body as application/x-www-form-urlencoded"));
    }
    Ok((headers, Form(body::bytes(request, &()).await?)))
}

impl Form {
    /// The one field of this name.
    pub fn field(&self, name: &str) -> Result<Option<String>, OauthError> {
        let mut values = form_urlencoded::parse(&self.0).filter(|(key, _)| key == name);
        match (values.next(), values.next()) {
            (value, None) => Ok(value.map(|(_, value)| value.into_owned())),
            (_, Some(_)) => Err(OauthError::InvalidRequest("a parameter stands twice")),
        }
    }

    /// The client's credentials: from the header or from the form, never from both.
    pub fn client(&self, headers: &HeaderMap) -> Result<Shown, OauthError> {
        let (id, secret) = (self.field("client_id")?, self.field("client_secret")?);
        let mut credentials = headers.get_all(header::AUTHORIZATION).iter();
        let basic = match (credentials.next(), credentials.next()) {
            (None, _) => None,
            (Some(value), None) => Some(basic(value).ok_or(OauthError::InvalidClient)?),
            (Some(_), Some(_)) => {
                return Err(OauthError::InvalidRequest("Authorization stands twice"));
            }
        };
        match (basic, id, secret) {
            (Some(_), _, Some(_)) => {
                Err(OauthError::InvalidRequest("two ways of client authentication"))
            }
            (Some((id, _)), Some(other), None) if id != other => {
                Err(OauthError::InvalidRequest("two client ids"))
            }
            (Some((id, secret)), _, None) => Ok(Shown { id, secret: secret.into_bytes() }),
            (None, Some(id), Some(secret)) => Ok(Shown { id, secret: secret.into_bytes() }),
            (None, ..) => Err(OauthError::InvalidClient),
        }
    }
}

/// The client that this is, whatever its standing; `None` where its id is unknown or the secret another.
pub async fn authenticate(
    api: &Api,
    shown: &Shown,
) -> Result<Option<(ClientId, OauthClient)>, Reply> {
    let client = match shown.id.parse::<ClientId>() {
        Ok(id) => api.store.lookup().oauth_client(id).await.map_err(refused)?.map(|row| (id, row)),
        Err(_) => None,
    };
    // An unknown client costs a comparison, too.
    let stored = client.as_ref().map_or([0; 32], |(_, row)| row.secret_sha256);
    let known = random::is_secret(&shown.secret, &stored);
    let found = client.filter(|_| known);
    if let Some((_, row)) = &found {
        Span::current().record("tenant.id", tracing::field::display(row.tenant));
    }
    Ok(found)
}

/// RFC 6749 §2.3.1: both parts are form-encoded before they are joined.
fn basic(value: &HeaderValue) -> Option<(String, String)> {
    let (scheme, rest) = value.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("Basic") {
        return None;
    }
    let joined = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
    let (id, secret) = joined.split_once(':')?;
    let plain = |text: &str| {
        // `text=` makes the whole text one name, decoded as a form's.
        form_urlencoded::parse(text.as_bytes()).next().map(|(name, _)| name.into_owned())
    };
    Some((plain(id)?, plain(secret)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(authorization: &[&str], body: &str, expected: Result<(&str, &str), &str>) {
        let mut headers = HeaderMap::new();
        for value in authorization {
            headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        let form = Form(Bytes::from(body.to_owned()));
        let shown = form.client(&headers);
        let got = shown.and_then(|shown| super::super::granted(&form).map(|()| shown));
        let got = got.map(|shown| (shown.id, String::from_utf8(shown.secret).unwrap()));
        let got = got.map_err(|error| error.parts().0);
        let expected = expected.map(|(id, secret)| (id.to_owned(), secret.to_owned()));
        assert_eq!(got, expected, "{authorization:?} {body}");
    }

    fn basic_of(text: &str) -> String {
        format!("Basic {}", STANDARD.encode(text))
    }

    #[test]
    fn credentials_come_from_the_header_or_the_form_and_never_from_both() {
        let grant = "grant_type=client_credentials";
        let header = basic_of("a:b");
        check(&[&header], grant, Ok(("a", "b")));
        check(&[&basic_of("a%3A:b%25+c")], grant, Ok(("a:", "b% c")));
        check(&[&header], &format!("{grant}&client_id=a"), Ok(("a", "b")));
        check(&[], &format!("{grant}&client_id=a&client_secret=b"), Ok(("a", "b")));
        let both = format!("{grant}&client_secret=b");
        check(&[&header], &both, Err("invalid_request"));
        check(&[&header], &format!("{grant}&client_id=x"), Err("invalid_request"));
        check(&[&header, &header], grant, Err("invalid_request"));
        check(&[], grant, Err("invalid_client"));
        check(&[], &format!("{grant}&client_id=a"), Err("invalid_client"));
        for bad in ["Bearer x", "Basic !", "Basic", &basic_of("no colon")] {
            check(&[bad], grant, Err("invalid_client"));
        }
    }

    #[test]
    fn the_grant_and_the_form_are_checked() {
        let header = basic_of("a:b");
        check(&[&header], "", Err("invalid_request"));
        check(&[&header], "grant_type=password", Err("unsupported_grant_type"));
        let twice = "grant_type=client_credentials&grant_type=client_credentials";
        check(&[&header], twice, Err("invalid_request"));
        let scope = "grant_type=client_credentials&scope=";
        check(&[&header], scope, Ok(("a", "b")));
        check(&[&header], &format!("{scope}x"), Err("invalid_scope"));
        check(&[&header], "grant_type=client_credentials&resource=x", Ok(("a", "b")));
    }
}
