//! T11: tenants interleaved on one HTTP/2 connection never mix.

use gatehouse_tests::{
    envoy,
    h2::client::{Connection, block_on},
    token::jwks,
};
use serde_json::{Value, json};

use super::gate::{AGENTS, Gate, OTHER_TENANT, Plan, SUBJECT, TENANT, alone, claims, key, signed};

/// How many requests: a million by `GATEHOUSE_TEST_INTERLEAVED=1000000 cargo xtask test -- t11_`, fewer by itself.
const VARIABLE: &str = "GATEHOUSE_TEST_INTERLEAVED";
const BY_ITSELF: usize = 100_000;
/// Streams that are open at the same time.
const STREAMS: usize = 64;
/// Callers of each tenant: remembered ones, and one whose every token is new.
const CALLERS: usize = 4;

/// Envoy itself answers with what the upstream would have seen.
fn telling(bootstrap: &mut Value) -> Option<()> {
    let hosts = envoy::manager(bootstrap)?.get_mut("route_config")?.get_mut("virtual_hosts")?;
    let append = |name: &str, value: &str| json!({"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"});
    *hosts.pointer_mut("/0/routes")? = json!([{
        "match": {"prefix": "/"},
        "direct_response": {"status": 200},
        "response_headers_to_add": [
            append("saw-tenant", "%REQ(X-TENANT-ID)%"),
            append("saw-user", "%REQ(X-USER-ID)%"),
            append("saw-baggage", "%REQ(BAGGAGE)%"),
        ],
    }]);
    Some(())
}

#[test]
fn t11_tenants_interleaved_on_one_connection_never_mix() {
    let total: usize = match std::env::var(VARIABLE) {
        Ok(number) => number.parse().unwrap(),
        Err(_) => BY_ITSELF,
    };
    let document = alone(&jwks(&[key()]).unwrap());
    let gate = Gate::with(Plan { document, bootstrap: Box::new(telling), ..Plan::default() });
    let listen = gate.envoy.listen;
    let callers: Vec<(String, String, String)> = (0..CALLERS)
        .flat_map(|n| [TENANT, OTHER_TENANT].map(|tenant| (tenant, format!("{SUBJECT}-{n}"))))
        .map(|(tenant, subject)| {
            let mut claims = claims();
            claims["tenant_id"] = json!(tenant);
            claims["sub"] = json!(subject);
            claims["groups"] = json!(["developers"]);
            (tenant.to_owned(), subject, signed(&claims))
        })
        .collect();
    let callers = std::sync::Arc::new(callers);
    let mixed = block_on(async move {
        let connection = Connection::open(listen).await?;
        let workers: Vec<_> = (0..STREAMS)
            .map(|worker| {
                let (connection, callers) = (connection.clone(), callers.clone());
                tokio::spawn(async move {
                    let mut mixed = Vec::new();
                    for n in 0..total / STREAMS {
                        let (tenant, subject, token) = &callers[(n + worker) % callers.len()];
                        let request = http::Request::builder()
                            .uri(format!("http://api.greenlang.local{AGENTS}"))
                            .header("authorization", format!("Bearer {token}"))
                            .header(
                                "x-tenant-id",
                                if tenant == TENANT { OTHER_TENANT } else { TENANT },
                            )
                            .body(())?;
                        let answer = connection.send(request, None).await?;
                        let saw = ["saw-tenant", "saw-user", "saw-baggage"].map(|h| answer.all(h));
                        let baggage = format!("tenant.id={tenant}");
                        if saw != [[tenant.as_str()], [subject.as_str()], [baggage.as_str()]] {
                            mixed.push(format!("{tenant} {subject}: {saw:?} {answer:?}"));
                            break;
                        }
                    }
                    anyhow::Ok(mixed)
                })
            })
            .collect();
        let mut mixed = Vec::new();
        for worker in workers {
            mixed.extend(worker.await??);
        }
        Ok(mixed)
    })
    .unwrap();
    assert!(mixed.is_empty(), "{mixed:#?}");
    let connections = gate.envoy.stat("http.gateway.downstream_cx_http2_total").unwrap();
    assert_eq!(connections, 1);
    let answered = gate.envoy.stat("http.gateway.downstream_rq_2xx").unwrap();
    assert!(usize::try_from(answered).unwrap() >= total / STREAMS * STREAMS, "{answered}");
    assert_eq!(gate.envoy.stat("wasm.suite.vm_reload_success").unwrap(), 0);
}
