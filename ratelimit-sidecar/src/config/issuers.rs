//! The issuers, where their keys are, and whom we believe on the way there.
//! Fetches nothing.

use std::{net::SocketAddr, time::Duration};

use gatehouse_contract::Document;
use gatehouse_outbound::{Guard, Origin, Refused, Target, Trust};

use crate::keysets::{fetch::discovery_url, schedule::Ages};

/// An issuer and where its keys are.
#[derive(Debug, Clone)]
pub struct Issuer {
    /// `iss`, byte for byte.
    pub issuer: String,
    pub source: Source,
    /// Judges every address on the way to its keys.
    pub guard: Guard,
}

/// Where an issuer's keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The address that the operator named.
    Fixed(String),
    /// Where its discovery document says.
    Discovery,
}

/// The issuers; `own` are our internal listeners, which no address may lead to.
pub fn read(doc: &Document<'_>, own: Vec<SocketAddr>) -> Option<Vec<Issuer>> {
    let expected = "a scheme, a host and a port such as \"https://idp.corp:8443\"";
    let allow: Option<Vec<Origin>> = doc.parsed_list("allow", expected);
    let named = allow.clone().unwrap_or_default();
    let issuers = doc.objects("issuers", |doc| issuer(doc, &named, &own))?;
    for (index, issuer) in issuers.iter().enumerate() {
        if issuers.iter().take(index).any(|earlier| earlier.issuer == issuer.issuer) {
            let cause = format!("{:?} stands twice", issuer.issuer);
            doc.note(&format!("issuers[{index}].issuer"), cause, "list every issuer once");
            return None;
        }
    }
    allow.map(|_| issuers)
}

fn issuer(doc: &Document<'_>, allow: &[Origin], own: &[SocketAddr]) -> Option<Issuer> {
    let issuer = doc.text("issuer");
    let jwks = doc.text_opt("jwks");
    let discovery = doc.flag("discovery", false);
    match (jwks?, discovery?) {
        (Some(url), false) => {
            // What an operator names here is the exception for itself (design §3.3), whatever it leads to but our
            // own internal listeners.
            let origin = url.parse::<Target>().ok().map(|target| target.origin().clone());
            let guard = Guard::new(origin, own.to_vec());
            passes(doc, "jwks", &guard, &url)?;
            Some(Issuer { issuer: issuer?, source: Source::Fixed(url), guard })
        }
        (None, true) => {
            let issuer = issuer?;
            let guard = Guard::new(allow.iter().cloned(), own.to_vec());
            if issuer.contains(['?', '#']) {
                let cause = "an issuer with a query or a fragment has no discovery document";
                doc.note("issuer", cause, "write \"jwks\" with the address of its keys");
                return None;
            }
            passes(doc, "issuer", &guard, &discovery_url(&issuer))?;
            Some(Issuer { issuer, source: Source::Discovery, guard })
        }
        (Some(_), true) => {
            doc.note("jwks", "stands beside \"discovery\"", "write one of both");
            None
        }
        (None, false) => {
            doc.note(
                "jwks",
                "missing",
                "write the address of the issuer's keys, or \"discovery\": true",
            );
            None
        }
    }
}

fn passes(doc: &Document<'_>, name: &str, guard: &Guard, url: &str) -> Option<()> {
    let refused = guard.check(url).err();
    match &refused {
        None => return Some(()),
        Some(Refused::Url(cause)) => {
            doc.note(name, cause.to_string(), "write a URL such as \"https://idp.example/path\"");
        }
        Some(Refused::Own(_)) => {
            let mend = "write the issuer's public address";
            doc.note(name, "an internal listener of ours", mend);
        }
        Some(other) => {
            let mend = "write an https:// address, or name its scheme, host and port in $.allow";
            doc.note(name, other.to_string(), mend);
        }
    }
    None
}

/// How old key sets may become: the defaults are the design's.
pub fn ages(doc: &Document<'_>) -> Option<Ages> {
    let read = |doc: &Document<'_>| {
        let refresh = doc.integer("refresh_s", Some(300), 1..=3600);
        let refresh_min = doc.integer("refresh_min_s", Some(60), 1..=3600);
        let refresh_max = doc.integer("refresh_max_s", Some(900), 1..=86_400);
        let max_stale = doc.integer("max_stale_s", Some(86_400), 1..=604_800);
        let cool_down = doc.integer("cool_down_s", Some(30), 30..=3600);
        let (min, max) = (refresh_min?, refresh_max?);
        if min > max {
            let cause = format!("{min} is more than refresh_max_s, {max}");
            doc.note("refresh_min_s", cause, "write the smaller number here");
            return None;
        }
        Some(Ages {
            refresh: Duration::from_secs(refresh?),
            refresh_min: Duration::from_secs(min),
            refresh_max: Duration::from_secs(max),
            max_stale: Duration::from_secs(max_stale?),
            cool_down: Duration::from_secs(cool_down?),
        })
    };
    match doc.object_opt("keys", read)? {
        Some(ages) => Some(ages),
        None => Some(Ages {
            refresh: Duration::from_secs(300),
            refresh_min: Duration::from_secs(60),
            refresh_max: Duration::from_secs(900),
            max_stale: Duration::from_secs(86_400),
            cool_down: Duration::from_secs(30),
        }),
    }
}

/// Public authorities, and those of the operator's file, if any.
pub fn trust(doc: &Document<'_>) -> Option<Trust> {
    let path = doc.text_opt("ca_file")?;
    let pem = match path.as_deref().map(std::fs::read).transpose() {
        Ok(pem) => pem,
        Err(error) => {
            let cause = format!("{} cannot be read: {error}", path.unwrap_or_default());
            doc.note("ca_file", cause, "name a PEM file of certificates");
            return None;
        }
    };
    match Trust::new(pem.as_deref()) {
        Ok(trust) => Some(trust),
        Err(error) => {
            doc.note("ca_file", error.to_string(), "name a PEM file of authorities' certificates");
            None
        }
    }
}
