//! The proof of the proof: each policy is dropped, each condition made true, each table let off, one at a time, and the
//! proof must fail each time. `cargo xtask mutate policies` does it for all and prints the table; the ordinary run drops
//! every policy of every table, and takes a part of the rest.

use std::{collections::BTreeMap, time::Instant};

use sqlx::{Connection, PgConnection};

use super::{catalog, faults, prepare, reach};
use crate::harness::{run, with_db};

/// What is done to which table.
#[derive(Debug, Clone, sqlx::FromRow)]
struct Mutant {
    relation: String,
    kind: String,
    statement: String,
}

/// All of them, from the catalog. A condition that is true already cannot be made so.
const MUTANTS: &str = "
    SELECT c.relname::text AS relation, v.kind, format(v.statement, c.relname) AS statement
    FROM pg_class c, (VALUES
        ('not forced', 'ALTER TABLE %I NO FORCE ROW LEVEL SECURITY'),
        ('switched off', 'ALTER TABLE %I DISABLE ROW LEVEL SECURITY')) v (kind, statement)
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND c.relname <> '_sqlx_migrations'
    UNION ALL
    SELECT p.tablename::text, v.kind, format(v.statement, p.policyname, p.tablename)
    FROM pg_policies p, (VALUES
        ('policy dropped', 'DROP POLICY %I ON %I', true),
        ('policy for everyone', 'ALTER POLICY %I ON %I TO PUBLIC', true),
        ('USING (true)', 'ALTER POLICY %I ON %I USING (true)', false),
        ('WITH CHECK (true)', 'ALTER POLICY %I ON %I WITH CHECK (true)', false)) v (kind, statement, always)
    WHERE p.schemaname = 'public' AND (v.always
        OR (v.kind = 'USING (true)' AND p.qual <> 'true')
        OR (v.kind = 'WITH CHECK (true)' AND p.with_check <> 'true'))
    ORDER BY 1, 2, 3";

/// One of so many of the others is in the ordinary run.
const SHARE: usize = 8;

/// Which part of the proof saw it.
#[derive(Debug, Default)]
struct Count {
    mutants: usize,
    tried: usize,
    catalog: usize,
}

#[tokio::test]
async fn no_policy_can_be_dropped_or_loosened_unnoticed() {
    with_db(async |db| {
        let began = Instant::now();
        let mut root = db.root().await;
        let mut mutants: Vec<Mutant> = sqlx::query_as(MUTANTS).fetch_all(&mut root).await.unwrap();
        assert!(mutants.len() > 300, "{}", mutants.len());
        if std::env::var_os("GATEHOUSE_MUTANTS").is_none() {
            let mut number = 0;
            mutants.retain(|mutant| {
                number += 1;
                let month = mutant.relation.contains("_20");
                (mutant.kind == "policy dropped" && !month) || number % SHARE == 0
            });
        }
        let mut tx = root.begin().await.unwrap();
        let ground = prepare(&mut tx).await;
        let mut counts: BTreeMap<String, Count> = BTreeMap::new();
        let mut survivors = Vec::new();
        for mutant in &mutants {
            let (tried, seen) = experiment(&mut tx, &ground, mutant).await;
            let count = counts.entry(mutant.kind.clone()).or_default();
            count.mutants += 1;
            count.tried += usize::from(tried);
            count.catalog += usize::from(seen);
            if !tried && !seen {
                survivors.push(mutant.statement.clone());
            }
        }
        println!(
            "{:20} {:>8} {:>10} {:>11} {:>9}",
            "mutation", "mutants", "by trying", "by catalog", "survived"
        );
        for (kind, count) in &counts {
            let survived = survivors
                .iter()
                .filter(|statement| {
                    mutants.iter().any(|m| m.kind == *kind && m.statement == **statement)
                })
                .count();
            println!(
                "{kind:20} {:>8} {:>10} {:>11} {survived:>9}",
                count.mutants, count.tried, count.catalog
            );
        }
        println!(
            "{} mutants, {} noticed, in {:.1} s",
            mutants.len(),
            mutants.len() - survivors.len(),
            began.elapsed().as_secs_f64()
        );
        assert_eq!(survivors, Vec::<String>::new());
    })
    .await;
}

/// Whether trying it out, and whether the catalog's rules notice.
async fn experiment(
    session: &mut PgConnection,
    ground: &super::Ground,
    mutant: &Mutant,
) -> (bool, bool) {
    run(session, &format!("SAVEPOINT mutant; {}", mutant.statement)).await;
    let table = ground.tables.iter().find(|table| table.name == mutant.relation).unwrap();
    let reach = reach(session, &table.name).await;
    let tried = !faults(ground, table, &reach).is_empty();
    let seen = !catalog::faults(session, catalog::OF_POLICIES).await.is_empty();
    run(session, "ROLLBACK TO mutant; RELEASE mutant").await;
    (tried, seen)
}
