//! The configuration document of this service.
//! Knows nothing of how its values are used.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use gatehouse_authn::api_key::Peppers;
use gatehouse_contract::Document;
use gatehouse_kafka_kit::publish::{Settings, Transport, is_loopback};
use gatehouse_redis_kit::Address;
use gatehouse_service::{Stop, config};
use gatehouse_store::Urls;

use crate::{oidc, paging::Cursors, peppers, seal::Sealer};

/// Everything that `serve` and `bootstrap` need.
pub struct Config {
    /// Clients, through the gateway.
    pub listen: SocketAddr,
    /// The sidecars of this machine; loopback only.
    pub internal_listen: SocketAddr,
    /// Probes and metrics.
    pub admin_listen: SocketAddr,
    pub tokens: Tokens,
    pub database: Urls,
    /// What heavy reads may be answered by; without it the primary answers all.
    pub replica: Option<String>,
    /// Where the change feed and the permission cache are; without it there is no relay.
    pub redis: Option<Address>,
    /// Where events are published; without it their outbox keeps them.
    pub kafka: Option<Settings>,
    /// From `key_file`.
    pub sealer: Sealer,
    /// From `key_file`, too.
    pub cursors: Cursors,
    /// From `peppers_file`.
    pub peppers: Peppers,
    pub image_store: PathBuf,
    /// How people sign in, and foreign tokens are taken; without it neither is.
    pub sign_in: Option<oidc::config::Settings>,
}

/// What our access tokens say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    pub issuer: String,
    pub audience: String,
    pub ttl: Duration,
    /// How long a key is published before it signs. The first one signs at once.
    pub key_publish_ahead: Duration,
}

/// Reads the file, or names every mistake in it.
pub fn load(path: &Path) -> Result<Config, Stop> {
    config::load(path, build)
}

fn build(doc: &Document<'_>) -> Option<Config> {
    let listen = doc.socket("listen");
    let internal_listen = config::loopback(doc, "internal_listen");
    let admin_listen = doc.socket("admin_listen");
    let issuer = issuer(doc);
    let audience = doc.text("audience");
    let ttl = doc.integer("token_ttl_s", Some(900), 60..=86400);
    let ahead = doc.integer("key_publish_ahead_s", Some(60), 0..=3600);
    let database = doc.object("database", |doc| {
        let app = config::secret_url(doc, "app", &["postgres", "postgresql"]);
        let admin = config::secret_url(doc, "admin", &["postgres", "postgresql"]);
        let system = match doc.raw("system") {
            Some(_) => Some(config::secret_url(doc, "system", &["postgres", "postgresql"])?),
            None => None,
        };
        let replica = match doc.raw("replica") {
            Some(_) => Some(config::secret_url(doc, "replica", &["postgres", "postgresql"])?),
            None => None,
        };
        Some((Urls { app: app?, admin: Some(admin?), system }, replica))
    });
    let redis = doc.object_opt("redis", |doc| {
        let url = config::secret_url(doc, "url", &["redis", "redis+unix"])?;
        match url.parse::<Address>() {
            Ok(address) => Some(address),
            Err(error) => {
                doc.note("url", error.to_string(), "write redis://user:password@host:port");
                None
            }
        }
    });
    let closed = database.as_ref().is_some_and(|(urls, _)| urls.system.is_none());
    if closed && matches!(redis, Some(Some(_))) {
        doc.note(
            "redis",
            "needs $.database.system, which is missing",
            "write the URL of gatehouse_system there: the relay reads the outbox as it",
        );
    }
    let kafka = doc.object_opt("kafka", kafka);
    if closed && matches!(kafka, Some(Some(_))) {
        doc.note(
            "kafka",
            "needs $.database.system, which is missing",
            "write the URL of gatehouse_system there: the publisher takes events out as it",
        );
    }
    let sealer = key_file(doc);
    let cursors = doc.text("key_file").map(|path| Cursors::from_file(Path::new(&path)));
    let peppers = peppers::read(doc);
    let image_store = folder(doc, "image_store");
    let sign_in = oidc::config::read(doc);
    let (database, replica) = database.unzip();
    Some(Config {
        listen: listen?,
        internal_listen: internal_listen?,
        admin_listen: admin_listen?,
        tokens: Tokens {
            issuer: issuer?,
            audience: audience?,
            ttl: Duration::from_secs(ttl?),
            key_publish_ahead: Duration::from_secs(ahead?),
        },
        database: database?,
        replica: replica?,
        redis: redis?,
        kafka: kafka?,
        sealer: sealer?,
        // What cannot be read was noted above.
        cursors: cursors?.ok()?,
        peppers: peppers?,
        image_store: image_store?,
        sign_in: sign_in?,
    })
}

