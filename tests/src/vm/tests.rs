//! The host against modules of a few instructions, where a real filter would not go.

use wasm_encoder::{BlockType, Instruction};

use super::*;
use crate::tiny;

/// What one request to such a filter leads to.
fn check(import: &str, body: &[Instruction<'_>], expected: &str) {
    let around = Surroundings::at(SystemTime::UNIX_EPOCH);
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

fn tiny_vm(around: &Surroundings, body: &[Instruction<'_>]) -> Vm {
    Vm::start(&Filter::compile(&tiny::module(DONE, body)).unwrap(), around).unwrap()
}

fn request(vm: &mut Vm) -> Result<StreamId> {
    vm.request(Headers::new([(":path", "/")]), true)
}

#[test]
fn shared_data_are_written_as_envoy_writes_them() {
    let host = Host::at(SystemTime::UNIX_EPOCH);
    // Where nothing is yet, any number will do.
    host.share("a", b"k", b"1", 7).unwrap();
    let (_, first) = host.shared("a", b"k").unwrap();
    host.share("a", b"k", b"2", first).unwrap();
    assert_eq!(host.share("a", b"k", b"3", first), Err(CasMismatch));
    let (value, second) = host.shared("a", b"k").unwrap();
    assert_eq!(value, b"2");
    assert!(second > first);
    host.share("a", b"k", b"4", 0).unwrap();
    assert_eq!(host.share("a", b"k", b"5", second), Err(CasMismatch));
    // Another name space has values of its own, but the numbers are the process's.
    assert_eq!(host.shared("b", b"k"), None);
    host.share("b", b"k", b"x", 0).unwrap();
    assert!(host.shared("b", b"k").unwrap().1 > host.shared("a", b"k").unwrap().1);
}

#[test]
fn the_wall_clock_steps_and_timers_do_not_notice() {
    let around = Surroundings::at(SystemTime::UNIX_EPOCH + Duration::from_secs(100));
    let mut vm = tiny_vm(&around, &[Instruction::I32Const(250), Instruction::Call(0)]);
    assert_eq!(vm.tick_period(), None);
    request(&mut vm).unwrap();
    assert_eq!(vm.tick_period(), Some(Duration::from_millis(250)));
    around.host.set_clock(SystemTime::UNIX_EPOCH);
    vm.advance(Duration::from_millis(600)).unwrap();
    assert_eq!(around.host.now(), SystemTime::UNIX_EPOCH + Duration::from_millis(600));
    assert_eq!(around.host.elapsed(), Duration::from_millis(600));
    let next = |vm: &Vm| vm.store.data().next_tick.unwrap();
    assert_eq!(next(&vm), Duration::from_millis(750));
    // A second VM of the process: both clocks are one, and each has its own timer.
    let mut other = tiny_vm(&around, &[Instruction::I32Const(100), Instruction::Call(0)]);
    request(&mut other).unwrap();
    advance(&mut [&mut vm, &mut other], Duration::from_millis(200)).unwrap();
    assert_eq!(next(&vm), Duration::from_millis(1000));
    assert_eq!(next(&other), Duration::from_millis(900));
}

#[test]
fn a_trapped_vm_is_dead_until_it_is_loaded_again() {
    // Traps at more than one header.
    let body = [
        Instruction::LocalGet(1),
        Instruction::I32Const(1),
        Instruction::I32GtU,
        Instruction::If(BlockType::Empty),
        Instruction::Unreachable,
        Instruction::End,
        Instruction::I32Const(0),
    ];
    let mut vm = tiny_vm(&Surroundings::at(SystemTime::UNIX_EPOCH), &body);
    assert!(vm.configure("{}").unwrap());
    request(&mut vm).unwrap();
    let error = vm.request(Headers::new([(":path", "/"), ("a", "b")]), true).unwrap_err();
    assert!(error.downcast_ref::<Trap>().is_some(), "{error:#}");
    assert!(vm.is_dead());
    let error = request(&mut vm).unwrap_err();
    assert!(error.to_string().contains("dead since an earlier trap"), "{error:#}");
    assert!(vm.reload().unwrap());
    assert!(!vm.is_dead());
    let stream = request(&mut vm).unwrap();
    assert!(matches!(vm.standing(stream).unwrap(), Standing::Forwarded(_)));
}
