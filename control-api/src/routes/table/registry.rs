//! The endpoints of `/api/v1/registry`. Knows no handler's inside.

use crate::routes::{agents, endpoint::Endpoint};

const AGENTS: &str = "/api/v1/registry/agents";

pub fn registry() -> Vec<Endpoint> {
    let one = format!("{AGENTS}/{{agent}}");
    let versions = format!("{one}/versions");
    vec![
        Endpoint::list(AGENTS, "listAgents", "The newest first", agents::list)
            .narrowed_by(&["name"])
            .answers(200, "Agent"),
        Endpoint::act(AGENTS, "createAgent", "Registers an agent", agents::create)
            .takes("NewAgent")
            .answers(201, "Agent"),
        Endpoint::read(&one, "readAgent", "An agent", agents::read).answers(200, "Agent"),
        Endpoint::remove(
            &one,
            "deleteAgent",
            "Takes an agent out of the registry; its executions stay",
            agents::delete,
        ),
        Endpoint::list(&versions, "listVersions", "The newest first", agents::list_versions)
            .answers(200, "AgentVersion"),
        Endpoint::act(
            &versions,
            "createVersion",
            "Publishes a version; its image lies in the tenant's own store",
            agents::create_version,
        )
        .takes("NewAgentVersion")
        .answers(201, "AgentVersion"),
    ]
}
