//! That turns are fair: no tenant waits for ever, shares are as the weights say, slots and budgets bound what is offered.

use std::collections::VecDeque;

use gatehouse_contract::TenantId;

use super::*;

fn tenant(number: u128) -> TenantId {
    format!("00000000-0000-0000-0000-{number:012x}").parse().unwrap()
}

fn share(slots: u32) -> Share {
    Share { slots, weight: NonZeroU32::MIN, running: 0, queued: [0; LEVELS] }
}

fn class(number: u128, priority: u8, first: u32) -> Class {
    Class { tenant: tenant(number), priority, first, again: 0, waited: Duration::ZERO }
}

fn waiting(classes: &[Class], shares: &[(u128, Share)]) -> Waiting {
    let mut classes = classes.to_vec();
    classes.sort_by_key(|class| (class.priority, class.tenant));
    let shares = shares.iter().map(|(number, share)| (tenant(*number), *share)).collect();
    Waiting { classes, shares }
}

fn rooms(free: u32) -> [Room; LEVELS] {
    [Room { free, empty: true }; LEVELS]
}

/// `stream:tenant` in the order of the offers.
fn told(chosen: &Chosen) -> String {
    let one = |at: &usize| {
        let pick = chosen.picks[*at];
        format!("{}:{}", pick.stream, pick.tenant.as_uuid().as_u128())
    };
    chosen.order.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// A walk of pseudo-random numbers: the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u32) -> u32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from((self.0 >> 33) % u64::from(below.max(1))).unwrap()
    }
}

#[test]
fn tenants_take_turns_by_their_weights() {
    let mut turns = Turns::default();
    let heavy = Share { weight: NonZeroU32::new(2).unwrap(), ..share(100) };
    let all = waiting(
        &[class(1, 1, 50), class(2, 1, 50), class(3, 1, 1)],
        &[(1, share(100)), (2, heavy), (3, share(100))],
    );
    let mut choose = |free| told(&turns.choose(Duration::ZERO, &all, rooms(free)));
    assert_eq!(choose(6), "1:1 1:2 1:2 1:3 1:1 1:2");
    // The visit that the full stream cut short goes on.
    assert_eq!(choose(2), "1:2 1:3");
    assert_eq!(choose(0), "");
}

#[test]
fn nothing_is_offered_beyond_a_tenants_slots_and_its_own_p0_comes_first() {
    let check = |held: Share, expected: &str| {
        let all = waiting(&[class(1, 0, 9), class(1, 3, 9)], &[(1, held)]);
        let chosen = Turns::default().choose(Duration::ZERO, &all, rooms(16));
        assert_eq!(told(&chosen), expected, "{held:?}");
    };
    check(share(0), "");
    check(share(3), "0:1 0:1 0:1");
    check(Share { running: 3, ..share(3) }, "");
    check(Share { running: 9, ..share(3) }, "");
    check(Share { running: 2, ..share(3) }, "0:1");
    // Its own P3 that were offered before do not keep its P0 out; the claim decides which of them run (edge 29).
    check(Share { queued: [0, 0, 0, 3], ..share(3) }, "0:1 0:1 0:1");
    check(Share { queued: [3, 0, 0, 0], ..share(3) }, "");
    let unknown = waiting(&[class(1, 0, 9)], &[]);
    assert_eq!(told(&Turns::default().choose(Duration::ZERO, &unknown, rooms(16))), "");
}

#[test]
fn what_waited_long_has_its_part_of_a_more_urgent_stream_and_no_more() {
    let old = |number, priority: u8, waited| Class { waited, ..class(number, priority, 1000) };
    let both =
        waiting(&[class(1, 0, 1000), old(2, 3, AGE * 3)], &[(1, share(5000)), (2, share(5000))]);
    let p0 = |chosen: &Chosen, number| {
        let mut picks = chosen.picks.iter();
        let found = picks.find(|pick| pick.stream == 0 && pick.tenant == tenant(number));
        found.map_or(0, |pick| pick.first)
    };
    let chosen = Turns::default().choose(Duration::ZERO, &both, rooms(64));
    assert_eq!((p0(&chosen, 1), p0(&chosen, 2)), (56, 8), "one in eight");
    // A moment earlier it is not as urgent as that.
    let early = Duration::from_millis(1);
    let both = waiting(
        &[class(1, 0, 1000), old(2, 3, AGE * 3 - early)],
        &[(1, share(5000)), (2, share(5000))],
    );
    let chosen = Turns::default().choose(Duration::ZERO, &both, rooms(64));
    assert_eq!((p0(&chosen, 1), p0(&chosen, 2)), (64, 0));
    // With nothing urgent there one at a time goes ahead, and none into a stream that has something.
    let alone = waiting(&[old(2, 3, AGE * 9)], &[(2, share(5000))]);
    let chosen = Turns::default().choose(Duration::ZERO, &alone, rooms(64));
    assert_eq!((p0(&chosen, 2), chosen.order.len()), (1, 67));
    let mut busy = rooms(64);
    busy[0].empty = false;
    let chosen = Turns::default().choose(Duration::ZERO, &alone, busy);
    assert_eq!(p0(&chosen, 2), 0);
}

