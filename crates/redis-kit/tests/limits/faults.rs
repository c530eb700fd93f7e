//! R14: what Redis refuses, and whether it may have charged all the same; a cluster whose slots move.

use std::time::Duration;

use gatehouse_ratelimit::{Algorithm, Name, Rule, Span, Take, keys};
use gatehouse_redis_kit::{Address, Error, Limiter, Link};

use crate::{
    kit::{DEADLINE, burst, cluster, counted, day, endpoint, key, run, take, tenant, used, window},
    runs::{Server, settled},
};

async fn refused(limiter: &Limiter, take: &Take) -> Error {
    limiter.take(std::slice::from_ref(take)).await.remove(0).unwrap_err()
}

#[tokio::test]
async fn what_redis_refuses_was_not_charged_and_says_so() {
    let server = Server::start();
    let (limiter, admin) = (server.limiter(), server.admin());
    let plain = take(tenant(), &[window(10, 3600)], 1);
    settled(&limiter, &plain).await;
    for (set, reset, code) in [
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", "OOM"),
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", "READONLY"),
        ("ACL SETUSER sidecar -fcall", "ACL SETUSER sidecar +fcall", "NOPERM"),
    ] {
        run::<()>(&admin, set).await;
        let error = refused(&limiter, &plain).await;
        assert_eq!((error.code(), error.may_have_run()), (Some(code), false), "{error:?}");
        run::<()>(&admin, reset).await;
    }
    let passed = limiter.take(std::slice::from_ref(&plain)).await.remove(0).unwrap().unwrap();
    assert_eq!(used(&passed), [1], "a refused take was charged");

    let stranger = Limiter::new(&server.wrong(), DEADLINE).unwrap();
    let error = refused(&stranger, &plain).await;
    assert!(matches!(error, Error::Login(_)) && !error.may_have_run(), "{error:?}");
}

/// A function that fails half way has charged those before: a key that no one of ours writes.
#[tokio::test]
async fn a_call_that_failed_half_way_may_have_charged() {
    let server = Server::start();
    let (limiter, admin) = (server.limiter(), server.admin());
    let rule = Rule::counted(Name::Tenant, 9, Span::from_secs(60), Algorithm::SortedSet, keys::ANY);
    let (good, bad) = (tenant(), tenant());
    let takes = [good, bad].map(|tenant| take(tenant, std::slice::from_ref(&rule), 1));
    settled(&limiter, &takes[0]).await;
    run::<()>(&admin, &format!("SET {} nonsense", key(bad, &rule))).await;
    for answer in limiter.take(&takes).await {
        let error = answer.unwrap_err();
        assert!(error.may_have_run(), "{error:?}");
    }
}

#[tokio::test]
async fn a_function_that_is_gone_is_loaded_and_charges_once() {
    let server = Server::start();
    let (limiter, admin) = (server.limiter(), server.admin());
    let plain = take(tenant(), &[window(10, 3600)], 1);
    let before = settled(&limiter, &plain).await;
    run::<()>(&admin, "FUNCTION FLUSH").await;
    assert_ne!(
        settled(&limiter, &plain).await,
        before,
        "its variable is gone, so it is another run"
    );
    limiter.load().await.unwrap();
    let passed = limiter.take(std::slice::from_ref(&plain)).await.remove(0).unwrap().unwrap();
    assert_eq!(used(&passed), [1]);
    limiter.load().await.unwrap();
    let run = limiter.pulse("one").await.unwrap().runs;
    assert!(run.contains(&passed.run), "a load began another run");
}

