//! Sign-in of people, their sessions and their logout with every hop to the product through real Envoy: the gateway
//! lets the browser's cookies, its `Origin` and the provider's answer pass as they are, knows the session as a
//! credential, and forgets it in every worker.

mod browser;
// One implementation: the control API's own tests start the provider in the same way, and use more of it.
#[expect(dead_code, reason = "what only the control API's own tests need of it")]
#[path = "../../../control-api/tests/api/oidc/provider.rs"]
mod provider;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use gatehouse_contract::{Role, Tier};
use gatehouse_tests::{
    checks,
    envoy::Gateway,
    http::{Connection, Message, Request, serve},
    wait,
    walk::walk,
    world::{self, Limiter, MARK, Plan, Tenant, World},
};
use serde_json::{Value, json};

use self::{
    browser::{Browser, LOGIN, SESSION},
    provider::Provider,
};
use super::{AGENTS, refusal};

/// Where people reach the product; the test's browser knows that the gateway is there.
const ORIGIN: &str = "https://console.test";
const EVIL: &str = "https://evil.test";
const EMAIL: &str = "ada@example.com";
const PLAN: Plan = Plan { limiter: Limiter::Redis, signatures: "native", worker: false };

/// Longer than the promised second on a machine that builds meanwhile, and far shorter than the minute for which a
/// worker remembers whom nobody revoked.
const SOON: Duration = Duration::from_secs(10);

struct Stage {
    world: World,
    tenant: Tenant,
    /// The registration's id.
    issuer: String,
    _provider: Provider,
}

#[test]
fn people_sign_in_and_out_through_the_gateway() {
    let stage = Stage::set().unwrap();
    walk(
        &stage,
        &checks![
            a_person_signs_in_and_the_cookies_come_as_they_were_set,
            a_session_acts_as_its_user_and_from_our_own_pages,
            a_session_opens_the_control_api_alone,
            an_answer_in_another_browser_signs_nobody_in,
        ],
        &checks![a_logout_ends_the_session_in_every_worker, no_vm_was_lost],
    )
    .unwrap();
}

impl Stage {
    fn set() -> Result<Self> {
        let ada = json!({"email": EMAIL, "email_verified": true, "groups": ["makers"]});
        let provider = Provider::start(json!({"ada": ada}));
        let sign_in = json!({"public_origin": ORIGIN, "allow": [provider.issuer]});
        let world = World::start_with(PLAN, json!({"sign_in": sign_in}))?;
        let tenant = world.tenant(Tier::Enterprise)?;
        let document = json!({
            "name": "Test",
            "issuer": provider.issuer,
            "client_id": provider::CLIENT,
            "client_secret": provider::SECRET,
            "audiences": [provider::API],
            "max_role": "developer",
            "roles": {"source": "record", "claim": "/groups", "map": {"makers": "developer"}},
        });
        let path = format!("/api/v1/factory/tenants/{}/issuers", tenant.id);
        let made = world.as_platform(&path, &document)?;
        let issuer = made.get("id").and_then(Value::as_str).context("an issuer without id")?;
        Ok(Self { world, tenant, issuer: issuer.to_owned(), _provider: provider })
    }

    /// A browser that has signed in.
    fn signed_in(&self) -> Result<(Browser, String)> {
        let mut browser = Browser::of(self);
        let back = browser.sign_in(self, "ada")?;
        assert_eq!(back.status()?, 303, "{back:?}");
        let session = browser.cookie(SESSION).context("no session")?.to_owned();
        Ok((browser, session))
    }

    /// What the tenant's rows say.
    fn read(&self, sql: &str) -> Result<String> {
        let tenant = &self.tenant.id;
        let within = format!("BEGIN; SET LOCAL app.current_tenant_id = '{tenant}'; {sql}; COMMIT");
        self.world.database.read("app", &within)
    }

    /// What the upstream saw of the last hop of a browser: it came through the gateway, once.
    fn upstream_of(&self, browser: &Browser) -> Message {
        let mut seen = self.world.upstream_saw(&browser.mark);
        assert_eq!(seen.len(), 1);
        seen.remove(0)
    }
}

