//! Where the time goes: the host calls of one request and the bytes that they copy, counted in the wasmtime host,
//! which runs the same module under the same documents. Knows no clocks.

use std::fmt::Write as _;

use anyhow::{Result, ensure};

use super::{PATH, cases::Kit};
use crate::vm::{Filter, Headers, Standing, Surroundings, Vm};

/// No request needs more call-outs than this.
const MOST_CALLS: usize = 8;
const ON_A_PASS: &str = "known token, on a pass";

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
        for kind in kinds(name) {
            vm.take_counts();
            let mut asked = exchange(&mut vm, kit, token, name != "ours-full")?;
            if *kind == ON_A_PASS {
                // Passes come with the second question; how many, the sidecar says.
                for _ in 0..MOST_CALLS {
                    if asked == 0 {
                        break;
                    }
                    vm.take_counts();
                    asked = exchange(&mut vm, kit, token, name != "ours-full")?;
                }
                ensure!(asked == 0, "{name}: the sidecar gives no passes");
            }
            let counts = vm.take_counts();
            let calls: u64 = counts.values().map(|count| count.calls).sum();
            let bytes: u64 = counts.values().map(|count| count.bytes).sum();
            writeln!(out, "  {name}, {kind}: {calls} calls, {bytes} bytes")?;
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

fn kinds(name: &str) -> &'static [&'static str] {
    match name {
        "ours-full" => {
            &["new token of an unknown member", "known token, limit asked for", ON_A_PASS]
        }
        _ => &["new token", "known token"],
    }
}

/// One request and its response; how many questions the sidecar was asked.
fn exchange(vm: &mut Vm, kit: &Kit, token: &str, request_only: bool) -> Result<usize> {
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
    let mut asked = 0;
    for _ in 0..MOST_CALLS {
        if vm.standing(stream)? != &Standing::Held {
            break;
        }
        asked += answer_all(vm, kit)?;
    }
    let standing = vm.standing(stream)?;
    ensure!(matches!(standing, Standing::Forwarded(_)), "{standing:?}");
    if !request_only {
        let answer =
            [(":status", "200"), ("content-type", "text/plain"), ("content-length", "200")];
        vm.respond(stream, Headers::new(answer))?;
    }
    vm.finish(stream)?;
    Ok(asked)
}

fn answer_all(vm: &mut Vm, kit: &Kit) -> Result<usize> {
    let calls = vm.calls();
    for call in &calls {
        vm.answer(call.token, kit.sidecar.answer(call)?)?;
    }
    Ok(calls.len())
}