#[tokio::test]
async fn a_pulse_counts_those_that_live() {
    let server = Server::start();
    let limiter = server.limiter();
    for (name, live) in [("one", 1), ("two", 2), ("one", 2)] {
        let pulse = limiter.pulse(name).await.unwrap();
        assert_eq!((pulse.live, pulse.settled), (live, false), "within the second that it waits");
    }
    let begin = std::time::Instant::now();
    // Two seconds after its last word a sidecar is gone.
    while limiter.pulse("three").await.unwrap().live != 1 {
        assert!(begin.elapsed() < Duration::from_secs(20), "the dead are still counted");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(limiter.pulse("three").await.unwrap().settled);
    let left: i64 = run(&server.admin(), "PTTL rl:sidecars").await;
    assert!((0..=4000).contains(&left), "{left}");
}

/// R26, and the bytes of a key.
#[tokio::test]
async fn every_key_is_bounded_and_dies_by_itself() {
    let server = Server::start();
    let (limiter, admin) = (server.limiter(), server.admin());
    let plain = take(tenant(), &[window(10, 60)], 0);
    settled(&limiter, &plain).await;
    let longest = keys::route("DELETE", &format!("/{}", "x".repeat(300)));
    for max in [60, 6000, gatehouse_ratelimit::policy::MAX_LIMIT] {
        let rule = Rule::new(Name::Endpoint, max, Span::from_secs(60), &longest);
        let all = take(tenant(), std::slice::from_ref(&rule), max);
        limiter.take(std::slice::from_ref(&all)).await.remove(0).unwrap().unwrap();
        let key = key(all.tenant, &rule);
        let bytes: u64 = run(&admin, &format!("MEMORY USAGE {key}")).await;
        assert!(bytes <= 400, "{bytes} bytes at {max}");
    }
    let algorithms =
        [Algorithm::SubBuckets, Algorithm::Ring, Algorithm::SortedSet, Algorithm::Gcra];
    let rules = algorithms.map(|algorithm| counted(9, 60, algorithm));
    let rules = [&rules[..], &[burst(9), day(9)]].concat();
    let tenant = tenant();
    // A peek and a denial write nothing.
    for cost in [0, 10] {
        limiter.take(&[take(tenant, &rules, cost)]).await.remove(0).unwrap().unwrap();
    }
    let keys: Vec<String> = run(&admin, &format!("KEYS rl:{{{tenant}}}:*")).await;
    assert!(keys.is_empty(), "{keys:?}");
    for _ in 0..3 {
        limiter.take(&[take(tenant, &rules, 1)]).await.remove(0).unwrap().unwrap();
    }
    for rule in &rules {
        let left: i64 = run(&admin, &format!("PTTL {}", key(tenant, rule))).await;
        let span = i64::from(rule.span.seconds()) * 1000;
        assert!((1..=span * 64 / 60 + 1000).contains(&left), "{} {left}", key(tenant, rule));
    }
}

/// Who keeps `tenant`'s slot, another server, and the slot.
async fn keepers(seed: &Address, slot: u16) -> (Node, Node) {
    let link = Link::new(seed, DEADLINE).unwrap();
    let text: String = run(&link, "CLUSTER NODES").await;
    let nodes: Vec<Node> = text.lines().map(Node::read).collect();
    let keeper = nodes.iter().position(|node| node.keeps(slot)).unwrap();
    (nodes[keeper].clone(), nodes[(keeper + 1) % nodes.len()].clone())
}

#[derive(Debug, Clone)]
struct Node {
    id: String,
    port: String,
    ranges: Vec<(u16, u16)>,
}

impl Node {
    fn read(line: &str) -> Self {
        let words: Vec<&str> = line.split(' ').collect();
        let address = words[1].split('@').next().unwrap();
        let range = |word: &&str| {
            let (first, last) = word.split_once('-').unwrap_or((word, word));
            Some((first.parse().ok()?, last.parse().ok()?))
        };
        Self {
            id: words[0].to_owned(),
            port: address.rsplit(':').next().unwrap().to_owned(),
            ranges: words[8..].iter().filter_map(range).collect(),
        }
    }

    fn keeps(&self, slot: u16) -> bool {
        self.ranges.iter().any(|(first, last)| (*first..=*last).contains(&slot))
    }

    fn link(&self) -> Link {
        let url = std::env::var("GATEHOUSE_TEST_REDIS_CLUSTER").unwrap();
        let (login, _) = url.split(',').next().unwrap().rsplit_once(':').unwrap();
        Link::new(&format!("{login}:{}", self.port).parse().unwrap(), DEADLINE).unwrap()
    }

    fn password() -> String {
        let url = std::env::var("GATEHOUSE_TEST_REDIS_CLUSTER").unwrap();
        let login = url.split("//").nth(1).and_then(|rest| rest.split_once('@'));
        login.map_or_else(String::new, |(login, _)| {
            let (user, password) = login.split_once(':').unwrap();
            format!(" AUTH2 {user} {password}")
        })
    }
}

/// R2, R14: while a slot moves and after it has, its tenant is counted on, once per take.
#[tokio::test]
async fn a_tenant_whose_slot_moves_is_counted_on() {
    let limiter = Limiter::cluster(&cluster(), DEADLINE).unwrap();
    let (tenant, rule) = (tenant(), window(10, 3600));
    let plain = take(tenant, std::slice::from_ref(&rule), 1);
    let holds = async |expected: u32| {
        settled(&limiter, &plain).await;
        let taken = limiter.take(std::slice::from_ref(&plain)).await.remove(0).unwrap().unwrap();
        assert_eq!(used(&taken), [expected]);
    };
    // A pulse brings the function to every server, as a sidecar's does before anything is asked.
    limiter.pulse("mover").await.unwrap();
    holds(1).await;
    let link = Link::new(&cluster()[0], DEADLINE).unwrap();
    let slot: u16 = run(&link, &format!("CLUSTER KEYSLOT {{{tenant}}}")).await;
    let (from, to) = keepers(&cluster()[0], slot).await;
    run::<()>(&to.link(), &format!("CLUSTER SETSLOT {slot} IMPORTING {}", from.id)).await;
    run::<()>(&from.link(), &format!("CLUSTER SETSLOT {slot} MIGRATING {}", to.id)).await;
    holds(2).await;
    let key = key(tenant, &rule);
    let migrate = format!("MIGRATE 127.0.0.1 {} {key} 0 5000{}", to.port, Node::password());
    run::<()>(&from.link(), &migrate).await;
    // ASK: the old keeper points to the new one, which has the windows already.
    holds(3).await;
    for node in [&to, &from] {
        run::<()>(&node.link(), &format!("CLUSTER SETSLOT {slot} NODE {}", to.id)).await;
    }
    // MOVED, and from then on straight.
    holds(4).await;
    holds(5).await;
    // Back again, so that other tests find the thirds.
    run::<()>(&from.link(), &format!("CLUSTER SETSLOT {slot} IMPORTING {}", to.id)).await;
    run::<()>(&to.link(), &format!("CLUSTER SETSLOT {slot} MIGRATING {}", from.id)).await;
    let migrate = format!("MIGRATE 127.0.0.1 {} {key} 0 5000{}", from.port, Node::password());
    run::<()>(&to.link(), &migrate).await;
    for node in [&from, &to] {
        run::<()>(&node.link(), &format!("CLUSTER SETSLOT {slot} NODE {}", from.id)).await;
    }
    holds(6).await;
}

/// R2, R14: while some keys of a tenant are on the one side and some on the other, nobody decides, and nothing is charged.
#[tokio::test]
async fn a_tenant_whose_keys_are_on_both_sides_is_refused_and_not_charged() {
    let limiter = Limiter::cluster(&cluster(), DEADLINE).unwrap();
    let (tenant, rules) = (tenant(), [window(10, 3600), endpoint(9, 3600)]);
    let plain = take(tenant, &rules, 1);
    limiter.pulse("mover").await.unwrap();
    settled(&limiter, &plain).await;
    let holds = async |expected: u32| {
        let taken = limiter.take(std::slice::from_ref(&plain)).await.remove(0).unwrap().unwrap();
        assert_eq!(used(&taken), [expected; 2]);
    };
    holds(1).await;
    let link = Link::new(&cluster()[0], DEADLINE).unwrap();
    let slot: u16 = run(&link, &format!("CLUSTER KEYSLOT {{{tenant}}}")).await;
    let (from, to) = keepers(&cluster()[0], slot).await;
    run::<()>(&to.link(), &format!("CLUSTER SETSLOT {slot} IMPORTING {}", from.id)).await;
    run::<()>(&from.link(), &format!("CLUSTER SETSLOT {slot} MIGRATING {}", to.id)).await;
    let migrate = async |from: &Node, to: &Node, rule: &Rule| {
        let (key, login) = (key(tenant, rule), Node::password());
        let migrate = format!("MIGRATE 127.0.0.1 {} {key} 0 5000{login}", to.port);
        run::<()>(&from.link(), &migrate).await;
    };
    migrate(&from, &to, &rules[0]).await;
    for _ in 0..3 {
        let error = refused(&limiter, &plain).await;
        assert_eq!((error.code(), error.may_have_run()), (Some("TRYAGAIN"), false), "{error:?}");
        assert!(error.passes());
    }
    migrate(&from, &to, &rules[1]).await;
    holds(2).await;
    // It stays where it was: who keeps what never changes under other tests.
    for node in [&from, &to] {
        run::<()>(&node.link(), &format!("CLUSTER SETSLOT {slot} STABLE")).await;
    }
}
