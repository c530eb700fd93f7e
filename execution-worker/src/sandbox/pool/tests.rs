//! The pool step by step, and its rules under anything that may happen. Knows no sandboxes.

use super::*;

const BOUNDS: Bounds =
    Bounds { max: 4, per_key: 2, memory_bytes: 4 * EXPECTED_BYTES, idle: Duration::from_secs(60) };
const NOW: Duration = Duration::from_secs(1000);

fn fine(_: &mut u32) -> Option<()> {
    None
}

/// Does what is to be done at `now`; what is made for a key is its hundred and a number.
fn settle(pool: &mut Pool<u32, u32>, now: Duration) -> Vec<Step<u32, u32>> {
    let mut steps = Vec::new();
    loop {
        let step = pool.next(now, true);
        match step {
            Step::Make(key) => {
                let made = steps.len().try_into().unwrap_or(0);
                pool.made(key * 100 + made, 10, now);
            }
            Step::Remove(_) => {}
            Step::Rest(_) | Step::End => {
                steps.push(step);
                return steps;
            }
        }
        steps.push(step);
    }
}

#[test]
fn what_was_used_is_made_once_more_and_no_further() {
    let mut pool = Pool::new(BOUNDS);
    assert_eq!(pool.take(&1, NOW, fine), Err(None));
    for _ in 0..5 {
        pool.want(1, NOW);
    }
    let rest = Step::Rest(Some(NOW + BOUNDS.idle));
    assert_eq!(settle(&mut pool, NOW), [Step::Make(1), Step::Make(1), rest]);
    assert_eq!(pool.take(&2, NOW, fine), Err(None));
    assert_eq!(pool.take(&1, NOW, fine), Ok(100));
    assert_eq!(pool.take(&1, NOW, fine), Ok(101));
    assert_eq!(pool.take(&1, NOW, fine), Err(None));
}

#[test]
fn the_least_recently_used_gives_way_and_the_idle_go() {
    let mut pool = Pool::new(BOUNDS);
    for key in 1..=4 {
        pool.want(key, NOW + Duration::from_secs(key.into()));
        settle(&mut pool, NOW + Duration::from_secs(key.into()));
    }
    // The oldest is used once more, and is the youngest then.
    pool.want(1, NOW + Duration::from_secs(5));
    let later = NOW + Duration::from_secs(6);
    let steps = settle(&mut pool, later);
    assert_eq!(steps.first(), Some(&Step::Remove(200)), "{steps:?}");
    assert_eq!(pool.len(), 4);
    pool.want(9, later);
    assert_eq!(settle(&mut pool, later).first(), Some(&Step::Remove(300)));
    // A second before and at the moment.
    let gone = later + BOUNDS.idle;
    assert!(!settle(&mut pool, NOW + Duration::from_secs(63)).contains(&Step::Remove(400)));
    assert!(settle(&mut pool, NOW + Duration::from_secs(64)).contains(&Step::Remove(400)));
    settle(&mut pool, gone);
    assert!(pool.is_empty());
}

#[test]
fn nothing_is_made_beyond_the_memory_without_room_or_after_the_end() {
    let mut pool = Pool::new(Bounds { memory_bytes: EXPECTED_BYTES + 10, ..BOUNDS });
    for key in 1..=3 {
        pool.want(key, NOW);
    }
    settle(&mut pool, NOW);
    assert_eq!(pool.len(), 2, "two times ten bytes, and room for an unknown one beside the first");
    let mut small = Pool::<u32, u32>::new(Bounds { memory_bytes: EXPECTED_BYTES - 1, ..BOUNDS });
    small.want(1, NOW);
    assert_eq!(small.next(NOW, true), Step::Rest(None));
    let mut short = Pool::<u32, u32>::new(BOUNDS);
    short.want(1, NOW);
    assert_eq!(short.next(NOW, false), Step::Rest(None));
    assert_eq!(short.next(NOW, true), Step::Rest(None), "it was made up for when there was room");
    pool.close();
    pool.want(1, NOW);
    let steps = settle(&mut pool, NOW);
    assert_eq!((steps.len(), steps.last()), (3, Some(&Step::End)));
}