fn a_person_signs_in_and_the_cookies_come_as_they_were_set(stage: &Stage) -> Result<()> {
    const ATTRIBUTES: &str = "Secure; HttpOnly; SameSite=Lax";
    let mut browser = Browser::of(stage);
    let url = format!("{ORIGIN}/oauth2/login?issuer={}&return_to=/app", stage.issuer);
    let begun = browser.go(&url, None)?;
    assert_eq!(begun.status()?, 303, "{begun:?}");
    let bound = browser.cookie(LOGIN).context("no cookie for the sign-in")?;
    let expected = format!("{LOGIN}={bound}; Path=/; Max-Age=600; {ATTRIBUTES}");
    assert_eq!(begun.headers.all("set-cookie"), [expected]);
    assert_eq!(begun.headers.all("cache-control"), ["no-store"]);
    assert_eq!(begun.headers.all("referrer-policy"), ["no-referrer"]);
    stage.upstream_of(&browser);
    let place = begun.header("location");
    for part in ["response_type=code&", "code_challenge_method=S256", "&state=", "&nonce="] {
        assert!(place.contains(part), "{part} in {place}");
    }

    let back = browser.through_provider(&place, "ada")?;
    let target = back.strip_prefix(ORIGIN).context("elsewhere")?.to_owned();
    assert!(target.starts_with("/oauth2/callback?"), "{target}");
    let answer = browser.go(&back, None)?;
    assert_eq!((answer.status()?, answer.header("location").as_str()), (303, "/app"), "{answer:?}");
    let session = browser.cookie(SESSION).context("no session")?;
    assert_eq!(session.len(), 43, "256 bits");
    assert_eq!(
        answer.headers.all("set-cookie"),
        [
            format!("{SESSION}={session}; Path=/; Max-Age=43200; {ATTRIBUTES}"),
            format!("{LOGIN}=; Path=/; Max-Age=0; {ATTRIBUTES}"),
        ]
    );
    assert_eq!(answer.headers.all("cache-control"), ["no-store"]);
    // The provider's answer went to the control API as it came.
    assert_eq!(stage.upstream_of(&browser).start, format!("GET {target} HTTP/1.1"));

    // Somebody who is signed in already, or was, begins again: what is open to anyone looks at no session.
    let first = session.to_owned();
    let again = browser.sign_in(stage, "ada")?;
    assert_eq!(again.status()?, 303, "{again:?}");
    let second = browser.cookie(SESSION).context("no session")?.to_owned();
    assert_ne!(first, second);
    browser.set_cookie(SESSION, &first);
    assert_eq!(refusal(&browser.call("GET", AGENTS, &[], "")?), "401 token_invalid");
    assert_eq!(browser.sign_in(stage, "ada")?.status()?, 303, "with the cookie of one that ended");
    assert_eq!(browser.call("GET", AGENTS, &[], "")?.status()?, 200);
    Ok(())
}

