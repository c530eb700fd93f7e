//! The callbacks that a host calls, and what belongs to each of its contexts. A host may call for a context that is
//! gone, or answer a call-out that nobody waits for: nothing happens then, and what is not known stays closed.
//! Knows no policy.

#![cfg_attr(
    target_family = "wasm",
    expect(unsafe_code, reason = "the names by which a host finds its callbacks")
)]

use std::cell::RefCell;

use gatehouse_edge::Parts;
use hashbrown::HashMap;

use crate::{
    abi::{self, Action},
    host,
    root::Root,
    stream::Stream,
};

/// All contexts of this VM.
struct Module {
    parts: Parts,
    roots: HashMap<u32, Root>,
    streams: HashMap<u32, Stream>,
    /// The context that waits for each call-out.
    calls: HashMap<u32, u32>,
}

thread_local! {
    static MODULE: RefCell<Option<Module>> = const { RefCell::new(None) };
}

/// Makes this VM a module that takes `parts` of the request path. Called once, by [`crate::module!`].
pub fn start(parts: Parts) {
    let module =
        Module { parts, roots: HashMap::new(), streams: HashMap::new(), calls: HashMap::new() };
    MODULE.with(|place| {
        if let Ok(mut place) = place.try_borrow_mut() {
            *place = Some(module);
        }
    });
}

/// `None` before the start, or when a host calls from within its own callback, which it must not.
fn with<R>(work: impl FnOnce(&mut Module) -> Option<R>) -> Option<R> {
    MODULE.with(|place| place.try_borrow_mut().ok().and_then(|mut module| work(module.as_mut()?)))
}

impl Module {
    fn stream(&mut self, context: u32) -> Option<&mut Stream> {
        self.streams.get_mut(&context)
    }

    /// The call-outs of `context` are the one of `token`, or none.
    fn wait(&mut self, context: u32, before: Option<u32>, token: Option<u32>) {
        if before == token {
            return;
        }
        if let Some(before) = before {
            self.calls.remove(&before);
        }
        if let Some(token) = token {
            self.calls.insert(token, context);
        }
    }
}

/// Runs a callback of a stream that may send a call-out.
fn on_stream(context: u32, work: impl FnOnce(&mut Stream) -> Action) -> Option<Action> {
    with(|module| {
        let stream = module.stream(context)?;
        let before = stream.waits_for();
        let action = work(stream);
        let after = stream.waits_for();
        module.wait(context, before, after);
        Some(action)
    })
}

/// The ABI's version.
#[cfg_attr(target_family = "wasm", unsafe(no_mangle))]
pub extern "C" fn proxy_abi_version_0_2_1() {}

/// Memory for what the host hands over.
#[cfg_attr(target_family = "wasm", unsafe(no_mangle))]
pub extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    abi::allocate(size)
}

/// A root context, or a stream below one.
#[cfg_attr(target_family = "wasm", unsafe(no_mangle))]
pub extern "C" fn proxy_on_context_create(context: u32, root: u32) {
    with(|module| {
        if root == 0 {
            module.roots.insert(context, Root::new(module.parts));
        } else {
            let engine = module.roots.get(&root).and_then(Root::engine);
            module.streams.insert(context, Stream::new(engine));
        }
        Some(())
    });
}

/// There is nothing to start.
#[cfg_attr(target_family = "wasm", unsafe(no_mangle))]
pub extern "C" fn proxy_on_vm_start(_root: u32, _size: usize) -> u32 {
    1
}

/// A configuration came; 0 refuses it.
#[cfg_attr(target_family = "wasm", unsafe(no_mangle))]
pub extern "C" fn proxy_on_configure(root: u32, _size: usize) -> u32 {
    let taken = with(|module| {
        // What the configuration before asked for is nobody's.
        module.calls.retain(|_, context| *context != root);
        Some(module.roots.get_mut(&root)?.on_configure())
    });
    u32::from(taken.unwrap_or(false))
}

/// Time has passed.
#[cfg_attr(target_family = "wasm", unsafe(no_mangle))]
pub extern "C" fn proxy_on_tick(root: u32) {
    with(|module| {
        let sent = module.roots.get_mut(&root)?.on_tick();
        module.calls.extend(sent.into_iter().map(|token| (token, root)));
        Some(())
    });
}

/// A request's headers came.
#[cfg_attr(target_family = "wasm", unsafe(no_mangle))]
pub extern "C" fn proxy_on_request_headers(context: u32, _count: usize, _ended: u32) -> u32 {
    let action = on_stream(context, Stream::on_request_headers);
    action.unwrap_or_else(host::close) as u32
}

/// A piece of a request's body came.
#[cfg_attr(target_family = "wasm", unsafe(no_mangle))]
pub extern "C" fn proxy_on_request_body(context: u32, _size: usize, _ended: u32) -> u32 {
    let action = with(|module| Some(module.stream(context)?.on_request_body()));
    action.unwrap_or(Action::Pause) as u32
}

/// A request's trailers came.
#[cfg_attr(target_family = "wasm", unsafe(no_mangle))]
pub extern "C" fn proxy_on_request_trailers(context: u32, _count: usize) -> u32 {
    let action = with(|module| Some(module.stream(context)?.on_request_trailers()));
    action.unwrap_or(Action::Pause) as u32
}

/// A response's headers came, our own replies' included.
#[cfg_attr(target_family = "wasm", unsafe(no_mangle))]
pub extern "C" fn proxy_on_response_headers(context: u32, _count: usize, _ended: u32) -> u32 {
    on_stream(context, Stream::on_response_headers).unwrap_or(Action::Continue) as u32
}

/// A call-out ended.
#[cfg_attr(target_family = "wasm", unsafe(no_mangle))]
pub extern "C" fn proxy_on_http_call_response(
    _context: u32,
    token: u32,
    headers: usize,
    body_size: usize,
    _trailers: usize,
) {
    with(|module| {
        // Hosts name one context or another here: the token is what counts.
        let context = module.calls.remove(&token)?;
        if !abi::set_effective_context(context) {
            return None;
        }
        if let Some(root) = module.roots.get_mut(&context) {
            root.on_answer(token, headers, body_size);
        } else {
            let stream = module.stream(context)?;
            stream.on_answer(token, headers, body_size);
            let after = stream.waits_for();
            module.wait(context, None, after);
        }
        Some(())
    });
}

/// A context is gone, and with it what it waits for.
#[cfg_attr(target_family = "wasm", unsafe(no_mangle))]
pub extern "C" fn proxy_on_delete(context: u32) {
    with(|module| {
        if let Some(stream) = module.streams.remove(&context) {
            module.wait(context, stream.waits_for(), None);
        } else if module.roots.remove(&context).is_some() {
            module.calls.retain(|_, waiting| *waiting != context);
        }
        Some(())
    });
}
