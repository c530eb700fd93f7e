//! The proof of row security (RLS-005): who gets at whose rows in which table with which verb, tried out in every table
//! and partition that the catalog has, by every role that there is. A new table is in it without anybody's doing.
//!
//! What must never be is a rule here; what may be is `matrix.golden.txt`, read in review and renewed with
//! `UPDATE_GOLDEN=1 cargo test -p gatehouse-store`. [`mutants`] sees that each policy is needed for the proof to hold.

mod catalog;
mod grants;
mod mutants;

use std::{collections::BTreeMap, fmt::Write as _, path::Path};

use gatehouse_store::Job;
use sqlx::{Connection, PgConnection};

use crate::harness::{run, with_db};

/// The tenant whose transactions are tried; the other is `b`.
const A: &str = "aaaaaaaa-0000-4000-8000-000000000000";
/// Gets at nothing.
const NOTHING: &str = "S: I: U: D: M:";

/// Somebody who tries.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Actor {
    role: &'static str,
    tenant: &'static str,
    job: &'static str,
}

impl Actor {
    fn name(&self) -> String {
        let role = self.role.trim_start_matches("gatehouse_");
        match (self.tenant, self.job) {
            ("", "") => role.to_owned(),
            ("", job) => format!("{role} as {job}"),
            (_, _) => format!("{role} for a"),
        }
    }
}

fn actors() -> Vec<Actor> {
    let plain = |role| Actor { role, tenant: "", job: "" };
    let mut all = vec![
        plain("gatehouse_app"),
        Actor { tenant: A, ..plain("gatehouse_app") },
        plain("gatehouse_admin"),
        plain("gatehouse_lookup"),
        plain("gatehouse_owner"),
        plain("gatehouse_system"),
        // Granted everything like the others, and nobody's role.
        plain("proof_stranger"),
        Actor { tenant: A, ..plain("proof_stranger") },
    ];
    all.extend(Job::ALL.iter().map(|job| Actor { job: job.as_str(), ..plain("gatehouse_system") }));
    // A setting of one door opens nothing at another.
    all.extend(Job::ALL.iter().map(|job| Actor { job: job.as_str(), ..plain("proof_stranger") }));
    all.push(Actor { tenant: A, ..plain("gatehouse_system") });
    all
}

/// A table, and whether it is a month of another.
#[derive(Debug, Clone, sqlx::FromRow)]
struct Table {
    name: String,
    is_part: bool,
    k: Option<String>,
}

/// Who reaches what in one table: by actor.
type Reach = BTreeMap<Actor, String>;

/// What the proof stands on, read once.
struct Ground {
    tables: Vec<Table>,
    /// Table, role, first letter of the verb: what was granted.
    grants: Vec<(String, String, String)>,
    /// The matrix as it was reviewed.
    reviewed: BTreeMap<String, Vec<String>>,
}

/// Makes up rows and grants everything; the caller's transaction is rolled back.
async fn prepare(session: &mut PgConnection) -> Ground {
    run(session, include_str!("proof/probe.sql")).await;
    Ground {
        tables: sqlx::query_as("SELECT name, is_part, k FROM proof_tables ORDER BY name")
            .fetch_all(&mut *session)
            .await
            .unwrap(),
        grants: sqlx::query_as("SELECT name, role, verb FROM proof_grants")
            .fetch_all(&mut *session)
            .await
            .unwrap(),
        reviewed: reviewed(),
    }
}

/// Tries everything out in one table.
async fn reach(session: &mut PgConnection, table: &str) -> Reach {
    let actors = actors();
    let column = |of: fn(&Actor) -> &'static str| -> Vec<&str> { actors.iter().map(of).collect() };
    let found: Vec<String> = sqlx::query_scalar(
        "SELECT pg_temp.reach(t.oid, t.k, v.role, v.tenant, v.job)
         FROM proof_tables t, unnest($2::text[], $3::text[], $4::text[]) WITH ORDINALITY v (role, tenant, job, n)
         WHERE t.name = $1 ORDER BY v.n",
    )
    .bind(table)
    .bind(column(|actor| actor.role))
    .bind(column(|actor| actor.tenant))
    .bind(column(|actor| actor.job))
    .fetch_all(session)
    .await
    .unwrap();
    actors.into_iter().zip(found).collect()
}

/// The letters behind a verb.
fn letters<'r>(reach: &'r str, verb: &str) -> &'r str {
    reach.split(' ').find_map(|part| part.strip_prefix(verb)?.strip_prefix(':')).unwrap_or("?")
}

