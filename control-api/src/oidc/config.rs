//! The `sign_in` part of the configuration. Knows nothing of how its values are used.

use std::{fs, time::Duration};

use gatehouse_contract::Document;
use gatehouse_outbound::{Origin, Trust};

/// What sign-in needs beside the registered issuers.
pub struct Settings {
    /// Scheme, host and port under which browsers reach us.
    pub public_origin: String,
    /// A session ends after this long without use.
    pub idle: Duration,
    /// A session ends then at the latest.
    pub absolute: Duration,
    /// Addresses beyond the public internet that the operator names, for issuers that the platform registered.
    pub allow: Vec<Origin>,
    /// Whose certificates are believed.
    pub trust: Trust,
}

/// Reads it. Without it nobody signs in and no foreign token is taken.
pub fn read(doc: &Document<'_>) -> Option<Option<Settings>> {
    doc.object_opt("sign_in", |doc| {
        let public_origin = public_origin(doc);
        let idle = doc.integer("idle_s", Some(30 * 60), 60..=24 * 3600);
        let absolute = doc.integer("absolute_s", Some(12 * 3600), 60..=30 * 24 * 3600);
        let allow = doc.parsed_list("allow", "an origin such as \"https://idp.internal:8443\"");
        let trust = trust(doc);
        Some(Settings {
            public_origin: public_origin?,
            idle: Duration::from_secs(idle?),
            absolute: Duration::from_secs(absolute?),
            allow: allow?,
            trust: trust?,
        })
    })
}

/// Compared with `Origin` byte for byte, so that it must be written as browsers write it (RFC 6454 §6.2).
fn public_origin(doc: &Document<'_>) -> Option<String> {
    const EXPECTED: &str = "an origin such as \"https://console.example.com\"";
    let text = doc.text("public_origin")?;
    let origin: Origin = doc.parsed("public_origin", EXPECTED)?;
    // A browser takes our cookies on its own machine without TLS, and nowhere else.
    let local = ["http://127.0.0.1", "http://localhost", "http://[::1]"].iter().any(|local| {
        text == *local || text.strip_prefix(local).is_some_and(|rest| rest.starts_with(':'))
    });
    if origin.to_string() != text || !(origin.is_https() || local) {
        let mend = format!("write {EXPECTED}, without the default port, in lower case");
        doc.note("public_origin", "not an https origin in its usual form", mend);
        return None;
    }
    Some(text)
}

fn trust(doc: &Document<'_>) -> Option<Trust> {
    let path = doc.text_opt("ca_file")?;
    let pem = match &path {
        None => None,
        Some(path) => match fs::read(path) {
            Ok(pem) => Some(pem),
            Err(error) => {
                doc.note("ca_file", format!("{path} cannot be read: {error}"), "name a PEM file");
                return None;
            }
        },
    };
    match Trust::new(pem.as_deref()) {
        Ok(trust) => Some(trust),
        Err(error) => {
            doc.note("ca_file", error.to_string(), "name a PEM file of authorities' certificates");
            None
        }
    }
}
