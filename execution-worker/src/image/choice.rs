//! Where the configuration says that images come from. Knows nothing of images.

use std::{fs, net::SocketAddr, path::PathBuf, sync::Arc};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use gatehouse_contract::Document;
use gatehouse_outbound::{Origin, Trust};
use tokio::runtime::Handle;

use super::{
    Source,
    registry::{Address, Registry},
};
use crate::config::folder;

/// A source of images, with what it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// A folder of layouts.
    Store(PathBuf),
    /// A registry.
    Registry(Address),
}

/// Reads `image_store` or `image_registry`: one of them.
pub fn read(doc: &Document<'_>) -> Option<Choice> {
    if doc.raw("image_registry").is_none() {
        return folder(doc, "image_store", "an absolute folder").map(Choice::Store);
    }
    let registry = doc.object("image_registry", address);
    if doc.raw("image_store").is_some() {
        doc.note("image_store", "images come from image_registry", "leave one of them out");
        return None;
    }
    registry.map(Choice::Registry)
}

fn address(doc: &Document<'_>) -> Option<Address> {
    let url = doc.text("url");
    let authority = doc.text_opt("ca_file");
    let credentials = doc.text_opt("credentials_file");
    let origin = url.and_then(|url| origin(doc, &url));
    let trust = authority.and_then(|path| trust(doc, path));
    let authorization = match credentials? {
        None => None,
        Some(path) => Some(basic(doc, &path)?),
    };
    Some(Address { origin: origin?, trust: trust?, authorization })
}

fn origin(doc: &Document<'_>, url: &str) -> Option<Origin> {
    let mend = "write https://HOST[:PORT], or http:// with an address of loopback and a port";
    let origin = match url.parse::<Origin>() {
        Ok(origin) => origin,
        Err(error) => {
            doc.note("url", error.to_string(), mend);
            return None;
        }
    };
    let here = url.strip_prefix("http://").and_then(|rest| rest.parse::<SocketAddr>().ok());
    if origin.is_https() || here.is_some_and(|address| address.ip().is_loopback()) {
        return Some(origin);
    }
    doc.note("url", "images of all tenants would pass in the clear", mend);
    None
}

fn trust(doc: &Document<'_>, path: Option<String>) -> Option<Trust> {
    let pem = match path.as_deref().map(fs::read).transpose() {
        Ok(pem) => pem,
        Err(error) => {
            doc.note("ca_file", error.to_string(), "name a PEM file of certificates");
            return None;
        }
    };
    match Trust::new(pem.as_deref()) {
        Ok(trust) => Some(trust),
        Err(error) => {
            doc.note("ca_file", error.to_string(), "name a PEM file of certificates");
            None
        }
    }
}

/// `Basic` of RFC 7617, from a file that holds `user:password`. Its text is not told.
fn basic(doc: &Document<'_>, path: &str) -> Option<Arc<str>> {
    let mend = "name a file that holds one line, user:password";
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            doc.note("credentials_file", error.to_string(), mend);
            return None;
        }
    };
    let line = text.trim_end_matches(['\r', '\n']);
    if !line.contains(':') || line.chars().any(char::is_control) {
        doc.note("credentials_file", format!("{path} does not hold that"), mend);
        return None;
    }
    Some(format!("Basic {}", BASE64_STANDARD.encode(line)).into())
}

impl Choice {
    /// The source. Within tokio's runtime.
    pub fn open(self) -> Source {
        match self {
            Self::Store(store) => Source::Store(store),
            Self::Registry(address) => Source::Registry(Registry::new(address, Handle::current())),
        }
    }
}

#[cfg(test)]
mod tests {
    use gatehouse_contract::document;

    use super::*;

    fn check(text: &str, expected: Result<&str, &str>) {
        let choice = document::read(text, read);
        match (choice, expected) {
            (Ok(choice), Ok(part)) => assert!(format!("{choice:?}").contains(part), "{choice:?}"),
            (Err(mistakes), Err(part)) => {
                let told = format!("{mistakes:?}");
                assert!(told.contains(part) && !told.contains("s3cret"), "{text}: {told}");
            }
            (choice, expected) => panic!("{text}: {choice:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn images_come_from_one_place_and_over_tls() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            fs::write(dir.path().join(name), text).unwrap();
            dir.path().join(name).display().to_string()
        };
        let registry = |members: &str| format!(r#"{{"image_registry":{{{members}}}}}"#);
        check(r#"{"image_store":"/i"}"#, Ok("Store"));
        check(r#"{"image_store":"i"}"#, Err("relative"));
        check("{}", Err("image_store"));
        check(r#"{"image_store":"/i","image_registry":{"url":"https://r"}}"#, Err("leave one"));
        for url in [
            "https://registry.example",
            "https://10.0.0.1:5000",
            "http://127.0.0.1:5000",
            "http://[::1]:5000",
        ] {
            check(&registry(&format!(r#""url":"{url}""#)), Ok("Registry"));
        }
        for (url, cause) in [
            ("http://registry.example", "in the clear"),
            ("http://10.0.0.1:5000", "in the clear"),
            ("http://localhost:5000", "in the clear"),
            ("https://user@registry.example", "carries a user"),
            ("https://registry.example/path", "more than a scheme"),
            ("registry.example", "neither https"),
        ] {
            check(&registry(&format!(r#""url":"{url}""#)), Err(cause));
        }
        let with =
            |key: &str, path: &str| registry(&format!(r#""url":"https://r","{key}":"{path}""#));
        check(&with("credentials_file", &file("good", "me:s3cret\n")), Ok("Registry"));
        check(&with("credentials_file", &file("bad", "s3cret\n")), Err("does not hold that"));
        check(&with("credentials_file", "/nonexistent"), Err("credentials_file"));
        check(&with("ca_file", &file("ca", "no certificate")), Err("not a PEM file"));
        check(&registry(r#""url":"https://r","tls":false"#), Err("tls"));
    }
}
