//! The store away: what each policy answers, that nobody waits for it for long, and that its return gives nobody a
//! second budget.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use gatehouse_contract::{TenantId, Tier, sidecar::CHECK_PATH};
use gatehouse_tests::{
    fleet::{
        Settings, Sidecar, Stalled, ask,
        redis::{PASSWORD, Redis},
        tenant,
    },
    wait,
};
use serde_json::json;

use super::Stage;

/// `allowed`, `denied` or the code of a refusal, with a word when the store had no part in it.
fn says(sidecar: &Sidecar, tenant: TenantId, cost: u32) -> String {
    let ask = serde_json::to_value(ask(tenant, Tier::Free, "GET", cost)).unwrap();
    let answer = sidecar.post(CHECK_PATH, &ask).unwrap();
    let body = answer.json().unwrap();
    match answer.status().unwrap() {
        200 => {
            let verdict = if body["allowed"] == true { "allowed" } else { "denied" };
            let degraded = if body["degraded"] == true { " degraded" } else { "" };
            format!("{verdict}{degraded}")
        }
        status => format!("{status} {}", body["code"].as_str().unwrap_or_default()),
    }
}

/// Stops Redis in the middle of a tenant's minute: `free` is 60.
fn check_stalled(away: &'static str, during: &[(u32, &str)], after: &[(u32, &str)]) {
    let settings = Settings { away, mode: "strict", ..Settings::default() };
    let stage = Stage::single(1, &settings);
    let (sidecar, tenant) = (&stage.fleet.sidecars[0], tenant());
    assert_eq!(says(sidecar, tenant, 20), "allowed", "{away}");
    let stalled = Stalled::new(&stage.fleet.store.redis().unwrap().process).unwrap();
    for (cost, expected) in during {
        assert_eq!(says(sidecar, tenant, *cost), *expected, "{away}: {cost} during");
    }
    drop(stalled);
    wait::until("the store decides again", wait::START, || {
        Ok((says(sidecar, gatehouse_tests::fleet::tenant(), 0) == "allowed").then_some(()))
    })
    .unwrap();
    for (cost, expected) in after {
        // What was admitted meanwhile is charged a moment after the return.
        wait::until("the told verdict", Duration::from_secs(10), || {
            let said = says(sidecar, tenant, *cost);
            anyhow::ensure!(said == *expected, "{away}: {cost} after: {said}");
            Ok(Some(()))
        })
        .unwrap();
    }
}

#[test]
fn r14_closed_refuses_while_the_store_is_away_and_charges_nothing() {
    let refused = "503 limiter_unavailable";
    check_stalled("closed", &[(1, refused), (1, refused)], &[(41, "denied"), (0, "allowed")]);
}

#[test]
fn r14_open_lets_pass_while_the_store_is_away() {
    check_stalled("open", &[(60, "allowed degraded"), (60, "allowed degraded")], &[]);
}

#[test]
fn r14_local_counts_its_share_and_its_return_gives_no_second_budget() {
    // One sidecar: its share is the limit. What it let pass is charged when Redis is back.
    let during = [(30, "allowed degraded"), (31, "denied degraded")];
    check_stalled("local", &during, &[(11, "denied")]);
}

#[test]
fn r14_of_two_sidecars_each_counts_half_while_the_store_is_away() {
    let settings = Settings { away: "local", mode: "strict", ..Settings::default() };
    let stage = Stage::single(2, &settings);
    let tenant = tenant();
    let [one, two] = [0, 1].map(|n| &stage.fleet.sidecars[n]);
    // Each has been seen alive by the other's store.
    wait::until("both are known", Duration::from_secs(10), || {
        let known = stage.fleet.store.redis()?.ask(&["ZCARD", "rl:sidecars"])?;
        Ok((known == "2").then_some(()))
    })
    .unwrap();
    wait::until_instant(std::time::Instant::now() + Duration::from_millis(600));
    let _stalled = Stalled::new(&stage.fleet.store.redis().unwrap().process).unwrap();
    for sidecar in [one, two] {
        assert_eq!(says(sidecar, tenant, 31), "denied degraded");
        assert_eq!(says(sidecar, tenant, 30), "allowed degraded");
        assert_eq!(says(sidecar, tenant, 1), "denied degraded");
    }
}

