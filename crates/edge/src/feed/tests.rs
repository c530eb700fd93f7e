//! What a VM does with what it hears, and with silence: exact times, and one property over random courses.

use gatehouse_contract::{
    TenantId,
    sidecar::{Change, Denied, PrincipalFacts},
};
use serde_json::{Value, json};

use super::*;
use crate::{
    Parts,
    state::{Asked, Identity, PrincipalKey},
};

const T0: u64 = 1_800_000_000_000;

fn at(ms: u64) -> Duration {
    Duration::from_millis(T0 + ms)
}

fn suite(change: impl FnOnce(&mut Value)) -> Suite {
    let text = include_str!("../../../../examples/gateway/suite.json");
    let mut document: Value = serde_json::from_str(text).unwrap();
    document["signatures"] = "portable".into();
    change(&mut document);
    Suite::compile(&document.to_string(), Parts::Suite).unwrap().0
}

fn tenant(number: u8) -> TenantId {
    format!("0191d6b0-7c3e-7aaa-8bbb-0123456789{number:02x}").parse().unwrap()
}

fn caller(number: u8, subject: &str) -> PrincipalKey {
    PrincipalKey { issuer: 0, tenant: tenant(number), subject: subject.to_owned() }
}

fn says(sequence: u64) -> Value {
    json!({"epoch": "e1", "sequence": sequence, "alive": true})
}

fn snapshot(sequence: u64, denied: &[Denied]) -> Value {
    let mut answer = says(sequence);
    answer["snapshot"] = serde_json::to_value(denied).unwrap();
    answer
}

fn changes(sequence: u64, changes: &[Change]) -> Value {
    let mut answer = says(sequence);
    answer["changes"] = serde_json::to_value(changes).unwrap();
    answer
}

fn subject_changed(number: u8, subject: &str) -> Change {
    Change::Subject { tenant: tenant(number), subject: subject.to_owned() }
}

/// No issuer of these tests needs shared data.
struct Nobody;

impl Shared for Nobody {
    fn get(&self, key: &str) -> Option<(Vec<u8>, u32)> {
        panic!("reads {key}")
    }

    fn set(&self, key: &str, _value: &[u8], _cas: u32) -> bool {
        panic!("sets {key}")
    }
}

/// A VM and its feed.
struct World {
    suite: Suite,
    vm: VmState,
}

impl World {
    fn new() -> Self {
        Self::with(|_document| ())
    }

    fn with(change: impl FnOnce(&mut Value)) -> Self {
        Self { suite: suite(change), vm: VmState::new([1, 2]) }
    }

    /// One that has heard an empty snapshot, asked for at `at(0)`.
    fn live() -> Self {
        let mut world = Self::new();
        world.hears(0, &snapshot(7, &[]));
        world
    }

    /// A poll that is sent at `ms` and answered at once; what it asked.
    fn hears(&mut self, ms: u64, answer: &Value) -> String {
        let (path, purpose) = self.asks(ms).expect("a poll is due");
        self.answers(purpose, ms, answer);
        path
    }

    fn asks(&mut self, ms: u64) -> Option<(String, Purpose)> {
        let RootCall { call, purpose } = self.suite.on_tick(&mut self.vm, &Nobody, at(ms)).pop()?;
        assert_eq!((call.method, call.body.as_slice()), ("GET", b"".as_slice()));
        Some((call.path, purpose))
    }

    fn answers(&mut self, purpose: Purpose, ms: u64, answer: &Value) {
        let body = answer.to_string();
        let headers = &[(":status", "200"), ("x-gatehouse-sidecar", "1")];
        let answer = RootAnswer { purpose, headers, body: body.as_bytes() };
        self.suite.on_root_answer(&mut self.vm, &answer, &Nobody, at(ms));
    }

    fn fails(&mut self, ms: u64) {
        if let Some((_, purpose)) = self.asks(ms) {
            let unmarked = RootAnswer { purpose, headers: &[(":status", "503")], body: b"{}" };
            self.suite.on_root_answer(&mut self.vm, &unmarked, &Nobody, at(ms));
        }
    }

