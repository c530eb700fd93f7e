//! The deliverer against a real PostgreSQL and real HTTPS endpoints of this machine, which the guard lets pass because the
//! tests name them; what they receive is verified by the reference library of Standard Webhooks.

mod hook;
mod world;

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use gatehouse_outbound::{Guard, Resolve};
use gatehouse_store::OffsetDateTime;
use standardwebhooks::Webhook;

use self::{
    hook::{Answer, Hook, Request},
    world::{World, until},
};

const OK: Answer = Answer::Head("204 No Content\r\ncontent-length: 0\r\n");
const BROKEN: Answer = Answer::Head("500 X\r\ncontent-length: 0\r\n");

fn verifies(secret: &str, request: &Request) -> bool {
    Webhook::new(secret).unwrap().verify(&request.body, &request.headers).is_ok()
}

#[tokio::test]
async fn aex4_35_the_reference_library_verifies_each_attempt_and_all_send_the_same_bytes() {
    let world = World::new().await;
    let hook = Hook::start(&world.authority, [BROKEN, BROKEN, OK]).await;
    let (id, first) = world.endpoint(&hook.url("/in?token=t")).await;
    let running = world.deliver(world.tools(&[&hook]));
    world.tell(1).await;
    until(|| world.states() == "pending 1 500 -").await;
    // From here on two secrets sign, until the time of the one before is over.
    let second = world.rotate(id, Some(OffsetDateTime::now_utc() + Duration::from_secs(600))).await;
    world.hurry();
    until(|| world.states() == "pending 2 500 -").await;
    world.query("UPDATE webhook_endpoints SET previous_until = now() - interval '1 second'");
    world.hurry();
    let requests = hook.received(3).await;
    let signed: Vec<(bool, bool)> =
        requests.iter().map(|one| (verifies(&first, one), verifies(&second, one))).collect();
    assert_eq!(signed, [(true, false), (true, true), (false, true)]);
    let same = |of: &dyn Fn(&Request) -> Vec<u8>| {
        requests.iter().map(of).collect::<BTreeSet<_>>().len() == 1
    };
    assert!(same(&|one| one.body.clone()), "the same bytes");
    assert!(same(&|one| one.header("webhook-id").into()), "the same id");
    assert!(!same(&|one| one.header("webhook-signature").into()), "signed anew");
    assert_eq!(requests[0].header("webhook-id"), world.query("SELECT id FROM event_store"));
    for one in &requests {
        assert_eq!(one.head, "POST /in?token=t HTTP/1.1");
        let sent: i64 = one.header("webhook-timestamp").parse().unwrap();
        assert!((OffsetDateTime::now_utc().unix_timestamp() - sent).abs() < 60);
        // Who changes anything is found out, and so is somebody else.
        let mut changed = one.clone();
        changed.body[0] ^= 1;
        assert!(!verifies(&second, &changed));
        assert!(!verifies("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", one));
    }
    let said: serde_json::Value = serde_json::from_slice(&requests[0].body).unwrap();
    assert_eq!(said["type"], "quota.threshold_reached");
    assert_eq!(said["data"]["tenant_id"], world.op.tenant.to_string());
    until(|| world.states() == "delivered 3 204 -").await;
    running.stop().await;
}