/// What is wrong with what was found in a table.
fn faults(ground: &Ground, table: &Table, reach: &Reach) -> Vec<String> {
    let mut faults = Vec::new();
    let mut fault = |actor: &Actor, found: &str, why: &str| {
        faults.push(format!("{}: {} {why}: {found}", table.name, actor.name()));
    };
    let lookup = reach.iter().find(|(actor, _)| actor.role == "gatehouse_lookup");
    for (actor, found) in reach {
        if found.contains(|letter: char| letter.is_ascii_digit() || letter == '?') {
            fault(actor, found, "could not be tried");
        }
        let nothing = match actor.role {
            "gatehouse_app" => actor.tenant.is_empty() || table.k.is_none(),
            "gatehouse_system" => actor.job.is_empty(),
            "proof_stranger" => true,
            // Owns the months, and has no way to them.
            _ => table.is_part,
        };
        if nothing && found != NOTHING {
            fault(actor, found, "gets at something");
        }
        if actor.role == "gatehouse_app" {
            if found.contains('b') {
                fault(actor, found, "gets at the other tenant's");
            }
            if letters(found, "U") == "a" && letters(found, "M") != "!" {
                fault(actor, found, "gives rows away");
            }
            let month = table.is_part && !actor.tenant.is_empty();
            if month && found != "S:a I:a U:a D:a M:!" {
                fault(actor, found, "is not under its table's rule");
            }
        }
        // Being a member of the role that looks up is how it makes look-ups; forced row security holds else.
        let as_lookup = lookup.is_some_and(|(_, theirs)| theirs == found);
        let reads_rules = table.name == "partition_rules" && found == "S:x I: U: D: M:";
        if actor.role == "gatehouse_owner" && !as_lookup && !reads_rules {
            fault(actor, found, "is past row security");
        }
    }
    // What was granted works, so that nothing above is true for want of a policy.
    for (_, role, verb) in ground.grants.iter().filter(|(name, ..)| *name == table.name) {
        let works = reach.iter().any(|(actor, found)| {
            actor.role == role && letters(found, verb).contains(|letter| "abx".contains(letter))
        });
        if !works {
            faults.push(format!("{}: {role} was granted {verb} and reaches nothing", table.name));
        }
    }
    for role in ["gatehouse_app", "gatehouse_admin", "gatehouse_system", "gatehouse_lookup"] {
        let granted = ground.grants.iter().any(|(name, to, _)| *name == table.name && to == role);
        let reaches =
            reach.iter().any(|(actor, found)| actor.role == role && found.as_str() != NOTHING);
        if reaches && !granted && !table.is_part {
            faults.push(format!("{}: {role} has a policy and no grant", table.name));
        }
    }
    if !table.is_part {
        let empty = Vec::new();
        let reviewed = ground.reviewed.get(&table.name).unwrap_or(&empty);
        let found = lines(reach);
        for line in found.iter().filter(|line| !reviewed.contains(line)) {
            faults.push(format!("{}: {line} is not in the reviewed matrix", table.name));
        }
        for line in reviewed.iter().filter(|line| !found.contains(line)) {
            faults.push(format!("{}: {line} is no longer so", table.name));
        }
    }
    faults
}

/// As the matrix has it: who reaches anything.
fn lines(reach: &Reach) -> Vec<String> {
    let mut lines: Vec<String> = reach
        .iter()
        .filter(|(_, found)| found.as_str() != NOTHING)
        .map(|(actor, found)| format!("{}: {found}", actor.name()))
        .collect();
    lines.sort();
    lines
}

fn golden() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/store/proof/matrix.golden.txt")
}

fn reviewed() -> BTreeMap<String, Vec<String>> {
    let text = std::fs::read_to_string(golden()).unwrap_or_default();
    let mut tables: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if let Some((table, reach)) = line.split_once(" | ") {
            tables.entry(table.to_owned()).or_default().push(reach.to_owned());
        }
    }
    tables
}

const HEAD: &str = "\
# Who reaches whose rows by row security alone, every role being granted everything: S select, I insert, U update,
# D delete, M moves a's row to b; a and b are tenants, x is nobody's; `!` finds rows and is refused what it would do.
# Roles that reach nothing are left out, and months of a table, which are as the rule has them.
";

#[tokio::test]
async fn every_role_reaches_in_every_table_what_it_should_and_nothing_else() {
    with_db(async |db| {
        let mut root = db.root().await;
        let mut tx = root.begin().await.unwrap();
        let mut ground = prepare(&mut tx).await;
        let mut matrix = HEAD.to_owned();
        let mut all = Vec::new();
        for table in &ground.tables {
            let reach = reach(&mut tx, &table.name).await;
            if !table.is_part {
                lines(&reach)
                    .iter()
                    .for_each(|line| writeln!(matrix, "{} | {line}", table.name).unwrap());
            }
            all.push((table.clone(), reach));
        }
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(golden(), matrix).unwrap();
            ground.reviewed = reviewed();
        }
        let faults: Vec<String> =
            all.iter().flat_map(|(table, reach)| faults(&ground, table, reach)).collect();
        assert!(ground.tables.len() > 40, "{:?}", ground.tables);
        assert_eq!(faults, Vec::<String>::new(), "{}", faults.join("\n"));
    })
    .await;
}
