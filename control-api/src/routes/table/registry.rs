//! The endpoints of `/api/v1/registry`. Knows no handler's inside.

use crate::routes::{agents, endpoint::Endpoint, history, versions};

const AGENTS: &str = "/api/v1/registry/agents";

pub fn registry() -> Vec<Endpoint> {
    let one = format!("{AGENTS}/{{agent}}");
    let all = format!("{one}/versions");
    let version = format!("{all}/{{version}}");
    vec![
        Endpoint::list(AGENTS, "listAgents", "The newest first", agents::list)
            .narrowed_by(&["name"])
            .answers(200, "Agent"),
        Endpoint::act(AGENTS, "createAgent", "Registers an agent", agents::create)
            .takes("NewAgent")
            .answers(201, "Agent"),
        Endpoint::read(&one, "readAgent", "An agent", agents::read).answers(200, "Agent"),
        Endpoint::change(
            ("PATCH", &one),
            "changeAgent",
            "Replaces what is named (RFC 7396)",
            agents::change,
        )
        .takes("AgentChange")
        .answers(200, "Agent"),
        Endpoint::remove(
            &one,
            "deleteAgent",
            "Takes an agent out of the registry; its executions stay",
            agents::delete,
        ),
        Endpoint::list(&all, "listVersions", "The newest first", versions::list)
            .narrowed_by(&["version", "promoted", "deprecated"])
            .answers(200, "AgentVersion"),
        Endpoint::act(
            &all,
            "createVersion",
            "Publishes a version; its image lies in the tenant's own store",
            versions::create,
        )
        .takes("NewAgentVersion")
        .answers(201, "AgentVersion"),
        Endpoint::read(&version, "readVersion", "A version", versions::read)
            .answers(200, "AgentVersion"),
        Endpoint::act(
            &format!("{version}/promote"),
            "promoteVersion",
            "Makes it the one that runs where no version is named",
            versions::promote,
        )
        .answers(200, "AgentVersion"),
        Endpoint::act(
            &format!("{version}/deprecate"),
            "deprecateVersion",
            "Says that it should be run no longer; it still can be, and whoever does is told",
            versions::deprecate,
        )
        .takes("VersionDeprecation")
        .answers(200, "AgentVersion"),
        Endpoint::list(
            &format!("{one}/history"),
            "listAgentHistory",
            "What happened to an agent and its versions, the newest first; deleted ones have theirs",
            history::of_agent,
        )
        .answers(200, "Event"),
        Endpoint::read(
            &format!("{one}/state"),
            "readAgentState",
            "An agent with its versions as they were at a time, rebuilt from what happened",
            history::agent_state,
        )
        .narrowed_by(&["at"])
        .answers(200, "AgentState"),
    ]
}