/// All at once, by one deliverer: those that take their time hold up no other.
#[tokio::test]
async fn aex4_33_what_an_endpoint_answers_is_judged_bounded_and_never_kept() {
    let world = World::new().await;
    let elsewhere = Hook::start(&world.authority, [OK]).await;
    let to: &str = Box::leak(
        format!("302 X\r\nlocation: {}\r\ncontent-length: 0\r\n", elsewhere.url("/")).into(),
    );
    let busy = Answer::Head("429 X\r\nretry-after: 3000\r\ncontent-length: 0\r\n");
    let gone = Answer::Head("410 X\r\ncontent-length: 0\r\n");
    let table = [
        (OK, "delivered 204 -"),
        (BROKEN, "pending 500 -"),
        (Answer::Head(to), "pending 302 -"),
        (busy, "pending 429 -"),
        (gone, "failed 410 -"),
        (Answer::Hang, "pending - timeout"),
        (Answer::Drip, "pending - timeout"),
        // It said that it took it, before it said more.
        (Answer::Flood, "delivered 200 -"),
        (Answer::Raw("SSH-2.0\r\n\r\n"), "pending - broken"),
        (Answer::Raw(""), "pending - broken"),
    ];
    let mut hooks = Vec::new();
    for (answer, expected) in table {
        let hook = Hook::start(&world.authority, [answer]).await;
        let (id, _) = world.endpoint(&hook.url("/")).await;
        hooks.push((hook, id, expected));
    }
    let stranger = Hook::start(&world::authority(), [OK]).await;
    let (id, _) = world.endpoint(&stranger.url("/")).await;
    hooks.push((stranger, id, "pending - tls"));
    let mut away = Hook::start(&world.authority, [OK]).await;
    away.stop();
    let (id, _) = world.endpoint(&away.url("/")).await;
    hooks.push((away, id, "pending - unreachable"));
    let named: Vec<&Hook> = hooks.iter().map(|(hook, ..)| hook).chain([&elsewhere]).collect();
    let running = world.deliver(world.tools(&named));
    let began = Instant::now();
    world.tell(1).await;
    hooks[0].0.received(1).await;
    assert!(began.elapsed() < world::SEND, "the others hold up nobody");
    for (_, id, expected) in &hooks {
        until(|| world.state_of(*id) == **expected).await;
    }
    assert!(elsewhere.requests().is_empty(), "a redirect is not followed");
    let flood = hooks.iter().find(|(hook, ..)| hook.flooded() > 0).map(|(hook, ..)| hook).unwrap();
    assert!(flood.flooded() < 20 << 20, "{} bytes were taken", flood.flooded());
    assert_eq!(
        world.query(
            "SELECT count(*) FROM webhook_deliveries WHERE due_at > now() + interval '40 minutes'"
        ),
        "1"
    );
    assert_eq!(world.query("SELECT count(*) FROM webhook_endpoints WHERE NOT enabled"), "1");
    let audited =
        world.query("SELECT subject, target_id FROM tenant_audit WHERE action = 'webhook.gone'");
    assert_eq!(audited, format!("deliverer|{}", hooks[4].1));
    // Told no more.
    world.tell(1).await;
    hooks[0].0.received(2).await;
    assert_eq!(hooks[4].0.requests().len(), 1);
    let metrics = running.status.render();
    assert!(
        metrics.contains("gatehouse_webhook_attempts_total{outcome=\"gone\"} 1\n"),
        "{metrics}"
    );
    running.stop().await;
}

#[tokio::test]
async fn aex4_33_an_endpoint_that_was_down_for_three_days_is_told_again() {
    let world = World::new().await;
    let hook = Hook::start(&world.authority, [BROKEN]).await;
    let (id, secret) = world.endpoint(&hook.url("/")).await;
    let running = world.deliver(world.tools(&[&hook]));
    world.tell(1).await;
    until(|| {
        world.hurry();
        world.states() == "failed 10 500 -"
    })
    .await;
    world.hurry();
    let tried = hook.received(10).await;
    hook.answers_now(OK);
    world.replay_failed(id).await;
    until(|| world.states() == "delivered 1 204 -").await;
    let requests = hook.requests();
    assert_eq!(requests.len(), 11, "nothing was sent between");
    let last = &requests[10];
    assert!(verifies(&secret, last));
    assert_eq!(
        (last.header("webhook-id"), &last.body),
        (tried[0].header("webhook-id"), &tried[0].body)
    );
    running.stop().await;
}

/// A name that leads where it may lead when it is registered, and elsewhere later.
struct Rebound(IpAddr);

impl Resolve for Rebound {
    fn resolve<'a>(
        &'a self,
        _: &'a str,
    ) -> std::pin::Pin<Box<dyn Future<Output = std::io::Result<Vec<IpAddr>>> + Send + 'a>> {
        Box::pin(std::future::ready(Ok(vec![self.0])))
    }
}

