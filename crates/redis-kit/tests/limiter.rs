//! The Redis function on a real Redis: the model's verdicts, at the model's price, under the service's own user.

#![cfg(test)]

use std::{sync::Arc, time::Duration};

use gatehouse_contract::TenantId;
use gatehouse_ratelimit::{Decision, Declaration, Name, Rule, Span, Take, keys};
use gatehouse_redis_kit::{Error, Limiter, Link, acl, queue::Queue};
use uuid::Uuid;

/// Generous: these tests are about verdicts, on a machine that may be busy.
const DEADLINE: Duration = Duration::from_secs(5);

fn url() -> String {
    std::env::var("GATEHOUSE_TEST_REDIS")
        .expect("GATEHOUSE_TEST_REDIS is not set; run cargo xtask test")
}

/// With this build's function, and past the moment in which it waits for declarations.
async fn limiter() -> Limiter {
    let limiter = Limiter::new(&url().parse().unwrap(), DEADLINE).unwrap();
    settle(&limiter).await;
    limiter
}

async fn settle(limiter: &Limiter) {
    let nobody = Take::one(tenant(), Arc::from([rule(Name::Tenant, 1, 1)]), 0);
    for _ in 0..500 {
        if limiter.take(std::slice::from_ref(&nobody)).await[0].as_ref().unwrap().is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the store never settled");
}

fn link() -> Link {
    Link::new(&url().parse().unwrap(), DEADLINE).unwrap()
}

fn tenant() -> TenantId {
    TenantId::new(Uuid::new_v4())
}

fn rule(name: Name, max: u32, window_s: u32) -> Rule {
    Rule::new(name, max, Span::from_secs(window_s), keys::ANY)
}

fn key(tenant: TenantId, rule: &Rule) -> String {
    let mut key = String::new();
    keys::write(&mut key, tenant, rule.key_tail());
    key
}

async fn run<T: redis::FromRedisValue>(link: &Link, line: &str) -> Result<T, Error> {
    let mut words = line.split(' ');
    let mut cmd = redis::cmd(words.next().unwrap());
    cmd.arg(words.collect::<Vec<_>>());
    link.query(&cmd).await
}

#[tokio::test]
async fn a_foreign_value_is_no_obstacle() {
    let (limiter, link, tenant) = (limiter().await, link(), tenant());
    let rule = rule(Name::Tenant, 1, 60);
    let key = key(tenant, &rule);
    run::<()>(&link, &format!("SET {key} nonsense")).await.unwrap();
    let one = |decision: Decision| (decision.allowed, decision.standings[0].used);
    for expected in [(true, 1), (false, 1)] {
        let decided = limiter.decide(tenant, std::slice::from_ref(&rule), 1).await.unwrap();
        assert_eq!(one(decided.decision), expected);
    }
    run::<()>(&link, &format!("DEL {key}")).await.unwrap();
    run::<()>(&link, &format!("LPUSH {key} nonsense")).await.unwrap();
    for expected in [(true, 1), (false, 1)] {
        let decided = limiter.decide(tenant, std::slice::from_ref(&rule), 1).await.unwrap();
        assert_eq!(one(decided.decision), expected);
    }
    run::<()>(&link, &format!("DEL {key}")).await.unwrap();
}

/// A server that takes connections and never answers (a real one, stopped, looks the same).
#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up_at_the_deadline() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("redis://{}", silent.local_addr().unwrap()).parse().unwrap();
    let limiter = Limiter::new(&address, Duration::from_millis(25)).unwrap();
    let before = std::time::Instant::now();
    let late = limiter.decide(tenant(), &[rule(Name::Tenant, 1, 60)], 1).await;
    assert!(matches!(late, Err(Error::Late(_))), "{late:?}");
    assert!(before.elapsed() < Duration::from_secs(1), "{:?}", before.elapsed());
}

#[tokio::test]
async fn a_server_that_is_away_costs_no_attempt_for_a_moment() {
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("redis://{}", gone.local_addr().unwrap()).parse().unwrap();
    drop(gone);
    let limiter = Limiter::new(&address, DEADLINE).unwrap();
    let first = limiter.ping().await;
    assert!(matches!(first, Err(Error::Away(_))), "{first:?}");
    let second = limiter.ping().await;
    assert!(matches!(second, Err(Error::Resting)), "{second:?}");
}

/// A user with a service's rights under a name of its own, so that tests do not share it.
struct User {
    admin: Link,
    name: String,
    url: String,
}

impl User {
    async fn new(service: &acl::Service) -> Self {
        let (admin, name) = (link(), format!("{}-{}", service.user, Uuid::new_v4()));
        let rules = acl::rules(service, "test").unwrap();
        run::<()>(&admin, &format!("ACL SETUSER {name} {rules}")).await.unwrap();
        let url = url();
        let host = url.rsplit(['@', '/']).find(|part| part.contains(':')).unwrap();
        let url = format!("redis://{name}:test@{host}");
        Self { admin, name, url }
    }

    async fn denied(&self, lines: &[&str]) {
        let link = Link::new(&self.url.parse().unwrap(), DEADLINE).unwrap();
        for line in lines {
            let outcome = run::<redis::Value>(&link, line).await;
            let code = outcome.as_ref().err().and_then(Error::code);
            assert_eq!(code, Some("NOPERM"), "{line}: {outcome:?}");
        }
    }

