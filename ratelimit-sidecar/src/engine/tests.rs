//! What one shard does, step by step, against the memory store's sums.

use gatehouse_contract::sidecar::Lease;
use gatehouse_ratelimit::{Return, Run, Span, Taken, keys, memory};

use super::{core::Asking, *};

const TENANT: &str = "0191d6b0-7c3e-7aaa-8bbb-0123456789ab";
const EPOCH_MS: u64 = 1_000_000_000;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn rules(max: u32) -> Arc<[Rule]> {
    [Rule::new(Name::Tenant, max, Span::from_secs(60), keys::ANY)].into()
}

/// A shard beside its store; whoever waits is a number, and those of `gone` do no longer.
struct Bench {
    core: Core<u32>,
    store: Memory,
    at_ms: u64,
    gone: Vec<u32>,
    told: Vec<(u32, Verdict)>,
}

impl Bench {
    fn new(mode: Mode) -> Self {
        let core = Core::new(mode, Ledger::new(100), Book::new(100, 1, 1));
        let (gone, told) = (Vec::new(), Vec::new());
        Self { core, store: Memory::new(100), at_ms: 0, gone, told }
    }

    fn check_for(&mut self, rules: &Arc<[Rule]>, cost: u32, vm: Option<Wants>) -> Step {
        let tenant = TENANT.parse().unwrap();
        let ask = Ask { tenant, rules, cost, forced: false, vm };
        self.core.check(ms(self.at_ms), &ask)
    }

    /// `Some` when decided at once; else the group, after joining it.
    fn ask(
        &mut self,
        rules: &Arc<[Rule]>,
        whom: u32,
        vm: Option<Wants>,
    ) -> Result<Verdict, (GroupId, bool)> {
        match self.check_for(rules, 1, vm.clone()) {
            Step::Decided(verdict) => Ok(verdict),
            Step::Wait(group) => Err((group, self.core.join(group, Waiter { whom, vm }))),
            Step::Full => panic!("full"),
        }
    }

    fn send(&mut self, group: GroupId) -> Option<(Take, Asking<u32>)> {
        let gone = self.gone.clone();
        self.core.ask(ms(self.at_ms), group, (1, None), |whom| !gone.contains(whom)).unwrap()
    }

    fn charge(&mut self, take: &Take) -> Taken {
        let now = Timestamp::from_ms(EPOCH_MS + self.at_ms);
        self.store.take(take, now).unwrap().unwrap()
    }

    /// Sends, charges and answers; whether others wait already.
    fn turn(&mut self, group: GroupId) -> bool {
        let Some((take, asking)) = self.send(group) else { return false };
        let taken = self.charge(&take);
        self.answer(asking, &take, &taken)
    }

    fn answer(&mut self, asking: Asking<u32>, take: &Take, taken: &Taken) -> bool {
        let (gone, told) = (self.gone.clone(), &mut self.told);
        let tell = |whom, verdict| told.push((whom, verdict));
        self.core.answered(ms(self.at_ms), asking, take, taken, |whom| !gone.contains(whom), tell)
    }

    /// One check through the store, or at once.
    fn whole(&mut self, rules: &Arc<[Rule]>, vm: Option<Wants>) -> Verdict {
        match self.ask(rules, 0, vm) {
            Ok(verdict) => verdict,
            Err((group, _)) => {
                self.turn(group);
                self.told.pop().unwrap().1
            }
        }
    }

    /// A store's window as the next who asks sees it.
    fn used(&mut self, rules: &Arc<[Rule]>) -> u32 {
        let peek = Take::one(TENANT.parse().unwrap(), Arc::clone(rules), 0);
        self.charge(&peek).decision.standings[0].used
    }

    fn returns(&mut self) -> Vec<u32> {
        let returns = self.core.returns();
        let now = Timestamp::from_ms(EPOCH_MS + self.at_ms);
        returns.iter().for_each(|give| self.store.give_back(give, now));
        returns.iter().map(|give: &Return| give.passes).collect()
    }
}

fn vm(passes: u32) -> Option<Wants> {
    Some(Wants { holder: "vm".into(), passes })
}