#[test]
fn retries_keep_to_their_budgets_and_first_tries_do_not_wait_for_them() {
    let failed = |number| Class { again: 1000, ..class(number, 1, 5) };
    let all: Vec<Class> = (1..=20).map(failed).collect();
    let shares: Vec<(u128, Share)> = (1..=20).map(|number| (number, share(5000))).collect();
    let all = waiting(&all, &shares);
    let mut turns = Turns::default();
    let mut again = |at, number| {
        let chosen = turns.choose(Duration::from_millis(at), &all, rooms(100_000));
        assert_eq!(chosen.picks.iter().map(|pick| pick.first).sum::<u32>(), 100);
        let of_one = chosen.picks.iter().find(|pick| pick.tenant == tenant(number));
        (chosen.picks.iter().map(|pick| pick.again).sum::<u32>(), of_one.map_or(0, |p| p.again))
    };
    let (all, one) = again(0, 1);
    assert_eq!(all, 200, "of all together");
    assert!(one <= 20, "{one}");
    assert_eq!(again(0, 1).0, 0, "used up");
    assert_eq!(again(1000, 1).0, 100, "a second's");
    assert_eq!(again(500, 1).0, 0, "a clock that goes back gives nothing");
    let alone = waiting(&[failed(1)], &[(1, share(5000))]);
    let chosen = Turns::default().choose(Duration::ZERO, &alone, rooms(100_000));
    assert_eq!(chosen.picks[0].again, 20, "of one tenant");
}

/// Runs a made-up queue: workers take the most urgent message, everything runs one tick. Returns how many of each tenant
/// and priority ran, and the longest wait of each priority in ticks.
struct Simulation {
    turns: Turns,
    /// By tenant and priority, the ticks at which each was submitted.
    waiting: BTreeMap<(u128, u8), VecDeque<u32>>,
    /// Whose, of which priority, submitted and offered when.
    streams: [VecDeque<(u128, u8, u32, u32)>; LEVELS],
    shares: BTreeMap<u128, Share>,
    ran: BTreeMap<(u128, u8), u32>,
    longest: [u32; LEVELS],
    reads: u32,
}

impl Simulation {
    fn new(shares: &[(u128, Share)]) -> Self {
        Self {
            turns: Turns::default(),
            waiting: BTreeMap::new(),
            streams: Default::default(),
            shares: shares.iter().copied().collect(),
            ran: BTreeMap::new(),
            longest: [0; LEVELS],
            reads: 0,
        }
    }

    fn submit(&mut self, number: u128, priority: u8, tick: u32, how_many: u32) {
        let line = self.waiting.entry((number, priority)).or_default();
        line.extend((0..how_many).map(|_| tick));
    }

    /// A tick is a second.
    fn tick(&mut self, tick: u32, workers: u32, depth: u32) {
        // As the sweep does.
        for stream in &mut self.streams {
            while stream.front().is_some_and(|front| tick - front.3 >= 60) {
                let (number, priority, since, _) = stream.pop_front().unwrap();
                self.waiting.get_mut(&(number, priority)).unwrap().push_front(since);
            }
        }
        let mut running: BTreeMap<u128, u32> = BTreeMap::new();
        let classes: Vec<Class> = self
            .waiting
            .iter()
            .filter(|(_, line)| !line.is_empty())
            .map(|(&(number, priority), line)| Class {
                waited: Duration::from_secs(u64::from(tick - line[0])),
                ..class(number, priority, u32::try_from(line.len().min(64)).unwrap())
            })
            .collect();
        let mut shares: Vec<(u128, Share)> = self.shares.iter().map(|(n, s)| (*n, *s)).collect();
        for (number, share) in &mut shares {
            for (priority, queued) in (0_u8..).zip(&mut share.queued) {
                let mine = |m: &&(u128, u8, u32, u32)| (m.0, m.1) == (*number, priority);
                let held = self.streams.iter().flatten().filter(mine).count();
                *queued = u32::try_from(held).unwrap();
            }
        }
        let rooms: Vec<Room> = self
            .streams
            .iter()
            .map(|stream| Room {
                free: depth.saturating_sub(u32::try_from(stream.len()).unwrap()),
                empty: stream.is_empty(),
            })
            .collect();
        let now = Duration::from_secs(u64::from(tick));
        let chosen = self.turns.choose(now, &waiting(&classes, &shares), rooms.try_into().unwrap());
        let offered: u32 = chosen.picks.iter().map(|pick| pick.first + pick.again).sum();
        assert_eq!(offered as usize, chosen.order.len());
        for at in &chosen.order {
            let pick = chosen.picks[*at];
            assert!(pick.stream <= pick.priority, "{pick:?}");
            let key = (pick.tenant.as_uuid().as_u128(), pick.priority);
            let since =
                self.waiting.get_mut(&key).unwrap().pop_front().expect("nothing is made up");
            self.streams[usize::from(pick.stream)].push_back((key.0, key.1, since, tick));
        }
        assert!(self.streams.iter().all(|stream| u32::try_from(stream.len()).unwrap() <= depth));
        for _ in 0..workers {
            // As the workers read: now and then a less urgent one comes first.
            self.reads += 1;
            let less = usize::try_from(self.reads / 8 % 3 + 1).unwrap();
            let less =
                if self.reads.is_multiple_of(8) { self.streams[less].pop_front() } else { None };
            let all = &mut self.streams;
            let next = less.or_else(|| all.iter_mut().find_map(|stream| stream.pop_front()));
            let Some((number, priority, since, _)) = next else { break };
            let held = running.entry(number).or_default();
            if *held >= self.shares[&number].slots {
                // The claim puts it back where it was.
                self.waiting.get_mut(&(number, priority)).unwrap().push_front(since);
                continue;
            }
            *held += 1;
            *self.ran.entry((number, priority)).or_default() += 1;
            let longest = &mut self.longest[usize::from(priority)];
            *longest = (*longest).max(tick - since);
        }
    }
}

