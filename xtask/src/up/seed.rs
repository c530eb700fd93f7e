//! Makes demo tenants over HTTP, as an admin would: a tenant per tier, a client and a user of each role, an API key, the
//! sample agent published and registered. Knows no table.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::Context;
use gatehouse_contract::{AgentId, AgentVersionId, Role, TenantId, Tier};
use gatehouse_execution::ImageName;
use serde::{Deserialize, Serialize};

use super::api::{Api, Key};
use crate::{
    image, repo,
    stack::instance::{Client, Instance},
};

/// The sample agent's name, as image and as agent.
pub const AGENT: &str = "fuel-emissions";

/// A tenant with everything that a demo needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// Its short name.
    pub slug: String,
    /// Its tier.
    pub tier: Tier,
    /// An OAuth client per role.
    pub clients: BTreeMap<Role, Client>,
    /// An API key of a developer.
    pub key: Key,
    /// The sample agent, once registered.
    pub agent: Option<Agent>,
}

/// The sample agent within a tenant.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Agent {
    /// The agent.
    pub id: AgentId,
    /// Its version 1.0.0.
    pub version: AgentVersionId,
    /// The version's image: `name@sha256:…`.
    pub image: String,
}

impl Tenant {
    /// The client of a role.
    pub fn client(&self, role: Role) -> anyhow::Result<&Client> {
        self.clients.get(&role).with_context(|| format!("{} has no {role} client", self.slug))
    }
}

/// Who seeds, and where.
pub struct Seeder<'a> {
    /// The instance.
    pub instance: &'a Instance,
    /// Its gateway.
    pub api: &'a Api,
    /// A token of the platform's client.
    pub platform: &'a str,
}

impl Seeder<'_> {
    /// Makes a tenant of `tier` with a client and a user of each role. Where the slug is taken, a number follows.
    pub fn tenant(&self, slug: &str, tier: Tier) -> anyhow::Result<Tenant> {
        let (id, slug) = (1..100)
            .map(|n| if n == 1 { slug.to_owned() } else { format!("{slug}-{n}") })
            .find_map(|slug| {
                let made = self.api.make_tenant(self.platform, &slug, tier).transpose()?;
                Some(made.map(|id| (id, slug)))
            })
            .with_context(|| format!("a hundred tenants are called {slug}; use --reset"))??;
        let mut clients = BTreeMap::new();
        for role in Role::ALL {
            clients.insert(*role, self.api.make_client(self.platform, id, *role)?);
            let email = format!("{role}@{slug}.example");
            self.api.make_user(self.platform, id, &email, *role)?;
        }
        let key = self.api.make_key(self.platform, id, "demo", Role::Developer)?;
        Ok(Tenant { id, slug, tier, clients, key, agent: None })
    }

    /// Publishes the image at `layout` for the tenant and registers the agent with its version, as a developer.
    pub fn agent(&self, tenant: &mut Tenant, layout: &std::path::Path) -> anyhow::Result<()> {
        let name: ImageName = AGENT.parse().context("the sample agent's name")?;
        let images = image::publish(layout, &self.instance.image_store(), tenant.id, &name)?;
        let image = images.first().context("the sample agent's layout has no image")?.to_string();
        let token = self.api.token(tenant.client(Role::Developer)?)?;
        let id = self.api.make_agent(&token, AGENT)?;
        let version = self.api.make_version(&token, id, &image)?;
        tenant.agent = Some(Agent { id, version, image });
        Ok(())
    }
}

/// Builds the sample agent's image layout; where it lies.
pub fn build_agent() -> anyhow::Result<PathBuf> {
    if let Some(layout) = repo::built("GATEHOUSE_TEST_AGENT") {
        return Ok(layout);
    }
    let root = repo::root()?;
    let layout = repo::target(&root).join("agent-layout");
    image::build(&root, &layout)?;
    Ok(layout)
}
