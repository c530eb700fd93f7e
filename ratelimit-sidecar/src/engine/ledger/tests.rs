//! The ledger: what was charged is declared once per run, in the slots of the store, and never grows beyond its bound.

use gatehouse_ratelimit::{Span, keys};

use super::*;

const RUN: Run = Run(1);
const NEXT: Run = Run(2);

fn tenant(last: u8) -> TenantId {
    format!("0191d6b0-7c3e-7aaa-8bbb-0123456789{last:02x}").parse().unwrap()
}

fn rules() -> Arc<[Rule]> {
    let span = Span::from_secs(60);
    [
        Rule::new(Name::Tenant, 600, span, keys::ANY),
        Rule::new(Name::Burst, 50, Span::from_secs(1), keys::ANY),
        Rule::new(Name::Day, 1000, span, keys::ANY),
    ]
    .into()
}

fn at(s: u64) -> Timestamp {
    Timestamp::from_ms(1_000_000_000 + s * 1000)
}

fn ledger() -> (Ledger, Arc<[Rule]>) {
    let (mut ledger, rules) = (Ledger::new(10), rules());
    ledger.open(tenant(1), &rules).unwrap();
    ledger.is_in(tenant(1), RUN);
    (ledger, rules)
}

/// `name second:amount …`, in the order of names.
fn shown(declared: &[Declaration]) -> String {
    let mut all: Vec<String> = declared
        .iter()
        .map(|one| {
            let charges = one.charges.iter().map(|(when, amount)| {
                let s = i128::from(when.as_ms() / 1000) - 1_000_000;
                let s = if one.rule.name == Name::Day { "day".to_owned() } else { s.to_string() };
                format!(" {s}:{amount}")
            });
            format!("{}{}", one.rule.name, charges.collect::<String>())
        })
        .collect();
    all.sort();
    all.join(", ")
}

#[test]
fn what_was_charged_lately_is_declared_by_slot() {
    let (mut ledger, rules) = ledger();
    ledger.charged(tenant(1), &rules, at(5), 3);
    ledger.charged(tenant(1), &rules, at(7), 2);
    // Booked ahead before something is charged behind it.
    ledger.charged(tenant(1), &rules, at(6), 1);
    ledger.charged(tenant(1), &rules, at(7), 4);
    ledger.credited(tenant(1), &rules, at(7), 5);
    ledger.credited(tenant(1), &rules, at(5), 3);
    let declared = ledger.declarations(&[NEXT], NEXT, at(8));
    assert_eq!(shown(&declared), "day day:2, tenant 6:1 7:1");
    assert!(declared.iter().all(|one| one.run == NEXT && one.tenant == tenant(1)));
}

#[test]
fn what_has_left_its_window_is_not_declared() {
    let (mut ledger, rules) = ledger();
    ledger.charged(tenant(1), &rules, at(5), 3);
    for (now_s, expected) in [(60, "day day:3, tenant 5:3"), (70, "day day:3"), (90_000, "")] {
        let declared = ledger.declarations(&[NEXT], NEXT, at(now_s));
        assert_eq!(shown(&declared), expected, "{now_s}");
        ledger.declared(tenant(1), NEXT, false);
    }
}

#[test]
fn a_run_is_declared_to_once() {
    let (mut ledger, rules) = ledger();
    ledger.charged(tenant(1), &rules, at(5), 3);
    assert!(ledger.declarations(&[RUN, NEXT], NEXT, at(6)).is_empty(), "its run still lives");
    assert_eq!(ledger.declarations_of(tenant(1), NEXT, at(6)).unwrap().len(), 2);
    assert!(ledger.declarations_of(tenant(1), NEXT, at(6)).is_none(), "somebody is at it");
    assert!(ledger.declarations(&[NEXT], NEXT, at(6)).is_empty(), "somebody is at it");
    ledger.declared(tenant(1), NEXT, false);
    assert_eq!(ledger.run(tenant(1)), Some(RUN));
    assert_eq!(ledger.declarations(&[NEXT], NEXT, at(6)).len(), 2);
    ledger.declared(tenant(1), NEXT, true);
    assert_eq!(ledger.run(tenant(1)), Some(NEXT));
    assert_eq!(ledger.declarations_of(tenant(1), NEXT, at(6)), Some(Vec::new()));
    assert!(ledger.declarations(&[NEXT], NEXT, at(6)).is_empty());
}

