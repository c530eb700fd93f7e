//! The guest's memory: what the filter hands over and what it is given, counted on the way.

use wasmtime::{Caller, Result, error::Context as _, format_err};

use super::state::{Guest, State};

/// The host's side of a call.
pub(super) type Vm<'a> = Caller<'a, State>;

/// The ABI's `Status::Ok`.
pub(super) const OK: u32 = 0;

/// Reads what the filter hands over, and counts a call of `function`.
pub(super) fn read(
    vm: &mut Vm<'_>,
    function: &'static str,
    data: u32,
    size: u32,
) -> Result<Vec<u8>> {
    let bytes = slice(vm, data, size).with_context(|| function)?;
    vm.data_mut().count(function, bytes.len());
    Ok(bytes)
}

/// Reads a further argument of the same call.
pub(super) fn read_more(
    vm: &mut Vm<'_>,
    function: &'static str,
    data: u32,
    size: u32,
) -> Result<Vec<u8>> {
    let bytes = slice(vm, data, size).with_context(|| function)?;
    if let Some(count) = vm.data_mut().counts.get_mut(function) {
        count.bytes += u64::from(size);
    }
    Ok(bytes)
}

pub(super) fn slice(vm: &mut Vm<'_>, data: u32, size: u32) -> Result<Vec<u8>> {
    let memory = guest(vm)?.memory;
    let (start, size) = (usize::try_from(data)?, usize::try_from(size)?);
    let bytes = memory.data(&*vm).get(start..).and_then(|rest| rest.get(..size));
    bytes.map(<[u8]>::to_vec).ok_or_else(|| format_err!("{size} bytes at {data}: outside memory"))
}

pub(super) fn write(vm: &mut Vm<'_>, data: u32, bytes: &[u8]) -> Result<()> {
    let memory = guest(vm)?.memory;
    memory.write(&mut *vm, usize::try_from(data)?, bytes)?;
    Ok(())
}

pub(super) fn put(vm: &mut Vm<'_>, data: u32, value: u32) -> Result<()> {
    write(vm, data, &value.to_le_bytes())
}

/// Hands `bytes` to the filter in memory that its own allocator gives; nothing is allocated for nothing.
pub(super) fn give(
    vm: &mut Vm<'_>,
    function: &'static str,
    bytes: &[u8],
    data_out: u32,
    size_out: u32,
) -> Result<u32> {
    // `read` has counted the call where the function takes a key; the others are counted here.
    let counted = matches!(
        function,
        "proxy_get_header_map_value" | "proxy_get_property" | "proxy_get_shared_data"
    );
    if counted {
        if let Some(count) = vm.data_mut().counts.get_mut(function) {
            count.bytes += u64::try_from(bytes.len())?;
        }
    } else {
        vm.data_mut().count(function, bytes.len());
    }
    if bytes.is_empty() {
        put(vm, data_out, 0)?;
        put(vm, size_out, 0)?;
        return Ok(OK);
    }
    let allocate = guest(vm)?.allocate.typed::<u32, u32>(&*vm)?;
    let size = u32::try_from(bytes.len())?;
    let data = allocate.call(&mut *vm, size)?;
    write(vm, data, bytes)?;
    put(vm, data_out, data)?;
    put(vm, size_out, size)?;
    Ok(OK)
}

fn guest(vm: &Vm<'_>) -> Result<Guest> {
    vm.data().guest.ok_or_else(|| format_err!("a host call before the module is instantiated"))
}
