//! The endpoints of `/api/v1/runtime`. Knows no handler's inside.

use crate::routes::{
    attempts, dead_letters, endpoint::Endpoint, executions, history, logs, streams,
};

/// An execution's input may have 256 KiB; the rest is the envelope around it.
const EXECUTION_BODY_BYTES: usize = (256 + 8) * 1024;

const EXECUTIONS: &str = "/api/v1/runtime/executions";
const DEAD_LETTERS: &str = "/api/v1/runtime/dead-letters";

pub fn runtime() -> Vec<Endpoint> {
    vec![
        Endpoint::list(EXECUTIONS, "listExecutions", "The newest first", executions::list)
            .narrowed_by(executions::FILTERS)
            .answers(200, "Execution"),
        Endpoint::act(
            EXECUTIONS,
            "submitExecution",
            "Submits an execution; look at Location for what becomes of it",
            executions::submit,
        )
        .takes("NewExecution")
        .up_to(EXECUTION_BODY_BYTES)
        .answers(202, "ExecutionAccepted"),
        Endpoint::read(
            &format!("{EXECUTIONS}/{{execution}}"),
            "readExecution",
            "An execution and its result",
            streams::read,
        )
        .narrowed_by(&["wait"])
        .answers(200, "Execution"),
        Endpoint::tells(
            &format!("{EXECUTIONS}/{{execution}}/events"),
            "followExecution",
            "What happened to an execution, and what happens until it is settled",
            streams::events,
        ),
        Endpoint::tells(
            &format!("{EXECUTIONS}/{{execution}}/logs"),
            "readExecutionLogs",
            "What an attempt logged, or what comes",
            logs::read,
        )
        .narrowed_by(&["follow", "attempt"])
        .answers(200, "ExecutionLog"),
        Endpoint::act(
            &format!("{EXECUTIONS}/{{execution}}/cancel"),
            "cancelExecution",
            "Ends what has not begun at once, and has what runs ended; what has ended stays as it is",
            executions::cancel,
        )
        .answers(200, "Execution"),
        Endpoint::act(
            &format!("{EXECUTIONS}/{{execution}}/retry"),
            "retryExecution",
            "Submits again what did not complete; what was given up goes on under its own id",
            executions::retry,
        )
        .answers(202, "ExecutionAccepted"),
        Endpoint::list(
            &format!("{EXECUTIONS}/{{execution}}/attempts"),
            "listExecutionAttempts",
            "How each attempt ended and what it used, the newest first",
            attempts::list,
        )
        .answers(200, "ExecutionAttempt"),
        Endpoint::read(
            &format!("{EXECUTIONS}/{{execution}}/provenance"),
            "readExecutionProvenance",
            "Where the result came from, to be verified offline",
            attempts::provenance,
        )
        .answers(200, "ExecutionProvenance"),
        Endpoint::list(
            &format!("{EXECUTIONS}/{{execution}}/history"),
            "listExecutionHistory",
            "What happened to an execution, the newest first",
            history::of_execution,
        )
        .answers(200, "Event"),
        Endpoint::read(
            &format!("{EXECUTIONS}/{{execution}}/state"),
            "readExecutionState",
            "An execution as it was at a time, rebuilt from what happened",
            history::execution_state,
        )
        .narrowed_by(&["at"])
        .answers(200, "ExecutionState"),
        Endpoint::list(
            DEAD_LETTERS,
            "listDeadLetters",
            "What was given up, the last one first",
            dead_letters::list,
        )
        .narrowed_by(dead_letters::FILTERS)
        .answers(200, "DeadLetter"),
        Endpoint::act(
            &format!("{DEAD_LETTERS}/replay"),
            "replayDeadLetters",
            "Starts the oldest of what was given up anew, at most 100 at once",
            dead_letters::replay_all,
        )
        .takes("DeadLetterReplay")
        .answers(202, "DeadLettersReplayed"),
        Endpoint::read(
            &format!("{DEAD_LETTERS}/{{dead_letter}}"),
            "readDeadLetter",
            "What was given up, and why",
            dead_letters::read,
        )
        .answers(200, "DeadLetter"),
        Endpoint::act(
            &format!("{DEAD_LETTERS}/{{dead_letter}}/replay"),
            "replayDeadLetter",
            "Starts it anew under its own id, with all its attempts before it",
            dead_letters::replay,
        )
        .answers(202, "ExecutionAccepted"),
    ]
}