#[test]
fn a_tenant_with_a_hundred_thousand_does_not_keep_anothers_p0_waiting_and_its_p3_go_on() {
    let mut made = Simulation::new(&[(1, share(1000)), (2, share(1000))]);
    made.submit(1, 3, 0, 100_000);
    for tick in 0..600 {
        if tick % 3 == 0 {
            made.submit(2, 0, tick, 1);
        }
        made.tick(tick, 10, 20);
    }
    assert_eq!(made.ran[&(2, 0)], 200, "all of them");
    assert!(made.longest[0] <= 1, "{:?}", made.longest);
    assert!(made.ran[&(1, 3)] > 5000, "{:?}", made.ran);
}

#[test]
fn p3_goes_on_under_a_flood_of_p0_and_its_wait_is_bounded() {
    let mut made = Simulation::new(&[(1, share(1000)), (2, share(1000))]);
    made.submit(2, 3, 0, 60);
    for tick in 0..400 {
        made.submit(1, 0, tick, 20);
        made.tick(tick, 10, 20);
    }
    assert_eq!(made.ran[&(2, 3)], 60, "all of them");
    assert!(made.longest[3] <= 240, "{} s", made.longest[3]);
}

#[test]
fn whoever_waits_long_enough_is_offered_whatever_else_comes() {
    for seed in 0..40 {
        let mut dice = Dice(seed);
        let tenants: Vec<(u128, Share)> = (1..=8)
            .map(|number| {
                let weight = NonZeroU32::new(1 + dice.roll(4)).unwrap();
                (number, Share { weight, ..share(1 + dice.roll(20)) })
            })
            .collect();
        let mut made = Simulation::new(&tenants);
        for tick in 0..300 {
            for _ in 0..dice.roll(6) {
                let (number, priority) = (1 + dice.roll(8), dice.roll(4));
                let how_many = 1 + dice.roll(8);
                made.submit(number.into(), u8::try_from(priority).unwrap(), tick, how_many);
            }
            made.tick(tick, 1 + dice.roll(16), 16);
        }
        // Nothing comes any more: everything is run.
        let left = |made: &Simulation| -> usize {
            let lines = made.waiting.values().map(|line| line.len()).sum::<usize>();
            lines + made.streams.iter().map(|stream| stream.len()).sum::<usize>()
        };
        for tick in 300..3000 {
            made.tick(tick, 8, 16);
        }
        assert_eq!(left(&made), 0, "seed {seed}");
    }
}

#[test]
fn shares_of_those_who_all_wait_are_as_their_weights() {
    for seed in 0..20 {
        let mut dice = Dice(seed);
        let tenants: Vec<(u128, Share)> = (1..=6)
            .map(|number| {
                let weight = NonZeroU32::new(1 + dice.roll(4)).unwrap();
                (number, Share { weight, ..share(10_000) })
            })
            .collect();
        let mut made = Simulation::new(&tenants);
        for (number, _) in &tenants {
            made.submit(*number, 1, 0, 20_000);
        }
        for tick in 0..20 {
            made.tick(tick, 1 + dice.roll(40), 16);
        }
        let all: u32 = made.ran.values().sum();
        let weights: u32 = tenants.iter().map(|(_, share)| share.weight.get()).sum();
        for (number, share) in &tenants {
            let fair = all * share.weight.get() / weights;
            let had = made.ran.get(&(*number, 1)).copied().unwrap_or(0);
            // Within two visits.
            let off = had.abs_diff(fair);
            assert!(off <= 2 * share.weight.get() + 1, "seed {seed}: {had} for {fair} of {all}");
        }
    }
}