/// With the guard that `serve` has: without an exception.
#[tokio::test]
async fn aex4_34_no_spelling_of_an_address_leads_into_our_networks() {
    let world = World::new().await;
    let hook = Hook::start(&world.authority, [OK]).await;
    let port = hook.at.port();
    let (id, _) = world.endpoint(&hook.url("/")).await;
    let tools = |at: &str| {
        let mut tools = world.tools(&[]);
        tools.guard = Guard::new([], vec![hook.at]);
        tools.client = tools.client.with_resolver(Arc::new(Rebound(at.parse().unwrap())));
        tools
    };
    let spellings = [
        "127.0.0.1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b:1::7f00:1]",
        "[2002:7f00:1::]",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "localhost",
        "a.localhost",
        "metadata.google.internal",
        "user:pass@127.0.0.1",
    ];
    let running = world.deliver(tools("127.0.0.1"));
    for (n, host) in spellings.into_iter().chain(["rebound.example"]).enumerate() {
        world.query(&format!(
            "UPDATE webhook_endpoints SET url = 'https://{host}:{port}/' WHERE id = '{id}'"
        ));
        world.tell(1).await;
        let refused =
            "SELECT count(*) FROM webhook_deliveries WHERE last_error = 'address_refused'";
        until(|| world.query(refused) == (n + 1).to_string()).await;
    }
    running.stop().await;
    // What names lead to in the networks of others' translations is judged alike.
    for at in ["::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "169.254.169.254", "10.0.0.1"] {
        world.query("UPDATE webhook_deliveries SET last_error = NULL, due_at = now()");
        let running = world.deliver(tools(at));
        let left = "SELECT count(*) FROM webhook_deliveries WHERE last_error IS DISTINCT FROM 'address_refused'";
        until(|| world.query(left) == "0").await;
        running.stop().await;
    }
    assert!(hook.requests().is_empty() && hook.connections() == 0);
}

#[tokio::test]
async fn aex4_38_a_send_that_is_under_way_ends_before_the_process_does() {
    let world = World::new().await;
    let hook = Hook::start(&world.authority, [Answer::Wait]).await;
    world.endpoint(&hook.url("/")).await;
    let running = world.deliver(world.tools(&[&hook]));
    world.tell(1).await;
    hook.received(1).await;
    running.trigger.ask();
    // Nothing more is taken.
    world.tell(1).await;
    hook.release();
    running.ended().await;
    assert_eq!(
        world.query("SELECT count(*) FROM webhook_deliveries WHERE state = 'delivered'"),
        "1"
    );
    assert_eq!(hook.requests().len(), 1);
}

#[tokio::test]
async fn aex4_38_what_was_cut_off_is_sent_again_under_its_id() {
    let world = World::new().await;
    let hook = Hook::start(&world.authority, [Answer::Wait, OK]).await;
    world.endpoint(&hook.url("/")).await;
    let running = world.deliver(world.tools(&[&hook]));
    world.tell(1).await;
    hook.received(1).await;
    // The second signal insists; a process that is killed leaves no more behind.
    running.trigger.ask();
    running.trigger.ask();
    running.ended().await;
    assert_eq!(world.states(), "pending 0 - -");
    let again = world.deliver(world.tools(&[&hook]));
    assert_eq!(world.query("SELECT count(*) FROM webhook_endpoints WHERE leased_until > now() + interval '30 seconds'"), "1");
    world.query("UPDATE webhook_endpoints SET leased_until = now()");
    let requests = hook.received(2).await;
    until(|| world.states() == "delivered 1 204 -").await;
    assert_eq!(requests[0].header("webhook-id"), requests[1].header("webhook-id"));
    assert_eq!(requests[0].body, requests[1].body);
    again.stop().await;
}

#[tokio::test]
async fn aex4_two_processes_send_each_event_once_and_few_at_a_time() {
    let world = World::new().await;
    let hooks =
        [Hook::start(&world.authority, [OK]).await, Hook::start(&world.authority, [OK]).await];
    for hook in &hooks {
        world.endpoint(&hook.url("/")).await;
    }
    let named: Vec<&Hook> = hooks.iter().collect();
    let running = [world.deliver(world.tools(&named)), world.deliver(world.tools(&named))];
    world.tell(60).await;
    until(|| {
        world.query("SELECT count(*) FROM webhook_deliveries WHERE state = 'delivered'") == "120"
    })
    .await;
    for hook in &hooks {
        let requests = hook.requests();
        let ids: BTreeSet<&str> = requests.iter().map(|one| one.header("webhook-id")).collect();
        assert_eq!((ids.len(), requests.len()), (60, 60));
        assert!(hook.at_once() <= 8, "{}", hook.at_once());
    }
    for one in running {
        one.stop().await;
    }
}