#[test]
fn checks_of_one_group_join_one_take_and_one_is_under_way() {
    let (mut bench, rules) = (Bench::new(Mode::Strict), rules(3));
    let joined: Vec<_> = (0..5).map(|whom| bench.ask(&rules, whom, None).unwrap_err()).collect();
    let queued: Vec<bool> = joined.iter().map(|(_, queued)| *queued).collect();
    assert_eq!(queued, [true, false, false, false, false], "one stands in the queue for all");
    let group = joined[0].0;
    let (take, asking) = bench.send(group).unwrap();
    assert_eq!((take.waiting, take.ahead), (5, 0));
    let (_, queued) = bench.ask(&rules, 5, None).unwrap_err();
    assert!(!queued, "another take of the group is under way");
    let taken = bench.charge(&take);
    assert!(!bench.answer(asking, &take, &taken), "the sixth needs none: all are denied for now");
    assert_eq!(
        bench.told.pop().map(|(whom, verdict)| (whom, verdict.decision.allowed)),
        Some((5, false))
    );
    let told: Vec<_> = bench
        .told
        .iter()
        .map(|(whom, verdict)| {
            (*whom, verdict.decision.allowed, verdict.decision.standings[0].used)
        })
        .collect();
    let expected = [(0, true, 1), (1, true, 2), (2, true, 3), (3, false, 3), (4, false, 3)];
    assert_eq!(told, expected, "in their order, each with less left than the one before");
}

#[test]
fn who_came_meanwhile_takes_from_the_lease_and_the_rest_wait_for_the_next_take() {
    let (mut bench, rules) = (Bench::new(Mode::Lease), rules(100));
    let group = bench.ask(&rules, 0, None).unwrap_err().0;
    let (take, asking) = bench.send(group).unwrap();
    assert_eq!((take.waiting, take.ahead), (1, 2));
    for whom in 1..5 {
        bench.ask(&rules, whom, None).unwrap_err();
    }
    bench.gone = vec![1];
    let taken = bench.charge(&take);
    assert!(bench.answer(asking, &take, &taken), "the fifth waits for the next take");
    let told: Vec<_> = bench
        .told
        .iter()
        .map(|(whom, verdict)| (*whom, verdict.decision.standings[0].used))
        .collect();
    assert_eq!(told, [(0, 1), (2, 2), (3, 3)]);
    assert_eq!(bench.send(group).unwrap().0.waiting, 1);
}

#[test]
fn r19_who_has_gone_is_not_charged_or_charged_back() {
    let (mut bench, rules) = (Bench::new(Mode::Strict), rules(10));
    let group = bench.ask(&rules, 0, None).unwrap_err().0;
    bench.ask(&rules, 1, None).unwrap_err();
    bench.gone = vec![0];
    let (take, asking) = bench.send(group).unwrap();
    assert_eq!(take.waiting, 1, "gone before it was sent");
    let taken = bench.charge(&take);
    bench.gone = vec![0, 1];
    assert!(!bench.answer(asking, &take, &taken));
    assert_eq!(bench.returns(), [1], "gone after it was sent");
    assert_eq!(bench.used(&rules), 0);
    bench.gone = vec![2];
    let group = bench.ask(&rules, 2, None).unwrap_err().0;
    assert!(bench.send(group).is_none(), "nobody waits");
}

#[test]
fn a_denial_is_told_from_memory_for_a_moment_and_only_for_the_same_limits() {
    let (mut bench, tight) = (Bench::new(Mode::Strict), rules(1));
    assert!(bench.whole(&tight, None).decision.allowed);
    assert!(!bench.whole(&tight, None).decision.allowed);
    for (at_ms, remembered) in [(1, true), (249, true), (250, false)] {
        bench.at_ms = at_ms;
        let step = bench.check_for(&tight, 1, None);
        assert_eq!(matches!(step, Step::Decided(_)), remembered, "{at_ms} ms");
    }
    assert!(!bench.whole(&tight, None).decision.allowed);
    assert!(
        matches!(bench.check_for(&rules(2), 1, None), Step::Wait(_)),
        "r23: a limit was raised"
    );
    assert!(matches!(bench.check_for(&tight, 0, None), Step::Wait(_)), "another cost");
}

#[test]
fn a_lease_grows_while_it_is_used_up_soon_and_shrinks_when_it_is_not() {
    let (mut bench, rules) = (Bench::new(Mode::Auto), rules(6000));
    let mut ahead = Vec::new();
    for _ in 0..200 {
        bench.at_ms += 1;
        if let Err((group, _)) = bench.ask(&rules, 0, None) {
            let (take, asking) = bench.send(group).unwrap();
            ahead.push(take.ahead);
            let taken = bench.charge(&take);
            bench.answer(asking, &take, &taken);
        }
    }
    assert_eq!(ahead, [0, 2, 4, 8, 16, 32, 64, 64, 64], "doubled up to the most");
    bench.at_ms += 300;
    bench.core.due(ms(bench.at_ms));
    assert_eq!(bench.returns().len(), 1, "what was left went back");
    let group = bench.ask(&rules, 0, None).unwrap_err().0;
    assert_eq!(bench.send(group).unwrap().0.ahead, 32, "half");
}

