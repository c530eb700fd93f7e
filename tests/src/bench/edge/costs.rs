//! Where the time goes: the host calls of one request and the bytes that they copy, counted in the wasmtime host,
//! which runs the same module under the same documents. Knows no clocks.

use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};

use super::{PATH, cases::Kit};
use crate::vm::{Answer, Filter, Headers, Standing, Surroundings, Vm};

/// No request needs more call-outs than this.
const MOST_CALLS: usize = 8;

/// One paragraph per document.
pub(super) fn table(kit: &Kit) -> Result<String> {
    let mut out =
        String::from("host calls per request (wasmtime host, same module and documents):\n");
    for (name, document) in kit.documents()? {
        let (variable, value) = Kit::environment();
        let around = Surroundings {
            targets: vec!["gatehouse-sidecar".to_owned()],
            environment: vec![(variable.to_owned(), value)],
            ..Surroundings::at(kit.now)
        };
        let mut vm = Vm::start(Filter::suite()?, &around)?;
        let taken = vm.configure(&document.to_string())?;
        ensure!(taken, "{name}: refused: {:?}", vm.take_log());
        let token = if name == "ours-token-es" { &kit.token_es } else { &kit.token };
        // The feed begins to speak, keys and members come.
        vm.advance(std::time::Duration::from_millis(500))?;
        answer_all(&mut vm, kit)?;
        for kind in ["new", "known"] {
            vm.take_counts();
            exchange(&mut vm, kit, token, name != "ours-full")?;
            let counts = vm.take_counts();
            let calls: u64 = counts.values().map(|count| count.calls).sum();
            let bytes: u64 = counts.values().map(|count| count.bytes).sum();
            writeln!(out, "  {name}, {kind} token: {calls} calls, {bytes} bytes")?;
            let mut each: Vec<_> = counts.into_iter().filter(|(_, c)| c.calls > 0).collect();
            each.sort_by_key(|(_, count)| std::cmp::Reverse((count.calls, count.bytes)));
            let each = each.iter().map(|(name, count)| {
                let name = name.strip_prefix("proxy_").unwrap_or(name);
                format!("{name} ×{} ({} B)", count.calls, count.bytes)
            });
            writeln!(out, "    {}", each.collect::<Vec<_>>().join(", "))?;
        }
    }
    Ok(out)
}

fn exchange(vm: &mut Vm, kit: &Kit, token: &str, request_only: bool) -> Result<()> {
    let bearer = format!("Bearer {token}");
    let headers = Headers::new([
        (":authority", "api.greenlang.local"),
        (":method", "GET"),
        (":path", PATH),
        (":scheme", "http"),
        ("user-agent", "gatehouse-bench/1"),
        ("accept", "application/json"),
        ("authorization", bearer.as_str()),
        ("x-forwarded-proto", "http"),
    ]);
    let stream = vm.request(headers, true)?;
    for _ in 0..MOST_CALLS {
        if vm.standing(stream)? != &Standing::Held {
            break;
        }
        answer_all(vm, kit)?;
    }
    let standing = vm.standing(stream)?;
    ensure!(matches!(standing, Standing::Forwarded(_)), "{standing:?}");
    if !request_only {
        let answer =
            [(":status", "200"), ("content-type", "text/plain"), ("content-length", "200")];
        vm.respond(stream, Headers::new(answer))?;
    }
    vm.finish(stream)
}

fn answer_all(vm: &mut Vm, kit: &Kit) -> Result<()> {
    for call in vm.calls() {
        let body = kit.sidecar.answer(&call.line());
        let body = body.with_context(|| format!("the module asks {}", call.line()))?;
        let headers = [(":status", "200"), (gatehouse_contract::header::SIDECAR_MARKER, "1")];
        vm.answer(call.token, Answer::new(Headers::new(headers), body))?;
    }
    Ok(())
}
