//! The path over real HTTP through real Envoy to the real services. Two worlds: limits in Redis with Envoy's own
//! verifier and a worker, and limits in memory with the portable verifier. What is black box runs in both. People sign
//! in in a world with a provider.

mod executions;
mod faults;
mod identity;
mod limits;
mod roles;
mod sign_in;
mod surfaces;
mod tokens;

use gatehouse_tests::{
    checks,
    http::{Message, Request},
    walk::walk,
    world::{Limiter, MARK, Plan, World},
};
use serde_json::Value;

const AGENTS: &str = "/api/v1/registry/agents";

#[test]
fn the_path_with_redis_and_native_signatures() {
    let plan = Plan { limiter: Limiter::Redis, signatures: "native", worker: true };
    let world = World::start(plan).unwrap();
    walk(
        &world,
        &checks![
            limits::the_61st_request_of_a_free_tenant_is_429,
            identity::no_token_is_401_with_a_challenge,
            identity::a_good_token_brings_the_tenant_context,
            identity::no_spelling_of_a_tenant_header_reaches_the_upstream,
            identity::nothing_internal_is_routed,
            identity::the_native_verifier_was_taken,
            surfaces::x8_every_surface_refuses_in_one_shape,
            tokens::bad_tokens_are_refused,
            roles::a_viewer_may_not_create,
            roles::versions_are_routed_or_named,
            roles::v5_another_pin_reaches_the_gateway_and_goes_again,
            limits::decisions_are_keys_of_redis,
            executions::an_agent_runs_in_gvisor,
            executions::another_tenant_s_execution_is_a_missing_one,
        ],
        &checks![
            tokens::keys_rotate_once_without_a_refused_request,
            faults::the_sidecar_away_is_503_until_it_is_back,
            faults::redis_away_is_decided_by_shares_and_said_so,
            faults::no_vm_was_lost,
            faults::a_stopped_worker_leaves_nothing_behind,
        ],
    )
    .unwrap();
}

#[test]
fn the_path_with_memory_and_portable_signatures() {
    let plan = Plan { limiter: Limiter::Memory, signatures: "portable", worker: false };
    let world = World::start(plan).unwrap();
    walk(
        &world,
        &checks![
            limits::the_61st_request_of_a_free_tenant_is_429,
            identity::no_token_is_401_with_a_challenge,
            identity::a_good_token_brings_the_tenant_context,
            tokens::bad_tokens_are_refused,
        ],
        &checks![tokens::keys_rotate_once_without_a_refused_request, faults::no_vm_was_lost],
    )
    .unwrap();
}

/// A request with a mark by which it is found upstream.
fn request(method: &str, path: &str) -> (Request, String) {
    let id = uuid::Uuid::new_v4().to_string();
    (Request::new(method, path).header(MARK, &id), id)
}

/// `STATUS code` of a problem, after a look at its form.
#[track_caller]
fn refusal(answer: &Message) -> String {
    assert_eq!(answer.headers.all("content-type"), ["application/problem+json"], "{answer:?}");
    let body = answer.json().unwrap();
    let status = answer.status().unwrap();
    assert_eq!(body["status"], status);
    assert_eq!(body["request_id"], answer.headers.one("x-request-id").unwrap());
    format!("{status} {}", body["code"].as_str().unwrap())
}

/// A problem's body without what differs from request to request.
fn without_request_id(answer: &Message) -> Value {
    let mut body = answer.json().unwrap();
    for member in ["request_id", "instance"] {
        assert!(body.as_object_mut().unwrap().remove(member).is_some(), "{member}");
    }
    body
}
