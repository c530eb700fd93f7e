//! The configuration document. Compiled whole or refused.
//! Knows no file and no socket.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

mod issuers;
mod limits;
mod store;

use gatehouse_contract::Document;
use gatehouse_outbound::Trust;
use gatehouse_redis_kit::Address;
use gatehouse_service::config::loopback;
use reqwest::Url;

pub use self::{
    issuers::{Issuer, Source},
    limits::{Away, Limits, Mode},
    store::{Bounds, StoreKind},
};
use crate::{grpc, keysets::schedule::Ages, peppers};

/// What the sidecar needs to run.
#[derive(Debug)]
pub struct Config {
    pub listen: Listen,
    pub admin_listen: SocketAddr,
    pub store: StoreKind,
    pub bounds: Bounds,
    /// Where the change feed and what is remembered of credentials are, where that is not [`Self::store`].
    pub feed: Option<Address>,
    pub limits: Limits,
    pub grpc: grpc::Settings,
    pub issuers: Vec<Issuer>,
    pub ages: Ages,
    pub trust: Trust,
    /// Without them API keys cannot be told.
    pub peppers: Option<peppers::Known>,
    pub last_used_every: Duration,
    /// Base of the control API's internal listener; without it principals are unavailable.
    pub control_internal: Option<Url>,
}

/// Where filters reach us: nothing that another machine can reach (design §3.3).
#[derive(Debug, PartialEq, Eq)]
pub enum Listen {
    Loopback(SocketAddr),
    Unix(PathBuf),
}

/// Reads the document; `None` after its mistakes are noted.
pub fn read(doc: &Document<'_>) -> Option<Config> {
    let listen = listen(doc);
    let admin_listen = loopback(doc, "admin_listen");
    let store = store::read(doc);
    let bounds = store::bounds(doc);
    let feed = doc.object_opt("feed", |doc| store::address(doc, "url"));
    let limits = limits::read(doc);
    let domains = doc.object_opt("grpc", domains);
    let control_internal = doc.object_opt("control_api", |doc| {
        let url = plain_http(doc, "internal")?;
        if loopback_of(&url).is_some() {
            return Some(url);
        }
        doc.note(
            "internal",
            format!("{url} is not on this machine"),
            "write a loopback address such as \"http://127.0.0.1:8082\"",
        );
        None
    });
    let own = [
        control_internal.iter().flatten().find_map(loopback_of),
        admin_listen,
        match &listen {
            Some(Listen::Loopback(at)) => Some(*at),
            _ => None,
        },
    ];
    let issuers = issuers::read(doc, own.into_iter().flatten().collect());
    let ages = issuers::ages(doc);
    let trust = issuers::trust(doc);
    let peppers = peppers::read(doc);
    let last_used_s = doc.integer("last_used_s", Some(10), 1..=3600);
    let limits = limits?;
    let domains = domains?.unwrap_or_else(|| vec![grpc::DOMAIN.to_owned()]);
    Some(Config {
        listen: listen?,
        admin_listen: admin_listen?,
        store: store?,
        bounds: bounds?,
        feed: feed?,
        grpc: grpc::Settings { domains, window_s: limits.window_s },
        limits,
        issuers: issuers?,
        ages: ages?,
        trust: trust?,
        peppers: peppers?,
        last_used_every: Duration::from_secs(last_used_s?),
        control_internal: control_internal?,
    })
}

fn listen(doc: &Document<'_>) -> Option<Listen> {
    let unix = doc.raw("listen").and_then(|value| value.as_str()?.strip_prefix("unix:"));
    match unix {
        Some(path) if path.starts_with('/') => Some(Listen::Unix(path.into())),
        Some(_) => {
            doc.note(
                "listen",
                "not an absolute path",
                "write \"unix:/run/gatehouse/sidecar.sock\"",
            );
            None
        }
        None => loopback(doc, "listen").map(Listen::Loopback),
    }
}

/// The domains of Envoy's filters that are answered: at least one.
fn domains(doc: &Document<'_>) -> Option<Vec<String>> {
    let domains: Vec<String> = doc.parsed_list("domains", "a name such as \"gatehouse\"")?;
    if domains.is_empty() {
        doc.note("domains", "empty", "write at least one name, such as [\"gatehouse\"]");
        return None;
    }
    Some(domains)
}

fn plain_http(doc: &Document<'_>, name: &'static str) -> Option<Url> {
    let url = doc.parsed::<Url>(name, "a URL such as \"http://127.0.0.1:8080/path\"")?;
    let (cause, mend) = if url.scheme() != "http" || url.host_str().is_none() {
        ("not an http:// URL", "write a URL such as \"http://127.0.0.1:8080/path\"")
    } else if !url.username().is_empty() || url.password().is_some() {
        ("carries a password", "write the URL without one")
    } else {
        return Some(url);
    };
    doc.note(name, cause, mend);
    None
}

fn loopback_of(url: &Url) -> Option<SocketAddr> {
    let host = match url.host_str()?.trim_matches(['[', ']']) {
        "localhost" => "127.0.0.1",
        host => host,
    };
    let ip: IpAddr = host.parse().ok()?;
    Some(SocketAddr::new(ip, url.port_or_known_default()?)).filter(|at| at.ip().is_loopback())
}

#[cfg(test)]
mod tests;
