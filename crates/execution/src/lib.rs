//! Executions: states, image names, the sandbox document.
