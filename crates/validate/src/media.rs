//! Which bodies are JSON by what their headers say (RFC 9110 §8.3, RFC 6839 §3.1). Knows no bodies.

/// Whether `content_type` is `application/json` or any `…+json`, in UTF-8.
pub(crate) fn is_json(content_type: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(content_type) else { return false };
    let (essence, parameters) = match text.split_once(';') {
        Some((essence, parameters)) => (essence, Some(parameters)),
        None => (text, None),
    };
    let Some((kind, subtype)) = essence.trim_matches(BLANK).split_once('/') else { return false };
    let json = kind.eq_ignore_ascii_case("application") && subtype.eq_ignore_ascii_case("json");
    let suffix =
        subtype.len().checked_sub(SUFFIX.len()).and_then(|at| subtype.split_at_checked(at));
    let suffixed = is_token(kind)
        && suffix.is_some_and(|(own, suffix)| is_token(own) && suffix.eq_ignore_ascii_case(SUFFIX));
    (json || suffixed) && parameters.is_none_or(is_utf8)
}

const SUFFIX: &str = "+json";
const BLANK: [char; 2] = [' ', '\t'];

/// Whether no parameter names another charset. One that cannot be read names one.
fn is_utf8(parameters: &str) -> bool {
    parameters.split(';').map(|parameter| parameter.trim_matches(BLANK)).all(|parameter| {
        match parameter.split_once('=') {
            None => parameter.is_empty(),
            Some((name, value)) if name.eq_ignore_ascii_case("charset") => {
                let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
                quoted.unwrap_or(value).eq_ignore_ascii_case("utf-8")
            }
            Some((name, _)) => is_token(name),
        }
    })
}

/// `token` of RFC 9110 §5.6.2.
fn is_token(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x7_json_in_utf_8_is_taken_and_nothing_else() {
        for good in [
            "application/json",
            "Application/JSON",
            "application/json; charset=utf-8",
            "application/json;charset=\"UTF-8\"",
            "application/vnd.greenlang.v1+json",
            "application/vnd.greenlang+json; version=1",
            "application/json ;",
        ] {
            assert!(is_json(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            "json",
            "text/json",
            "text/plain",
            "application/jsonx",
            "application/+json",
            "application/x +json",
            "application/json; charset=utf-16",
            "application/json; charset=latin1; charset=utf-8",
            "application/json; charset",
            "application/json, text/plain",
            "application/grpc+json, x",
            "multipart/form-data; boundary=x",
            "application/é+json",
        ] {
            assert!(!is_json(bad.as_bytes()), "{bad}");
        }
        assert!(!is_json(b"application/json\xff"));
    }
}
