//! The proxy-wasm ABI 0.2.1 as Envoy offers it (`env.proxy_*`). A module that imports what Envoy lacks does not load.

use std::time::Duration;

use wasmtime::{ExternType, Linker, Module, Result, format_err};

use super::{
    CasMismatch, Headers, foreign,
    guest::{OK, Vm, give, put, read, read_more, write},
    state::{Call, Line, Metric, Reply, State},
};

const NOT_FOUND: u32 = 1;
const BAD_ARGUMENT: u32 = 2;
const CAS_MISMATCH: u32 = 8;

/// What Envoy gives a local reply with a body that names no type.
const LOCAL_REPLY_TYPE: &str = "text/plain";

/// The rest of the ABI: Envoy has them, the SDK imports them unasked, no filter of ours calls them.
/// A call is a trap that names the function, so that a new use shows.
const UNUSED: &[&str] = &[
    "proxy_close_stream",
    "proxy_dequeue_shared_queue",
    "proxy_enqueue_shared_queue",
    "proxy_get_status",
    "proxy_grpc_call",
    "proxy_grpc_cancel",
    "proxy_grpc_close",
    "proxy_grpc_send",
    "proxy_grpc_stream",
    "proxy_register_shared_queue",
    "proxy_resolve_shared_queue",
];

pub(super) fn link(linker: &mut Linker<State>, module: &Module) -> Result<()> {
    for import in module.imports().filter(|import| UNUSED.contains(&import.name())) {
        if let ExternType::Func(kind) = import.ty() {
            let name = import.name().to_owned();
            linker.func_new("env", import.name(), kind, move |_, _, _| {
                Err(format_err!("{name}: no filter of ours may call this"))
            })?;
        }
    }
    logs_and_time(linker)?;
    header_maps(linker)?;
    buffers_and_properties(linker)?;
    streams_and_calls(linker)?;
    shared_data(linker)?;
    metrics(linker)
}

fn logs_and_time(linker: &mut Linker<State>) -> Result<()> {
    linker.func_wrap("env", "proxy_log", |mut vm: Vm<'_>, level: u32, data: u32, size: u32| {
        let text = read(&mut vm, "proxy_log", data, size)?;
        let text = String::from_utf8_lossy(&text).into_owned();
        vm.data_mut().log.push(Line { level, text });
        Ok(OK)
    })?;
    linker.func_wrap("env", "proxy_get_log_level", |mut vm: Vm<'_>, out: u32| {
        vm.data_mut().count("proxy_get_log_level", 4);
        put(&mut vm, out, 2)?;
        Ok(OK)
    })?;
    linker.func_wrap("env", "proxy_get_current_time_nanoseconds", |mut vm: Vm<'_>, out: u32| {
        vm.data_mut().count("proxy_get_current_time_nanoseconds", 8);
        let now = vm.data().host.wall_ns();
        write(&mut vm, out, &now.to_le_bytes())?;
        Ok(OK)
    })?;
    linker.func_wrap("env", "proxy_set_tick_period_milliseconds", |mut vm: Vm<'_>, ms: u32| {
        vm.data_mut().count("proxy_set_tick_period_milliseconds", 0);
        let state = vm.data_mut();
        let (was, now) = (state.next_tick, state.host.elapsed());
        state.tick = Duration::from_millis(u64::from(ms));
        // A running timer keeps its next time.
        state.next_tick = (ms > 0).then(|| was.unwrap_or(now + state.tick));
        Ok(OK)
    })?;
    linker.func_wrap("env", "proxy_set_effective_context", |mut vm: Vm<'_>, context: u32| {
        let state = vm.data_mut();
        state.count("proxy_set_effective_context", 0);
        if context != state.root && !state.streams.contains_key(&context) {
            return Ok(BAD_ARGUMENT);
        }
        state.effective = context;
        Ok(OK)
    })?;
    linker.func_wrap("env", "proxy_done", |mut vm: Vm<'_>| {
        vm.data_mut().count("proxy_done", 0);
        Ok(OK)
    })?;
    Ok(())
}

