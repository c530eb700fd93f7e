//! Every way to end, and what it is called.

use serde_json::json;

use super::*;

fn captured(text: &str) -> Captured {
    Captured { bytes: text.as_bytes().to_vec(), total_bytes: text.len() as u64 }
}

fn run(exit: Exit) -> Run {
    Run {
        exit,
        usage: Usage::default(),
        disk_full: false,
        scratch_bytes: 0,
        egress_denied: None,
        result_file: None,
        stdout: captured("hello\n{\"kg\":1}\n\n"),
        stderr: captured("starting\nno such fuel\n"),
    }
}

fn check(run: &Run, reason: EndReason, part: &str) {
    let outcome = run.outcome();
    assert_eq!(outcome.reason, reason, "{run:?}: {outcome:?}");
    let message = outcome.message.unwrap_or_default();
    assert!(message.contains(part), "{message:?} lacks {part:?}");
    assert_eq!(outcome.output.is_some(), reason == EndReason::Completed);
}

#[test]
fn each_exit_has_its_reason() {
    check(&run(Exit::Agent(0)), EndReason::Completed, "");
    check(&run(Exit::Agent(1)), EndReason::Failed, "exit code 1: no such fuel");
    check(&run(Exit::Agent(74)), EndReason::Failed, "exit code 74");
    check(&run(Exit::Agent(75)), EndReason::RetryAsked, "another attempt: no such fuel");
    check(&run(Exit::Agent(76)), EndReason::Failed, "exit code 76");
    check(&run(Exit::Agent(137)), EndReason::Failed, "exit code 137");
    check(&run(Exit::Agent(153)), EndReason::DiskFull, "size limit");
    check(&run(Exit::NotStarted), EndReason::ImageError, "entry point");
    check(&run(Exit::Sandbox), EndReason::SandboxError, "sandbox");
    check(&run(Exit::StartTimeout), EndReason::SandboxError, "not started in time");
    check(&run(Exit::TimeLimit), EndReason::Timeout, "time limit");
    check(&run(Exit::Cancelled), EndReason::Cancelled, "cancelled");
}

#[test]
fn memory_that_files_took_is_told_from_memory_that_the_program_took() {
    let usage = Usage { oom_kills: 1, memory_peak_bytes: 500, ..Usage::default() };
    let killed = |scratch_bytes| Run { usage, scratch_bytes, ..run(Exit::Sandbox) };
    check(&killed(250), EndReason::OomKilled, "(peak 500 bytes)");
    check(&killed(251), EndReason::OomKilled, "(peak 500 bytes, 251 of them files in /tmp)");
}

#[test]
fn a_full_disk_is_why_an_agent_fails_and_no_failure_by_itself() {
    let mut full = run(Exit::Agent(1));
    full.disk_full = true;
    check(&full, EndReason::DiskFull, "no room was left; exit code 1: no such fuel");
    // An agent that is refused a host and goes on has not failed for it; one that asks for another attempt has it.
    let denied = |exit| Run { egress_denied: Some("x is not listed".to_owned()), ..run(exit) };
    let said = "x is not listed; exit code 1: no such fuel";
    check(&denied(Exit::Agent(1)), EndReason::EgressDenied, said);
    check(&denied(Exit::Agent(0)), EndReason::Completed, "");
    check(&denied(Exit::Agent(75)), EndReason::RetryAsked, "");
    check(&denied(Exit::TimeLimit), EndReason::Timeout, "");
    full.exit = Exit::Agent(0);
    check(&full, EndReason::Completed, "");
    full.exit = Exit::TimeLimit;
    check(&full, EndReason::Timeout, "");
    full.usage.oom_kills = 1;
    full.exit = Exit::Agent(1);
    check(&full, EndReason::OomKilled, "");
}

#[test]
fn the_counter_decides_and_not_the_exit_code() {
    for exit in [Exit::Agent(1), Exit::Agent(137), Exit::Agent(75), Exit::Sandbox] {
        let mut killed = run(exit);
        killed.usage = Usage { oom_kills: 1, memory_peak_bytes: 42, ..Usage::default() };
        check(&killed, EndReason::OomKilled, "peak 42 bytes");
        let mut refused = run(exit);
        refused.usage.pids_refused = 1;
        check(&refused, EndReason::Pids, "tasks");
    }
    let mut ours = run(Exit::TimeLimit);
    ours.usage.oom_kills = 1;
    check(&ours, EndReason::Timeout, "");
    let mut fine = run(Exit::Agent(0));
    fine.usage.oom_kills = 1;
    check(&fine, EndReason::Completed, "");
}

#[test]
fn the_result_is_the_file_else_the_last_line() {
    let mut both = run(Exit::Agent(0));
    assert_eq!(both.outcome().output, Some(json!({"kg": 1})));
    both.result_file = Some(captured("{\n\"kg\": 2\n}\n"));
    assert_eq!(both.outcome().output, Some(json!({"kg": 2})));
    both.result_file = Some(captured(" "));
    check(&both, EndReason::OutputInvalid, "EOF");
    both.result_file = Some(captured(""));
    check(&both, EndReason::OutputInvalid, "no result");
}

#[test]
fn a_result_that_cannot_be_kept_ends_typed() {
    for (text, part) in [
        ("", "no result"),
        ("\n \n", "no result"),
        ("done", "not acceptable JSON"),
        ("{\"a\":\"\\u0000\"}", "U+0000"),
        ("{\"a\":1,\"a\":2}", "twice"),
    ] {
        let mut bad = run(Exit::Agent(0));
        bad.stdout = captured(text);
        check(&bad, EndReason::OutputInvalid, part);
    }
    let mut long = run(Exit::Agent(0));
    long.result_file = Some(Captured { bytes: b"{}".to_vec(), total_bytes: 5000 });
    check(&long, EndReason::OutputInvalid, "has 5000 bytes, at most 2 are taken");
}

#[test]
fn a_last_line_that_is_kept_whole_counts_however_much_came_before() {
    let mut chatty = run(Exit::Agent(0));
    chatty.stdout.total_bytes = 1 << 40;
    check(&chatty, EndReason::Completed, "");
    for tail in ["{\"kg\":1}", "{\"kg\":1}\n", "1}\n\n"] {
        chatty.stdout = Captured { bytes: tail.as_bytes().to_vec(), total_bytes: 1 << 40 };
        check(&chatty, EndReason::OutputInvalid, "the last line of the output has more than");
    }
}

#[test]
fn the_agents_last_words_are_cut_and_cleaned() {
    let mut loud = run(Exit::Agent(1));
    loud.stderr = captured(&format!("\u{1b}[31m\0{}", "x".repeat(2000)));
    let message = loud.outcome().message.unwrap();
    assert!(message.len() < 600 && !message.contains(['\u{1b}', '\0']), "{message:?}");
    loud.stderr = captured("");
    assert_eq!(loud.outcome().message.as_deref(), Some("exit code 1"));
}

#[test]
fn only_faults_that_may_pass_are_tried_again() {
    for reason in EndReason::ALL {
        assert_eq!(reason.to_string().parse(), Ok(reason));
        let again = matches!(
            reason,
            EndReason::RetryAsked
                | EndReason::ImageUnavailable
                | EndReason::SandboxError
                | EndReason::Lost
        );
        assert_eq!(reason.event(1, 2) == Event::Retry, again, "{reason}");
        let given_up = again || reason == EndReason::Poison;
        assert_eq!(reason.event(2, 2) == Event::GiveUp, given_up, "{reason}");
    }
}
