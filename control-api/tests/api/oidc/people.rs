//! Who somebody is who signed in, and what that somebody may do.

use std::sync::Barrier;

use serde_json::{Value, json};

use super::{Browser, ORIGIN, Provider, refused, register, world};
use crate::{
    http::{Answer, send},
    world::{Tenant, World},
};

fn person(email: &str, groups: &[&str]) -> Value {
    json!({"email": email, "email_verified": true, "groups": groups})
}

/// Roles and subject behind a session.
fn facts(world: &World, browser: &Browser) -> Value {
    let ask = json!({"kind": "session", "session": browser.session().unwrap()});
    let answer = world.ask_principal(&ask);
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

fn on_user(world: &World, tenant: &Tenant, user: &Value, what: &str) -> Answer {
    let user = user.as_str().unwrap();
    let path = format!("/api/v1/factory/tenants/{}/users/{user}/{what}", tenant.id);
    world.as_platform("POST", &path, "a test", None)
}

#[test]
fn the_same_subject_at_two_issuers_is_two_users() {
    let account = || json!({"ada": person("ada@example.com", &["makers"])});
    let (one, two) = (Provider::start(account()), Provider::start(account()));
    let world = world(&[&one, &two]);
    let tenant = world.tenant("tenant-a");
    let at_one = register(&world, &tenant, &one, json!({}));
    let at_two = register(&world, &tenant, &two, json!({}));
    let subject = |issuer: &str| {
        let mut browser = Browser::default();
        assert_eq!(browser.sign_in(&world, issuer, "ada").status, 303);
        facts(&world, &browser)["subject"].as_str().unwrap().to_owned()
    };
    let (first, second) = (subject(&at_one), subject(&at_two));
    assert_ne!(first, second, "one name, one address, two providers");
    assert_eq!((subject(&at_one), subject(&at_two)), (first, second), "and they stay who they are");
    // In another tenant, through the same provider: somebody else again.
    let other = world.tenant("tenant-b");
    let at_other = register(&world, &other, &one, json!({}));
    let third = subject(&at_other);
    assert_eq!(world.database.query("SELECT count(DISTINCT id) FROM users"), "3");
    assert_eq!(
        world.database.query(&format!("SELECT tenant_id FROM users WHERE id = '{third}'")),
        other.id
    );
}

#[test]
fn a_first_sign_in_in_several_tabs_at_once_is_one_user() {
    let people = json!({"ada": person("ada@example.com", &["makers"]), "bob": person("bob@example.com", &[])});
    let provider = Provider::start(people);
    let world = world(&[&provider]);
    let tenant = world.tenant("tenant-a");
    let issuer = register(&world, &tenant, &provider, json!({}));
    let path = format!("/api/v1/factory/tenants/{}/users", tenant.id);
    let invited = json!({"email": "bob@example.com", "role": "viewer"});
    assert_eq!(world.as_platform("POST", &path, "a test", Some(invited)).status, 201);
    for login in ["ada", "bob"] {
        let tabs = [(); 4].map(|()| {
            let mut tab = Browser::default();
            let back = tab.through_provider(&world, &issuer, login);
            let cookie = tab.cookie("__Host-gatehouse-login").unwrap();
            (back.replace(ORIGIN, &world.service.url), format!("__Host-gatehouse-login={cookie}"))
        });
        let together = Barrier::new(tabs.len());
        let visit = |(back, cookie): &(String, String)| {
            together.wait();
            send("GET", back, &[("cookie", cookie)], None)
        };
        let answers = std::thread::scope(|scope| {
            let visit = &visit;
            let handles = tabs.each_ref().map(|tab| scope.spawn(move || visit(tab)));
            handles.map(|handle| handle.join().unwrap())
        });
        for answer in answers {
            assert_eq!(answer.status, 303, "{login}: {}", answer.text);
        }
    }
    let signed_in = "SELECT count(*) || ' ' || count(DISTINCT user_id) FROM sessions";
    assert_eq!(world.database.query(signed_in), "8 2");
    assert_eq!(world.database.query("SELECT count(*) FROM users"), "2");
    assert_eq!(world.database.query("SELECT count(*) FROM user_identities"), "2");
}

#[test]
fn groups_map_to_roles_up_to_the_issuers_highest_and_no_group_is_no_entry() {
    let provider = Provider::start(json!({
        "reader": person("r@example.com", &["readers"]),
        "both": person("b@example.com", &["readers", "makers", "others"]),
        "none": person("n@example.com", &["others"]),
        "nobody": {"email": "o@example.com", "email_verified": true},
    }));
    let world = world(&[&provider]);
    let issuer = register(&world, &world.tenant("tenant-a"), &provider, json!({}));
    let roles = |login: &str| {
        let mut browser = Browser::default();
        assert_eq!(browser.sign_in(&world, &issuer, login).status, 303, "{login}");
        facts(&world, &browser)["roles"].clone()
    };
    assert_eq!(roles("reader"), json!(["viewer"]));
    assert_eq!(roles("both"), json!(["viewer", "developer"]));
    for login in ["none", "nobody"] {
        let answer = Browser::default().sign_in(&world, &issuer, login);
        refused(&answer, 403, "permission_denied");
        assert!(answer.text.contains("groups"), "{}", answer.text);
    }
    // What the record gives beyond the issuer's highest role does not count in a session of it.
    let user = world.database.query("SELECT user_id FROM user_identities WHERE subject = 'reader'");
    world.database.query(&format!(
        "INSERT INTO memberships (tenant_id, user_id, role) SELECT tenant_id, id, 'admin' FROM users WHERE id = '{user}'"
    ));
    world.database.query(&format!(
        "INSERT INTO platform_memberships (tenant_id, user_id) SELECT tenant_id, id FROM users WHERE id = '{user}'"
    ));
    let mut browser = Browser::default();
    browser.sign_in(&world, &issuer, "reader");
    let facts = facts(&world, &browser);
    assert_eq!((&facts["roles"], &facts["platform"]), (&json!(["viewer"]), &json!(false)));
}

#[test]
fn roles_follow_the_groups_at_each_sign_in_only_where_the_issuer_decides() {
    for (source, expected) in [("token", json!(["viewer"])), ("record", json!(["developer"]))] {
        let mut provider = Provider::start(json!({"ada": person("ada@example.com", &["makers"])}));
        let world = world(&[&provider]);
        let tenant = world.tenant("tenant-a");
        let mapped = json!({"source": source, "claim": "/groups",
            "map": {"readers": "viewer", "makers": "developer"}});
        let issuer = register(&world, &tenant, &provider, json!({"roles": mapped}));
        let mut browser = Browser::default();
        browser.sign_in(&world, &issuer, "ada");
        assert_eq!(facts(&world, &browser)["roles"], json!(["developer"]));
        provider.change(&json!({"ada": person("ada@example.com", &["readers"])}));
        assert_eq!(browser.sign_in(&world, &issuer, "ada").status, 303);
        assert_eq!(facts(&world, &browser)["roles"], expected, "{source}");
        // In no group any more: known, and without a role.
        provider.change(&json!({"ada": person("ada@example.com", &[])}));
        assert_eq!(browser.sign_in(&world, &issuer, "ada").status, 303);
        let none = if source == "token" { json!([]) } else { expected };
        assert_eq!(facts(&world, &browser)["roles"], none, "{source}");
    }
}

#[test]
fn an_address_links_only_an_invitation_and_only_when_it_was_checked() {
    let at = |verified: Value| json!({"email": "Ada@example.com", "email_verified": verified});
    let provider = Provider::start(json!({
        "unchecked": at(json!(false)),
        "text": at(json!("true")),
        "checked": at(json!(true)),
        "second": at(json!(true)),
    }));
    let world = world(&[&provider]);
    let tenant = world.tenant("tenant-a");
    let issuer = register(&world, &tenant, &provider, json!({}));
    let path = format!("/api/v1/factory/tenants/{}/users", tenant.id);
    let invite = json!({"email": "ada@example.com", "role": "operator"});
    let invited = world.as_platform("POST", &path, "an invitation", Some(invite));
    assert_eq!(invited.status, 201, "{}", invited.text);
    for login in ["unchecked", "text"] {
        let answer = Browser::default().sign_in(&world, &issuer, login);
        refused(&answer, 403, "permission_denied");
    }
    let mut browser = Browser::default();
    assert_eq!(browser.sign_in(&world, &issuer, "checked").status, 303);
    let facts = facts(&world, &browser);
    assert_eq!(facts["subject"], invited.json()["id"]);
    assert_eq!(facts["roles"], json!(["operator"]));
    // The invitation is taken: the same address is nobody's way in any more.
    refused(&Browser::default().sign_in(&world, &issuer, "second"), 403, "permission_denied");
    assert_eq!(Browser::default().sign_in(&world, &issuer, "checked").status, 303);
    assert_eq!(world.database.query("SELECT count(*) FROM users"), "1");
}

#[test]
fn who_is_suspended_neither_signs_in_nor_acts() {
    let provider = Provider::start(json!({"ada": person("ada@example.com", &["makers"])}));
    let world = world(&[&provider]);
    let tenant = world.tenant("tenant-a");
    let issuer = register(&world, &tenant, &provider, json!({}));
    let mut browser = Browser::default();
    browser.sign_in(&world, &issuer, "ada");
    let agents = |browser: &Browser| browser.get(&world, "/api/v1/registry/agents");
    assert_eq!(agents(&browser).status, 200);
    let user = facts(&world, &browser)["subject"].clone();
    assert_eq!(on_user(&world, &tenant, &user, "suspend").status / 100, 2);
    refused(&agents(&browser), 403, "principal_inactive");
    assert_eq!(facts(&world, &browser)["suspended"], json!(true));
    refused(&Browser::default().sign_in(&world, &issuer, "ada"), 403, "principal_inactive");
    assert_eq!(on_user(&world, &tenant, &user, "resume").status / 100, 2);
    assert_eq!(agents(&browser).status, 200);
    world.database.query("UPDATE tenants SET status = 'suspended' WHERE slug = 'tenant-a'");
    refused(&agents(&browser), 403, "tenant_inactive");
    refused(&Browser::default().sign_in(&world, &issuer, "ada"), 403, "tenant_inactive");
    world.database.query("UPDATE tenants SET status = 'active' WHERE slug = 'tenant-a'");
    assert_eq!(Browser::default().sign_in(&world, &issuer, "ada").status, 303);
    // A session ends when it is not used, and at the latest when it says.
    for ended in ["last_seen_at = now() - interval '31 min'", "expires_at = now()"] {
        let mut browser = Browser::default();
        browser.sign_in(&world, &issuer, "ada");
        assert_eq!(agents(&browser).status, 200);
        world.database.query(&format!("UPDATE sessions SET {ended}"));
        refused(&agents(&browser), 401, "token_invalid");
    }
    // Use puts the end off.
    let mut browser = Browser::default();
    browser.sign_in(&world, &issuer, "ada");
    world.database.query("UPDATE sessions SET last_seen_at = now() - interval '29 min'");
    assert_eq!(agents(&browser).status, 200);
    let seen = "SELECT count(*) FROM sessions WHERE last_seen_at > now() - interval '1 min'";
    assert_eq!(world.database.query(seen), "1");
}
