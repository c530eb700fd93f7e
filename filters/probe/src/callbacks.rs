//! What the host calls, and what is remembered between calls. Knows no questions.

#![expect(unsafe_code, reason = "exports for the host")]

use std::{cell::RefCell, collections::BTreeMap};

use crate::{abi, scenes};

pub const ROOT: u32 = 1;
pub const CONTINUE: u32 = 0;
pub const PAUSE: u32 = 1;

/// A request that waits for its call-out.
pub struct Waiting {
    pub scene: String,
    pub lines: Vec<String>,
    pub token: u32,
}

/// Everything that this VM remembers.
#[derive(Default)]
pub struct Memory {
    pub events: Vec<String>,
    pub waiting: BTreeMap<u32, Waiting>,
    pub counted: u32,
    pub ticks: u32,
    /// What another module left in the stream, for the upstream to see: the configuration was `tell NAME`.
    pub tell: Option<String>,
}

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::default();
}

pub fn with<T>(work: impl FnOnce(&mut Memory) -> T) -> T {
    MEMORY.with_borrow_mut(work)
}

pub fn event(text: impl Into<String>) {
    with(|memory| memory.events.push(text.into()));
}

unsafe extern "C" {
    fn __wasm_call_ctors();
}

#[unsafe(no_mangle)]
pub extern "C" fn _initialize() {
    // SAFETY: the linker makes this function, and nobody else calls it.
    unsafe { __wasm_call_ctors() };
}

#[unsafe(no_mangle)]
pub extern "C" fn proxy_abi_version_0_2_1() {}

#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    let mut memory = std::mem::ManuallyDrop::new(Vec::<u8>::with_capacity(size));
    memory.as_mut_ptr()
}

#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_vm_start(_root: u32, _size: u32) -> u32 {
    1
}

#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_configure(root: u32, size: usize) -> u32 {
    event(format!("the root context is {root}"));
    let document = abi::buffer(7);
    event(format!(
        "the size of the configuration is right: {}",
        document.as_ref().map(Vec::len) == Ok(size)
    ));
    event(format!("configuration: {}", scenes::shown(&document)));
    let told = document.as_ref().ok().and_then(|text| text.strip_prefix(b"tell "));
    let tell = told.and_then(|name| String::from_utf8(name.to_vec()).ok());
    with(|memory| memory.tell = tell);
    event(format!("filter state of the root context: {}", abi::set_property("p_root", b"1")));
    event(format!("the request's headers in the root context: {:?}", abi::pairs(0).map(drop)));
    event(format!("ticks: {}", abi::tick_every(50)));
    1
}

#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_context_create(_context: u32, _root: u32) {}

#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_tick(root: u32) {
    with(|memory| memory.ticks += 1);
    if with(|memory| memory.ticks) == 1 {
        event(format!("a tick of context {root}"));
        let asked = scenes::ask("peer", "/tick", 2000);
        event(format!("a call-out of the root context: {:?}", asked.map(drop)));
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_request_headers(context: u32, _count: u32, end: u32) -> u32 {
    match with(|memory| memory.tell.clone()) {
        Some(name) => scenes::tell(&name),
        None => scenes::play(context, end),
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_response_headers(_context: u32, _count: u32, _end: u32) -> u32 {
    let status = abi::header(2, ":status");
    abi::replace(2, "x-p-seen", scenes::shown(&status).as_bytes());
    CONTINUE
}

#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_http_call_response(
    context: u32,
    token: u32,
    headers: u32,
    body: usize,
    trailers: u32,
) {
    scenes::answered(context, token, headers > 0, body, trailers);
}

#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_done(_context: u32) -> u32 {
    1
}

#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_delete(context: u32) {
    let waiting = with(|memory| memory.waiting.get(&context).is_some_and(|w| w.scene == "late"));
    if waiting {
        event("the stream ends while its call-out is on its way");
    }
}
