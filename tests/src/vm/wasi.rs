//! The little of WASI preview 1 that a Rust filter uses. No file; environment, clocks and randomness are
//! the host's.

use wasmtime::{Linker, Result, format_err};

use super::{
    guest::{Vm, put, slice, write},
    state::{Line, State},
};

const MODULE: &str = "wasi_snapshot_preview1";
const SUCCESS: u32 = 0;
const BAD_DESCRIPTOR: u32 = 8;
const REALTIME: u32 = 0;

pub(super) fn link(linker: &mut Linker<State>) -> Result<()> {
    linker.func_wrap(MODULE, "args_sizes_get", |mut vm: Vm<'_>, count: u32, size: u32| {
        put(&mut vm, count, 0)?;
        put(&mut vm, size, 0)?;
        Ok(SUCCESS)
    })?;
    linker.func_wrap(MODULE, "args_get", |_: Vm<'_>, _list: u32, _text: u32| SUCCESS)?;
    linker.func_wrap(MODULE, "environ_sizes_get", |mut vm: Vm<'_>, count: u32, size: u32| {
        let lines = environment(&vm);
        put(&mut vm, count, u32::try_from(lines.len())?)?;
        put(&mut vm, size, u32::try_from(lines.concat().len())?)?;
        Ok(SUCCESS)
    })?;
    linker.func_wrap(MODULE, "environ_get", |mut vm: Vm<'_>, list: u32, text: u32| {
        let (mut list, mut text) = (list, text);
        for line in environment(&vm) {
            put(&mut vm, list, text)?;
            write(&mut vm, text, line.as_bytes())?;
            list += 4;
            text += u32::try_from(line.len())?;
        }
        Ok(SUCCESS)
    })?;
    linker.func_wrap(
        MODULE,
        "clock_time_get",
        |mut vm: Vm<'_>, clock: u32, _precision: u64, out: u32| {
            vm.data_mut().count("clock_time_get", 8);
            let host = &vm.data().host;
            let now = match clock {
                REALTIME => host.wall_ns(),
                _ => u64::try_from(host.elapsed().as_nanos())?,
            };
            write(&mut vm, out, &now.to_le_bytes())?;
            Ok(SUCCESS)
        },
    )?;
    linker.func_wrap(MODULE, "random_get", |mut vm: Vm<'_>, data: u32, size: u32| {
        vm.data_mut().count("random_get", usize::try_from(size)?);
        let bytes: Vec<u8> = (0..size).map(|_| vm.data_mut().random_byte()).collect();
        write(&mut vm, data, &bytes)?;
        Ok(SUCCESS)
    })?;
    linker.func_wrap(
        MODULE,
        "fd_write",
        |mut vm: Vm<'_>, descriptor: u32, vectors: u32, count: u32, written: u32| {
            let mut text = Vec::new();
            for index in 0..count {
                let pair = slice(&mut vm, vectors + index * 8, 8)?;
                let word = |at: usize| -> Result<u32> {
                    let bytes = pair.get(at..at + 4).and_then(|b| b.try_into().ok());
                    Ok(u32::from_le_bytes(bytes.ok_or_else(|| format_err!("cut off"))?))
                };
                text.extend(slice(&mut vm, word(0)?, word(4)?)?);
            }
            let level = match descriptor {
                1 => 2,
                2 => 4,
                _ => return Ok(BAD_DESCRIPTOR),
            };
            put(&mut vm, written, u32::try_from(text.len())?)?;
            let text = String::from_utf8_lossy(&text).trim_end().to_owned();
            vm.data_mut().log.push(Line { level, text });
            Ok(SUCCESS)
        },
    )?;
    linker.func_wrap(MODULE, "proc_exit", |_: Vm<'_>, code: u32| -> Result<()> {
        Err(format_err!("the filter called proc_exit({code})"))
    })?;
    linker.func_wrap(MODULE, "sched_yield", |_: Vm<'_>| SUCCESS)?;
    Ok(())
}

/// `NAME=VALUE` with the NUL behind it.
fn environment(vm: &Vm<'_>) -> Vec<String> {
    vm.data().environment.iter().map(|(name, value)| format!("{name}={value}\0")).collect()
}
