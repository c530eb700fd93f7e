//! The demo: its tenants, remembered between starts, and what a newcomer is shown. Knows no table.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use gatehouse_contract::{Role, Tier};
use serde::{Deserialize, Serialize};

use super::{
    api::Api,
    seed::{Seeder, Tenant, build_agent},
};
use crate::{
    report::{BOLD, Report, colours, paint},
    stack::instance::{Client, Instance, url, write},
};

/// What `demo.json` holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Demo {
    /// A tenant per tier.
    pub tenants: Vec<Tenant>,
}

fn file(dir: &Path) -> PathBuf {
    dir.join("demo.json")
}

impl Demo {
    /// The tenants of an earlier start if they still work, else new ones.
    pub fn ensure(instance: &Instance, report: &mut Report) -> anyhow::Result<Self> {
        let api = Api::new(instance.gateway());
        if let Some(demo) = Self::earlier(instance, &api) {
            report.step("Demo tenants", |note| {
                note.push_str("kept from an earlier start");
                Ok(())
            })?;
            return Ok(demo);
        }
        report.expect(1);
        let layout = report.step("Build the sample agent", |_| build_agent())?;
        report.step("Demo tenants", |_| {
            let platform = api.token(&instance.platform)?;
            let seeder = Seeder { instance, api: &api, platform: &platform };
            let mut tenants = Vec::new();
            for tier in Tier::ALL {
                let mut tenant = seeder.tenant(&format!("demo-{tier}"), *tier)?;
                seeder.agent(&mut tenant, &layout)?;
                tenants.push(tenant);
            }
            let demo = Self { tenants };
            write(&file(&instance.dir), &demo)?;
            Ok(demo)
        })
    }

    fn earlier(instance: &Instance, api: &Api) -> Option<Self> {
        let text = fs::read_to_string(file(&instance.dir)).ok()?;
        let demo: Self = serde_json::from_str(&text).ok()?;
        let works = !demo.tenants.is_empty()
            && demo.tenants.iter().all(|tenant| {
                tenant.agent.is_some()
                    && tenant.client(Role::Viewer).is_ok_and(|client| api.token(client).is_ok())
            });
        works.then_some(demo)
    }

    /// What to do next, in lines to copy.
    pub fn welcome(&self, instance: &Instance) -> anyhow::Result<String> {
        let heading = |text: &str| paint(colours(&std::io::stdout()), BOLD, text);
        let tenant = self.tenants.iter().find(|tenant| tenant.tier == Tier::Pro);
        let tenant = tenant.or(self.tenants.first()).context("there is no demo tenant")?;
        let developer = tenant.client(Role::Developer)?;
        let agent = tenant.agent.as_ref().context("the demo tenant has no agent")?;
        let gateway = instance.gateway();
        let ports = instance.ports;
        let mut text = String::new();
        writeln!(text, "\n{}", heading("Gatehouse is up."))?;
        for (what, at) in [
            ("gateway (Envoy)", gateway.clone()),
            ("the API's reference", format!("{gateway}/api/v1/reference")),
            ("Envoy's admin page", url(ports.envoy_admin)),
            ("control API, readiness", format!("{}/readyz", url(ports.control_admin))),
            ("sidecar, readiness", format!("{}/readyz", url(ports.sidecar_admin))),
            ("worker, readiness", format!("{}/readyz", url(ports.worker_admin))),
            ("PostgreSQL 15", format!("127.0.0.1:{}", ports.postgres)),
            ("Redis 7", format!("127.0.0.1:{}", ports.redis)),
            ("logs", instance.dir.join("log").display().to_string()),
            ("credentials", file(&instance.dir).display().to_string()),
        ] {
            writeln!(text, "  {what:<23} {at}")?;
        }
        writeln!(text, "\n{} (tenant {}, as a developer):", heading("Try it"), tenant.slug)?;
        let token = |name: &str, client: &Client| {
            format!(
                "  {name}=$(curl -s {gateway}/oauth2/token -d grant_type=client_credentials \\\n    \
                   -d client_id={} \\\n    -d client_secret={} \\\n    \
                   | python3 -c 'import json,sys; print(json.load(sys.stdin)[\"access_token\"])')",
                client.client_id, client.client_secret
            )
        };
        writeln!(text, "  # a token by client credentials\n{}", token("TOKEN", developer))?;
        let (agents, executions) = (
            format!("{gateway}/api/v1/registry/agents"),
            format!("{gateway}/api/v1/runtime/executions"),
        );
        let bearer = "-H \"Authorization: Bearer $TOKEN\"";
        let typed = "-H 'Content-Type: application/json'";
        writeln!(
            text,
            "\n  # refused: no token\n  curl -si -w '\\n' {agents}\n\n  \
               # your agents, and one more\n  \
               curl -s -w '\\n' {agents} {bearer}\n  \
               curl -s -w '\\n' {agents} {bearer} \\\n    \
                 {typed} -d '{{\"name\": \"my-agent\"}}'"
        )?;
        writeln!(text, "\n  # the same by API key, as a developer of each demo tenant")?;
        for tenant in &self.tenants {
            let key = &tenant.key.key;
            writeln!(
                text,
                "  curl -s -w '\\n' {agents} -H 'X-API-Key: {key}'    # {}",
                tenant.slug
            )?;
        }
        writeln!(
            text,
            "\n  # run the sample agent in a gVisor sandbox, and read the result\n  \
               ID=$(curl -s {executions} {bearer} \\\n    {typed} \\\n    \
                 -d '{{\"agent_version_id\": \"{}\", \"input\": {{\"fuel\": \"diesel\", \"litres\": 100}}}}' \\\n    \
                 | python3 -c 'import json,sys; print(json.load(sys.stdin)[\"id\"])')\n  \
               sleep 2; curl -s -w '\\n' {executions}/$ID {bearer}",
            agent.version
        )?;
        let tenants = format!("{gateway}/api/v1/factory/tenants");
        writeln!(
            text,
            "\n  # as the platform: another tenant, and what there is of them (docs/tenancy.md)\n{}\n  \
               curl -s -w '\\n' {tenants} -H \"Authorization: Bearer $OPS\" \\\n    \
                 {typed} -d '{{\"name\": \"Acme\", \"slug\": \"acme\", \"tier\": \"pro\"}}'\n  \
               curl -s -w '\\n' {tenants} -H \"Authorization: Bearer $OPS\"",
            token("OPS", &instance.platform)
        )?;
        writeln!(
            text,
            "\nThe tenants demo-free, demo-pro and demo-enterprise each have a client per role and an API key in the credentials file.\n\
             In another terminal: cargo xtask up --check    walks the whole path and prints a table\n\
             Ctrl-C stops everything."
        )?;
        Ok(text)
    }
}