    async fn end(self) {
        run::<()>(&self.admin, &format!("ACL DELUSER {}", self.name)).await.unwrap();
    }
}

/// What no service may do.
const DANGEROUS: &[&str] = &[
    "KEYS *",
    "FLUSHALL",
    "FLUSHDB",
    "CONFIG GET *",
    "ACL LIST",
    "EVAL return(1) 0",
    "FUNCTION DELETE gatehouse_rl_00000000",
    "FUNCTION FLUSH",
    "SCAN 0",
    "MODULE LIST",
    "SHUTDOWN",
    "CLIENT LIST",
    "SUBSCRIBE x",
    "SWAPDB 0 1",
];

#[tokio::test]
async fn the_sidecars_user_decides_limits_and_reaches_nothing_else() {
    let user = User::new(&acl::SIDECAR).await;
    let limiter = Limiter::new(&user.url.parse().unwrap(), DEADLINE).unwrap();
    settle(&limiter).await;
    let rules = [rule(Name::Tenant, 1, 60), rule(Name::Burst, 50, 1)];
    use gatehouse_ratelimit::Algorithm::{Day, Gcra, Ring, SortedSet};
    let others = [Day, Gcra, Ring, SortedSet].map(|algorithm| {
        Rule::counted(Name::Endpoint, 9, Span::from_secs(60), algorithm, keys::ANY)
    });
    let all = [&rules[..], &others[..]].concat();
    let tenant = tenant();
    // Each twice: what is there is read and written by other commands than what is new.
    for expected in [true, false] {
        let decided = limiter.decide(tenant, &all, 1).await.unwrap();
        assert_eq!(decided.decision.allowed, expected);
        let second = [&rules[1..], &others[..]].concat();
        assert!(limiter.decide(tenant, &second, 1).await.unwrap().decision.allowed);
    }
    let taken = limiter.take(&[Take::one(tenant, all.as_slice().into(), 0)]).await.remove(0);
    let (at, run_of) = taken.unwrap().map(|taken| (taken.at, taken.run)).unwrap();
    let declared = all.iter().map(|rule| Declaration {
        tenant,
        rule: rule.clone(),
        charges: vec![(at, 40)],
        run: run_of,
    });
    let declared = limiter.declare(&declared.collect::<Vec<_>>()).await;
    assert!(declared.into_iter().all(|heard| heard.unwrap()));
    limiter.pulse("one").await.unwrap();
    limiter.ping().await.unwrap();
    let link = Link::new(&user.url.parse().unwrap(), DEADLINE).unwrap();
    for readable in ["GET cred:x", "GET feed:x"] {
        run::<Option<String>>(&link, readable).await.unwrap();
    }
    user.denied(DANGEROUS).await;
    user.denied(&["GET queue:p0", "XLEN queue:p0", "GET cache:x", "GET x"]).await;
    user.denied(&["SET cred:x 1", "SET feed:x 1", "SET queue:p0 1", "DEL rl:x"]).await;
    // The function runs with the caller's rights: a key of another prefix is out of its reach, too.
    user.denied(&["FCALL gatehouse_rl_00000000_take 1 queue:p0 1 1 1000"]).await;
    user.end().await;
}

#[tokio::test]
async fn the_workers_user_runs_the_queue_and_reaches_nothing_else() {
    let user = User::new(&acl::WORKER).await;
    let prefix = format!("queue:test:{}:", Uuid::new_v4());
    let queue = Queue::connect_with_prefix(&user.url, DEADLINE, &prefix).await.unwrap();
    let job = gatehouse_redis_kit::queue::Job {
        tenant: tenant(),
        execution: gatehouse_contract::ExecutionId::new(Uuid::new_v4()),
    };
    let priority = gatehouse_redis_kit::queue::Priority::P1;
    queue.push(priority, &job).await.unwrap();
    assert_eq!(queue.read("one", Duration::from_millis(10), 1).await.unwrap().len(), 1);
    let claimed = queue.claim_stale("two", Duration::ZERO, 1).await.unwrap();
    queue.ack(&claimed[0]).await.unwrap();
    assert_eq!(queue.depth(priority).await.unwrap(), 0);
    user.denied(DANGEROUS).await;
    user.denied(&["GET rl:x", "XLEN rl:x", "XADD feed:x * a b", "GET cred:x", "XLEN x"]).await;
    for priority in gatehouse_redis_kit::queue::Priority::ALL {
        run::<()>(&user.admin, &format!("DEL {prefix}{priority}")).await.unwrap();
    }
    user.end().await;
}

#[tokio::test]
async fn the_controls_user_reaches_neither_windows_nor_queue() {
    let user = User::new(&acl::CONTROL).await;
    user.denied(DANGEROUS).await;
    user.denied(&["GET rl:x", "SET queue:p0 1", "XADD queue:p0 * a b", "GET x"]).await;
    user.denied(&["FCALL gatehouse_rl_00000000_take 1 rl:x 1 1 1000"]).await;
    user.end().await;
}