#[test]
fn a_small_limit_has_no_leases() {
    let (mut bench, rules) = (Bench::new(Mode::Lease), rules(60));
    for _ in 0..20 {
        bench.at_ms += 1;
        let group = bench.ask(&rules, 0, vm(8)).unwrap_err().0;
        let (take, asking) = bench.send(group).unwrap();
        assert_eq!(take.ahead, 0);
        let taken = bench.charge(&take);
        bench.answer(asking, &take, &taken);
    }
}

#[test]
fn a_lease_ends_by_the_time_of_its_sending_and_goes_back_whole() {
    let (mut bench, rules) = (Bench::new(Mode::Lease), rules(600));
    let group = bench.ask(&rules, 0, None).unwrap_err().0;
    let (take, asking) = bench.send(group).unwrap();
    assert_eq!((take.ahead, take.hold), (12, ms(200)));
    let taken = bench.charge(&take);
    bench.at_ms = 100;
    bench.answer(asking, &take, &taken);
    bench.at_ms = 199;
    assert!(bench.ask(&rules, 0, None).is_ok(), "199 ms after the sending");
    bench.at_ms = 200;
    assert!(bench.ask(&rules, 0, None).is_err(), "200 ms after the sending");
    assert_eq!(bench.returns(), [11]);
    assert_eq!(bench.used(&rules), 2);
}

#[test]
fn what_came_too_late_is_handed_back_unused() {
    let (mut bench, rules) = (Bench::new(Mode::Lease), rules(600));
    let group = bench.ask(&rules, 0, None).unwrap_err().0;
    let (take, asking) = bench.send(group).unwrap();
    let taken = bench.charge(&take);
    bench.at_ms = 200;
    bench.answer(asking, &take, &taken);
    assert_eq!(bench.returns(), [12]);
}

#[test]
fn r23_a_change_of_the_limit_ends_the_lease_that_the_old_one_had() {
    let (mut bench, old, new) = (Bench::new(Mode::Lease), rules(600), rules(500));
    bench.whole(&old, None);
    assert!(bench.ask(&old, 0, None).is_ok());
    assert!(bench.ask(&new, 0, None).is_err());
    assert_eq!(bench.returns(), [11]);
}

#[test]
fn a_vms_lease_is_part_of_ours_and_over_before_it() {
    let (mut bench, rules) = (Bench::new(Mode::Lease), rules(6000));
    let Lease { passes, ttl_ms, .. } = bench.whole(&rules, vm(8)).lease.unwrap();
    assert_eq!((passes, ttl_ms), (8, 100));
    for (at_ms, expected) in [(79, 100), (100, 80), (160, 20)] {
        bench.at_ms = at_ms;
        let verdict = bench.ask(&rules, 0, vm(8)).unwrap();
        assert_eq!(verdict.lease.unwrap().ttl_ms, expected, "{at_ms} ms");
    }
    bench.at_ms = 161;
    assert!(bench.ask(&rules, 0, vm(8)).is_err(), "too short for a VM, whom the store serves");
    assert!(bench.ask(&rules, 0, None).is_ok(), "and good for a check");
    bench.at_ms = 200;
    bench.core.due(ms(200));
    // 64 ahead, less four checks on it, less four leases.
    assert_eq!(bench.returns(), [64 - 8 - 4 - 3 * 8]);
}

#[test]
fn a_vm_that_wants_more_than_is_left_is_served_by_the_store() {
    for (used, served) in [(31, true), (32, false)] {
        let (mut bench, rules) = (Bench::new(Mode::Lease), rules(6000));
        bench.whole(&rules, None);
        (0..used).for_each(|_| assert!(bench.ask(&rules, 0, None).is_ok()));
        let left = bench.ask(&rules, 0, vm(64)).ok().map(|verdict| verdict.lease.unwrap().passes);
        assert_eq!(left, served.then_some(64 - used - 1), "{used} used");
    }
}

#[test]
fn a_vm_hands_back_once_and_no_more_than_it_got_and_nobody_elses() {
    let (mut bench, rules) = (Bench::new(Mode::Lease), rules(6000));
    let lease = bench.whole(&rules, vm(8)).lease.unwrap();
    let (now, give) = (ms(1), |bench: &mut Bench, holder: &str, id, unused| {
        bench.core.returned(ms(1), holder, id, unused)
    });
    assert_eq!(give(&mut bench, "another", lease.id, 8), 0);
    assert_eq!(give(&mut bench, "vm", lease.id + 1, 8), 0);
    assert_eq!(give(&mut bench, "vm", lease.id, 100), 8);
    assert_eq!(give(&mut bench, "vm", lease.id, 8), 0, "a second time");
    assert_eq!(bench.used(&rules), 65);
    bench.at_ms = 200;
    bench.core.due(now + ms(200));
    assert_eq!(bench.returns(), [64], "all that went ahead is back");
    assert_eq!(bench.used(&rules), 1);
}