fn kafka(doc: &Document<'_>) -> Option<Settings> {
    let brokers: Option<Vec<Broker>> = doc.parsed_list("brokers", "host:port");
    doc.refuse_empty("brokers", brokers.as_deref(), "name one broker at least: \"host:port\"");
    let transport = doc.parsed_or("transport", Transport::Loopback, "loopback, mesh or cleartext");
    if transport == Some(Transport::Loopback) {
        let beyond = brokers.iter().flatten().find(|broker| !is_loopback(broker.host()));
        if let Some(Broker(broker)) = beyond {
            doc.note(
                "brokers",
                format!("{broker} is not of this machine, and nothing here encrypts what goes there"),
                "name a proxy on loopback that does TLS; or say in $.kafka.transport that a mesh encrypts it (\"mesh\"), or nobody (\"cleartext\")",
            );
        }
    }
    let prefix = doc.text_opt("topic_prefix");
    let legal = |text: &String| {
        text.len() <= 200 && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"._-".contains(&c))
    };
    let prefix = prefix.map(Option::unwrap_or_default);
    if prefix.as_ref().is_some_and(|prefix| !legal(prefix)) {
        doc.note("topic_prefix", "no part of a topic's name", "write a-z, 0-9, '.', '_' and '-'");
        return None;
    }
    let brokers: Vec<String> = brokers?.into_iter().map(|broker| broker.0).collect();
    Some(Settings { brokers: brokers.join(","), topic_prefix: prefix?, transport: transport? })
}

/// `host:port`.
struct Broker(String);

impl FromStr for Broker {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (host, port) = text.rsplit_once(':').ok_or(())?;
        let named = !host.is_empty() && !text.contains([',', '/', ' ', '@']);
        match port.parse::<u16>() {
            Ok(1..) if named => Ok(Self(text.to_owned())),
            _ => Err(()),
        }
    }
}

impl Broker {
    fn host(&self) -> &str {
        self.0.rsplit_once(':').map_or("", |(host, _)| host)
    }
}

/// An issuer is compared byte for byte, and its discovery document lies below it (RFC 8414 §2).
fn issuer(doc: &Document<'_>) -> Option<String> {
    let issuer = doc.text("issuer")?;
    let fits =
        issuer.starts_with("https://") && !issuer.contains(['?', '#']) && !issuer.ends_with('/');
    if fits {
        return Some(issuer);
    }
    doc.note(
        "issuer",
        "not an https URL without query, fragment and trailing slash",
        "write one such as \"https://auth.example.com\"",
    );
    None
}

fn key_file(doc: &Document<'_>) -> Option<Sealer> {
    let path = doc.text("key_file")?;
    match Sealer::from_file(Path::new(&path)) {
        Ok(sealer) => Some(sealer),
        Err(error) => {
            doc.note(
                "key_file",
                format!("{path} {error}"),
                "make one with `openssl rand -hex 32` and keep it: it opens the signing keys",
            );
            None
        }
    }
}

fn folder(doc: &Document<'_>, name: &'static str) -> Option<PathBuf> {
    let path = PathBuf::from(doc.text(name)?);
    if path.is_dir() {
        return Some(path);
    }
    doc.note(name, format!("{} is not a folder", path.display()), "make it, or name another");
    None
}
