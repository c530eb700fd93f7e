//! R15: who passes unlimited: a peer that proved on this connection to be one that the document names, and nobody by
//! what is said in a header. Two real Envoys with real certificates.

use std::{net::SocketAddr, path::Path, time::Duration};

use gatehouse_tests::{
    envoy::{Gateway, bare, manager},
    http::{Message, Request},
    pki::{Authority, Identity},
    wait,
};
use gatehouse_xtask::render::envoy::cluster;
use serde_json::{Value, json};

use super::{AGENTS, LIMITED, Plan, limiter, of_tenant, told};
use crate::acceptance::gate::{Gate, OTHER_TENANT, Patch, token, verdict, with_claim};

const WORKER: &str = "spiffe://mesh.local/ns/factory/sa/worker";

/// Listeners of the gateway beside the plain one.
#[derive(Clone, Copy)]
struct Secured {
    /// A certificate is asked for and checked.
    strict: SocketAddr,
    /// A certificate is asked for and let pass whoever signed it.
    lax: SocketAddr,
}

/// Both listeners with the plain one's filters.
fn secured(at: Secured, ca: &Authority, own: &Identity) -> Patch {
    let (ca, own) = (ca.certificate.clone(), own.envoy());
    Box::new(move |bootstrap| {
        let listeners = bootstrap.pointer_mut("/static_resources/listeners")?.as_array_mut()?;
        let plain = listeners.first()?.clone();
        for (name, address, trust) in
            [("strict", at.strict, "VERIFY_TRUST_CHAIN"), ("lax", at.lax, "ACCEPT_UNTRUSTED")]
        {
            let mut listener = plain.clone();
            listener["name"] = json!(name);
            listener["address"]["socket_address"]["port_value"] = json!(address.port());
            listener["filter_chains"][0]["transport_socket"] = json!({
                "name": "envoy.transport_sockets.tls",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                    "require_client_certificate": false,
                    "common_tls_context": {
                        "tls_certificates": [own],
                        "validation_context": {
                            "trusted_ca": {"filename": ca},
                            "trust_chain_verification": trust,
                        },
                    },
                },
            });
            listeners.push(listener);
        }
        Some(())
    })
}

/// Which way a request goes to the gateway.
const WAY: &str = "x-test-way";

/// An Envoy of the mesh: a request's way names the certificate that it shows, and where.
fn mesh(dir: &Path, ways: &[(&str, SocketAddr, Option<&Identity>)], ca: &Authority) -> Gateway {
    let front = bare(dir, ways[0].1).unwrap();
    front
        .patch(|bootstrap| {
            let hosts = manager(bootstrap)?.get_mut("route_config")?.get_mut("virtual_hosts")?;
            let routes = ways.iter().map(|(way, ..)| {
                let header = json!({"name": WAY, "string_match": {"exact": way}});
                json!({"match": {"prefix": "/", "headers": [header]}, "route": {"cluster": way}})
            });
            *hosts.pointer_mut("/0/routes")? = routes.collect();
            let clusters = bootstrap.pointer_mut("/static_resources/clusters")?.as_array_mut()?;
            clusters.extend(ways.iter().map(|(way, to, identity)| {
                let mut cluster = cluster(way, *to);
                let shown: Vec<Value> = identity.iter().map(|identity| identity.envoy()).collect();
                cluster["transport_socket"] = json!({
                    "name": "envoy.transport_sockets.tls",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                        "common_tls_context": {
                            "tls_certificates": shown,
                            "validation_context": {"trusted_ca": {"filename": ca.certificate}},
                        },
                    },
                });
                cluster
            }));
            Some(())
        })
        .unwrap();
    Gateway::run(dir, front).unwrap()
}

/// Everything that a caller might say to be taken for an internal one.
fn claiming(request: Request) -> Request {
    request
        .header(
            "X-Forwarded-Client-Cert",
            &format!("By=spiffe://mesh.local/ns/edge/sa/gateway;Hash=00;URI={WORKER}"),
        )
        .header("X-Envoy-Internal", "true")
        .header("X-Forwarded-For", "10.0.0.1")
        .header("X-Spiffe-Id", WORKER)
}

