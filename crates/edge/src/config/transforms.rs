//! The objects `transforms` and `sizes` of the edge document. Knows no requests.

use std::{rc::Rc, str::FromStr};

use gatehouse_contract::{Document, header};

use super::words::{FieldName, Plain};
use crate::{
    sizes::Sizes,
    transform::{Op, Piece, Template, Transforms},
    view::is_protected,
};

const NAME: &str = "a header's name";
const VALUE: &str = "text of visible characters; ${tenant}, ${tier}, ${user}, ${roles}, ${request_id}, \
                     ${version} and ${route} stand for what is known of the request";
const ONE: &str =
    "write \"set\" or \"add\" with \"value\", or \"remove\", or \"rename\" with \"to\"";

/// Whose meaning belongs to the connection or to the message's frame.
const FRAMES: &[&str] = &[
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "upgrade",
];

/// Our own to set on requests.
const OURS: &[&str] = &[header::REQUEST_ID, header::BAGGAGE];
/// Credentials of requests: they may go, and come from nowhere.
const CREDENTIALS: &[&str] = &["authorization", header::API_KEY, "cookie"];

/// `token` is the query parameter of tokens: it is nobody's to rename, to set or to remove.
pub(super) fn read(doc: &Document<'_>, token: Option<&str>) -> Option<Transforms> {
    let request = doc.object_opt("request", |doc| {
        let headers = doc.objects("headers", |doc| op::<FieldName>(doc, NAME, &of_request));
        let query = doc.objects("query", |doc| {
            op::<Plain>(doc, "a parameter's name of letters, digits, - and _", &|name, _| {
                of_query(name, token)
            })
        });
        Some((headers?, query?))
    });
    let response = doc.object_opt("response", |doc| {
        doc.objects("headers", |doc| op::<FieldName>(doc, NAME, &of_response))
    });
    let (headers, query) = request?.unwrap_or_default();
    Some(Transforms { request: headers, query, response: response?.unwrap_or_default() })
}

/// Why a name may not be changed so; `gives` is whether it gets a value.
type Refused<'r> = &'r dyn Fn(&str, bool) -> Option<&'static str>;

fn of_request(name: &str, gives: bool) -> Option<&'static str> {
    if is_protected(name.as_bytes()) || OURS.contains(&name) {
        Some("the gateway sets this header by itself")
    } else if FRAMES.contains(&name) {
        Some("this header belongs to the connection")
    } else if gives && CREDENTIALS.iter().any(|ours| header::spells(name.as_bytes(), ours)) {
        Some("nobody is given a credential here")
    } else {
        None
    }
}

fn of_response(name: &str, _gives: bool) -> Option<&'static str> {
    if is_protected(name.as_bytes()) || name == header::REQUEST_ID {
        Some("the gateway sets this header by itself")
    } else if FRAMES.contains(&name) || name == "content-encoding" {
        Some("this header belongs to the connection")
    } else {
        None
    }
}

fn of_query(name: &str, token: Option<&str>) -> Option<&'static str> {
    if name == crate::flow::TENANT_PARAMETER {
        Some("the tenant that is judged is the one that goes on")
    } else if token == Some(name) {
        Some("this parameter is for credentials: see \"sources\"")
    } else {
        None
    }
}

fn op<N: FromStr + Into<String>>(
    doc: &Document<'_>,
    expected: &str,
    refused: Refused<'_>,
) -> Option<Op> {
    let set = doc.parsed_opt::<N>("set", expected);
    let add = doc.parsed_opt::<N>("add", expected);
    let remove = doc.parsed_opt::<N>("remove", expected);
    let rename = doc.parsed_opt::<N>("rename", expected);
    let to = doc.parsed_opt::<N>("to", expected);
    let value = doc.parsed_opt::<Template>("value", VALUE);
    let (member, name, op) = match (set?, add?, remove?, rename?, to?, value?) {
        (Some(name), None, None, None, None, Some(value)) => {
            let name = shared(name);
            ("set", Rc::clone(&name), Op::Set(name, value))
        }
        (None, Some(name), None, None, None, Some(value)) => {
            let name = shared(name);
            ("add", Rc::clone(&name), Op::Add(name, value))
        }
        (None, None, Some(name), None, None, None) => {
            let name = shared(name);
            ("remove", Rc::clone(&name), Op::Remove(name))
        }
        (None, None, None, Some(from), Some(to), None) => {
            let (from, to) = (shared(from), shared(to));
            if let Some(cause) = refused(&to, true) {
                doc.note("to", cause, "choose another name");
                return None;
            }
            ("rename", Rc::clone(&from), Op::Rename { from, to })
        }
        _ => {
            doc.note("set", "is not one change", ONE);
            return None;
        }
    };
    // What is renamed gets its value elsewhere, and leaves this name.
    if let Some(cause) = refused(&name, member != "remove") {
        doc.note(member, cause, "choose another name, or leave it out");
        return None;
    }
    Some(op)
}

fn shared(name: impl Into<String>) -> Rc<str> {
    let name: String = name.into();
    name.into()
}

impl FromStr for Template {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        // No line can end here, and no space is lost on the way.
        if !text.bytes().all(|byte| matches!(byte, b' '..=b'~')) || text.trim() != text {
            return Err(());
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, placeholder)) = rest.split_once("${") {
            let (name, after) = placeholder.split_once('}').ok_or(())?;
            if !before.is_empty() {
                pieces.push(Piece::Literal(before.into()));
            }
            pieces.push(match name {
                "tenant" => Piece::Tenant,
                "tier" => Piece::Tier,
                "user" => Piece::User,
                "roles" => Piece::Roles,
                "request_id" => Piece::RequestId,
                "version" => Piece::Version,
                "route" => Piece::Route,
                _ => return Err(()),
            });
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Literal(rest.into()));
        }
        Ok(Self(pieces))
    }
}

/// What no upstream takes in a request's head, or in a body that is all here at once.
const MOST_HEAD_BYTES: u64 = 1024 * 1024;
const MOST_HEADERS: u64 = 10_000;
const MOST_BODY_BYTES: u64 = 1 << 40;

pub(super) fn read_sizes(doc: &Document<'_>) -> Option<Sizes> {
    let header_bytes = doc.integer_opt("max_header_bytes", 256..=MOST_HEAD_BYTES);
    let headers = doc.integer_opt("max_headers", 1..=MOST_HEADERS);
    let body_bytes = doc.integer_opt("max_body_bytes", 0..=MOST_BODY_BYTES);
    let small = |number: Option<u64>| number.and_then(|number| usize::try_from(number).ok());
    Some(Sizes {
        header_bytes: small(header_bytes?),
        headers: small(headers?),
        body_bytes: body_bytes?,
    })
}