fn a_session_acts_as_its_user_and_from_our_own_pages(stage: &Stage) -> Result<()> {
    let (mut browser, session) = stage.signed_in()?;
    let user = stage.read("SELECT user_id FROM user_identities")?;
    let got = browser.call("GET", AGENTS, &[("x-user-id", EVIL)], "")?;
    assert_eq!(got.status()?, 200, "{got:?}");
    let seen = stage.upstream_of(&browser);
    for (name, value) in [
        ("x-tenant-id", stage.tenant.id.as_str()),
        ("x-user-id", &user),
        ("x-user-roles", "developer"),
        ("x-auth-method", "session"),
        ("cookie", &format!("{SESSION}={session}")),
    ] {
        assert_eq!(seen.headers.all(name), [value], "{name}");
    }

    // What changes something comes from our own pages: the control API judges the Origin that the browser sent.
    let agent = json!({"name": "of-a-person"}).to_string();
    let mut post = |origins: &[&str]| {
        let headers: Vec<_> = origins.iter().map(|origin| ("Origin", *origin)).collect();
        browser.call("POST", AGENTS, &headers, &agent).map(|answer| (answer, browser.mark.clone()))
    };
    let refused: [&[&str]; 5] =
        [&[], &[EVIL], &["null"], &[ORIGIN, ORIGIN], &["http://console.test"]];
    for origins in refused {
        let (answer, mark) = post(origins)?;
        assert_eq!(refusal(&answer), "403 permission_denied", "{origins:?}");
        let seen = stage.world.upstream_saw(&mark);
        assert_eq!(seen.len(), 1, "{origins:?}");
        if origins.len() < 2 {
            assert_eq!(seen[0].headers.all("origin"), origins);
        }
    }
    let (made, mark) = post(&[ORIGIN])?;
    assert_eq!(made.status()?, 201, "{made:?}");
    assert_eq!(stage.world.upstream_saw(&mark)[0].headers.all("origin"), [ORIGIN]);
    let who = "SELECT DISTINCT subject FROM tenant_audit WHERE action = 'agent.create'";
    assert_eq!(stage.read(who)?, user);

    // Its role's bounds hold at the gateway: no request arrives.
    let issuers = format!("/api/v1/factory/tenants/{}/issuers", stage.tenant.id);
    assert_eq!(refusal(&browser.call("GET", &issuers, &[], "")?), "403 permission_denied");
    assert_eq!(stage.world.upstream_saw(&browser.mark).len(), 0);
    Ok(())
}

fn a_session_opens_the_control_api_alone(stage: &Stage) -> Result<()> {
    let (mut browser, session) = stage.signed_in()?;
    for path in ["/api/v1/nothing", "/app", "/internal/v1/principal", "/metrics"] {
        assert_eq!(refusal(&browser.call("GET", path, &[], "")?), "404 not_found", "{path}");
        assert_eq!(stage.world.upstream_saw(&browser.mark).len(), 0, "{path}");
    }
    assert_eq!(browser.call("GET", AGENTS, &[], "")?.status()?, 200);

    // Somebody else's upstream behind a gateway of ours, with the same sidecar: it takes no sessions.
    let upstream = serve::Server::start(Arc::new(serve::echo))?;
    let mut document = world::document(PLAN)?;
    document["sessions"] = false.into();
    let dir = tempfile::tempdir()?;
    let (to, sidecar) = (upstream.address, stage.world.sidecar_listen);
    let other = Gateway::start(dir.path(), &document, to, sidecar)?;
    let cookie = format!("a=1; {SESSION}={session}; b=2");
    let request = |path| Request::new("GET", path).header("Cookie", &cookie);
    assert_eq!(refusal(&request(AGENTS).send(other.listen)?), "401 credential_missing");
    let token = stage.world.token(&stage.world.client(&stage.tenant, Role::Viewer)?)?;
    for request in [request(AGENTS).bearer(&token), request("/.well-known/jwks.json")] {
        let answer = request.send(other.listen)?;
        assert_eq!(answer.status()?, 200, "{answer:?}");
        let seen = serve::seen(&answer)?;
        assert_eq!(seen.headers.all("cookie"), ["a=1; b=2"], "{}", request.line());
        assert!(!String::from_utf8_lossy(&seen.bytes()).contains(&session));
    }
    Ok(())
}

fn an_answer_in_another_browser_signs_nobody_in(stage: &Stage) -> Result<()> {
    let (mut victim, mut attacker) = (Browser::of(stage), Browser::of(stage));
    let place = attacker.begin(stage)?;
    let back = attacker.through_provider(&place, "ada")?;
    let refused = |victim: &mut Browser| -> Result<()> {
        let answer = victim.go(&back, None)?;
        assert_eq!(refusal(&answer), "400 credential_malformed");
        assert_eq!(answer.headers.all("set-cookie"), [""; 0]);
        assert_eq!(victim.cookie(SESSION), None);
        // The control API's own refusal, by the cookies that the gateway brought it.
        let cookies = stage.upstream_of(victim).headers.all("cookie");
        let own = victim.cookie(LOGIN).map(|bound| format!("{LOGIN}={bound}"));
        assert_eq!(cookies, Vec::from_iter(own));
        Ok(())
    };
    refused(&mut victim)?;
    victim.begin(stage)?;
    refused(&mut victim)?;
    // In the browser that began it is good.
    assert_eq!(attacker.go(&back, None)?.status()?, 303);
    assert!(attacker.cookie(SESSION).is_some());
    Ok(())
}