#[test]
fn r15_only_a_peer_that_proved_its_identity_on_this_connection_passes_unlimited() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str, uris: &[&str], ca: &Authority| ca.issue(dir.path(), name, uris).unwrap();
    let ca = Authority::new(dir.path(), "mesh-ca").unwrap();
    let stranger = Authority::new(dir.path(), "stranger-ca").unwrap();
    let gateway = at("gateway", &["spiffe://mesh.local/ns/edge/sa/gateway"], &ca);
    let worker = at("worker", &[WORKER], &ca);
    let web = at("web", &["spiffe://mesh.local/ns/factory/sa/web"], &ca);
    let longer = at("longer", &[&format!("{WORKER}/x")], &ca);
    let nameless = at("nameless", &[], &ca);
    let forged = at("forged", &[WORKER], &stranger);

    let secured_at = Secured { strict: wait::address().unwrap(), lax: wait::address().unwrap() };
    let document = limiter(&json!({"bypass": {"spiffe_ids": [WORKER]}}));
    let bootstrap = secured(secured_at, &ca, &gateway);
    let gate = Gate::with(Plan { document, bootstrap, ..of_tenant(3) });
    let Secured { strict, lax } = secured_at;
    let ways = [
        ("worker", strict, Some(&worker)),
        ("worker-lax", lax, Some(&worker)),
        ("web", strict, Some(&web)),
        ("longer", strict, Some(&longer)),
        ("nameless", strict, Some(&nameless)),
        ("forged-lax", lax, Some(&forged)),
        ("nobody", strict, None),
        ("nobody-lax", lax, None),
    ];
    let front = mesh(dir.path(), &ways, &ca);
    let by = |way: &str, request: Request| -> Message {
        request.header(WAY, way).send(front.listen).unwrap()
    };
    let bearer = token();
    let get = || Request::new("GET", AGENTS).bearer(&bearer);
    wait::until("the mesh", Duration::from_secs(20), || {
        let answer = by("worker", Request::new("GET", AGENTS));
        anyhow::ensure!(answer.status()? == 401, "{answer:?} {}", front.process.log());
        Ok(Some(()))
    })
    .unwrap();

    // Far above the limit, and told of none.
    for way in ["worker", "worker-lax"] {
        for _ in 0..6 {
            let answer = by(way, get());
            assert_eq!(verdict(&answer), "200", "{way}: {answer:?}");
            assert_eq!(answer.headers.all("retry-after"), [""; 0]);
        }
    }
    // Metered all the same: nothing is left for the tenant's others.
    wait::until("what passed is charged", Duration::from_secs(20), || {
        let answer = gate.send(&get());
        Ok((verdict(&answer) == LIMITED).then_some(()))
    })
    .unwrap();

    // Nobody else, with whatever headers, by whatever way, in the tenant that is at its limit.
    for way in ["web", "longer", "nameless", "forged-lax", "nobody", "nobody-lax"] {
        for request in [get(), claiming(get())] {
            let answer = by(way, request);
            assert_eq!(verdict(&answer), LIMITED, "{way}: {answer:?}");
        }
    }
    for request in [get(), claiming(get())] {
        gate.denies(&request, LIMITED);
    }
    // The nearest that passes, at the same moment.
    let answer = by("worker", claiming(get()));
    assert_eq!(verdict(&answer), "200");
    // What was claimed reaches nobody.
    let saw = gatehouse_tests::http::serve::seen(&answer).unwrap();
    assert_eq!(saw.headers.all("x-forwarded-client-cert"), [""; 0], "{saw:?}");

    // Unlimited is not unauthenticated, and an identity is no credential.
    let refused = by("worker", Request::new("GET", AGENTS));
    assert_eq!(verdict(&refused), "401 credential_missing");
    assert_eq!(
        verdict(&by("worker", Request::new("GET", AGENTS).bearer("x.y.z"))),
        "401 token_invalid"
    );

    // Another tenant's window is its own, by every way.
    let other = with_claim("tenant_id", json!(OTHER_TENANT));
    let answer = by("web", Request::new("GET", AGENTS).bearer(&other));
    assert_eq!(told(&answer).map(|told| told.remaining), Some(2), "{answer:?}");
    gate.envoy.stat("wasm.suite.vm_reload_success").map(|lost| assert_eq!(lost, 0)).unwrap();
}