fn header_maps(linker: &mut Linker<State>) -> Result<()> {
    linker.func_wrap(
        "env",
        "proxy_get_header_map_pairs",
        |mut vm: Vm<'_>, kind: u32, data: u32, size: u32| {
            // A map that is not there reads as an empty one.
            let wire = vm.data_mut().map(kind).map(|map| map.to_wire());
            let wire = wire.unwrap_or_else(|| Headers::default().to_wire());
            give(&mut vm, "proxy_get_header_map_pairs", &wire, data, size)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_set_header_map_pairs",
        |mut vm: Vm<'_>, kind: u32, data: u32, size: u32| {
            let wire = read(&mut vm, "proxy_set_header_map_pairs", data, size)?;
            let headers = from_wire(&wire)?;
            let Some(map) = vm.data_mut().map(kind) else { return Ok(BAD_ARGUMENT) };
            *map = headers;
            Ok(OK)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_get_header_map_value",
        |mut vm: Vm<'_>, kind: u32, key: u32, key_size: u32, data: u32, size: u32| {
            let name = read(&mut vm, "proxy_get_header_map_value", key, key_size)?;
            let Some(map) = vm.data_mut().map(kind) else { return Ok(BAD_ARGUMENT) };
            // Of several values Envoy gives the first.
            let Some(value) = map.values(&name).next().map(<[u8]>::to_vec) else {
                return Ok(NOT_FOUND);
            };
            give(&mut vm, "proxy_get_header_map_value", &value, data, size)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_remove_header_map_value",
        |mut vm: Vm<'_>, kind: u32, key: u32, key_size: u32| {
            let name = read(&mut vm, "proxy_remove_header_map_value", key, key_size)?;
            let Some(map) = vm.data_mut().map(kind) else { return Ok(BAD_ARGUMENT) };
            map.remove(&name);
            Ok(OK)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_replace_header_map_value",
        |mut vm: Vm<'_>, kind: u32, key: u32, key_size: u32, value: u32, value_size: u32| {
            let mut name = read(&mut vm, "proxy_replace_header_map_value", key, key_size)?;
            let value = read_more(&mut vm, "proxy_replace_header_map_value", value, value_size)?;
            if vm.data().personality.lower_case_names {
                name.make_ascii_lowercase();
            }
            let Some(map) = vm.data_mut().map(kind) else { return Ok(BAD_ARGUMENT) };
            map.replace(&name, &value);
            Ok(OK)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_add_header_map_value",
        |mut vm: Vm<'_>, kind: u32, key: u32, key_size: u32, value: u32, value_size: u32| {
            let mut name = read(&mut vm, "proxy_add_header_map_value", key, key_size)?;
            let value = read_more(&mut vm, "proxy_add_header_map_value", value, value_size)?;
            if vm.data().personality.lower_case_names {
                name.make_ascii_lowercase();
            }
            let Some(map) = vm.data_mut().map(kind) else { return Ok(BAD_ARGUMENT) };
            map.add(&name, &value);
            Ok(OK)
        },
    )?;
    Ok(())
}

