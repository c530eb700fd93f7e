//! Every list is read page by page, in one order, whatever comes meanwhile.

use serde_json::{Value, json};

use super::{Furnished, operations, takes};
use crate::{access::refused, http::Answer, world::World};

const AGENTS: &str = "/api/v1/registry/agents";

fn names(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{}", answer.text);
    let items = answer.json()["items"].as_array().unwrap().clone();
    items.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn pages_follow_each_other_without_a_gap_while_rows_come_and_go() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let token = world.member(&tenant, "developer");
    let make = |name: &str| world.post(&token, AGENTS, json!({"name": name}));
    let ids: Vec<Value> = (0..7).map(|n| make(&format!("a{n}")).json()["id"].clone()).collect();
    // Two of the same moment: the id decides.
    let same = "UPDATE agents SET created_at = (SELECT max(created_at) FROM agents WHERE name IN ('a3', 'a4')) WHERE name IN ('a3', 'a4')";
    world.database.query(same);
    let first = world.get(&token, &format!("{AGENTS}?limit=2"));
    assert_eq!(names(&first), ["a6", "a5"]);
    let next = first.json()["next"].as_str().unwrap().to_owned();
    assert_eq!(first.header("link"), Some(format!("<{next}>; rel=\"next\"").as_str()));
    // A new one comes before everything, one behind goes: the pages behind have the others, each once.
    make("later");
    let gone = format!("{AGENTS}/{}", ids[2].as_str().unwrap());
    assert_eq!(world.call(&token, "DELETE", &gone, None).status, 204);
    let mut rest = Vec::new();
    let mut at = Some(next.clone());
    while let Some(place) = at {
        let page = world.get(&token, &place);
        rest.push(names(&page));
        assert_eq!(page.header("link").is_some(), page.json()["next"].is_string());
        at = page.json()["next"].as_str().map(str::to_owned);
    }
    assert_eq!(rest.concat(), ["a4", "a3", "a1", "a0"]);
    assert_eq!(rest.len(), 2, "a page that is full to the last row has none behind it");
    assert_eq!(names(&world.get(&token, AGENTS)).len(), 7);
    assert_eq!(names(&world.get(&token, &format!("{AGENTS}?name=a4"))), ["a4"]);
    assert_eq!(names(&world.get(&token, &format!("{AGENTS}?name=a2"))), [""; 0]);
    // Elsewhere the cursor opens nothing: another tenant's list, another list, the same with a filter.
    let query = next.split_once('?').unwrap().1;
    let other = world.member(&world.tenant("tenant-b"), "developer");
    let runs = format!("/api/v1/runtime/executions?{query}");
    let forged = refused_alike(&world.get(&token, &format!("{AGENTS}?cursor=AAAA")));
    for answer in [
        world.get(&other, &next),
        world.get(&token, &runs),
        world.get(&token, &format!("{next}&name=a4")),
    ] {
        assert_eq!(refused_alike(&answer), forged);
    }
}

fn refused_alike(answer: &Answer) -> Value {
    refused(answer, 400, "query_invalid");
    answer.body_but_request_id()
}

#[test]
fn every_list_has_pages_and_takes_nothing_else() {
    let furnished = Furnished::new();
    let world = &furnished.world;
    let mut lists = 0;
    for (method, template, operation) in operations() {
        if method != "GET" || !takes(operation, "Cursor") {
            continue;
        }
        lists += 1;
        let path = furnished.path(template);
        let caller = furnished.caller(operation);
        let get = |query: &str| world.get(caller, &format!("{path}{query}"));
        let all = get("").json()["items"].as_array().unwrap().clone();
        assert!(!all.is_empty(), "{template} shows nothing");
        // One by one it is the same, in the same order.
        let mut found = Vec::new();
        let mut at = Some(format!("{path}?limit=1"));
        while let Some(place) = at {
            let page = world.get(caller, &place).json();
            found.extend(page["items"].as_array().unwrap().clone());
            at = page["next"].as_str().map(str::to_owned);
        }
        assert_eq!(found, all, "{template}");
        for bad in ["?limit=0", "?limit=101", "?offset=1", "?cursor=x", "?limit=1&limit=1"] {
            refused(&get(bad), 400, "query_invalid");
        }
    }
    assert!(lists >= 7, "{lists}");
}

/// The plan of a deep page is that of the first one: by the index, and only what is shown is read.
#[test]
fn a_deep_page_is_found_by_the_index() {
    let world = World::new();
    world.tenant("tenant-a");
    let plan = world.database.query(
        "SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan;
         SELECT set_config('app.current_tenant_id', (SELECT id::text FROM tenants LIMIT 1), false);
         PREPARE page AS SELECT id FROM executions WHERE tenant_id = current_setting('app.current_tenant_id')::uuid
             AND (created_at, id) < ($1, $2) ORDER BY created_at DESC, id DESC LIMIT $3;
         EXPLAIN EXECUTE page ('2030-01-01', 'ffffffff-ffff-ffff-ffff-ffffffffffff', 51)",
    );
    assert!(plan.contains("Index") && plan.contains("ROW(created_at, id) <"), "{plan}");
    assert!(!plan.contains("Sort"), "{plan}");
}
