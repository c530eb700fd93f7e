//! The host's functions of the proxy-wasm ABI 0.2.1 that we call by ourselves. Whatever a host answers is a value here:
//! a panic takes every stream of the worker along, and the SDK's own wrappers panic on a status that they do not expect
//! and on names that are not UTF-8 (acceptance J30). Contexts, callbacks and call-outs are the SDK's.
//! Knows nothing of what headers mean.

#![expect(unsafe_code, reason = "calling the host; nothing else in this crate may")]

use std::{cell::RefCell, ptr};

mod map;

pub(crate) use map::HeaderMap;

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_log(level: u32, text: *const u8, size: usize) -> u32;
    fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
    fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
    fn proxy_get_buffer_bytes(
        buffer: u32,
        start: usize,
        most: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_set_buffer_bytes(
        buffer: u32,
        start: usize,
        length: usize,
        data: *const u8,
        size: usize,
    ) -> u32;
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_replace_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_add_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_remove_header_map_value(map: u32, name: *const u8, name_size: usize) -> u32;
    fn proxy_get_property(
        path: *const u8,
        path_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_set_property(
        path: *const u8,
        path_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_continue_stream(stream: u32) -> u32;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc_status: i32,
    ) -> u32;
    fn proxy_get_shared_data(
        key: *const u8,
        key_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
        cas: *mut u32,
    ) -> u32;
    fn proxy_set_shared_data(
        key: *const u8,
        key_size: usize,
        value: *const u8,
        value_size: usize,
        cas: u32,
    ) -> u32;
    fn proxy_call_foreign_function(
        name: *const u8,
        name_size: usize,
        arguments: *const u8,
        arguments_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, name_size: usize, metric: *mut u32) -> u32;
    fn proxy_increment_metric(metric: u32, by: i64) -> u32;
}

#[link(wasm_import_module = "wasi_snapshot_preview1")]
unsafe extern "C" {
    // `std::time::Instant` panics where a host has no such clock.
    fn clock_time_get(clock: u32, precision: u64, time: *mut u64) -> u32;
}

/// The status for "done".
const OK: u32 = 0;
/// What a stream of requests is called.
const HTTP_REQUEST: u32 = 0;

/// A metric that only grows.
const COUNTER: u32 = 0;
/// WASI's clock that never runs back.
const MONOTONIC: u32 = 1;

/// The levels of log lines that are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Info = 2,
    Warn = 3,
    Error = 4,
}

/// The header maps that are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Map {
    Request = 0,
    RequestTrailers = 1,
    Response = 2,
    Answer = 6,
}

/// The buffers that are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Buffer {
    #[cfg(feature = "validate")]
    RequestBody = 0,
    ResponseBody = 1,
    AnswerBody = 4,
    Configuration = 7,
}

/// An answer of our own as the host takes it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LocalResponse<'a> {
    pub(crate) status: u32,
    pub(crate) headers: &'a [(&'a str, &'a str)],
    pub(crate) body: &'a [u8],
    /// For Envoy's access log: `%RESPONSE_CODE_DETAILS%`.
    pub(crate) details: &'a str,
    /// -1 for none.
    pub(crate) grpc_status: i32,
}

/// A log line that is not taken concerns nobody.
pub(crate) fn log(level: Level, text: &str) {
    // SAFETY: the host reads `text`, which lives until it returns.
    unsafe { proxy_log(level as u32, text.as_ptr(), text.len()) };
}

/// Nanoseconds since the Unix epoch.
pub(crate) fn now_ns() -> Option<u64> {
    let mut now = 0;
    // SAFETY: the host writes one number to a place that lives until it returns.
    let status = unsafe { proxy_get_current_time_nanoseconds(&raw mut now) };
    (status == OK).then_some(now)
}

/// Nanoseconds by a clock that never runs back; its zero means nothing.
pub(crate) fn monotonic_ns() -> Option<u64> {
    let mut now = 0;
    // SAFETY: the host writes one number to a place that lives until it returns.
    let error = unsafe { clock_time_get(MONOTONIC, 1, &raw mut now) };
    (error == 0).then_some(now)
}

/// The id of a counter; the same name is the same counter. Envoy gives a new id to every definition and keeps all of
/// them as long as the VM lives, so that a name is defined once, however many configurations name it.
pub(crate) fn counter(name: &str) -> Option<u32> {
    thread_local! {
        static DEFINED: RefCell<Vec<(String, u32)>> = const { RefCell::new(Vec::new()) };
    }
    DEFINED.with(|defined| {
        let mut defined = defined.try_borrow_mut().ok()?;
        if let Some((_, metric)) = defined.iter().find(|(known, _)| known == name) {
            return Some(*metric);
        }
        let metric = define_counter(name)?;
        defined.push((name.to_owned(), metric));
        Some(metric)
    })
}

fn define_counter(name: &str) -> Option<u32> {
    let mut metric = 0;
    // SAFETY: the host reads `name` and writes one number, which live until it returns.
    let status =
        unsafe { proxy_define_metric(COUNTER, name.as_ptr(), name.len(), &raw mut metric) };
    (status == OK).then_some(metric)
}

/// A counter that cannot be raised concerns nobody.
pub(crate) fn count(metric: u32, by: u64) {
    // SAFETY: numbers.
    unsafe { proxy_increment_metric(metric, i64::try_from(by).unwrap_or(i64::MAX)) };
}

/// Only for the root context that a callback is for; 0 ends the ticks.
pub(crate) fn set_tick_period(period_ms: u32) -> bool {
    // SAFETY: a number.
    unsafe { proxy_set_tick_period_milliseconds(period_ms) == OK }
}