fn buffers_and_properties(linker: &mut Linker<State>) -> Result<()> {
    linker.func_wrap(
        "env",
        "proxy_get_buffer_bytes",
        |mut vm: Vm<'_>, kind: u32, start: u32, max: u32, data: u32, size: u32| {
            let state = vm.data();
            let buffer = match kind {
                4 => state.answer.as_ref().map(|answer| answer.body.clone()),
                0 => streamed(state),
                1 => state.streams.get(&state.effective).map(|stream| stream.response_body.clone()),
                // No body is there yet.
                6 => Some(Vec::new()),
                7 => Some(state.configuration.clone()),
                _ => None,
            };
            let Some(buffer) = buffer else { return Ok(NOT_FOUND) };
            let part: Vec<u8> = buffer
                .into_iter()
                .skip(usize::try_from(start)?)
                .take(usize::try_from(max)?)
                .collect();
            give(&mut vm, "proxy_get_buffer_bytes", &part, data, size)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_set_buffer_bytes",
        |mut vm: Vm<'_>, kind: u32, start: u32, length: u32, data: u32, size: u32| {
            let bytes = read(&mut vm, "proxy_set_buffer_bytes", data, size)?;
            let (start, length) = (usize::try_from(start)?, usize::try_from(length)?);
            let Some(stream) = vm.data_mut().stream().filter(|_| kind == 1) else {
                return Ok(NOT_FOUND);
            };
            // As Envoy: in front, with so many bytes less, or behind all of them; nowhere between.
            let body = &mut stream.response_body;
            if start == 0 {
                body.splice(..length.min(body.len()), bytes).for_each(drop);
            } else if start >= body.len() {
                body.extend(bytes);
            } else {
                return Ok(BAD_ARGUMENT);
            }
            Ok(OK)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_get_property",
        |mut vm: Vm<'_>, path: u32, path_size: u32, data: u32, size: u32| {
            let path = read(&mut vm, "proxy_get_property", path, path_size)?;
            let state = vm.data_mut();
            let own = state.stream().and_then(|stream| stream.filter_state.get(&path).cloned());
            let Some(value) = own.or_else(|| state.properties.get(&path).cloned()) else {
                return Ok(NOT_FOUND);
            };
            give(&mut vm, "proxy_get_property", &value, data, size)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_set_property",
        |mut vm: Vm<'_>, path: u32, path_size: u32, value: u32, value_size: u32| {
            let path = read(&mut vm, "proxy_set_property", path, path_size)?;
            let value = read_more(&mut vm, "proxy_set_property", value, value_size)?;
            // Filter state is a stream's: the root context has none.
            let Some(stream) = vm.data_mut().stream() else { return Ok(NOT_FOUND) };
            stream.filter_state.insert(path, value);
            Ok(OK)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_call_foreign_function",
        |mut vm: Vm<'_>,
         name: u32,
         name_size: u32,
         arguments: u32,
         arguments_size: u32,
         data: u32,
         size: u32| {
            let name = read(&mut vm, "proxy_call_foreign_function", name, name_size)?;
            let arguments =
                read_more(&mut vm, "proxy_call_foreign_function", arguments, arguments_size)?;
            let state = vm.data();
            let known = state.personality.foreign_functions.iter().any(|f| f.as_bytes() == name);
            if !known || !state.native_signatures {
                return Ok(NOT_FOUND);
            }
            match foreign::verify_signature(&arguments) {
                Ok(result) => give(&mut vm, "foreign results", &result, data, size),
                Err(foreign::BadArgument) => Ok(BAD_ARGUMENT),
            }
        },
    )?;
    Ok(())
}

fn streams_and_calls(linker: &mut Linker<State>) -> Result<()> {
    linker.func_wrap("env", "proxy_continue_stream", |mut vm: Vm<'_>, kind: u32| {
        vm.data_mut().count("proxy_continue_stream", 0);
        match (kind, vm.data_mut().stream()) {
            (0, Some(stream)) => stream.resume = true,
            (1, Some(_)) => {}
            _ => return Ok(BAD_ARGUMENT),
        }
        Ok(OK)
    })?;
    linker.func_wrap(
        "env",
        "proxy_send_local_response",
        |mut vm: Vm<'_>,
         status: u32,
         details: u32,
         details_size: u32,
         body: u32,
         body_size: u32,
         headers: u32,
         headers_size: u32,
         grpc_status: i32| {
            read(&mut vm, "proxy_send_local_response", details, details_size)?;
            let body = read_more(&mut vm, "proxy_send_local_response", body, body_size)?;
            let wire = read_more(&mut vm, "proxy_send_local_response", headers, headers_size)?;
            let mut headers = from_wire(&wire)?;
            headers.replace(b":status", status.to_string().as_bytes());
            if !body.is_empty() {
                headers.replace(b"content-length", body.len().to_string().as_bytes());
                if headers.all("content-type").is_empty() {
                    headers.replace(b"content-type", LOCAL_REPLY_TYPE.as_bytes());
                }
            }
            let Some(stream) = vm.data_mut().stream() else { return Ok(BAD_ARGUMENT) };
            if stream.reply.is_some() {
                return Err(format_err!("a second local response for one stream"));
            }
            stream.reply = Some(Reply { status, headers, body, grpc_status });
            Ok(OK)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_http_call",
        |mut vm: Vm<'_>,
         target: u32,
         target_size: u32,
         headers: u32,
         headers_size: u32,
         body: u32,
         body_size: u32,
         trailers: u32,
         trailers_size: u32,
         timeout_ms: u32,
         token_out: u32| {
            let target = read(&mut vm, "proxy_http_call", target, target_size)?;
            let headers = read_more(&mut vm, "proxy_http_call", headers, headers_size)?;
            let body = read_more(&mut vm, "proxy_http_call", body, body_size)?;
            read_more(&mut vm, "proxy_http_call", trailers, trailers_size)?;
            let headers = from_wire(&headers)?;
            let state = vm.data_mut();
            let target = String::from_utf8_lossy(&target).into_owned();
            let complete =
                [":method", ":path", ":authority"].iter().all(|name| headers.one(name).is_some());
            if !state.targets.contains(&target) || !complete {
                return Ok(BAD_ARGUMENT);
            }
            let token = state.next_token;
            state.next_token += 1;
            let context = state.effective;
            state.calls.insert(token, Call { token, context, target, headers, body, timeout_ms });
            put(&mut vm, token_out, token)?;
            Ok(OK)
        },
    )?;
    Ok(())
}