    #[track_caller]
    fn stands(&self, ms: u64, expected: Standing) {
        assert_eq!(self.suite.standing(&self.vm, at(ms)), expected, "at {ms} ms");
    }

    fn remembers(&mut self, caller: PrincipalKey, subject: &str) -> bool {
        let facts = PrincipalFacts::member(caller.tenant, subject);
        let asked = self.vm.asked();
        self.vm.store_principal(caller, facts, Duration::from_secs(300), at(0), asked).is_some()
    }

    fn knows(&mut self, caller: &PrincipalKey) -> bool {
        self.vm.principal(caller, at(1)).is_some()
    }
}

#[test]
fn silence_of_30_s_asks_first_and_of_5_minutes_is_lost() {
    let mut world = World::new();
    world.stands(0, Standing::Lost);
    world.hears(1000, &snapshot(7, &[]));
    world.stands(1000, Standing::Live);
    world.stands(30_999, Standing::Live);
    world.stands(31_000, Standing::AskFirst);
    world.stands(300_999, Standing::AskFirst);
    world.stands(301_000, Standing::Lost);
    // One sign of life is enough, whatever was before.
    world.hears(400_000, &says(7));
    world.stands(400_000, Standing::Live);
}

#[test]
fn max_silence_can_only_be_shortened() {
    let mut world = World::with(|document| document["sidecar"]["max_silence_s"] = 0.into());
    world.hears(0, &snapshot(7, &[]));
    world.stands(29_999, Standing::Live);
    world.stands(30_000, Standing::Lost);
    let mut world = World::with(|document| document["sidecar"]["max_silence_s"] = 60.into());
    world.hears(0, &snapshot(7, &[]));
    world.stands(59_999, Standing::AskFirst);
    world.stands(60_000, Standing::Lost);
}

#[test]
fn an_answer_counts_from_when_its_question_was_sent() {
    let mut world = World::live();
    let (_, purpose) = world.asks(10_000).unwrap();
    world.answers(purpose, 12_000, &says(7));
    world.stands(39_999, Standing::Live);
    world.stands(40_000, Standing::AskFirst);
}

#[test]
fn failures_and_a_dead_relay_are_silence_whatever_they_say() {
    let dead = |mut answer: Value| {
        answer["alive"] = false.into();
        answer
    };
    let other_epoch = json!({"epoch": "", "sequence": 0, "alive": false});
    for answer in [dead(says(7)), dead(snapshot(9, &[])), other_epoch, json!({"no": "answer"})] {
        let mut world = World::live();
        assert!(world.remembers(caller(1, "a"), "a"));
        world.hears(20_000, &answer);
        world.stands(29_999, Standing::Live);
        world.stands(30_000, Standing::AskFirst);
        assert!(world.knows(&caller(1, "a")), "{answer}");
        assert_eq!(world.asks(20_250).unwrap().0, "/v1/changes?epoch=e1&after=7", "{answer}");
    }
    let mut world = World::live();
    world.fails(20_000);
    world.stands(30_000, Standing::AskFirst);
    // A VM that never heard a living feed has not heard it yet.
    let mut world = World::new();
    world.hears(0, &dead(snapshot(7, &[])));
    world.stands(0, Standing::Lost);
}

#[test]
fn what_a_dead_relay_s_sidecar_knows_to_have_changed_has_changed() {
    let mut world = World::live();
    assert!(world.remembers(caller(1, "a"), "a"));
    let mut answer = changes(8, &[subject_changed(1, "a")]);
    answer["alive"] = false.into();
    world.hears(1000, &answer);
    assert!(!world.knows(&caller(1, "a")));
    assert_eq!(world.asks(1250).unwrap().0, "/v1/changes?epoch=e1&after=8");
}