/// One connection of each of the two workers, which the kernel hands out as it likes.
fn connections(world: &World) -> Result<[Connection; 2]> {
    let at = format!("{}_{}", world.gateway.ip(), world.gateway.port());
    let taken = |worker: usize| {
        world.envoy.stat(&format!("listener.{at}.worker_{worker}.downstream_cx_total"))
    };
    let (mut one, mut other) = (None, None);
    for _ in 0..64 {
        let before = taken(0)?;
        let mut connection = Connection::open(world.gateway)?;
        connection.send(&Request::new("GET", AGENTS).bytes())?;
        assert_eq!(refusal(&connection.response()?), "401 credential_missing");
        *(if taken(0)? > before { &mut one } else { &mut other }) = Some(connection);
        if let (Some(_), Some(_)) = (&one, &other) {
            break;
        }
    }
    match (one, other) {
        (Some(one), Some(other)) => Ok([one, other]),
        _ => bail!("one worker takes no connections"),
    }
}

fn a_logout_ends_the_session_in_every_worker(stage: &Stage) -> Result<()> {
    let (mut browser, session) = stage.signed_in()?;
    let (mut neighbour, _) = stage.signed_in()?;
    let mut workers = connections(&stage.world)?;
    // The answer, and whether the upstream saw the request.
    let ask = |worker: &mut Connection| -> Result<(Message, bool)> {
        let mark = uuid::Uuid::new_v4().to_string();
        let request = Request::new("GET", AGENTS).header(MARK, &mark);
        let request = request.header("Cookie", &format!("{SESSION}={session}"));
        worker.send(&request.bytes())?;
        let answer = worker.response()?;
        Ok((answer, !stage.world.upstream_saw(&mark).is_empty()))
    };
    let mut all_pass = || -> Result<()> {
        for worker in &mut workers {
            let (answer, arrived) = ask(worker)?;
            assert_eq!((answer.status()?, arrived), (200, true), "{answer:?}");
        }
        Ok(())
    };
    all_pass()?;
    let mut logout =
        |origin: &str| browser.call("POST", "/oauth2/logout", &[("Origin", origin)], "");
    assert_eq!(refusal(&logout(EVIL)?), "403 permission_denied");
    all_pass().context("another page signs nobody out")?;
    let out = logout(ORIGIN)?;
    let ended = Instant::now();
    assert_eq!(out.status()?, 204, "{out:?}");
    assert_eq!(
        out.headers.all("set-cookie"),
        [format!("{SESSION}=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Lax")]
    );
    // The control API refuses at once; soon the gateway does it by itself, in each worker.
    for (number, worker) in workers.iter_mut().enumerate() {
        wait::until(&format!("worker {number} refuses"), SOON, || {
            let (answer, arrived) = ask(worker)?;
            assert_eq!(refusal(&answer), "401 token_invalid");
            Ok((!arrived).then_some(()))
        })?;
    }
    println!("every worker refused after {:?}", ended.elapsed());
    for worker in &mut workers {
        let (answer, arrived) = ask(worker)?;
        assert_eq!((refusal(&answer).as_str(), arrived), ("401 token_invalid", false));
        assert!(answer.header("www-authenticate").contains("invalid_token"), "{answer:?}");
    }
    assert_eq!(neighbour.call("GET", AGENTS, &[], "")?.status()?, 200, "another session goes on");
    Ok(())
}

fn no_vm_was_lost(stage: &Stage) -> Result<()> {
    assert_eq!(stage.world.envoy.stat("wasm.suite.vm_reload_success")?, 0);
    Ok(())
}