#[test]
fn what_a_vm_hands_back_after_our_lease_goes_to_the_store() {
    let (mut bench, rules) = (Bench::new(Mode::Lease), rules(6000));
    let lease = bench.whole(&rules, vm(8)).lease.unwrap();
    bench.at_ms = 300;
    bench.core.due(ms(300));
    assert_eq!(bench.returns(), [56]);
    assert_eq!(bench.core.returned(ms(300), "vm", lease.id, 5), 5);
    assert_eq!(bench.returns(), [5]);
    assert_eq!(bench.used(&rules), 4);
    bench.core.due(ms(5000));
    assert_eq!(bench.core.returned(ms(5000), "vm", lease.id, 5), 0);
}

#[test]
fn r1_what_a_vm_handed_back_is_used_by_nobody_once_our_lease_is_over() {
    let (mut bench, rules) = (Bench::new(Mode::Lease), rules(600));
    let lease = bench.whole(&rules, vm(12)).lease.unwrap();
    bench.at_ms = 10;
    let group = bench.ask(&rules, 1, None).unwrap_err().0;
    let (take, asking) = bench.send(group).unwrap();
    bench.ask(&rules, 2, None).unwrap_err();
    assert_eq!(bench.core.returned(ms(20), "vm", lease.id, 12), 12);
    let taken = bench.charge(&take);
    // The answer is late, and nothing has yet ended the lease that came before it.
    bench.at_ms = 250;
    assert!(bench.answer(asking, &take, &taken), "the second waits for another take");
    let told: Vec<u32> = bench.told.iter().map(|(whom, _)| *whom).collect();
    assert_eq!(told, [1]);
    bench.core.due(ms(250));
    assert_eq!(bench.returns(), [12, 12]);
}

#[test]
fn an_answer_that_never_came_is_not_asked_for_again() {
    let (mut bench, rules) = (Bench::new(Mode::Strict), rules(10));
    let group = bench.ask(&rules, 0, None).unwrap_err().0;
    let (take, asking) = bench.send(group).unwrap();
    bench.charge(&take);
    drop(asking);
    assert!(!bench.core.failed(group));
    assert!(bench.send(group).is_none());
    assert_eq!(bench.used(&rules), 1, "lost, not charged twice");
}

#[test]
fn a_full_ledger_charges_nothing() {
    let mut bench = Bench::new(Mode::Strict);
    bench.core.ledger = Ledger::new(0);
    let group = bench.ask(&rules(10), 0, None).unwrap_err().0;
    assert!(bench.core.ask(ms(0), group, (1, None), |_| true).is_err());
}

#[test]
fn groups_that_nobody_asks_for_are_forgotten() {
    let (mut bench, rules) = (Bench::new(Mode::Strict), rules(10));
    let group = bench.ask(&rules, 0, None).unwrap_err().0;
    bench.core.sweep(ms(10_000));
    assert!(bench.send(group).is_some(), "somebody waits");
    bench.core.failed(group);
    bench.core.sweep(ms(10_000));
    assert!(!bench.core.join(group, Waiter { whom: 1, vm: None }));
    assert_ne!(bench.ask(&rules, 0, None).unwrap_err().0, group);
}

#[test]
fn a_charge_is_noted_where_it_is_booked() {
    let (mut bench, rules) = (Bench::new(Mode::Lease), rules(600));
    bench.at_ms = 900;
    bench.whole(&rules, None);
    let now = Timestamp::from_ms(EPOCH_MS + 900);
    let declared = bench.core.ledger.declarations(&[Run(9)], Run(9), now);
    let charges: Vec<_> =
        declared[0].charges.iter().map(|(at, n)| (at.as_ms() - EPOCH_MS, *n)).collect();
    assert_eq!(charges, [(0, 1), (1000, 12)], "what goes ahead, where its time ends");
}

#[test]
fn takes_tell_the_run_that_is_known() {
    let (mut bench, rules) = (Bench::new(Mode::Strict), rules(10));
    let group = bench.ask(&rules, 0, None).unwrap_err().0;
    assert_eq!(bench.send(group).unwrap().0.run, None);
    bench.core.failed(group);
    bench.whole(&rules, None);
    bench.at_ms = 1;
    let group = bench.ask(&rules, 0, None).unwrap_err().0;
    let (take, _) = bench.core.ask(ms(1), group, (1, Some(Run(9))), |_| true).unwrap().unwrap();
    assert_eq!(take.run, Some(memory::RUN), "that in which the tenant was charged");
}
