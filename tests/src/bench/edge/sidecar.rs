//! The product's own sidecar beside Envoy, over a Redis of its own: it serves the keys, the member's facts, the change
//! feed, checks and leases. Only who is outside is ours: the identity provider, and the record that the sidecar asks
//! once. Knows nothing of who asks.

use std::{net::SocketAddr, path::Path};

use anyhow::{Context, Result, ensure};
use gatehouse_contract::{
    Tier,
    sidecar::{CHANGES_PATH, ChangesAnswer},
};
use serde_json::Value;

use crate::{
    fleet::{Fleet, Settings, relay::Relay},
    front,
    http::{self, Request, serve::Server},
    vm::{Answer, Call, Headers},
    wait,
};

/// Requests per window: far above any load.
const PLENTY: u32 = 16_000_000;
/// Tokens on the deny list, through which every request's token is looked up.
const DENIED: usize = 1000;

/// The running sidecar. Dropped from the outside in.
pub(super) struct Sidecar {
    _relay: Relay,
    fleet: Fleet,
    _record: Server,
    _keys: Server,
}

impl Sidecar {
    /// Starts everything and waits until the sidecar decides and its feed is alive.
    pub(super) fn start(dir: &Path, jwks: Value) -> Result<Self> {
        let (keys, record) = (front::keys(jwks)?, front::record(|_| Tier::Free)?);
        let more = front::members(&keys, &record);
        let settings = Settings { tiers: [PLENTY; 3], burst: 5, more, ..Settings::default() };
        let fleet = Fleet::over_redis(dir, 1, &settings)?;
        let relay = Relay::start(fleet.store.redis()?, DENIED)?;
        let sidecar = Self { _relay: relay, fleet, _record: record, _keys: keys };
        let listen = sidecar.listen()?;
        wait::until("the feed is alive", wait::START, || {
            let answer = Request::new("GET", CHANGES_PATH).send(listen)?;
            let answer: ChangesAnswer = serde_json::from_value(answer.json()?)?;
            let denied = answer.snapshot.context("no snapshot")?.len();
            ensure!(denied == DENIED, "{denied} denied tokens");
            Ok(answer.alive.then_some(()))
        })?;
        Ok(sidecar)
    }

    /// Where filters ask.
    pub(super) fn listen(&self) -> Result<SocketAddr> {
        Ok(self.fleet.sidecars.first().context("no sidecar")?.listen)
    }

    /// Asks for the wasmtime host what its VM asks.
    pub(super) fn answer(&self, call: &Call) -> Result<Answer> {
        let line = call.line();
        let mut bytes = format!(
            "{line} HTTP/1.1\r\nhost: gatehouse-sidecar\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            call.body.len()
        )
        .into_bytes();
        bytes.extend_from_slice(&call.body);
        let answer = http::exchange(self.listen()?, &bytes)?;
        let status = answer.status()?;
        ensure!(status == 200, "{line}: {answer:?}");
        let status = (b":status".to_vec(), status.to_string().into_bytes());
        let others = answer.headers.iter().map(|(name, value)| (name.to_vec(), value.to_vec()));
        let headers = Headers::new(std::iter::once(status).chain(others));
        Ok(Answer::new(headers, answer.body))
    }
}
