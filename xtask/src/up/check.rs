//! `cargo xtask up --check`: walks the path as an independent client and says row by row what it saw: statuses
//! and headers over HTTP, the database through psql as the application's role, Redis through redis-cli, the
//! sandbox's own kernel line. Knows the promises, and none of the code that keeps them.
//!
//! Each row can fail, and was seen to: beside each stands how.

mod capture;
mod execution;
mod identity;
mod limits;
mod overrides;
mod revocation;
mod token;

use std::{path::PathBuf, process::ExitCode, time::Instant};

use anyhow::Context;
use gatehouse_contract::{Role, Tier, problem};

use super::{
    api::Api,
    seed::{Seeder, Tenant, build_agent},
};
use crate::{
    http::Answer,
    report::{GREEN, RED, colours, paint, seconds},
    stack::instance::Instance,
};

/// What the rows need: fresh tenants, made over HTTP.
struct World {
    instance: Instance,
    api: Api,
    platform: String,
    /// The tenant whose limit is used up.
    free: Tenant,
    /// The tenant that works.
    pro: Tenant,
    /// The other tenant, who must see nothing.
    other: Tenant,
    /// The tenant whose people come and go.
    unsteady: Tenant,
    /// The sample agent's image layout.
    layout: PathBuf,
}

impl World {
    fn make(instance: &Instance) -> anyhow::Result<Self> {
        let api = Api::new(instance.gateway());
        let platform = api.token(&instance.platform).context("the platform's token")?;
        let seeder = Seeder { instance, api: &api, platform: &platform };
        let mark = uuid::Uuid::new_v4().simple().to_string();
        let mark = mark.get(..8).unwrap_or(&mark);
        let tenant = |tier: Tier| seeder.tenant(&format!("check-{tier}-{mark}"), tier);
        let (free, pro, other) =
            (tenant(Tier::Free)?, tenant(Tier::Pro)?, tenant(Tier::Enterprise)?);
        let unsteady = seeder.tenant(&format!("check-unsteady-{mark}"), Tier::Enterprise)?;
        let layout = build_agent()?;
        Ok(Self { instance: instance.clone(), api, platform, free, pro, other, unsteady, layout })
    }

    /// A token of `tenant`'s client with `role`.
    fn token(&self, tenant: &Tenant, role: Role) -> anyhow::Result<String> {
        self.api.token(tenant.client(role)?)
    }
}

/// The table in the making.
struct Table {
    colour: bool,
    rows: usize,
    failed: usize,
}

impl Table {
    /// Adds a row: `look` answers with what was seen, or with what is wrong about it.
    fn row<T>(&mut self, name: &str, look: impl FnOnce() -> anyhow::Result<Seen<T>>) -> Option<T> {
        self.rows += 1;
        let (word, colour, text, value) = match look() {
            Ok(Seen { value, text }) => ("ok  ", GREEN, text, Some(value)),
            Err(error) => {
                self.failed += 1;
                ("FAIL", RED, format!("{error:#}"), None)
            }
        };
        let word = paint(self.colour, colour, word);
        println!("{word}  {name:<61}  {}", text.replace('\n', " "));
        value
    }
}

/// What an independent client saw, and what later rows need of it.
struct Seen<T = ()> {
    value: T,
    text: String,
}

/// Seen, and nothing to keep.
fn seen(text: impl Into<String>) -> Seen {
    Seen { value: (), text: text.into() }
}

/// Walks the path against `instance`.
pub fn run(instance: &Instance) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let mut table = Table { colour: colours(&std::io::stdout()), rows: 0, failed: 0 };
    println!("Checking {} at {}\n", instance.name, instance.gateway());
    let world = table.row("fresh tenants, clients and users over HTTP", || {
        let world = World::make(instance)?;
        let text = format!("{}, {}, {}", world.free.slug, world.pro.slug, world.other.slug);
        Ok(Seen { value: world, text })
    });
    if let Some(mut world) = world {
        // It takes 15 s at four requests a second: the other rows are walked meanwhile.
        let used_up = limits::begin(&world);
        identity::rows(&world, &mut table);
        revocation::rows(&world, &mut table);
        execution::rows(&mut world, &mut table);
        limits::rows(&world, used_up, &mut table);
        overrides::rows(&world, &mut table);
    }
    let Table { rows, failed, colour } = table;
    let verdict = if failed == 0 {
        paint(colour, GREEN, &format!("all {rows} rows ok"))
    } else {
        paint(colour, RED, &format!("{failed} of {rows} rows FAILED"))
    };
    println!("\n{verdict} in {}", seconds(began.elapsed()));
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// As [`refused`], and by the filter: the request never reached the upstream, which would have refused it too.
fn refused_at_gateway(answer: &Answer, status: u16, code: &str) -> anyhow::Result<String> {
    let words = refused(answer, status, code)?;
    anyhow::ensure!(
        answer.header("x-envoy-upstream-service-time").is_none(),
        "{words}, but from behind the gateway"
    );
    Ok(words)
}

/// Whether `answer` is the refusal that it should be; in words.
fn refused(answer: &Answer, status: u16, code: &str) -> anyhow::Result<String> {
    anyhow::ensure!(
        answer.status == status,
        "{} instead of {status}: {}",
        answer.status,
        answer.body
    );
    let media = answer.header("content-type").unwrap_or_default();
    anyhow::ensure!(media.starts_with(problem::MEDIA_TYPE), "content-type is {media:?}");
    let said = answer.text("/code");
    anyhow::ensure!(said == code, "code {said:?} instead of {code:?}");
    anyhow::ensure!(
        answer.text("/status") == status.to_string(),
        "the problem's status is {}",
        answer.text("/status")
    );
    anyhow::ensure!(!answer.text("/request_id").is_empty(), "the problem has no request_id");
    let mut words = format!("{status} {code}");
    if status == 401 {
        let challenge = answer.header("www-authenticate").context("no WWW-Authenticate")?;
        anyhow::ensure!(challenge.starts_with("Bearer"), "WWW-Authenticate is {challenge:?}");
        words = format!("{words}, {challenge}");
    }
    Ok(words)
}