fn shared_data(linker: &mut Linker<State>) -> Result<()> {
    linker.func_wrap(
        "env",
        "proxy_get_shared_data",
        |mut vm: Vm<'_>, key: u32, key_size: u32, data: u32, size: u32, cas_out: u32| {
            let key = read(&mut vm, "proxy_get_shared_data", key, key_size)?;
            let state = vm.data();
            let Some((value, cas)) = state.host.shared(&state.vm_id, &key) else {
                return Ok(NOT_FOUND);
            };
            put(&mut vm, cas_out, cas)?;
            give(&mut vm, "proxy_get_shared_data", &value, data, size)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_set_shared_data",
        |mut vm: Vm<'_>, key: u32, key_size: u32, value: u32, value_size: u32, cas: u32| {
            let key = read(&mut vm, "proxy_set_shared_data", key, key_size)?;
            let value = read_more(&mut vm, "proxy_set_shared_data", value, value_size)?;
            let state = vm.data();
            match state.host.share(&state.vm_id, &key, &value, cas) {
                Ok(()) => Ok(OK),
                Err(CasMismatch) => Ok(CAS_MISMATCH),
            }
        },
    )?;
    Ok(())
}

fn metrics(linker: &mut Linker<State>) -> Result<()> {
    linker.func_wrap(
        "env",
        "proxy_define_metric",
        |mut vm: Vm<'_>, _kind: u32, name: u32, name_size: u32, id_out: u32| {
            let name = read(&mut vm, "proxy_define_metric", name, name_size)?;
            let name = String::from_utf8_lossy(&name).into_owned();
            let metrics = &mut vm.data_mut().metrics;
            let id = metrics.iter().position(|metric| metric.name == name).unwrap_or_else(|| {
                metrics.push(Metric { name, value: 0 });
                metrics.len() - 1
            });
            put(&mut vm, id_out, u32::try_from(id)?)?;
            Ok(OK)
        },
    )?;
    linker.func_wrap("env", "proxy_increment_metric", |mut vm: Vm<'_>, id: u32, offset: i64| {
        vm.data_mut().count("proxy_increment_metric", 8);
        let id = usize::try_from(id)?;
        let Some(metric) = vm.data_mut().metrics.get_mut(id) else { return Ok(NOT_FOUND) };
        metric.value += offset;
        Ok(OK)
    })?;
    linker.func_wrap("env", "proxy_record_metric", |mut vm: Vm<'_>, id: u32, value: u64| {
        vm.data_mut().count("proxy_record_metric", 8);
        let id = usize::try_from(id)?;
        let Some(metric) = vm.data_mut().metrics.get_mut(id) else { return Ok(NOT_FOUND) };
        metric.value = i64::try_from(value)?;
        Ok(OK)
    })?;
    linker.func_wrap("env", "proxy_get_metric", |mut vm: Vm<'_>, id: u32, out: u32| {
        vm.data_mut().count("proxy_get_metric", 8);
        let id = usize::try_from(id)?;
        let Some(value) = vm.data().metrics.get(id).map(|metric| metric.value) else {
            return Ok(NOT_FOUND);
        };
        write(&mut vm, out, &value.to_le_bytes())?;
        Ok(OK)
    })?;
    Ok(())
}

fn from_wire(bytes: &[u8]) -> Result<Headers> {
    Headers::from_wire(bytes).map_err(|error| format_err!("{error}"))
}

/// What has come of the request's body and was held.
fn streamed(state: &State) -> Option<Vec<u8>> {
    let stream = state.streams.get(&state.effective);
    Some(stream.map(|stream| stream.body.clone()).unwrap_or_default())
}
