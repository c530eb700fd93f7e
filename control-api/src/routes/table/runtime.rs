//! The endpoints of `/api/v1/runtime`. Knows no handler's inside.

use crate::routes::{endpoint::Endpoint, executions, history};

/// An execution's input may have 256 KiB; the rest is the envelope around it.
const EXECUTION_BODY_BYTES: usize = (256 + 8) * 1024;

const EXECUTIONS: &str = "/api/v1/runtime/executions";

pub fn runtime() -> Vec<Endpoint> {
    vec![
        Endpoint::list(EXECUTIONS, "listExecutions", "The newest first", executions::list)
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
            executions::read,
        )
        .answers(200, "Execution"),
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
    ]
}
