//! R14, R24: the sidecar away from the module in real Envoy: passes that were taken along, the policy within the
//! deadline, the breaker, and a return that gives nobody a second budget.

use std::time::{Duration, Instant};

use gatehouse_tests::{
    fleet::{redis::Redis, relay::Relay},
    http::{Connection, Message, Request},
    wait,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{LIMITED, asking, left_after, limiter, number, peek};
use crate::acceptance::gate::{AGENTS, Gate, Plan, verdict};

/// What the tenant may do in the five minutes that are one window here.
const LIMIT: u32 = 600;
/// How long the module waits for the sidecar: longer than the product's 50 ms, as this machine may be busy.
const DEADLINE: Duration = Duration::from_millis(200);
/// Requests at once.
const AT_ONCE: u32 = 40;
const LONG: Duration = Duration::from_secs(20);

/// A gate whose feed lives, so that its module remembers callers and asks the sidecar for nothing but limits.
struct Living {
    gate: Gate,
    /// One token all the time.
    get: Request,
    _relay: Relay,
    _redis: Redis,
    _dir: TempDir,
}

impl Living {
    fn with(changes: &Value, mode: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("gatehouse-living-").tempdir().unwrap();
        let redis = Redis::start(dir.path(), "redis").unwrap();
        let relay = Relay::start(&redis, 0).unwrap();
        let mut document = limiter(changes);
        document["sidecar"]["timeout_ms"] = json!(u64::try_from(DEADLINE.as_millis()).unwrap());
        let store = json!({"kind": "redis", "url": redis.url("sidecar"), "sidecars": null});
        let limits = json!({"tiers": {"enterprise": LIMIT}, "window_s": 300, "mode": mode});
        let sidecar = json!({"store": store, "redis_timeout_ms": 1000, "limits": limits});
        let gate = Gate::with(Plan { document, sidecar, ..Plan::default() });
        let get = asking("GET", AGENTS);
        let living = Self { gate, get, _relay: relay, _redis: redis, _dir: dir };
        // A store that just began waits for what its sidecars declare. The module has heard of the feed when it asks
        // for the limit alone; what it polls comes on top.
        let asked = || living.gate.envoy.stat("cluster.gatehouse-sidecar.upstream_rq_total");
        wait::until("the caller is remembered", wait::START, || {
            let before = asked()?;
            for _ in 0..20 {
                let answer = living.gate.send(&living.get);
                let decided = verdict(&answer) == "200" && !is_degraded(&answer);
                anyhow::ensure!(decided, "{answer:?}");
            }
            let more = asked()? - before;
            anyhow::ensure!(more < 35, "{more} call-outs for 20 requests");
            Ok(Some(()))
        })
        .unwrap();
        living
    }

    fn signal(&self, signal: Signal) {
        self.gate.sidecar.as_ref().unwrap().process.signal(signal).unwrap();
    }

    /// What the module counted, as Envoy has it; up to a second late.
    fn counted(&self, name: &str) -> u64 {
        self.gate.envoy.stat(&format!("wasmcustom.gatehouse_limiter_{name}")).unwrap()
    }

    /// Waits until Envoy has what the module counted of so many requests that passed.
    fn settled(&self, passed: u64) {
        let all = || ["allowed", "leased", "shared"].map(|how| self.outcome(how));
        wait::until("the counters", LONG, || {
            let counted = all();
            anyhow::ensure!(counted.iter().sum::<u64>() == passed, "{counted:?} of {passed}");
            Ok(Some(()))
        })
        .unwrap();
    }

    fn outcome(&self, how: &str) -> u64 {
        self.counted(&format!("enterprise_{how}"))
    }

    /// One more request, which passes; whether the sidecar had no part in it.
    #[track_caller]
    fn passes(&self) -> bool {
        let answer = self.gate.send(&self.get);
        assert_eq!(verdict(&answer), "200", "{answer:?}");
        is_degraded(&answer)
    }
}

fn is_degraded(answer: &Message) -> bool {
    answer.headers.all("x-ratelimit-degraded") == ["true"]
}

#[test]
fn r14_while_the_sidecar_stands_still_passes_then_shares_decide_and_nobody_gets_a_second_budget() {
    let living = Living::with(&json!({"leases": true, "away": "local"}), "lease");
    let sidecar = living.gate.sidecar.as_ref().unwrap();
    let checks = || sidecar.count("gatehouse_ratelimit_checks_total").unwrap();
    // Those that waited for the feed.
    let total =
        || ["allowed", "leased", "shared"].map(|how| living.outcome(how)).iter().sum::<u64>();
    wait::until("the first ones are counted", LONG, || Ok((total() > 0).then_some(()))).unwrap();
    let mut passed = stable(total);

    // Of many at once most find a pass that was taken along, and the sidecar hears of the others alone.
    let (asked, allowed) = (checks(), living.outcome("allowed"));
    for _ in 0..60 {
        assert!(!living.passes());
        passed += 1;
    }
    living.settled(passed);
    let asked = checks() - asked;
    assert_eq!(asked, living.outcome("allowed") - allowed, "a call-out each");
    assert!(asked < 60 && living.outcome("leased") > 0, "{asked} of 60 were asked for");

    // The sidecar stands still: passes are good for their time, then the share decides, each within the deadline.
    living.signal(Signal::STOP);
    wait::until("the share decides", LONG, || {
        let began = Instant::now();
        let degraded = living.passes();
        passed += 1;
        assert!(began.elapsed() < DEADLINE + Duration::from_secs(2), "{:?}", began.elapsed());
        Ok(degraded.then_some(()))
    })
    .unwrap();
    wait::until("the breaker opens", LONG, || {
        assert!(living.passes(), "decided by whom?");
        passed += 1;
        Ok((living.counted("breaker_opened") == 1).then_some(()))
    })
    .unwrap();
    living.settled(passed);
    let unanswered = living.counted("unanswered");
    assert!(unanswered >= 5, "{unanswered}");

    // While it is open a probe goes now and then; nobody else asks or waits.
    let began = Instant::now();
    let mut waiting: Vec<Connection> = (0..AT_ONCE)
        .map(|_| {
            let mut connection = Connection::open(living.gate.envoy.listen).unwrap();
            connection.send(&living.get.bytes()).unwrap();
            connection
        })
        .collect();
    for connection in &mut waiting {
        let answer = connection.response().unwrap();
        assert!(verdict(&answer) == "200" && is_degraded(&answer), "{answer:?}");
        // What is told is the share's.
        assert_eq!(number(&answer, "x-ratelimit-limit"), Some(LIMIT));
    }
    passed += u64::from(AT_ONCE);
    let probes = began.elapsed().as_millis() / 200 + 2;
    living.settled(passed);
    let more = u128::from(living.counted("unanswered") - unanswered);
    assert!(more <= probes, "{more} of {AT_ONCE} were asked in {:?}", began.elapsed());
    assert_eq!(living.counted("breaker_opened"), 1);

    // It goes on: what the share let pass is charged, and all that passes is the limit.
    living.signal(Signal::CONT);
    wait::until("the sidecar decides again", LONG, || {
        let degraded = living.passes();
        passed += 1;
        Ok((!degraded).then_some(()))
    })
    .unwrap();
    wait::until("what passed meanwhile is charged", LONG, || {
        let (owed, charged) = (living.outcome("shared"), living.counted("charged_later"));
        anyhow::ensure!(owed == charged, "{charged} of {owed}");
        Ok(Some(()))
    })
    .unwrap();
    let refused = wait::until("the limit is used up", Duration::from_secs(60), || {
        let answer = living.gate.send(&living.get);
        let refused = verdict(&answer) == LIMITED;
        passed += u64::from(!refused);
        Ok(refused.then_some(answer))
    })
    .unwrap();
    assert!(!is_degraded(&refused), "{refused:?}");
    assert!((u64::from(LIMIT) / 2..=u64::from(LIMIT)).contains(&passed), "{passed} of {LIMIT}");
    assert_eq!(living.gate.envoy.stat("wasm.suite.vm_reload_success").unwrap(), 0);
}

/// A count once two looks, a second and more apart, agree: the module tells its host once a second.
fn stable(count: impl Fn() -> u64) -> u64 {
    let mut last = (count(), Instant::now());
    wait::until("a count that rests", LONG, || {
        if count() != last.0 {
            last = (count(), Instant::now());
        }
        Ok((last.1.elapsed() > Duration::from_millis(1500)).then_some(last.0))
    })
    .unwrap()
}

#[test]
fn r24_a_question_that_nobody_answered_is_charged_once_at_most() {
    let living = Living::with(&json!({}), "strict");
    for _ in 0..3 {
        let before = peek(&living.gate);
        living.signal(Signal::STOP);
        living.gate.denies(&living.get, "503 limiter_unavailable");
        living.signal(Signal::CONT);
        // Whatever the sidecar made of the question that nobody waited for, the next one is a charge of its own.
        let mut after = 0;
        wait::until("the sidecar decides again", LONG, || {
            let answer = living.gate.send(&living.get);
            anyhow::ensure!(verdict(&answer) == "200", "{answer:?}");
            after = number(&answer, "x-ratelimit-remaining").unwrap();
            Ok(Some(()))
        })
        .unwrap();
        assert!((1..=2).contains(&(before - after)), "{before} to {after}");
        assert_eq!(left_after(&living.gate, &living.get), after - 1);
        assert_eq!(peek(&living.gate), after - 1);
    }
}
