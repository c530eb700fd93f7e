//! What the events of an agent add up to: the agent and its versions.
//! Knows nothing of where either is stored.

use std::collections::BTreeMap;

use gatehouse_contract::AgentVersionId;
use serde::Serialize;
use time::{OffsetDateTime, serde::rfc3339};

use crate::{Event, Illegal};

/// An agent after its events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Agent {
    /// Unique among the tenant's agents.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// When it was registered.
    #[serde(with = "rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it was taken out of the registry.
    #[serde(with = "rfc3339::option")]
    pub deleted_at: Option<OffsetDateTime>,
    /// Its versions.
    pub versions: BTreeMap<AgentVersionId, Version>,
}

/// A version of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Version {
    /// What it is called.
    pub version: String,
    /// `name@sha256:…`.
    pub image: String,
    /// When it was published.
    #[serde(with = "rfc3339")]
    pub created_at: OffsetDateTime,
    /// Since when it runs where none is named; one version at most does.
    #[serde(with = "rfc3339::option")]
    pub promoted_at: Option<OffsetDateTime>,
    /// Since when it should be run no longer.
    #[serde(with = "rfc3339::option")]
    pub deprecated_at: Option<OffsetDateTime>,
    /// What to do instead, for people.
    pub deprecation: Option<String>,
}

impl Agent {
    /// The agent after one more event; `None` is the one that is not there yet.
    ///
    /// # Errors
    /// [`Illegal`] for an event of something else, or one that cannot come next.
    pub fn after(before: Option<Self>, event: Event) -> Result<Self, Illegal> {
        let illegal = Illegal { kind: event.kind() };
        let Some(mut agent) = before else {
            let Event::AgentCreated(new) = event else { return Err(illegal) };
            return Ok(Self {
                name: new.name,
                description: new.description,
                created_at: new.created_at,
                deleted_at: None,
                versions: BTreeMap::new(),
            });
        };
        if agent.deleted_at.is_some() {
            return Err(illegal);
        }
        match event {
            Event::AgentUpdated(new) => {
                agent.name = new.name;
                agent.description = new.description;
            }
            Event::AgentDeleted(end) => agent.deleted_at = Some(end.deleted_at),
            Event::VersionPublished(new) => {
                let version = Version {
                    version: new.version,
                    image: new.image,
                    created_at: new.created_at,
                    promoted_at: None,
                    deprecated_at: None,
                    deprecation: None,
                };
                if agent.versions.insert(new.version_id, version).is_some() {
                    return Err(illegal);
                }
            }
            Event::VersionPromoted(to) => {
                for version in agent.versions.values_mut() {
                    version.promoted_at = None;
                }
                let version = agent.versions.get_mut(&to.version_id).ok_or(illegal)?;
                version.promoted_at = Some(to.promoted_at);
            }
            Event::VersionDeprecated(of) => {
                let version = agent.versions.get_mut(&of.version_id).ok_or(illegal)?;
                version.deprecated_at = Some(of.deprecated_at);
                version.deprecation = of.message;
            }
            Event::AgentCreated(_)
            | Event::ExecutionSubmitted(_)
            | Event::ExecutionQueued(_)
            | Event::ExecutionUnqueued(_)
            | Event::ExecutionStarted(_)
            | Event::ExecutionReleased(_)
            | Event::ExecutionLost(_)
            | Event::ExecutionCompleted(_)
            | Event::ExecutionFailed(_)
            | Event::ExecutionTimedOut(_)
            | Event::ExecutionRetried(_)
            | Event::ExecutionGivenUp(_)
            | Event::ExecutionCancelled(_)
            | Event::ExecutionReplayed(_)
            | Event::ExecutionTimeRunsOut(_)
            | Event::QuotaThresholdReached(_)
            | Event::TenantErased(_)
            | Event::AuditRecorded(_) => return Err(illegal),
        }
        Ok(agent)
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;
    use uuid::Uuid;

    use super::*;
    use crate::event::{
        AgentCreated, AgentDeleted, Nothing, VersionDeprecated, VersionPromoted, VersionPublished,
    };

    const AT: OffsetDateTime = datetime!(2026-11-23 12:00:00.000001 UTC);

    fn id(n: u128) -> AgentVersionId {
        AgentVersionId::new(Uuid::from_u128(n))
    }

    fn created() -> Event {
        let (name, description) = ("fuel".to_owned(), None);
        Event::AgentCreated(AgentCreated { name, description, created_at: AT })
    }

    fn published(n: u128) -> Event {
        let (version, image) = (format!("1.0.{n}"), "fuel@sha256:00".to_owned());
        Event::VersionPublished(VersionPublished {
            version_id: id(n),
            version,
            image,
            created_at: AT,
        })
    }

    fn promoted(n: u128) -> Event {
        Event::VersionPromoted(VersionPromoted { version_id: id(n), promoted_at: AT })
    }

    fn rebuilt(events: &[Event]) -> Result<Option<Agent>, Illegal> {
        events.iter().try_fold(None, |agent, event| Agent::after(agent, event.clone()).map(Some))
    }

    #[test]
    fn one_version_at_most_is_promoted() {
        let events = [created(), published(1), published(2), promoted(1), promoted(2)];
        let agent = rebuilt(&events).unwrap().unwrap();
        let which = |n| agent.versions.get(&id(n)).unwrap().promoted_at.is_some();
        assert_eq!((which(1), which(2)), (false, true));
        let deprecated = Event::VersionDeprecated(VersionDeprecated {
            version_id: id(2),
            message: Some("take 3".to_owned()),
            deprecated_at: AT,
        });
        let agent = Agent::after(Some(agent), deprecated).unwrap();
        let version = agent.versions.get(&id(2)).unwrap();
        assert_eq!(version.deprecation.as_deref(), Some("take 3"));
        assert!(version.promoted_at.is_some(), "it is still the one that runs");
    }

    #[test]
    fn what_cannot_follow_is_refused() {
        let deleted = || Event::AgentDeleted(AgentDeleted { deleted_at: AT });
        for events in [
            vec![deleted()],
            vec![created(), created()],
            vec![created(), published(1), published(1)],
            vec![created(), promoted(1)],
            vec![created(), deleted(), published(1)],
            vec![created(), Event::ExecutionQueued(Nothing {})],
        ] {
            assert!(rebuilt(&events).is_err(), "{events:?}");
        }
        assert!(rebuilt(&[created(), deleted()]).is_ok());
    }
}