/// At most `most` bytes of a buffer.
pub(crate) fn buffer(buffer: Buffer, most: usize) -> Option<Vec<u8>> {
    // SAFETY: as `taken` asks for.
    taken(|data, size| unsafe { proxy_get_buffer_bytes(buffer as u32, 0, most, data, size) })
}

/// Puts `bytes` into a buffer in front of the byte at `start`; behind all where that is its end.
pub(crate) fn insert(buffer: Buffer, start: usize, bytes: &[u8]) -> bool {
    // SAFETY: the host reads `bytes`, which live until it returns.
    let status =
        unsafe { proxy_set_buffer_bytes(buffer as u32, start, 0, bytes.as_ptr(), bytes.len()) };
    status == OK
}

/// The bytes of a whole header map.
fn header_map(map: Map) -> Option<Vec<u8>> {
    // SAFETY: as `taken` asks for.
    taken(|data, size| unsafe { proxy_get_header_map_pairs(map as u32, data, size) })
}

/// Replaces every value of a header by one.
pub(crate) fn set_header(map: Map, name: &str, value: &[u8]) -> bool {
    let (name, name_size) = (name.as_ptr(), name.len());
    let (value, value_size) = (value.as_ptr(), value.len());
    // SAFETY: the host reads both, which live until it returns.
    let status =
        unsafe { proxy_replace_header_map_value(map as u32, name, name_size, value, value_size) };
    status == OK
}

/// Adds a value to those that a header has.
pub(crate) fn add_header(map: Map, name: &str, value: &[u8]) -> bool {
    let (name, name_size) = (name.as_ptr(), name.len());
    let (value, value_size) = (value.as_ptr(), value.len());
    // SAFETY: the host reads both, which live until it returns.
    let status =
        unsafe { proxy_add_header_map_value(map as u32, name, name_size, value, value_size) };
    status == OK
}

pub(crate) fn remove_header(map: Map, name: &str) -> bool {
    // SAFETY: the host reads `name`, which lives until it returns.
    unsafe { proxy_remove_header_map_value(map as u32, name.as_ptr(), name.len()) == OK }
}

/// `path` has its steps separated by NUL.
pub(crate) fn property(path: &str) -> Option<Vec<u8>> {
    // SAFETY: as `taken` asks for; the host reads `path`, which lives until it returns.
    taken(|data, size| unsafe { proxy_get_property(path.as_ptr(), path.len(), data, size) })
}

/// `path` has its steps separated by NUL.
pub(crate) fn set_property(path: &str, value: &[u8]) -> bool {
    let (path, path_size) = (path.as_ptr(), path.len());
    // SAFETY: the host reads both, which live until it returns.
    unsafe { proxy_set_property(path, path_size, value.as_ptr(), value.len()) == OK }
}

pub(crate) fn continue_request() -> bool {
    // SAFETY: a number.
    unsafe { proxy_continue_stream(HTTP_REQUEST) == OK }
}

pub(crate) fn local_response(response: &LocalResponse<'_>) -> bool {
    let LocalResponse { status, headers, body, details, grpc_status } = *response;
    let headers = map::encode(headers);
    // SAFETY: the host reads all of them, which live until it returns.
    let status = unsafe {
        proxy_send_local_response(
            status,
            details.as_ptr(),
            details.len(),
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            headers.len(),
            grpc_status,
        )
    };
    status == OK
}

/// A value that all VMs share, and the number to set it by.
pub(crate) fn shared_data(key: &str) -> Option<(Vec<u8>, u32)> {
    let mut cas = 0;
    let (name, size_of_name) = (key.as_ptr(), key.len());
    // SAFETY: as `taken` asks for; the host reads `key` and writes one number, which live until it returns.
    let value = taken(|data, size| unsafe {
        proxy_get_shared_data(name, size_of_name, data, size, &raw mut cas)
    })?;
    Some((value, cas))
}

/// Sets a value that all VMs share if nobody has set it since `cas` was read; 0 sets it anyhow.
pub(crate) fn set_shared_data(key: &str, value: &[u8], cas: u32) -> bool {
    let (key, key_size) = (key.as_ptr(), key.len());
    // SAFETY: the host reads both, which live until it returns.
    unsafe { proxy_set_shared_data(key, key_size, value.as_ptr(), value.len(), cas) == OK }
}

/// Calls a function that only some hosts have.
pub(crate) fn foreign_function(name: &str, arguments: &[u8]) -> Option<Vec<u8>> {
    let (name, name_size) = (name.as_ptr(), name.len());
    let (arguments, arguments_size) = (arguments.as_ptr(), arguments.len());
    // SAFETY: as `taken` asks for; the host reads both, which live until it returns.
    taken(|data, size| unsafe {
        proxy_call_foreign_function(name, name_size, arguments, arguments_size, data, size)
    })
}

/// What a host hands over: `call` gives it two places for one pointer and one length, and does nothing else with
/// them. The memory must be from the SDK's `proxy_on_memory_allocate`, as the ABI has it.
fn taken(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Option<Vec<u8>> {
    let mut data: *mut u8 = ptr::null_mut();
    let mut size: usize = 0;
    if call(&raw mut data, &raw mut size) != OK {
        return None;
    }
    if data.is_null() {
        return Some(Vec::new());
    }
    // SAFETY: `proxy_on_memory_allocate` leaks a boxed slice of exactly `size` bytes of this module's allocator, and the
    // host hands it over: nobody else frees it.
    Some(unsafe { Vec::from_raw_parts(data, size, size) })
}
