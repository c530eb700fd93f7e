//! The wasmtime host is worth what it says only if a real Envoy says the same: one module asks both the same
//! questions, and the transcripts are equal but for what is declared here.

mod play;
mod real;

use gatehouse_tests::vm::Headers;

use self::play::{Line, Play};

/// What differs, with the reason. Every entry must still differ: the list only shrinks.
const DIFFERENCES: &[(&str, &str, &str)] = &[];

/// The questions, in their order.
fn script(host: &mut dyn Play) -> Vec<Line> {
    let key = play::key();
    let mut lines = Vec::new();
    let mut scene = |host: &mut dyn Play, path: &str, headers: &[(&str, &[u8])]| {
        let answer = host.send(path, &Headers::new(headers.iter().copied()));
        lines.extend(answer.into_iter().map(|text| format!("{path}: {text}")));
    };
    let many: [(&str, &[u8]); 6] = [
        ("x-p-dup", b"1"),
        ("X-P-Case", b"Up"),
        ("x-p-dup", b"2"),
        ("x-p-bytes", b"a\x80\xffb"),
        ("x-p-empty", b""),
        ("x-p-gone", b"1"),
    ];
    scene(host, "/headers", &many);
    scene(host, "/forward", &many);
    scene(host, "/reply", &[]);
    scene(host, "/empty", &[]);
    for path in ["/call", "/nobody", "/silent", "/unknown", "/headless"] {
        scene(host, path, &[("x-p-own", b"1")]);
    }
    scene(host, "/shared", &[]);
    scene(host, "/state", &[]);
    scene(host, "/state", &[]);
    scene(
        host,
        "/signature",
        &[("x-p-key", key.0.as_bytes()), ("x-p-signature", key.1.as_bytes())],
    );
    scene(host, "/around", &[("x-p-own", b"1")]);
    host.let_ticks_pass();
    host.leave_before_the_answer();
    scene(host, "/ticks", &[]);
    scene(host, "/events", &[]);
    scene(host, "/count", &[]);
    scene(host, "/count", &[]);
    scene(host, "/trap", &[]);
    host.wait_for_reload();
    // Nothing of the VM before is left but what was shared.
    scene(host, "/count", &[]);
    scene(host, "/shared", &[]);
    lines
}

#[test]
fn the_wasmtime_host_and_envoy_give_the_same_answers() {
    let simulated = script(&mut play::Simulated::start());
    let real = script(&mut real::Real::start());
    let longest = simulated.len().max(real.len());
    let mut differ = Vec::new();
    for at in 0..longest {
        let (ours, theirs) = (simulated.get(at), real.get(at));
        println!("{}", theirs.map_or("-", String::as_str));
        if ours != theirs {
            let text = |line: Option<&Line>| line.cloned().unwrap_or_default();
            eprintln!("wasmtime: {}\nEnvoy:    {}", text(ours), text(theirs));
            differ.push((text(ours), text(theirs)));
        }
    }
    let declared: Vec<_> =
        DIFFERENCES.iter().map(|(ours, theirs, _)| ((*ours).into(), (*theirs).into())).collect();
    assert_eq!(differ, declared, "wasmtime's answer beside Envoy's");
}

/// Leases end by this clock: one that stands still while a callback runs, or that is the wall's, would not do.
#[test]
fn envoys_monotonic_clock_moves_while_a_callback_runs() {
    let lines = real::Real::start().send("/clock", &Headers::default());
    assert!(lines.iter().any(|line| line == "it moves within a callback: true"), "{lines:?}");
}
