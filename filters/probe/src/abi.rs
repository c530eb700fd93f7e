//! The host's functions, with the status as the host gave it. Knows no questions.

#![expect(unsafe_code, reason = "calling the host is what this module is for")]

use std::ptr;

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_log(level: u32, text: *const u8, size: usize) -> u32;
    fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
    fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
    fn proxy_set_effective_context(context: u32) -> u32;
    fn proxy_get_buffer_bytes(
        kind: u32,
        start: usize,
        most: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_get_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_add_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_replace_header_map_value(
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
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc: i32,
    ) -> u32;
    fn proxy_http_call(
        target: *const u8,
        target_size: usize,
        headers: *const u8,
        headers_size: usize,
        body: *const u8,
        body_size: usize,
        trailers: *const u8,
        trailers_size: usize,
        timeout_ms: u32,
        token: *mut u32,
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
}

#[link(wasm_import_module = "wasi_snapshot_preview1")]
unsafe extern "C" {
    fn clock_time_get(clock: u32, precision: u64, time: *mut u64) -> u32;
}

/// A status as a word.
pub fn word(status: u32) -> &'static str {
    match status {
        0 => "ok",
        1 => "not found",
        2 => "bad argument",
        4 => "parse failure",
        6 => "invalid memory access",
        7 => "empty",
        8 => "cas mismatch",
        10 => "internal failure",
        12 => "unimplemented",
        _ => "another status",
    }
}

/// What the host gave, or the word for why it gave nothing.
pub type Given = Result<Vec<u8>, &'static str>;

fn given(ask: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Given {
    let (mut data, mut size) = (ptr::null_mut(), 0_usize);
    match ask(&raw mut data, &raw mut size) {
        0 if data.is_null() => Ok(Vec::new()),
        // SAFETY: the host got this memory from `proxy_on_memory_allocate`, which leaks a vector of this capacity.
        0 => Ok(unsafe { Vec::from_raw_parts(data, size, size) }),
        status => Err(word(status)),
    }
}

// SAFETY, for all that follow: the host reads the arguments and writes the results before it returns; all of them
// live longer.

pub fn log(text: &str) -> &'static str {
    word(unsafe { proxy_log(2, text.as_ptr(), text.len()) })
}

pub fn now_ns() -> u64 {
    let mut now = 0;
    unsafe { proxy_get_current_time_nanoseconds(&raw mut now) };
    now
}

/// WASI's clock that never runs back; the error's number where there is none.
pub fn monotonic_ns() -> Result<u64, u32> {
    let mut now = 0;
    let error = unsafe { clock_time_get(1, 1, &raw mut now) };
    if error == 0 { Ok(now) } else { Err(error) }
}

pub fn tick_every(period_ms: u32) -> &'static str {
    word(unsafe { proxy_set_tick_period_milliseconds(period_ms) })
}

pub fn become_context(context: u32) -> &'static str {
    word(unsafe { proxy_set_effective_context(context) })
}

pub fn buffer(kind: u32) -> Given {
    given(|data, size| unsafe { proxy_get_buffer_bytes(kind, 0, usize::MAX, data, size) })
}

pub fn header(map: u32, name: &str) -> Given {
    given(|data, size| unsafe {
        proxy_get_header_map_value(map, name.as_ptr(), name.len(), data, size)
    })
}

pub fn add(map: u32, name: &str, value: &[u8]) -> &'static str {
    word(unsafe {
        proxy_add_header_map_value(map, name.as_ptr(), name.len(), value.as_ptr(), value.len())
    })
}

pub fn replace(map: u32, name: &str, value: &[u8]) -> &'static str {
    word(unsafe {
        proxy_replace_header_map_value(map, name.as_ptr(), name.len(), value.as_ptr(), value.len())
    })
}

pub fn remove(map: u32, name: &str) -> &'static str {
    word(unsafe { proxy_remove_header_map_value(map, name.as_ptr(), name.len()) })
}

/// The pairs of a map.
pub fn pairs(map: u32) -> Result<Vec<(Vec<u8>, Vec<u8>)>, &'static str> {
    let wire = given(|data, size| unsafe { proxy_get_header_map_pairs(map, data, size) })?;
    read_pairs(&wire).ok_or("a map that cannot be read")
}

fn read_pairs(wire: &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let number = |at: usize| {
        let bytes: [u8; 4] = wire.get(at..at.checked_add(4)?)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    if wire.is_empty() {
        return Some(Vec::new());
    }
    let count = number(0)?;
    let mut at = 4 + count * 8;
    let mut text = |size: usize| {
        let text = wire.get(at..at + size)?.to_vec();
        at += size + 1;
        Some(text)
    };
    let pair = |index: usize| Some((text(number(4 + index * 8)?)?, text(number(8 + index * 8)?)?));
    (0..count).map(pair).collect()
}

fn write_pairs(pairs: &[(&str, &[u8])]) -> Vec<u8> {
    let mut wire = (pairs.len() as u32).to_le_bytes().to_vec();
    for (name, value) in pairs {
        wire.extend((name.len() as u32).to_le_bytes());
        wire.extend((value.len() as u32).to_le_bytes());
    }
    for text in pairs.iter().flat_map(|(name, value)| [name.as_bytes(), value]) {
        wire.extend_from_slice(text);
        wire.push(0);
    }
    wire
}

pub fn property(path: &str) -> Given {
    given(|data, size| unsafe { proxy_get_property(path.as_ptr(), path.len(), data, size) })
}

pub fn set_property(path: &str, value: &[u8]) -> &'static str {
    word(unsafe { proxy_set_property(path.as_ptr(), path.len(), value.as_ptr(), value.len()) })
}

pub fn reply(status: u32, headers: &[(&str, &[u8])], body: &[u8]) -> &'static str {
    let headers = write_pairs(headers);
    let details = "probe";
    word(unsafe {
        proxy_send_local_response(
            status,
            details.as_ptr(),
            details.len(),
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            headers.len(),
            -1,
        )
    })
}

/// The token of a call-out.
pub fn call(target: &str, headers: &[(&str, &[u8])], timeout_ms: u32) -> Result<u32, &'static str> {
    let headers = write_pairs(headers);
    let trailers = write_pairs(&[]);
    let mut token = 0;
    let status = unsafe {
        proxy_http_call(
            target.as_ptr(),
            target.len(),
            headers.as_ptr(),
            headers.len(),
            ptr::null(),
            0,
            trailers.as_ptr(),
            trailers.len(),
            timeout_ms,
            &raw mut token,
        )
    };
    if status == 0 { Ok(token) } else { Err(word(status)) }
}

/// The value and its CAS number.
pub fn shared(key: &str) -> Result<(Vec<u8>, u32), &'static str> {
    let mut cas = 0;
    let value = given(|data, size| unsafe {
        proxy_get_shared_data(key.as_ptr(), key.len(), data, size, &raw mut cas)
    })?;
    Ok((value, cas))
}

pub fn share(key: &str, value: &[u8], cas: u32) -> &'static str {
    word(unsafe {
        proxy_set_shared_data(key.as_ptr(), key.len(), value.as_ptr(), value.len(), cas)
    })
}

pub fn foreign(name: &str, arguments: &[u8]) -> Given {
    given(|data, size| unsafe {
        proxy_call_foreign_function(
            name.as_ptr(),
            name.len(),
            arguments.as_ptr(),
            arguments.len(),
            data,
            size,
        )
    })
}
