//! `docs/executions.md`: the life of an execution, with the table of its states as the code has it. Knows the page's form.

use std::fmt::Write as _;

use gatehouse_execution::{ExecutionState, state::Event};

use super::Rendered;

const PAGE: &str = include_str!("executions/page.txt");
const REST: &str = include_str!("executions/rest.txt");

/// The page.
pub fn page() -> anyhow::Result<Rendered> {
    let mut text = PAGE.to_owned();
    text.push_str("| state | settled | event → next state |\n| --- | --- | --- |\n");
    for state in ExecutionState::ALL {
        let next: Vec<String> = Event::ALL
            .into_iter()
            .filter_map(|event| Some(format!("{event:?} → `{}`", state.after(event).ok()?)))
            .collect();
        let settled = if state.is_settled() { "yes" } else { "no" };
        let next = if next.is_empty() { "–".to_owned() } else { next.join(", ") };
        writeln!(text, "| `{state}` | {settled} | {next} |")?;
    }
    text.push_str(REST);
    Ok(Rendered { path: "docs/executions.md".into(), text })
}