#[test]
fn a_change_forgets_what_it_names_and_nothing_else() {
    let callers = [caller(1, "a"), caller(1, "b"), caller(2, "a")];
    let remembered = |change: Change| {
        let mut world = World::live();
        for caller in &callers {
            assert!(world.remembers(caller.clone(), &caller.subject));
        }
        world.hears(250, &changes(8, &[change]));
        callers.each_ref().map(|caller| world.knows(caller))
    };
    assert_eq!(remembered(subject_changed(1, "a")), [false, true, true]);
    assert_eq!(remembered(Change::Tenant { tenant: tenant(1) }), [false, false, true]);
    assert_eq!(remembered(Change::Keys { issuer: "i".to_owned() }), [true; 3]);
    assert_eq!(remembered(Change::Credential { credential: "a".to_owned() }), [true; 3]);
}

#[test]
fn the_record_s_subject_counts_and_not_the_token_s() {
    let mut world = World::live();
    assert!(world.remembers(caller(1, "token-sub"), "user-1"));
    world.hears(250, &changes(8, &[subject_changed(1, "token-sub")]));
    assert!(world.knows(&caller(1, "token-sub")));
    world.hears(500, &changes(9, &[subject_changed(1, "user-1")]));
    assert!(!world.knows(&caller(1, "token-sub")));
}

#[test]
fn a_snapshot_forgets_all_facts_and_replaces_the_deny_list() {
    let old = Denied::Token { token: "old".to_owned(), until_s: u64::MAX };
    let identity = |jti: &str| Identity::new(0, &crate::state::tests::claims(Some(jti)));
    let of = |jti: &str| Denied::Token {
        token: identity(jti).mark().unwrap().to_owned(),
        until_s: u64::MAX,
    };
    let facts = PrincipalFacts::member(tenant(1), "a");
    let mut world = World::new();
    world.hears(0, &snapshot(7, &[old, of("1")]));
    assert!(world.remembers(caller(1, "a"), "a"));
    assert!(world.vm.denied(&identity("1"), &facts));
    assert!(!world.vm.denied(&identity("2"), &facts));
    world.hears(250, &changes(8, &[Change::Deny(of("2"))]));
    assert!(world.vm.denied(&identity("2"), &facts));
    assert!(world.knows(&caller(1, "a")), "a denied token says nothing of its subject's facts");
    world.hears(500, &snapshot(20, &[of("2")]));
    assert!(!world.vm.denied(&identity("1"), &facts));
    assert!(world.vm.denied(&identity("2"), &facts));
    assert!(!world.knows(&caller(1, "a")));
    assert_eq!(world.asks(750).unwrap().0, "/v1/changes?epoch=e1&after=20");
}

#[test]
fn a_gap_serves_nothing_until_everything_was_asked_for() {
    let other = json!({"epoch": "e2", "sequence": 7, "alive": true});
    let unsafe_epoch = json!({"epoch": "e1&after=0", "sequence": 9, "alive": true, "snapshot": []});
    for gap in [other, says(6), unsafe_epoch] {
        let mut world = World::live();
        world.hears(250, &gap);
        world.stands(250, Standing::Lost);
        assert_eq!(world.hears(500, &snapshot(7, &[])), "/v1/changes", "{gap}");
        world.stands(500, Standing::Live);
    }
}

#[test]
fn one_question_at_a_time_and_late_answers_are_nobody_s() {
    let mut world = World::live();
    let (_, late) = world.asks(250).unwrap();
    // A second to answer, twice that to be given up: eight ticks.
    for tick in 1..8 {
        assert!(world.asks(250 + tick * 250).is_none(), "tick {tick}");
    }
    let (_, second) = world.asks(2250).unwrap();
    world.answers(late, 2300, &changes(9, &[]));
    world.stands(29_999, Standing::Live);
    world.stands(30_000, Standing::AskFirst);
    world.answers(second, 2400, &says(7));
    world.answers(second, 2500, &changes(9, &[]));
    world.stands(32_249, Standing::Live);
    world.stands(32_250, Standing::AskFirst);
    assert_eq!(world.asks(2500).unwrap().0, "/v1/changes?epoch=e1&after=7");
}