#[test]
fn one_that_has_a_fault_is_not_given_away_but_removed() {
    let mut pool = Pool::new(BOUNDS);
    pool.want(1, NOW);
    pool.want(1, NOW);
    settle(&mut pool, NOW);
    let dead = |value: &mut u32| (*value == 100).then_some("dead");
    assert_eq!(pool.take(&1, NOW, dead), Ok(101));
    assert_eq!(pool.next(NOW, true), Step::Remove(100));
    pool.want(1, NOW);
    settle(&mut pool, NOW);
    assert_eq!(pool.take(&1, NOW, dead), Err(Some("dead")));
    // One that is made while nobody asks for it any more, and one that failed.
    pool.want(2, NOW);
    while !matches!(pool.next(NOW, true), Step::Make(2)) {}
    pool.failed();
    pool.made(7, 10, NOW);
    assert_eq!(pool.next(NOW, true), Step::Remove(7));
}

/// Numbers without an order, the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u32) -> u32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(self.0 >> 33).unwrap() % sides
    }
}

/// Edge cases 39 and 40 as a property: whatever happens in whatever order, no key is given what was made for another,
/// nothing is given twice or after its removal, and no more is there than may be, even while many keys rush.
#[test]
fn ee40_what_was_made_for_one_key_is_given_to_it_once_or_to_nobody() {
    for seed in 0..200 {
        let mut dice = Dice(seed);
        let bounds = Bounds {
            max: dice.roll(6) as usize,
            per_key: 1 + dice.roll(3) as usize,
            memory_bytes: u64::from(dice.roll(12)) * 16 * (1 << 20),
            idle: Duration::from_secs(1 + u64::from(dice.roll(30))),
        };
        let mut pool = Pool::<u32, (u32, u32)>::new(bounds);
        let (mut now, mut made, mut gone) = (NOW, Vec::new(), Vec::new());
        let mut sizes = std::collections::BTreeMap::new();
        let mut closed = false;
        for _ in 0..2000 {
            let key = dice.roll(12);
            match dice.roll(8) {
                0..3 => pool.want(key, now),
                3..5 => {
                    let ill = dice.roll(4) == 0;
                    if let Ok(value) = pool.take(&key, now, |_| ill.then_some(())) {
                        assert_eq!(value.0, key, "another key's was given");
                        gone.push(value);
                    }
                }
                5 => now += Duration::from_millis(dice.roll(3000).into()),
                6 if dice.roll(500) == 0 => {
                    pool.close();
                    closed = true;
                }
                _ => match pool.next(now, dice.roll(10) > 0) {
                    Step::Make(key) => {
                        assert!(!closed, "made after the end");
                        if dice.roll(5) == 0 {
                            pool.failed();
                        } else {
                            let value = (key, made.len() as u32);
                            let bytes = u64::from(1 + dice.roll(20)) << 20;
                            sizes.insert(value, bytes);
                            pool.made(value, bytes, now);
                            made.push(value);
                        }
                    }
                    Step::Remove(value) => gone.push(value),
                    Step::Rest(_) => {}
                    Step::End => assert!(closed),
                },
            }
            let there: Vec<_> = made.iter().filter(|value| !gone.contains(value)).collect();
            assert!(there.len() <= bounds.max, "seed {seed}: {there:?}");
            assert!(there.iter().map(|value| sizes[*value]).sum::<u64>() <= bounds.memory_bytes);
            for key in 0..12 {
                assert!(there.iter().filter(|value| value.0 == key).count() <= bounds.per_key);
            }
        }
        pool.close();
        while let Step::Remove(value) = pool.next(now, true) {
            gone.push(value);
        }
        gone.sort_unstable();
        assert!(gone.windows(2).all(|pair| pair[0] != pair[1]), "given twice");
        made.sort_unstable();
        assert_eq!(gone, made, "what was made is given or removed");
    }
}