#[test]
fn what_is_owed_is_charged_once_or_declared() {
    let (mut ledger, rules) = ledger();
    assert!(!ledger.is_owing());
    ledger.owe(tenant(1), &rules, at(5), 3);
    ledger.owe(tenant(1), &rules, at(6), 2);
    assert!(ledger.is_owing());
    let mut debts = ledger.debts(at(7), 9);
    debts.sort_by_key(|debt| debt.rule.name);
    let amounts: Vec<_> = debts.iter().map(|debt| (debt.rule.name, debt.amount)).collect();
    assert_eq!(amounts, [(Name::Tenant, 5), (Name::Day, 5)]);
    assert!(ledger.debts(at(7), 9).is_empty());
    ledger.paid(&debts[0], at(8), RUN);
    ledger.unpaid(&debts[1], at(8));
    let declared = ledger.declarations(&[NEXT], NEXT, at(9));
    assert_eq!(shown(&declared), "day day:5, tenant 8:5");
    assert!(ledger.debts(at(9), 9).is_empty(), "declared is charged");
}

#[test]
fn debts_that_have_left_their_window_are_forgotten() {
    let (mut ledger, rules) = ledger();
    ledger.owe(tenant(1), &rules, at(5), 3);
    let names: Vec<_> = ledger.debts(at(80), 9).iter().map(|debt| debt.rule.name).collect();
    assert_eq!(names, [Name::Day]);
}

#[test]
fn debts_come_in_bounded_lots() {
    let (mut ledger, rules) = ledger();
    for last in 1..5 {
        ledger.open(tenant(last), &rules).unwrap();
        ledger.owe(tenant(last), &rules, at(5), 3);
    }
    let lots: Vec<_> = (0..4).map(|_| ledger.debts(at(6), 3).len()).collect();
    assert_eq!(lots, [3, 3, 2, 0]);
}

#[test]
fn a_full_ledger_takes_no_new_window_and_old_ones_make_room() {
    let (mut ledger, rules) = ledger();
    ledger.capacity = 3;
    ledger.charged(tenant(1), &rules, at(5), 3);
    assert_eq!(ledger.open(tenant(2), &rules), Err(Full));
    assert_eq!(ledger.open(tenant(1), &rules), Ok(()));
    ledger.sweep(at(6));
    assert_eq!(ledger.len(), 3, "one of the second tenant's found room");
    ledger.sweep(at(7));
    assert_eq!(ledger.len(), 2);
    ledger.sweep(Timestamp::from_ms(at(5).as_ms() + 200_000_000));
    assert_eq!((ledger.len(), ledger.run(tenant(1))), (0, None));
    assert_eq!(ledger.open(tenant(2), &rules), Ok(()));
}

#[test]
fn a_window_whose_take_is_under_way_outlives_a_sweep() {
    let (mut ledger, rules) = ledger();
    ledger.sweep(at(5));
    ledger.charged(tenant(1), &rules, at(5), 3);
    assert_eq!(shown(&ledger.declarations(&[NEXT], NEXT, at(6))), "day day:3, tenant 5:3");
    let (mut ledger, _) = self::ledger();
    ledger.sweep(at(5));
    ledger.sweep(at(6));
    assert_eq!(ledger.len(), 0);
}

#[test]
fn an_entry_holds_as_much_as_the_stores_record() {
    let mut charges = Charges::default();
    charges.add(7, u32::MAX);
    charges.add(7, 1);
    assert_eq!(charges.iter().collect::<Vec<_>>(), [(7, 0xFF_FFFF)]);
}
