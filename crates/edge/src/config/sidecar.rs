//! How to reach the sidecar and other targets of call-outs. Knows no questions.

use std::{rc::Rc, str::FromStr, time::Duration};

use gatehouse_contract::Document;

use super::{
    Warnings,
    words::{Host, Printable},
};

/// Where a call-out goes.
#[derive(Debug, PartialEq, Eq)]
pub struct Target {
    /// Envoy: a cluster's name. Kong: `host:port` or `unix:/path`.
    pub name: String,
    /// Its `:authority`.
    pub authority: String,
}

/// How to reach the sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sidecar {
    /// Where it is.
    pub target: Rc<Target>,
    /// How long a rate decision may take, in milliseconds.
    pub(crate) timeout_ms: u64,
    /// How long keys and principals may take, in milliseconds: behind these the sidecar may have to ask others.
    pub(crate) identity_timeout_ms: u64,
    /// How often each VM asks for changes.
    pub(crate) poll: Duration,
    /// How long a token that is known goes on while nobody answers.
    pub(crate) max_silence: Duration,
}

/// The largest time-out of a call-out.
pub(super) const MAX_TIMEOUT_MS: u64 = 10_000;

impl Sidecar {
    /// How long a rate decision may take.
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    /// How often each VM asks for changes.
    pub fn poll(&self) -> Duration {
        self.poll
    }
}

pub(super) fn read(
    doc: &Document<'_>,
    host: Option<Host>,
    warnings: &mut Warnings,
) -> Option<Sidecar> {
    let target = read_target(doc, host, Some("gatehouse-sidecar"));
    let timeout_ms = doc.integer("timeout_ms", Some(50), 1..=MAX_TIMEOUT_MS);
    let identity_timeout_ms = doc.integer("identity_timeout_ms", Some(1000), 1..=MAX_TIMEOUT_MS);
    let poll_ms = doc.integer("poll_ms", Some(250), 50..=5000);
    if poll_ms.is_some_and(|poll| poll > 1000) {
        let text = "what is revoked is refused within a second only if each worker asks within one; \
                    write 1000 or less";
        warnings.add("$.sidecar.poll_ms", text);
    }
    let max_silence_s = doc.integer("max_silence_s", Some(300), 0..=300);
    Some(Sidecar {
        target: Rc::new(target?),
        timeout_ms: timeout_ms?,
        identity_timeout_ms: identity_timeout_ms?,
        poll: Duration::from_millis(poll_ms?),
        max_silence: Duration::from_secs(max_silence_s?),
    })
}

/// `target` and `authority`, in the host's way; `authority` is required where it has no default.
pub(super) fn read_target(
    doc: &Document<'_>,
    host: Option<Host>,
    authority: Option<&str>,
) -> Option<Target> {
    let name: Option<String> = match host {
        Some(Host::Kong) => {
            let expected = "\"host:port\" or \"unix:/path\", as Kong calls addresses, not clusters";
            doc.parsed::<KongTarget>("target", expected).map(|target| target.0)
        }
        Some(Host::Envoy) | None => {
            doc.parsed::<Printable>("target", "a cluster's name").map(|name| name.0)
        }
    };
    let expected = "a host name, with a port if need be";
    let authority = match authority {
        Some(default) => doc.parsed_or_text("authority", default, expected),
        None => doc.parsed("authority", expected),
    };
    let authority: Option<Printable> = authority;
    Some(Target { name: name?, authority: authority?.0 })
}

/// An address as ngx_wasm_module takes it.
struct KongTarget(String);

impl FromStr for KongTarget {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let Printable(target) = text.parse()?;
        let path = target.strip_prefix("unix:").is_some_and(|path| path.starts_with('/'));
        let port = target.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
        });
        if path || port { Ok(Self(target)) } else { Err(()) }
    }
}
