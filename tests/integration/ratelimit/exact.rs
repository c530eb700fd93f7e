//! Exactly the limit: at once, across the edges of every window, over several sidecars and over a cluster.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use gatehouse_contract::Tier;
use gatehouse_tests::{
    checker::{fullest, tally},
    fleet::{Settings, Sidecar, Store, ask, tenant, way},
    load::{Clock, Plan},
    wait,
};
use serde_json::json;

use super::{Kind, Stage, holds};

/// No test here takes longer to send its requests.
const LONG: Duration = Duration::from_secs(40);

/// 64 clients at once over two sidecars: of many more requests than the limit exactly the limit pass.
fn check_at_once(kind: Kind, mode: &'static str, tier: Tier, limit: u32, least: u32) {
    let settings = Settings { mode, ..Settings::default() };
    let stage = Stage::new(2, kind, &settings);
    let ways = vec![way(1, &ask(tenant(), tier, "GET", 1)).unwrap()];
    let requests = u64::from(limit) * 2 + 64;
    let plan = Plan { requests, ..Plan::new(stage.fleet.targets(), ways) };
    let log = plan.run(Clock::start(), LONG).unwrap();
    holds(&log.entries, settings.window, limit);
    let [allowed, denied, unavailable, lost] = tally(&log.entries);
    assert_eq!((unavailable, lost), (0, 0), "{kind:?}: {allowed} allowed, {denied} denied");
    assert_eq!(allowed + denied, usize::try_from(requests).unwrap());
    assert!(allowed >= least as usize, "{kind:?}: {allowed} of {limit}, at least {least}");
}

#[test]
fn r1_of_many_at_once_exactly_the_limit_pass() {
    check_at_once(Kind::Single, "strict", Tier::Free, 60, 60);
    check_at_once(Kind::Single, "strict", Tier::Pro, 600, 600);
}

#[test]
fn r1_of_many_at_once_exactly_the_limit_pass_in_a_cluster() {
    check_at_once(Kind::Cluster, "strict", Tier::Free, 60, 60);
}

/// Charged ahead, a limit may be missed by what sidecars hold unused, and never exceeded.
#[test]
fn r1_with_leases_never_more_than_the_limit_and_hardly_less() {
    check_at_once(Kind::Single, "auto", Tier::Enterprise, 6000, 5940);
}

#[test]
fn r2_the_keys_of_a_decision_are_on_one_node_of_a_cluster() {
    let endpoints = vec![("GET", gatehouse_tests::fleet::ROUTE, 50)];
    let settings = Settings { burst: 5, endpoints, ..Settings::default() };
    let stage = Stage::new(1, Kind::Cluster, &settings);
    let Store::Cluster(cluster) = &stage.fleet.store else { panic!("not a cluster") };
    let sidecar = &stage.fleet.sidecars[0];
    let tenants: Vec<_> = (0..24).map(|_| tenant()).collect();
    for tenant in &tenants {
        // A decision over keys of two slots would be refused: CROSSSLOT.
        let answer = sidecar.check(&ask(*tenant, Tier::Free, "GET", 1)).unwrap();
        assert!(answer.allowed && !answer.degraded, "{answer:?}");
        assert_eq!(answer.limits.len(), 3, "{answer:?}");
    }
    let mut used = 0;
    for tenant in &tenants {
        let keys = cluster.keys(&format!("rl:{{{tenant}}}:*")).unwrap();
        let counts: Vec<usize> = keys.iter().map(Vec::len).filter(|count| *count > 0).collect();
        assert!(matches!(counts.as_slice(), [2..=3]), "{tenant}: {keys:?}");
        used |= 1 << keys.iter().position(|keys| !keys.is_empty()).unwrap();
    }
    assert_eq!(used, 0b111, "24 tenants are on all three nodes");
}

