//! Where the time goes: the host calls of one request and the bytes that they copy, counted in the wasmtime host,
//! which runs the same module under the same documents. Knows no clocks.

use std::fmt::Write as _;

use anyhow::{Result, ensure};

use super::{
    PATH,
    cases::{FULL, Kit},
};
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
            let response: &[_] = if name == FULL { TEXT } else { &[] };
            let usual = Exchange { path: PATH, accept: "application/json", response, body: b"" };
            let mut asked = exchange(&mut vm, kit, token, &usual)?;
            if *kind == ON_A_PASS {
                // Passes come with the second question; how many, the sidecar says.
                for _ in 0..MOST_CALLS {
                    if asked == 0 {
                        break;
                    }
                    vm.take_counts();
                    asked = exchange(&mut vm, kit, token, &usual)?;
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
        FULL => &["new token of an unknown member", "known token, limit asked for", ON_A_PASS],
        _ => &["new token", "known token"],
    }
}

/// What one request asks, and what its upstream answers.
pub(super) struct Exchange {
    pub(super) path: &'static str,
    pub(super) accept: &'static str,
    /// None: only the request is looked at.
    pub(super) response: &'static [(&'static str, &'static str)],
    /// Empty: only the response's headers are looked at.
    pub(super) body: &'static [u8],
}

/// What Envoy answers by itself.
pub(super) const TEXT: &[(&str, &str)] =
    &[(":status", "200"), ("content-type", "text/plain"), ("content-length", "200")];

/// One request and its response; how many questions the sidecar was asked.
pub(super) fn exchange(
    vm: &mut Vm,
    kit: &Kit,
    token: &str,
    Exchange { path, accept, response, body }: &Exchange,
) -> Result<usize> {
    let bearer = format!("Bearer {token}");
    let headers = Headers::new([
        (":authority", "api.greenlang.local"),
        (":method", "GET"),
        (":path", path),
        (":scheme", "http"),
        ("user-agent", "gatehouse-bench/1"),
        ("accept", accept),
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
    let response = (!response.is_empty()).then(|| Headers::new(response.iter().copied()));
    match (response, body.is_empty()) {
        (Some(response), true) => drop(vm.respond(stream, response)?),
        (Some(response), false) => drop(vm.deliver_response(stream, response, &[body], false)?),
        (None, _) => {}
    }
    vm.finish(stream)?;
    Ok(asked)
}

/// Answers what was asked; how much that was.
pub(super) fn answer_all(vm: &mut Vm, kit: &Kit) -> Result<usize> {
    let calls = vm.calls();
    for call in &calls {
        vm.answer(call.token, kit.sidecar.answer(call)?)?;
    }
    Ok(calls.len())
}