#[test]
fn facts_that_a_change_overtook_are_not_remembered() {
    let store = |world: &mut World, asked: Asked| {
        let facts = PrincipalFacts::member(tenant(1), "a");
        let ttl = Duration::from_secs(300);
        world.vm.store_principal(caller(1, "a"), facts, ttl, at(0), asked).is_some()
    };
    for (change, kept) in [
        (subject_changed(1, "a"), false),
        (subject_changed(1, "b"), true),
        (subject_changed(2, "a"), true),
        (Change::Tenant { tenant: tenant(1) }, false),
        (Change::Tenant { tenant: tenant(2) }, true),
    ] {
        let mut world = World::live();
        let before = world.vm.asked();
        world.hears(250, &changes(8, std::slice::from_ref(&change)));
        assert_eq!(store(&mut world, before), kept, "{change:?}");
        assert_eq!(world.knows(&caller(1, "a")), kept, "{change:?}");
        let after = world.vm.asked();
        assert!(store(&mut world, after), "{change:?}");
    }
    let mut world = World::live();
    let before = world.vm.asked();
    world.hears(250, &snapshot(9, &[]));
    assert!(!store(&mut world, before), "a snapshot overtakes everything");
    let before = world.vm.asked();
    let many: Vec<Change> = (0..1025).map(|_| subject_changed(2, "x")).collect();
    world.hears(500, &changes(1100, &many));
    assert!(!store(&mut world, before), "nobody knows what the forgotten changes named");
}

#[test]
fn j16_keys_of_another_generation_are_asked_for() {
    let mut world = World::live();
    let fresh = |generation| crate::state::FreshKeys {
        set: gatehouse_authn::KeySet::default(),
        generation,
        max_age: Duration::from_secs(300),
    };
    world.vm.store_keys(0, fresh(3), at(0));
    let issuer = world.suite.issuers[0].rules.issuer.to_string();
    let mut answer = says(7);
    for (generation, known) in [(3, true), (4, false)] {
        answer["keys"] = json!({ &issuer: generation, "https://stranger": 9 });
        world.hears(250, &answer);
        assert_eq!(world.vm.keys(0, at(300)).is_some(), known, "generation {generation}");
    }
    world.vm.store_keys(0, fresh(4), at(300));
    world.hears(500, &answer);
    assert!(world.vm.keys(0, at(600)).is_some());
}

#[test]
fn j40_clock_steps_of_an_hour_ask_for_a_moment_and_no_longer() {
    let hour = 3_600_000;
    for step in [hour, 0] {
        // From `hour` to either side of it.
        let (before, after) = (hour, 2 * step);
        let mut world = World::new();
        world.hears(before, &snapshot(7, &[]));
        world.stands(before, Standing::Live);
        world.stands(after, Standing::Lost);
        world.hears(after + 250, &says(7));
        world.stands(after + 250, Standing::Live);
        world.stands(after + 30_249, Standing::Live);
        world.stands(after + 30_250, Standing::AskFirst);
    }
    // A question that was on its way when the clock was set back is answered by nobody: given up by ticks.
    let mut world = World::new();
    world.hears(hour, &snapshot(7, &[]));
    let _never_answered = world.asks(hour + 250).unwrap();
    let polls = (1..=20).filter(|tick| world.asks(tick * 250).is_some()).count();
    assert_eq!(polls, 2, "every eighth tick");
    // A clock that was set right by a little is no alarm.
    let mut world = World::new();
    world.hears(2 * hour, &snapshot(7, &[]));
    world.stands(2 * hour - 5000, Standing::Live);
    world.stands(2 * hour - 5001, Standing::Lost);
}

