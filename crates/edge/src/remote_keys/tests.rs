//! Several VMs of one process, their shared data, and a provider that is well, away, hostile or rotates.

use serde_json::{Value, json};

use super::*;
use crate::{Parts, RootAnswer};

const T0: u64 = 1_800_000_000_000;
const KEY: &str = include_str!("../../../authn/testdata/ec.private.jwk.json");
const JWKS: &str = "GET /jwks.json";

fn suite() -> Suite {
    let text = include_str!("../../../../examples/gateway/suite.json");
    let mut document: Value = serde_json::from_str(text).unwrap();
    document["signatures"] = "portable".into();
    document["issuers"][0]["jwks"] = json!({
        "target": "idp", "authority": "idp.example", "path": "/jwks.json", "refresh_s": 600,
    });
    Suite::compile(&document.to_string(), Parts::Suite).unwrap().0
}

/// A key set of one public key; `mark` makes it another text.
fn set(mark: u32) -> String {
    let mut key: Value = serde_json::from_str(KEY).unwrap();
    key.as_object_mut().unwrap().remove("d");
    json!({"keys": [key], "mark": mark}).to_string()
}

/// What a provider answers.
#[derive(Debug, Clone)]
struct Says(u16, String, Option<&'static str>);

impl Says {
    fn set(mark: u32) -> Self {
        Self(200, set(mark), None)
    }
}

/// One process: VMs, what they share, and the call-outs to the provider.
struct World {
    suite: Suite,
    shared: Unshared,
    vms: Vec<VmState>,
    now_ms: u64,
    fetches: Vec<(u64, usize, Purpose)>,
    /// A VM that gets no ticks.
    stalled: Option<usize>,
}

impl World {
    fn new(vms: u64) -> Self {
        Self {
            suite: suite(),
            shared: Unshared::default(),
            vms: (0..vms).map(|seed| VmState::new([seed, 9])).collect(),
            now_ms: 0,
            fetches: Vec::new(),
            stalled: None,
        }
    }

    fn now(&self) -> Duration {
        Duration::from_millis(T0 + self.now_ms)
    }

    /// Time passes, tick by tick; what the provider is asked is noted and left open.
    fn wait(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        while self.now_ms < end {
            self.now_ms += 250;
            let now = self.now();
            let ticking = self.vms.iter_mut().enumerate();
            for (place, vm) in ticking.filter(|(place, _)| self.stalled != Some(*place)) {
                for RootCall { call, purpose } in self.suite.on_tick(vm, &self.shared, now) {
                    if format!("{} {}", call.method, call.path) == JWKS {
                        assert_eq!((call.to.name.as_str(), call.timeout_ms), ("idp", 1000));
                        self.fetches.push((self.now_ms, place, purpose));
                    }
                }
            }
        }
    }

    /// As [`Self::wait`], with every fetch answered at once; how many there were.
    fn pass(&mut self, ms: u64, says: &Says) -> usize {
        let end = self.now_ms + ms;
        let mut count = 0;
        while self.now_ms < end {
            self.wait(250);
            count += self.fetches.len();
            self.answer_all(says);
        }
        count
    }

    fn answer_all(&mut self, says: &Says) {
        for (_, place, purpose) in std::mem::take(&mut self.fetches) {
            self.answer(place, purpose, says);
        }
    }

    fn answer(&mut self, place: usize, purpose: Purpose, Says(status, body, cache): &Says) {
        let status = status.to_string();
        let mut headers = vec![(":status", status.as_str())];
        headers.extend(cache.map(|cache| ("Cache-Control", cache)));
        let answer = RootAnswer { purpose, headers: &headers, body: body.as_bytes() };
        let now = self.now();
        self.suite.on_root_answer(&mut self.vms[place], &answer, &self.shared, now);
    }

    /// How many VMs have keys.
    fn ready(&self) -> usize {
        self.vms.iter().filter(|vm| vm.keys(0, self.now()).is_some()).count()
    }

    fn unknown(&mut self, place: usize) -> KeyIdAnswer {
        let now = self.now();
        self.suite.remote_key_unknown(&mut self.vms[place], 0, now)
    }
}

#[test]
fn j18_one_vm_fetches_and_all_agree_within_a_second() {
    let mut world = World::new(5);
    assert_eq!(world.ready(), 0);
    // Each of them may have made the record in this tick, and another's lease would be lost under it.
    world.wait(250);
    assert_eq!(world.fetches.len(), 0);
    world.wait(250);
    assert_eq!(world.fetches.len(), 1, "one leader");
    world.answer_all(&Says::set(1));
    assert_eq!(world.ready(), 1);
    world.wait(250);
    assert_eq!(world.ready(), 5);
    // Nobody asks again before it is due: nine tenths of the interval at the earliest, all of it at the latest.
    world.wait(539_000);
    assert_eq!(world.fetches.len(), 0);
    assert_eq!(world.pass(61_500, &Says::set(1)), 1);
}

#[test]
fn a_set_that_is_still_the_same_forgets_no_token() {
    let mut world = World::new(2);
    world.pass(1000, &Says::set(1));
    let mut claims = crate::state::tests::claims(None);
    claims.expires_at = Duration::MAX;
    let now = world.now();
    world.vms[1].store_token(b"t", (0, &claims), now);
    assert_eq!(world.pass(602_000, &Says::set(1)), 1);
    let now = world.now();
    assert!(world.vms[1].token(b"t", now).is_some());
    // J16: another set forgets it, in the VM that did not fetch as well.
    world.pass(602_000, &Says::set(2));
    let now = world.now();
    assert!(world.vms[1].token(b"t", now).is_none());
    assert_eq!(world.ready(), 2);
}

#[test]
fn j15_what_is_no_key_set_keeps_the_keys_before() {
    let many: Vec<Value> = (0..101).map(|_| json!({"kty": "oct"})).collect();
    for bad in [
        Says(500, set(2), None),
        Says(302, set(2), None),
        Says(200, "<html>".to_owned(), None),
        Says(200, r#"{"keys":[]}"#.to_owned(), None),
        Says(200, json!({ "keys": many }).to_string(), None),
        Says(200, format!("{}{}", set(2), " ".repeat(64 * 1024)), None),
    ] {
        let mut world = World::new(2);
        world.pass(1000, &Says::set(1));
        let before = world.vms[1].keys(0, world.now()).unwrap();
        let tries = world.pass(1_200_000, &bad);
        let after = world.vms[1].keys(0, world.now()).unwrap();
        assert!(Rc::ptr_eq(&before, &after), "{:?}", bad.0);
        // Ten minutes at a minute's backoff, less up to a half of it, and the first few tries.
        assert!((12..32).contains(&tries), "{tries} tries");
    }
}

#[test]
fn keys_that_nobody_can_fetch_end_after_four_hours() {
    let mut world = World::new(2);
    world.pass(1000, &Says::set(1));
    // Fetched with the second tick, a second ago but for those.
    world.pass(4 * 3_600_000 - 750, &Says(503, String::new(), None));
    assert_eq!(world.ready(), 2);
    world.pass(250, &Says(503, String::new(), None));
    assert_eq!(world.ready(), 0);
    // Its first answer ends it, within the longest backoff.
    world.pass(60_500, &Says::set(1));
    assert_eq!(world.ready(), 2);
}

#[test]
fn j17_max_age_counts_within_its_bounds() {
    for (cache_control, from_ms, until_ms) in [
        (None, 540_000, 600_000),
        (Some("public, max-age=100"), 90_000, 100_000),
        (Some("max-age=\"100\", must-revalidate"), 90_000, 100_000),
        (Some("max-age=0"), 27_000, 30_000),
        (Some("max-age=99999999"), 540_000, 600_000),
        (Some("max-age=99999999999999999999999"), 540_000, 600_000),
        (Some("max-age"), 540_000, 600_000),
        (Some("s-maxage=100"), 540_000, 600_000),
    ] {
        let mut world = World::new(2);
        world.wait(500);
        world.answer_all(&Says(200, set(1), cache_control));
        let fetched_ms = world.now_ms;
        while world.fetches.is_empty() {
            world.wait(250);
        }
        let age = world.now_ms - fetched_ms;
        assert!((from_ms..=until_ms + 250).contains(&age), "{cache_control:?}: {age}");
    }
}

#[test]
fn j13_an_unknown_key_id_costs_one_fetch_whoever_asks() {
    let mut world = World::new(3);
    world.pass(31_000, &Says::set(1));
    for place in [0, 1, 2, 0, 1, 2] {
        assert_eq!(world.unknown(place), KeyIdAnswer::Unavailable, "nobody knows yet");
    }
    world.wait(250);
    assert_eq!(world.fetches.len(), 1);
    assert_eq!(world.unknown(1), KeyIdAnswer::Unavailable, "it is on its way");
    world.answer_all(&Says::set(1));
    assert_eq!(world.pass(250, &Says::set(1)), 0);
    for place in 0..3 {
        assert_eq!(world.unknown(place), KeyIdAnswer::Answered, "the provider has not got it");
    }
    // Whoever asks within the cool-down causes nothing, also not when it is over.
    assert_eq!(world.pass(29_250, &Says::set(1)), 0);
    assert_eq!(world.unknown(1), KeyIdAnswer::Answered);
    assert_eq!(world.pass(1000, &Says::set(1)), 0);
    assert_eq!(world.unknown(1), KeyIdAnswer::Unavailable);
    assert_eq!(world.pass(1000, &Says::set(2)), 1);
}

#[test]
fn j13_a_fetch_that_failed_is_no_answer() {
    let mut world = World::new(2);
    world.pass(31_000, &Says::set(1));
    assert_eq!(world.unknown(0), KeyIdAnswer::Unavailable);
    assert_eq!(world.pass(500, &Says(503, String::new(), None)), 1);
    for place in 0..2 {
        assert_eq!(world.unknown(place), KeyIdAnswer::Unavailable);
    }
}

#[test]
fn j14_random_key_ids_neither_exceed_their_budget_nor_starve_the_schedule() {
    let mut world = World::new(3);
    world.pass(1000, &Says::set(1));
    let mut fetches = 0;
    for step in 0..(600_000 / 250) {
        world.unknown(step % 3);
        fetches += world.pass(250, &Says::set(1));
    }
    assert!((19..=22).contains(&fetches), "{fetches} in ten minutes at one per 30 s");
    // The provider fails on schedule: it is tried again though ids are asked for, and the next rotation comes in.
    let mut world = World::new(3);
    world.pass(1000, &Says::set(1));
    for step in 0..(700_000 / 250) {
        world.unknown(step % 3);
        world.pass(250, &Says(500, String::new(), None));
    }
    world.pass(60_250, &Says::set(2));
    let generations: Vec<u64> =
        world.vms.iter_mut().map(|vm| vm.remote.issuer(0).unwrap().adopted.0).collect();
    assert_eq!(generations, [2; 3]);
}

#[test]
fn a_leader_that_is_lost_is_replaced_and_its_late_answer_is_nobody_s() {
    for stalled in [false, true] {
        check_lost_leader(stalled);
    }
}

/// A stalled leader does not know that it was given up.
fn check_lost_leader(stalled: bool) {
    let mut world = World::new(2);
    world.wait(500);
    let (_, first, late) = world.fetches.pop().unwrap();
    world.stalled = stalled.then_some(first);
    // Twice the time-out and a second.
    world.wait(2500);
    assert_eq!(world.fetches.len(), 0);
    world.wait(500);
    assert_eq!(world.fetches.len(), 1, "another leader");
    world.answer(first, late, &Says::set(7));
    world.stalled = None;
    assert_eq!(world.ready(), 0);
    world.answer_all(&Says::set(1));
    world.wait(250);
    assert_eq!(world.ready(), 2);
}

#[test]
fn a_vm_that_starts_later_uses_what_is_there() {
    let mut world = World::new(1);
    world.pass(1000, &Says::set(1));
    world.vms.push(VmState::new([7, 7]));
    assert_eq!(world.pass(250, &Says::set(1)), 0);
    assert_eq!(world.ready(), 2);
}

#[test]
fn shared_data_of_any_bytes_is_as_good_as_none() {
    let mut world = World::new(2);
    world.pass(1000, &Says::set(1));
    let keys: Vec<String> = world.shared.0.borrow().keys().cloned().collect();
    assert_eq!(keys.len(), 2, "{keys:?}");
    for bytes in [&b""[..], b"\xff", b"null", b"[]", b"{\"generation\":-1}", &[0; 9]] {
        for key in &keys {
            world.shared.set(key, bytes, 0);
            world.pass(62_000, &Says::set(1));
            assert_eq!(world.ready(), 2, "{key} {bytes:?}");
        }
    }
}

#[test]
fn j40_clock_steps_of_an_hour_fetch_again_and_no_more() {
    for step in [3_600_000_i64, -3_600_000] {
        let mut world = World::new(3);
        world.now_ms = 10_000_000;
        world.pass(1000, &Says::set(1));
        world.now_ms = world.now_ms.checked_add_signed(step).unwrap();
        assert_eq!(world.pass(1000, &Says::set(1)), 1, "step {step}");
        assert_eq!(world.ready(), 3);
        assert_eq!(world.pass(500_000, &Says::set(1)), 0, "step {step}");
        // Also of what was on its way: the lease, the cool-down.
        let _unknown = world.unknown(0);
        world.wait(250);
        assert_eq!(world.fetches.len(), 1);
        world.now_ms = world.now_ms.checked_add_signed(-step).unwrap();
        world.fetches.clear();
        assert!(world.pass(30_000, &Says::set(1)) <= 2, "step {step}");
        assert_eq!(world.ready(), 3, "step {step}");
    }
}
