//! The host against modules of a few instructions, where a real filter would not go.

use wasm_encoder::{BlockType, Instruction};

use super::*;
use crate::tiny;

/// What one request to such a filter leads to.
fn check(import: &str, body: &[Instruction<'_>], expected: &str) {
    let around = Surroundings {
        personality: ENVOY,
        targets: Vec::new(),
        native_signatures: false,
        now: UNIX_EPOCH,
    };
    let outcome = Filter::compile(&tiny::module(import, body)).and_then(|filter| {
        let mut vm = Vm::start(&filter, &around)?;
        let stream = vm.request(Headers::new([(":path", "/")]), true)?;
        Ok(format!("{:?}", vm.standing(stream)?))
    });
    let outcome = outcome.unwrap_or_else(|error| format!("{error:#}"));
    assert!(outcome.contains(expected), "{outcome}");
}

const CONTINUE: Instruction<'_> = Instruction::I32Const(0);
const PAUSE: Instruction<'_> = Instruction::I32Const(1);
/// Any import of the ABI that takes one number and gives one.
const DONE: &str = "proxy_set_tick_period_milliseconds";

#[test]
fn an_action_decides_where_the_stream_stands() {
    check(DONE, &[CONTINUE], r#"Forwarded({":path": "/"})"#);
    check(DONE, &[PAUSE], "Held");
}

#[test]
fn a_trap_names_the_callback_and_the_frame() {
    check(DONE, &[Instruction::Unreachable], "proxy_on_request_headers trapped: wasm trap");
    check(DONE, &[Instruction::Unreachable], "wasm backtrace:\n    0:");
}

#[test]
fn an_endless_loop_is_a_trap() {
    let body =
        [Instruction::Loop(BlockType::Empty), Instruction::Br(0), Instruction::End, CONTINUE];
    check(DONE, &body, "all fuel consumed");
}

#[test]
fn imports_that_envoy_lacks_do_not_load_and_unused_ones_trap_when_called() {
    let call = [PAUSE, Instruction::Call(0)];
    check("proxy_made_up", &[CONTINUE], "unknown import: `env::proxy_made_up`");
    check("proxy_close_stream", &[CONTINUE], "Forwarded");
    check("proxy_close_stream", &call, "proxy_close_stream: no filter of ours may call this");
}