#[test]
fn a_list_that_does_not_fit_lets_every_token_ask_until_it_does() {
    let mut world = World::new();
    let many: Vec<Denied> = (0..65_537)
        .map(|number| Denied::Token { token: format!("t{number}"), until_s: u64::MAX })
        .collect();
    world.hears(0, &snapshot(7, &many));
    world.stands(0, Standing::Lost);
    let asked: Vec<String> = (1..=240).map(|tick| world.hears(tick * 250, &says(7))).collect();
    let (anew, before) = asked.split_last().unwrap();
    assert!(before.iter().all(|path| path.ends_with("&after=7")));
    assert_eq!(anew, "/v1/changes");
    world.hears(61_000, &snapshot(7, &many[1..]));
    world.stands(61_000, Standing::Live);
}

#[test]
fn without_a_sidecar_nothing_is_polled_and_nothing_is_doubted() {
    let mut world = World::new();
    world.suite.sidecar = None;
    // A tick is for the host's counters alone.
    assert_eq!(world.suite.tick_period(), Some(COUNTED));
    world.suite.limiter.decides = Decides::Nobody;
    assert_eq!(world.suite.tick_period(), Some(COUNTED), "of the versions");
    world.suite.versions = crate::version::Versions::chosen_elsewhere(std::iter::empty());
    assert_eq!(world.suite.tick_period(), None);
    assert!(world.asks(0).is_none());
    world.stands(0, Standing::Live);
}

/// Members whose facts change, a feed whose answers take their time, and answers about members that do, too: nobody
/// is ever remembered as older than the last change that the VM has heard.
#[test]
fn nothing_that_is_remembered_is_older_than_what_was_heard() {
    const MEMBERS: usize = 4;
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut roll = |sides: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % sides
    };
    let name = |member: usize| ["a", "b", "c", "d"][member];
    let home = |member: usize| u8::try_from(member / 2).unwrap();
    for _course in 0..300 {
        let mut world = World::live();
        // For each sequence what changed, and each member's version since then.
        let mut versions = [0_u64; MEMBERS];
        let mut log: Vec<(Change, [u64; MEMBERS])> = Vec::new();
        let mut heard = 0_usize;
        let mut asked: Vec<(usize, Asked, u64)> = Vec::new();
        let mut polled: Option<(Purpose, usize)> = None;
        for _step in 0..80 {
            let member = usize::try_from(roll(4)).unwrap();
            match roll(6) {
                0 => {
                    versions[member] += 1;
                    let change = if roll(3) == 0 {
                        versions[member ^ 1] += 1;
                        Change::Tenant { tenant: tenant(home(member)) }
                    } else {
                        subject_changed(home(member), name(member))
                    };
                    log.push((change, versions));
                }
                1 | 2 => asked.push((member, world.vm.asked(), versions[member])),
                3 if !asked.is_empty() => {
                    let place = usize::try_from(roll(asked.len() as u64)).unwrap();
                    let (member, when, epoch) = asked.swap_remove(place);
                    let facts = PrincipalFacts::member(tenant(home(member)), name(member));
                    let facts = PrincipalFacts { epoch, ..facts };
                    let caller = caller(home(member), name(member));
                    let ttl = Duration::from_secs(300);
                    let _kept = world.vm.store_principal(caller, facts, ttl, at(0), when);
                }
                4 if polled.is_none() => {
                    if let Some((_, purpose)) = world.asks(0) {
                        polled = Some((purpose, log.len()));
                    }
                }
                _ => {
                    if let Some((purpose, until)) = polled.take() {
                        let fresh: Vec<Change> =
                            log[heard..until].iter().map(|(change, _)| change.clone()).collect();
                        let sequence = 7 + u64::try_from(until).unwrap();
                        world.answers(purpose, 0, &changes(sequence, &fresh));
                        heard = until;
                    }
                }
            }
            let floor = heard.checked_sub(1).map_or([0; MEMBERS], |last| log[last].1);
            for (member, floor) in floor.into_iter().enumerate() {
                let known = world.vm.principal(&caller(home(member), name(member)), at(1));
                if let Some(known) = known {
                    assert!(known.facts.epoch >= floor, "{} in {log:?}", name(member));
                }
            }
        }
    }
}
