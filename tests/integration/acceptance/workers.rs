//! J13, J18: what the workers of one Envoy know of keys, each by its own VM.

use std::time::{Duration, Instant};

use gatehouse_tests::{
    http::Connection,
    token::{Key, jwks},
    wait,
};

use super::gate::{ALLOWED, Gate, ISSUER, Plan, claims, get, token, verdict};

const INVALID: &str = "401 token_invalid";

/// Longer than a second on a machine that builds meanwhile, and far shorter than the age at which a VM would ask for
/// the keys by itself (five minutes).
const SOON: Duration = Duration::from_secs(10);

/// The sidecar's cluster, as the repository's document names it.
const SIDECAR: &str = "gatehouse-sidecar";

/// One worker's VM: a connection stays with its worker.
struct Worker(Connection);

impl Worker {
    fn send(&mut self, token: &str) {
        self.0.send(&get().bearer(token).bytes()).unwrap();
    }

    fn judges(&mut self, token: &str) -> String {
        self.send(token);
        self.hears()
    }

    fn hears(&mut self) -> String {
        verdict(&self.0.response().unwrap())
    }
}

fn two_workers() -> Gate {
    Gate::with(Plan { workers: 2, ..Plan::default() })
}

/// This many connections of each of the two workers, which the kernel hands out as it likes.
fn connections(gate: &Gate, each: usize) -> [Vec<Worker>; 2] {
    let listen = gate.envoy.listen;
    let taken = |worker: usize| {
        let at = format!("{}_{}", listen.ip(), listen.port());
        gate.envoy.stat(&format!("listener.{at}.worker_{worker}.downstream_cx_total")).unwrap()
    };
    let mut found = [Vec::new(), Vec::new()];
    for _ in 0..each * 64 {
        if found.iter().all(|of_worker| of_worker.len() >= each) {
            return found;
        }
        let before = [taken(0), taken(1)];
        let mut worker = Worker(Connection::open(listen).unwrap());
        assert_eq!(worker.judges("x"), INVALID);
        let of = [0, 1].into_iter().find(|worker| taken(*worker) > before[*worker]).unwrap();
        if found[of].len() < each {
            found[of].push(worker);
        }
    }
    panic!("one worker takes no connections");
}

/// How often [`ISSUER`] was asked for its keys.
fn fetches(gate: &Gate) -> usize {
    let place = ISSUER.replace(':', "%3A").replace('/', "%2F");
    gate.outside().asked.iter().filter(|line| **line == format!("GET /keys/{place}")).count()
}

/// A key that is published from now on in the other's place, and a token that it signed.
fn rotated(gate: &Gate) -> String {
    let next = Key::generate("key-2").unwrap();
    gate.publish(&jwks(&[&next]).unwrap());
    next.jwt(&next.header(), &claims()).unwrap()
}

#[test]
fn j18_the_workers_agree_on_a_rotated_set_within_a_second_of_its_publication() {
    let gate = two_workers();
    let [mut one, mut other] = connections(&gate, 1);
    let (one, other) = (&mut one[0], &mut other[0]);
    for worker in [&mut *one, &mut *other] {
        for _ in 0..2 {
            assert_eq!(worker.judges(&token()), ALLOWED);
        }
    }
    let fetched = fetches(&gate);
    let new = rotated(&gate);
    // Nobody has seen it: what is remembered goes on in both.
    assert_eq!((one.judges(&token()), other.judges(&token())), (ALLOWED.into(), ALLOWED.into()));
    // One worker meets the new key, so that the sidecar publishes the new set in the pod.
    assert_eq!(one.judges(&new), ALLOWED);
    let published = Instant::now();
    assert_eq!(one.judges(&token()), INVALID, "the worker that met it");
    // The other one never sees the new key, and forgets what the old one verified.
    wait::until("the other worker agrees", SOON, || match other.judges(&token()) {
        verdict if verdict == INVALID => Ok(Some(())),
        verdict if verdict == ALLOWED => Ok(None),
        verdict => panic!("{verdict}"),
    })
    .unwrap();
    println!("the workers agreed after {:?}", published.elapsed());
    for worker in [one, other] {
        assert_eq!(
            (worker.judges(&new), worker.judges(&token())),
            (ALLOWED.into(), INVALID.into())
        );
    }
    assert_eq!(fetches(&gate), fetched + 1, "one fetch for both");
    gate.envoy.stat("wasm.suite.vm_reload_success").map(|lost| assert_eq!(lost, 0)).unwrap();
}

/// Holds the provider's answer until both workers wait for it.
fn ask_at_once(gate: &Gate, tokens: &[String]) -> Vec<String> {
    let mut workers: Vec<Worker> = connections(gate, tokens.len()).into_iter().flatten().collect();
    for worker in &mut workers {
        // The principal is known: what follows waits for nothing but keys.
        assert_eq!(worker.judges(&token()), ALLOWED);
    }
    let provider = gate.outside();
    for (worker, token) in workers.iter_mut().zip(tokens.iter().cycle()) {
        worker.send(token);
    }
    wait::until("all of them wait", SOON, || {
        let waiting = gate.envoy.stat(&format!("cluster.{SIDECAR}.upstream_rq_active"))?;
        Ok((waiting >= 2 * tokens.len() as u64).then_some(()))
    })
    .unwrap();
    drop(provider);
    workers.iter_mut().map(Worker::hears).collect()
}

#[test]
fn j13_an_unknown_key_id_that_both_workers_meet_at_once_is_one_fetch() {
    let gate = two_workers();
    assert_eq!(gate.judges(&token()), ALLOWED);
    let fetched = fetches(&gate);
    let new = rotated(&gate);
    let heard = ask_at_once(&gate, &[new.clone(), new.clone(), new]);
    assert_eq!(heard, [ALLOWED; 6]);
    assert_eq!(fetches(&gate), fetched + 1);
    drop(gate);

    // Nobody has these: refused by all, after one look.
    let gate = two_workers();
    assert_eq!(gate.judges(&token()), ALLOWED);
    let fetched = fetches(&gate);
    let invented: Vec<String> = (0..3)
        .map(|n| {
            let stranger = Key::generate(&format!("nobodys-{n}")).unwrap();
            stranger.jwt(&stranger.header(), &claims()).unwrap()
        })
        .collect();
    assert_eq!(ask_at_once(&gate, &invented), [INVALID; 6]);
    assert_eq!(fetches(&gate), fetched + 1);
    assert_eq!(gate.judges(&token()), ALLOWED, "and the set is still used");
    assert_eq!(fetches(&gate), fetched + 1);
}