/// Between a sidecar and its Redis: passes everything on and keeps what the sidecar said.
fn tap(to: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let (address, said) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let heard = Arc::clone(&said);
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = TcpStream::connect(to).unwrap();
            let (mut back, mut from) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from, &mut back));
            let heard = Arc::clone(&heard);
            std::thread::spawn(move || {
                let (mut client, mut server) = (client, server);
                let mut piece = [0; 4096];
                while let Ok(read @ 1..) = client.read(&mut piece) {
                    heard.lock().unwrap().extend_from_slice(&piece[..read]);
                    if server.write_all(&piece[..read]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, said)
}

/// A gateway's clock cannot matter where nothing that it sends says what time it is. What a sidecar sends to decide
/// is looked at byte by byte: no number in it is near the time in seconds, milli- or microseconds.
#[test]
fn r3_nothing_that_a_sidecar_sends_to_decide_says_what_time_it_is() {
    let settings = Settings { mode: "strict", burst: 5, ..Settings::default() };
    let stage = Stage::single(1, &settings);
    let redis = stage.fleet.store.redis().unwrap();
    let (address, said) = tap(([127, 0, 0, 1], redis.port).into());
    let url = redis.url("sidecar").replace(&redis.port.to_string(), &address.port().to_string());
    let tapped = Sidecar::start(
        stage.dir.path(),
        "tapped",
        &json!({"kind": "redis", "url": url}),
        &settings,
    )
    .unwrap();
    let tenant = tenant();
    wait::until("it decides", wait::START, || {
        let answer = tapped.check(&ask(tenant, Tier::Pro, "GET", 1))?;
        Ok((answer.allowed && !answer.degraded).then_some(()))
    })
    .unwrap();
    said.lock().unwrap().clear();
    for _ in 0..5 {
        assert!(tapped.check(&ask(tenant, Tier::Pro, "GET", 1)).unwrap().allowed);
    }
    let said = String::from_utf8_lossy(&said.lock().unwrap()).into_owned();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let own: Vec<&str> = said.split("\r\n").collect();
    assert!(own.iter().filter(|line| **line == "FCALL").count() >= 5, "{said}");
    // A run is a time too, but Redis' own, and only ever compared for being the same.
    let runs: Vec<u128> = run_of(&stage);
    for number in own.iter().filter_map(|line| line.parse::<u128>().ok()) {
        for unit in [1, 1_000, 1_000_000] {
            let near = number.abs_diff(u128::from(now.as_secs()) * unit) < 86_400 * unit;
            assert!(!near || runs.contains(&number), "{number} looks like a time: {said}");
        }
    }
}

/// Numbers that Redis itself gave, which sidecars hand back unchanged: found in what it answers to a second sidecar.
fn run_of(stage: &Stage) -> Vec<u128> {
    let redis = stage.fleet.store.redis().unwrap();
    let functions = redis.ask(&["FUNCTION", "LIST"]).unwrap();
    let pulse = functions.lines().map(str::trim).find(|line| line.ends_with("_pulse"));
    let Some(pulse) = pulse else { return Vec::new() };
    let said = redis.ask(&["FCALL", pulse, "1", "rl:sidecars", "observer"]).unwrap_or_default();
    said.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// A window of any 2 s, 64 clients that never pause over 7 s: whatever edge there is, they are on both sides of it.
fn check_sliding(kind: Kind, mode: &'static str, count: usize, limit: u32) {
    let window = Duration::from_secs(2);
    let settings = Settings { window, tiers: [limit; 3], mode, ..Settings::default() };
    let stage = Stage::new(count, kind, &settings);
    let ways = vec![way(1, &ask(tenant(), Tier::Free, "GET", 1)).unwrap()];
    let plan = Plan { pace: Duration::from_millis(20), ..Plan::new(stage.fleet.targets(), ways) };
    let log = plan.run(Clock::start(), Duration::from_secs(7)).unwrap();
    holds(&log.entries, window, limit);
    let [allowed, denied, unavailable, _] = tally(&log.entries);
    assert_eq!(unavailable, 0, "{allowed} allowed, {denied} denied");
    // Thousands were refused, and none of them was charged: three windows have begun.
    assert!(denied > allowed, "{allowed} allowed, {denied} denied");
    let whole = limit as usize * 9 / 10;
    assert!(allowed >= 3 * whole, "{allowed} allowed: refused requests were charged");
    assert!(fullest(&log.entries, window).allowed as usize >= whole, "no window was ever full");
}

#[test]
fn r4_no_window_holds_more_than_the_limit_wherever_it_begins() {
    check_sliding(Kind::Single, "strict", 2, 60);
}

#[test]
fn r4_no_window_holds_more_than_the_limit_with_leases() {
    check_sliding(Kind::Single, "lease", 2, 600);
}

#[test]
fn r4_no_window_holds_more_than_the_limit_in_a_cluster() {
    check_sliding(Kind::Cluster, "auto", 2, 300);
}