/// Between a sidecar and its Redis: passes everything on until it is told to grumble; then every connection ends, and
/// whoever comes back is let in and answered `reply` to every other command.
struct Grumbler {
    address: SocketAddr,
    /// How many decisions it was asked for since.
    asked: Arc<AtomicUsize>,
    grumbles: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Grumbler {
    fn before(redis: SocketAddr, reply: &'static str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let grumbler = Self {
            address: listener.local_addr().unwrap(),
            asked: Arc::default(),
            grumbles: Arc::default(),
            open: Arc::default(),
        };
        let (asked, grumbles) = (Arc::clone(&grumbler.asked), Arc::clone(&grumbler.grumbles));
        let open = Arc::clone(&grumbler.open);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if grumbles.load(Ordering::SeqCst) {
                    let asked = Arc::clone(&asked);
                    std::thread::spawn(move || answer(stream, reply, &asked));
                    continue;
                }
                let server = TcpStream::connect(redis).unwrap();
                let ends = [&stream, &server].map(|end| end.try_clone().unwrap());
                open.lock().unwrap().extend(ends);
                let (mut back, mut from) =
                    (stream.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut from, &mut back));
                let (mut stream, mut server) = (stream, server);
                std::thread::spawn(move || std::io::copy(&mut stream, &mut server));
            }
        });
        grumbler
    }

    fn grumble(&self) {
        self.grumbles.store(true, Ordering::SeqCst);
        for stream in self.open.lock().unwrap().drain(..) {
            // Ended already is what is wanted.
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

fn answer(stream: TcpStream, reply: &str, asked: &AtomicUsize) -> Option<()> {
    let mut back = stream.try_clone().ok()?;
    let mut from = BufReader::new(stream);
    loop {
        let mut line = String::new();
        from.read_line(&mut line).ok()?;
        let count: usize = line.trim().strip_prefix('*')?.parse().ok()?;
        let mut words = Vec::new();
        for _ in 0..count {
            let mut line = String::new();
            from.read_line(&mut line).ok()?;
            let mut word = vec![0; line.trim().strip_prefix('$')?.parse::<usize>().ok()? + 2];
            from.read_exact(&mut word).ok()?;
            words.push(String::from_utf8_lossy(&word).trim_end().to_ascii_uppercase());
        }
        let said = match words.first()?.as_str() {
            "AUTH" | "CLIENT" | "SELECT" | "HELLO" => "+OK",
            "FCALL" => {
                asked.fetch_add(1, Ordering::SeqCst);
                reply
            }
            _ => reply,
        };
        back.write_all(format!("{said}\r\n").as_bytes()).ok()?;
    }
}

/// Whatever a store says instead of a decision is an outage, and an outage is not asked again at every request.
fn check_grumbling(redis: &Redis, reply: &'static str) {
    let dir = tempfile::tempdir().unwrap();
    let grumbler = Grumbler::before(([127, 0, 0, 1], redis.port).into(), reply);
    let url = format!("redis://sidecar:{PASSWORD}@{}", grumbler.address);
    let settings = Settings { away: "closed", mode: "strict", ..Settings::default() };
    let store = json!({"kind": "redis", "url": url});
    let sidecar = Sidecar::start(dir.path(), "sidecar", &store, &settings).unwrap();
    let tenant = tenant();
    wait::until("it decides", wait::START, || {
        Ok((says(&sidecar, tenant, 0) == "allowed").then_some(()))
    })
    .unwrap();
    grumbler.grumble();
    for _ in 0..200 {
        assert_eq!(says(&sidecar, tenant, 1), "503 limiter_unavailable", "{reply}");
    }
    let asked = grumbler.asked.load(Ordering::SeqCst);
    assert!(asked < 100, "{reply}: asked {asked} times for 200 requests");
}

#[test]
fn r14_a_store_that_answers_with_errors_is_away_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let redis = Redis::start(dir.path(), "redis").unwrap();
    for reply in [
        "-LOADING Redis is loading the dataset in memory",
        "-READONLY You can't write against a read only replica.",
        "-NOPERM this user has no permissions to run the 'fcall' command",
        "-MOVED 3999 127.0.0.1:1",
        "-CLUSTERDOWN The cluster is down",
    ] {
        check_grumbling(&redis, reply);
    }
}

#[test]
fn r14_a_wrong_password_a_read_only_store_and_a_lost_function() {
    let settings = Settings { away: "closed", mode: "strict", ..Settings::default() };
    let stage = Stage::single(1, &settings);
    let redis = stage.fleet.store.redis().unwrap();
    let (sidecar, tenant) = (&stage.fleet.sidecars[0], tenant());
    assert_eq!(says(sidecar, tenant, 59), "allowed");
    // A function that is gone is loaded again, and what was counted stays.
    redis.ask(&["FUNCTION", "FLUSH"]).unwrap();
    wait::until("the function is back", Duration::from_secs(10), || {
        Ok((says(sidecar, tenant, 0) == "allowed").then_some(()))
    })
    .unwrap();
    assert_eq!(says(sidecar, tenant, 2), "denied");

    // A password that is no longer right.
    let password = |password: &str| {
        redis.ask(&["ACL", "SETUSER", "sidecar", "resetpass", &format!(">{password}")]).unwrap();
        redis.ask(&["CLIENT", "KILL", "USER", "sidecar"]).unwrap();
    };
    password("another");
    assert_eq!(says(sidecar, tenant, 1), "503 limiter_unavailable");
    password(PASSWORD);
    wait::until("the store decides again", wait::START, || {
        Ok((says(sidecar, tenant, 2) == "denied").then_some(()))
    })
    .unwrap();

    // A master that became a replica takes no charges until it is a master again.
    redis.ask(&["REPLICAOF", "127.0.0.1", "1"]).unwrap();
    assert_eq!(says(sidecar, tenant, 1), "503 limiter_unavailable");
    redis.ask(&["REPLICAOF", "NO", "ONE"]).unwrap();
    wait::until("the store decides again", wait::START, || {
        Ok((says(sidecar, tenant, 1) == "allowed").then_some(()))
    })
    .unwrap();
    assert_eq!(says(sidecar, tenant, 1), "denied");
}
