//! A sidecar of data: it knows one issuer's keys and one member, and its feed is alive and says nothing new.
//! Real HTTP for Envoy, plain answers for the wasmtime host. Knows nothing of who asks.

use std::{
    io::{BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
};

use anyhow::{Context, Result};
use gatehouse_contract::{
    Role, TenantId, Tier, header,
    sidecar::{
        CHANGES_PATH, ChangesAnswer, CheckAnswer, JWKS_PATH, JwksAnswer, LEASE_PATH, LeaseAnswer,
        LimitState, PRINCIPAL_PATH, PrincipalFacts,
    },
};
use serde_json::Value;

use crate::http::Message;

/// What it says.
#[derive(Debug)]
pub(super) struct Sidecar {
    pub(super) issuer: String,
    pub(super) jwks: Value,
    pub(super) tenant: TenantId,
    pub(super) subject: String,
}

/// Names the one run of the feed.
const EPOCH: &str = "bench";

impl Sidecar {
    /// The body for `METHOD /path?query`, if there is one.
    pub(super) fn answer(&self, line: &str) -> Option<String> {
        let (_method, target) = line.split_once(' ')?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let body = match path {
            JWKS_PATH => {
                let jwks = self.jwks.to_string();
                serde_json::to_value(JwksAnswer { generation: 1, jwks, max_age_ms: 3_600_000 })
            }
            PRINCIPAL_PATH => serde_json::to_value(PrincipalFacts {
                roles: [Role::Developer].into_iter().collect(),
                tier: Tier::Free,
                epoch: 1,
                ..PrincipalFacts::member(self.tenant, &self.subject)
            }),
            CHANGES_PATH => serde_json::to_value(ChangesAnswer {
                epoch: EPOCH.to_owned(),
                sequence: 1,
                alive: true,
                changes: Vec::new(),
                snapshot: (!query.contains(&format!("epoch={EPOCH}"))).then(Vec::new),
                keys: [(self.issuer.clone(), 1)].into(),
            }),
            LEASE_PATH => serde_json::to_value(LeaseAnswer {
                check: Some(CheckAnswer {
                    allowed: true,
                    retry_after_s: None,
                    degraded: false,
                    day_used_percent: None,
                    limits: vec![LimitState {
                        name: "tenant".to_owned(),
                        limit: 1_000_000,
                        window_s: 60,
                        remaining: 999_999,
                        reset_s: 0,
                    }],
                }),
                lease: None,
                share: None,
            }),
            _ => return None,
        };
        body.ok().map(|body| body.to_string())
    }

    /// Serves on a free port until the process ends.
    pub(super) fn serve(self: &Arc<Self>) -> Result<SocketAddr> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let sidecar = Arc::clone(self);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let sidecar = Arc::clone(&sidecar);
                // A connection that breaks is Envoy's to report.
                std::thread::spawn(move || drop(sidecar.converse(stream)));
            }
        });
        Ok(address)
    }

    fn converse(&self, stream: TcpStream) -> Result<()> {
        let mut out = stream.try_clone()?;
        let mut requests = BufReader::new(stream);
        while let Some(request) = Message::read(&mut requests, false)? {
            let line = request.start.rsplit_once(' ').context("a request line")?.0;
            let (status, body) = match self.answer(line) {
                Some(body) => ("200 OK", body),
                None => ("404 Not Found", String::new()),
            };
            let head = format!(
                "HTTP/1.1 {status}\r\n{}: 1\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                header::SIDECAR_MARKER,
                body.len()
            );
            out.write_all(format!("{head}{body}").as_bytes())?;
        }
        Ok(())
    }
}
