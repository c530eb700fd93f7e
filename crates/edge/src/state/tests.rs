//! Tests of what a VM remembers, and for how long.

use gatehouse_authn::Claims;
use gatehouse_contract::TenantId;

use super::*;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn facts() -> PrincipalFacts {
    PrincipalFacts::member(tenant(), "s")
}

fn tenant() -> TenantId {
    "0191d6b0-7c3e-7aaa-8bbb-0123456789ab".parse().unwrap()
}

fn key(subject: usize) -> PrincipalKey {
    PrincipalKey { issuer: 0, tenant: tenant(), subject: subject.to_string() }
}

fn fresh(generation: u64, max_age: Duration) -> FreshKeys {
    FreshKeys { set: KeySet::default(), generation, max_age }
}

pub(crate) fn claims(token_id: Option<&str>) -> Claims {
    Claims {
        issuer: "i".into(),
        subject: "s".to_owned(),
        tenant: tenant(),
        expires_at: seconds(1000),
        issued_at: None,
        roles: None,
        scopes: gatehouse_authn::claims::Scopes::default(),
        token_id: token_id.map(str::to_owned),
    }
}

#[test]
fn j40_what_is_remembered_dies_in_time_and_when_the_clock_jumps_back() {
    let mut vm = VmState::new([0, 0]);
    let asked = vm.asked();
    vm.store_principal(key(1), facts(), seconds(5), seconds(10), asked).unwrap();
    vm.store_keys(3, fresh(1, seconds(5)), seconds(10));
    for (now, alive) in [(10, true), (14, true), (15, false), (9, false)] {
        let now = seconds(now);
        assert_eq!(vm.principal(&key(1), now).is_some(), alive, "principal at {now:?}");
        assert_eq!(vm.keys(3, now).is_some(), alive, "keys at {now:?}");
    }
    assert!(vm.keys(2, seconds(10)).is_none());
}

#[test]
fn j16_a_verified_token_is_forgotten_when_its_keys_change_or_age() {
    let mut vm = VmState::new([0, 0]);
    vm.store_keys(0, fresh(1, seconds(50)), seconds(10));
    vm.store_token(b"t", (0, &claims(None)), seconds(10));
    assert!(vm.token(b"t", seconds(11)).is_some());
    assert!(vm.token(b"u", seconds(11)).is_none());
    vm.store_keys(0, fresh(1, seconds(50)), seconds(12));
    assert!(vm.token(b"t", seconds(13)).is_some(), "the same keys again");
    assert!(vm.token(b"t", seconds(62)).is_none(), "the keys are not fresh");
    vm.store_keys(0, fresh(2, seconds(50)), seconds(14));
    assert!(vm.token(b"t", seconds(15)).is_none(), "other keys");
}

#[test]
fn principals_are_bounded_and_those_in_use_stay() {
    let mut vm = VmState::new([0, 0]);
    for subject in 0..PRINCIPALS_PER_HALF * 4 {
        let asked = vm.asked();
        vm.store_principal(key(subject), facts(), seconds(5), seconds(0), asked).unwrap();
        assert!(vm.principal(&key(0), seconds(1)).is_some(), "the one in use, after {subject}");
        let entries = vm.principals.len();
        assert!(entries <= PRINCIPALS_PER_HALF * 2);
    }
    assert!(vm.principal(&key(1), seconds(1)).is_none());
}

#[test]
fn j14_an_answered_key_id_begins_a_cool_down_per_issuer() {
    let mut vm = VmState::new([0, 0]);
    assert_eq!(vm.key_id_cool_down(0, seconds(5)), None);
    vm.key_id_answered(0, KeyIdAnswer::Answered, seconds(5));
    assert_eq!(vm.key_id_cool_down(0, seconds(5)), Some(KeyIdAnswer::Answered));
    assert_eq!(vm.key_id_cool_down(0, seconds(6)), None);
    assert_eq!(vm.key_id_cool_down(1, seconds(5)), None, "another issuer has its own");
}

#[test]
fn a_key_set_never_lives_longer_than_an_hour() {
    let mut vm = VmState::new([0, 0]);
    vm.store_keys(0, fresh(1, Duration::MAX), seconds(0));
    assert!(vm.keys(0, seconds(3599)).is_some());
    assert!(vm.keys(0, seconds(3600)).is_none());
}
