//! The worker's configuration document. Knows nothing of what is done with it.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use gatehouse_contract::Document;
use gatehouse_outbound::Origin;
use gatehouse_service::config::{loopback, secret_url};
use gatehouse_store::MasterKeys;

use crate::{
    driver::choice::{self, Choice},
    egress, image,
    sandbox::pool::Bounds,
};

/// Everything that can be set.
pub struct Config {
    /// `/livez` and `/readyz`.
    pub admin_listen: SocketAddr,
    /// As `gatehouse_app`.
    pub database_app: String,
    /// As `gatehouse_system`.
    pub database_system: String,
    /// As the user `worker`.
    pub redis: String,
    /// From `key_file`, the control API's: they open the tenants' keys.
    pub keys: MasterKeys,
    /// Where images come from.
    pub images: image::Choice,
    /// How many bytes of images are kept.
    pub image_budget: u64,
    /// This worker's own folder.
    pub state_dir: PathBuf,
    /// What runs agents.
    pub driver: Choice,
    /// How agents reach the outside.
    pub egress: Outside,
    /// How many sandboxes are made in advance; none where there are none.
    pub warm: Option<Bounds>,
    /// What logs and leases call this worker; every start adds an incarnation.
    pub worker_id: String,
    /// What a changed file changes while the worker runs.
    pub live: Live,
    /// A worker that has not beaten for this long has lost what it runs.
    pub lease: Duration,
}

/// Whether agents of versions that name hosts reach them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outside {
    /// They have no network.
    No,
    /// Nothing was said: where the machine can give it.
    WherePossible,
    /// It was asked for: a worker that cannot give it does not start.
    Always(egress::Settings),
}

/// What is live: a changed file changes it for what is claimed from then on. Each has its key in [`Live::KEYS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Live {
    /// Runs at the same time.
    pub concurrency: usize,
    /// How long a shutdown waits for runs.
    pub drain: Duration,
    /// Until an agent must have been started: its image fetched, its sandbox made.
    pub start: Duration,
    /// Between SIGTERM and SIGKILL of an agent.
    pub grace: Duration,
}

impl Live {
    /// The keys of the document that are live; every other one needs a restart.
    pub const KEYS: [&'static str; 4] = ["concurrency", "drain_s", "start_s", "grace_s"];
}

/// Reads the document.
pub fn read(doc: &Document<'_>) -> Option<Config> {
    let admin_listen = loopback(doc, "admin_listen");
    let database = doc.object("database", |doc| {
        let app = secret_url(doc, "app", &["postgres", "postgresql"]);
        let system = secret_url(doc, "system", &["postgres", "postgresql"]);
        Some((app?, system?))
    });
    let redis = secret_url(doc, "redis", &["redis", "redis+unix"]);
    let keys = key_file(doc);
    let images = image::choice::read(doc);
    let image_gib = doc.integer("image_cache_gib", Some(image::DEFAULT_BUDGET >> 30), 1..=65_536);
    let state_dir = folder(doc, "state_dir", "an absolute folder of this worker alone");
    let driver = choice::read(doc);
    let egress = egress(doc);
    let warm = warm(doc, driver.as_ref());
    // What "sim" pretends to run is no load but the worker's own.
    let most = if matches!(driver, Some(Choice::Sim(_))) { 200_000 } else { 256 };
    let concurrency = doc.integer("concurrency", Some(2), 1..=most);
    let worker_id = doc.text_or("worker_id", "worker").filter(|id| {
        let fits = id.len() <= 63 && id.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
        if !fits {
            doc.note("worker_id", "not a plain name", "write up to 63 of a-z, A-Z, 0-9 and '-'");
        }
        fits
    });
    let drain_s = doc.integer("drain_s", Some(30), 0..=3600);
    let start_s = doc.integer("start_s", Some(60), 1..=600);
    let grace_s = doc.integer("grace_s", Some(10), 0..=300);
    let lease_s = doc.integer("lease_s", Some(15), 3..=600);
    let (database_app, database_system) = database?;
    let (driver, redis) = (driver?, redis?);
    let urls = [database_app.as_str(), database_system.as_str(), redis.as_str()];
    driver.refuse_other_machines(doc, &urls)?;
    Some(Config {
        admin_listen: admin_listen?,
        database_app,
        database_system,
        redis,
        keys: keys?,
        images: images?,
        image_budget: image_gib? << 30,
        state_dir: state_dir?,
        driver,
        egress: egress?,
        warm: warm?,
        worker_id: worker_id?,
        live: Live {
            concurrency: usize::try_from(concurrency?).ok()?,
            drain: Duration::from_secs(drain_s?),
            start: Duration::from_secs(start_s?),
            grace: Duration::from_secs(grace_s?),
        },
        lease: Duration::from_secs(lease_s?),
    })
}

fn egress(doc: &Document<'_>) -> Option<Outside> {
    let read = doc.object_opt("egress", |doc| {
        let enabled = doc.flag("enabled", true);
        let ca_file = doc.parsed_opt::<PathBuf>("ca_file", "the path of a PEM file");
        let expected = "a scheme, a host and a port, such as http://models:8080";
        let private_upstreams = doc.parsed_list::<Origin>("private_upstreams", expected);
        let (ca_file, private_upstreams) = (ca_file?, private_upstreams?);
        Some((enabled?, egress::Settings { ca_file, private_upstreams }))
    })?;
    Some(match read {
        None => Outside::WherePossible,
        Some((false, _)) => Outside::No,
        Some((true, settings)) => Outside::Always(settings),
    })
}

/// Sandboxes made in advance: by default none.
fn warm(doc: &Document<'_>, driver: Option<&Choice>) -> Option<Option<Bounds>> {
    if doc.raw("warm").is_some() && !matches!(driver, None | Some(Choice::Runsc(_))) {
        let mend = "leave it out, or take the driver \"runsc\"";
        doc.note("warm", "the driver makes no sandboxes in advance", mend);
        return None;
    }
    doc.object_opt("warm", |doc| {
        let max = doc.integer("max", Some(4), 1..=256);
        let per_key = doc.integer("per_key", Some(2), 1..=256);
        let memory_mib = doc.integer("memory_mib", Some(256), 32..=65_536);
        let idle_s = doc.integer("idle_s", Some(300), 1..=86_400);
        Some(Bounds {
            max: usize::try_from(max?).ok()?,
            per_key: usize::try_from(per_key?).ok()?,
            memory_bytes: memory_mib? << 20,
            idle: Duration::from_secs(idle_s?),
        })
    })
}

fn key_file(doc: &Document<'_>) -> Option<MasterKeys> {
    let path = doc.text("key_file")?;
    match MasterKeys::from_file(Path::new(&path)) {
        Ok(keys) => Some(keys),
        Err(error) => {
            let mend = "name the control API's key file: inputs and outputs are sealed under it";
            doc.note("key_file", format!("{path} {error}"), mend);
            None
        }
    }
}

pub(crate) fn folder(doc: &Document<'_>, name: &'static str, expected: &str) -> Option<PathBuf> {
    let path: PathBuf = doc.parsed(name, expected)?;
    if path.is_absolute() {
        return Some(path);
    }
    doc.note(name, format!("\"{}\" is relative", path.display()), format!("write {expected}"));
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use gatehouse_contract::document;

    const GOOD: &str = r#"{"key_file":"KEYS","admin_listen":"127.0.0.1:9","database":{"app":"postgres://a:b@h/d",
        "system":"postgres://s:b@h/d"},"redis":"redis://worker:p@h:1","image_store":"/i",
        "state_dir":"/s","runsc":"/r"}"#;

    #[test]
    fn what_is_not_said_has_its_default() {
        let file = std::env::temp_dir().join(format!("gatehouse-keys-{}", uuid::Uuid::new_v4()));
        std::fs::write(&file, "a".repeat(64)).unwrap();
        let good = GOOD.replace("KEYS", &file.display().to_string());
        let config = document::read(&good, read).unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
        assert_eq!((config.live.concurrency, config.worker_id.as_str()), (2, "worker"));
        assert_eq!(config.live.drain, Duration::from_secs(30));
        let limits = gatehouse_execution::Limits::default();
        assert_eq!((config.live.start, config.live.grace), (limits.start_timeout, limits.grace));
        assert_eq!(config.lease, Duration::from_secs(15));
    }

    /// The choice that `change` makes of [`GOOD`], or its mistakes.
    fn choice(change: &str) -> Result<Choice, String> {
        let file = std::env::temp_dir().join(format!("gatehouse-keys-{}", uuid::Uuid::new_v4()));
        std::fs::write(&file, "a".repeat(64)).unwrap();
        let good = GOOD.replace("KEYS", &file.display().to_string()).replace("@h", "@localhost");
        let text = good.replace(r#""runsc":"/r""#, change);
        let read = document::read(&text, read);
        std::fs::remove_file(&file).unwrap();
        read.map(|config| config.driver).map_err(|mistakes| format!("{mistakes:?}"))
    }

    #[test]
    fn a_driver_that_isolates_nothing_is_for_demo_tenants_on_this_machine() {
        let demo = r#""demo_tenants":["0191d6b0-7c3e-7aaa-8bbb-0123456789ab"]"#;
        assert!(matches!(choice(r#""runsc":"/r""#), Ok(Choice::Runsc(_))));
        for name in ["process", "sim"] {
            let with = choice(&format!(r#""driver":"{name}",{demo}"#)).unwrap();
            assert_eq!(with.name(), name);
            for (change, part) in [
                (format!(r#""driver":"{name}""#), "$.demo_tenants"),
                (format!(r#""driver":"{name}","runsc":"/r",{demo}"#), "$.runsc"),
            ] {
                let refused = choice(&change).unwrap_err();
                assert!(refused.contains(part), "{change}: {refused}");
            }
        }
        let refused = choice(&format!(r#""runsc":"/r",{demo}"#)).unwrap_err();
        assert!(refused.contains("$.demo_tenants"), "{refused}");
        assert!(choice(r#""driver":"docker""#).unwrap_err().contains("$.driver"));
        assert!(choice(r#""driver":"runsc""#).unwrap_err().contains("$.runsc"));
        let away = r#"{"key_file":"/k","admin_listen":"127.0.0.1:9","database":{"app":"postgres://a:b@db.internal/d",
            "system":"postgres://s:b@127.0.0.1/d"},"redis":"redis://worker:p@[::1]:1","image_store":"/i",
            "state_dir":"/s","driver":"process","demo_tenants":["0191d6b0-7c3e-7aaa-8bbb-0123456789ab"]}"#;
        let file = std::env::temp_dir().join(format!("gatehouse-keys-{}", uuid::Uuid::new_v4()));
        std::fs::write(&file, "a".repeat(64)).unwrap();
        let away = away.replace("/k", &file.display().to_string());
        let mistakes = document::read(&away, read).map(drop).unwrap_err();
        assert!(format!("{mistakes:?}").contains("another machine"), "{mistakes:?}");
        let here = away.replace("db.internal", "localhost:5432");
        assert!(document::read(&here, read).is_ok());
    }

    #[test]
    fn a_way_to_the_outside_that_was_asked_for_is_told_from_the_default() {
        let read = |text: &str| document::read(text, egress);
        let settings = egress::Settings::default();
        assert_eq!(read("{}"), Ok(Outside::WherePossible));
        for asked in [r#"{"egress":{}}"#, r#"{"egress":{"enabled":true}}"#] {
            assert_eq!(read(asked), Ok(Outside::Always(settings.clone())), "{asked}");
        }
        assert_eq!(read(r#"{"egress":{"enabled":false}}"#), Ok(Outside::No));
        for bad in [r#"{"egress":true}"#, r#"{"egress":{"hosts":[]}}"#] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sandboxes_are_made_in_advance_where_that_is_said_and_by_runsc_alone() {
        let read_with = |change: &str| {
            let file =
                std::env::temp_dir().join(format!("gatehouse-keys-{}", uuid::Uuid::new_v4()));
            std::fs::write(&file, "a".repeat(64)).unwrap();
            let good =
                GOOD.replace("KEYS", &file.display().to_string()).replace("@h", "@localhost");
            let text = good.replace(r#""runsc":"/r""#, change);
            let read = document::read(&text, read);
            std::fs::remove_file(&file).unwrap();
            read.map(|config| config.warm).map_err(|mistakes| format!("{mistakes:?}"))
        };
        assert_eq!(read_with(r#""runsc":"/r""#), Ok(None));
        let bounds = read_with(r#""runsc":"/r","warm":{"max":3}"#).unwrap().unwrap();
        let idle = Duration::from_secs(300);
        assert_eq!(bounds, Bounds { max: 3, per_key: 2, memory_bytes: 256 << 20, idle });
        for (change, place) in [
            (r#""runsc":"/r","warm":{"max":0}"#, "$.warm.max"),
            (r#""runsc":"/r","warm":{"memory_mib":31}"#, "$.warm.memory_mib"),
            (
                r#""driver":"sim","demo_tenants":["0191d6b0-7c3e-7aaa-8bbb-0123456789ab"],"warm":{}"#,
                "$.warm",
            ),
        ] {
            let refused = read_with(change).unwrap_err();
            assert!(refused.contains(place), "{change}: {refused}");
        }
    }

    #[test]
    fn every_mistake_is_named() {
        let bad = r#"{"admin_listen":"0.0.0.0:9","database":{"app":"mysql://x"},"redis":"redis://h",
            "image_store":"images","state_dir":"/s","runsc":"runsc","concurrency":0,
            "worker_id":"a b","drain":1,"key_file":"/nonexistent/keys"}"#;
        let mistakes = document::read(bad, read).map(drop).unwrap_err();
        let paths: Vec<_> = mistakes.iter().map(|mistake| mistake.path.as_str()).collect();
        let expected = [
            "$.admin_listen",
            "$.database.app",
            "$.database.system",
            "$.key_file",
            "$.image_store",
            "$.runsc",
            "$.concurrency",
            "$.worker_id",
            "$.drain",
        ];
        assert_eq!(paths, expected);
    }
}
