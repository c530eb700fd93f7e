//! Bounds, lifetimes and eviction, each limit beside its nearest pass. Knows no tokens, only their bytes.

use std::rc::Rc;

use super::*;

const S: fn(u64) -> Duration = Duration::from_secs;

fn cache(entries: usize, bytes: usize) -> Cache<u32> {
    Cache::new(Bounds { entries: NonZeroUsize::new(entries).unwrap(), bytes })
}

fn put(cache: &mut Cache<u32>, token: &str, value: u32, expires_at: u64) {
    let fresh = Fresh { make: || value, value_bytes: 4, expires_at: S(expires_at) };
    cache.insert(token.as_bytes(), 1, S(100), fresh);
}

fn check(cache: &mut Cache<u32>, token: &str, generation: u64, now: u64, expected: Option<u32>) {
    let got = cache.get(token.as_bytes(), generation, S(now)).copied();
    assert_eq!(got, expected, "{token} generation {generation} at {now}");
}

#[test]
fn j31_remembers_the_full_token_until_it_expires() {
    let mut cache = cache(10, 10_000);
    put(&mut cache, "a.b.c", 7, 200);
    check(&mut cache, "a.b.c", 1, 100, Some(7));
    check(&mut cache, "a.b.c", 1, 199, Some(7));
    check(&mut cache, "a.b.c", 1, 200, None);
    check(&mut cache, "a.b.d", 1, 100, None);
    check(&mut cache, "a.b.", 1, 100, None);
}

#[test]
fn j31_other_keys_forget_the_verdict() {
    let mut cache = cache(10, 10_000);
    put(&mut cache, "t", 7, 200);
    check(&mut cache, "t", 2, 100, None);
    check(&mut cache, "t", 1, 100, Some(7));
}

#[test]
fn j40_a_clock_that_was_set_back_finds_nothing() {
    let mut cache = cache(10, 10_000);
    put(&mut cache, "t", 7, 200);
    check(&mut cache, "t", 1, 99, None);
    check(&mut cache, "t", 1, 100, Some(7));
}

#[test]
fn an_expired_or_oversized_verdict_is_not_stored() {
    let mut cache = cache(10, 500);
    put(&mut cache, "t", 7, 100);
    put(&mut cache, &"x".repeat(500), 7, 200);
    assert!(cache.is_empty());
    put(&mut cache, "t", 7, 101);
    assert_eq!(cache.len(), 1);
}

#[test]
fn j31_what_fills_the_bytes_exactly_is_kept_and_one_byte_more_is_not() {
    let one = "t".len() + 4 + OVERHEAD_BYTES;
    for (bytes, kept) in [(one - 1, 0), (one, 1), (2 * one - 1, 1), (2 * one, 2)] {
        let mut cache = cache(10, bytes);
        put(&mut cache, "t", 7, 200);
        put(&mut cache, "u", 8, 200);
        assert_eq!((cache.len(), cache.bytes()), (kept, kept * one), "{bytes} bytes");
        assert_eq!(cache.is_empty(), kept == 0);
    }
}

#[test]
fn j31_holds_its_bounds_and_drops_what_was_not_used() {
    let mut cache = cache(3, 10_000);
    for (token, value) in [("a", 1), ("b", 2), ("c", 3)] {
        put(&mut cache, token, value, 200);
    }
    check(&mut cache, "a", 1, 100, Some(1));
    put(&mut cache, "d", 4, 200);
    assert_eq!(cache.len(), 3);
    check(&mut cache, "b", 1, 100, None);
    for (token, value) in [("a", 1), ("c", 3), ("d", 4)] {
        check(&mut cache, token, 1, 100, Some(value));
    }
    put(&mut cache, "e", 5, 200);
    assert_eq!(cache.len(), 3);
    check(&mut cache, "e", 1, 100, Some(5));
}

#[test]
fn an_expired_entry_gets_no_second_chance() {
    let mut cache = cache(2, 10_000);
    put(&mut cache, "old", 1, 110);
    put(&mut cache, "young", 2, 200);
    check(&mut cache, "old", 1, 109, Some(1));
    let fresh = Fresh { make: || 3, value_bytes: 4, expires_at: S(200) };
    cache.insert(b"new", 1, S(110), fresh);
    check(&mut cache, "young", 1, 110, Some(2));
    check(&mut cache, "new", 1, 110, Some(3));
}

#[test]
fn j31_holds_its_bytes_with_tokens_of_any_size() {
    let mut cache = cache(1000, 4096);
    for round in 0..500_usize {
        put(&mut cache, &format!("{round}.{}", "x".repeat(round * 7 % 900)), 1, 200);
        assert!(cache.bytes() <= 4096, "{} bytes in round {round}", cache.bytes());
        let taken = cache.slots.iter().flatten().count();
        assert_eq!((taken, cache.slots.len() - taken), (cache.len(), cache.free.len()));
    }
    assert!(cache.len() > 1);
    put(&mut cache, "again", 1, 200);
    let (len, bytes) = (cache.len(), cache.bytes());
    put(&mut cache, "again", 2, 300);
    assert_eq!((cache.len(), cache.bytes()), (len, bytes));
    check(&mut cache, "again", 1, 250, Some(2));
    cache.clear();
    assert_eq!((cache.len(), cache.bytes()), (0, 0));
}

#[test]
fn x11_its_memory_is_settled_before_it_is_full() {
    let mut cache = cache(1024, usize::MAX);
    let fill = |cache: &mut Cache<u32>, filling: u32| {
        for token in 0..1024 {
            put(cache, &format!("token {filling} {token}"), 7, 200);
        }
        (cache.len(), cache.places.allocation_size())
    };
    let first = fill(&mut cache, 0);
    assert_eq!(first.0, 1024);
    for filling in 1..40 {
        assert_eq!(fill(&mut cache, filling), first, "filling {filling}");
    }
}

#[test]
fn x11_room_for_all_is_made_when_an_eighth_is_taken_and_no_earlier() {
    let mut cache = cache(1024, usize::MAX);
    let mut room = |taken: usize| {
        (cache.len()..taken).for_each(|token| put(&mut cache, &format!("{token}"), 7, 200));
        cache.places.allocation_size()
    };
    let (few, more, all) = (room(1024 / 8), room(1024 / 8 + 1), room(1024));
    assert!(few < all / 4, "{few} of {all}");
    assert_eq!(more, all);
}

#[test]
fn x11_what_must_go_is_gone_before_the_next_value_is_made() {
    let alive = Rc::new(());
    let mut cache = Cache::new(Bounds { entries: NonZeroUsize::new(8).unwrap(), bytes: 10_000 });
    for token in 0..30_u32 {
        let make = || {
            assert!(Rc::strong_count(&alive) <= 8, "beside {token}");
            Rc::clone(&alive)
        };
        let fresh = Fresh { make, value_bytes: 4, expires_at: S(200) };
        assert!(cache.insert(&token.to_le_bytes(), 1, S(100), fresh).is_some());
    }
    assert_eq!((cache.len(), Rc::strong_count(&alive)), (8, 9));
}

#[test]
fn j31_tokens_with_one_end_are_told_apart() {
    let mut cache = cache(64, 100_000);
    let end = "the same sixteen and more";
    for value in 0..64 {
        put(&mut cache, &format!("{value:03}.{end}"), value, 200);
    }
    for value in 0..64 {
        check(&mut cache, &format!("{value:03}.{end}"), 1, 100, Some(value));
        check(&mut cache, &format!("{:03}.{end}", value + 64), 1, 100, None);
    }
    // Eviction takes the right one out of many with one hash.
    put(&mut cache, &format!("064.{end}"), 64, 200);
    assert_eq!(cache.len(), 64);
    check(&mut cache, &format!("000.{end}"), 1, 100, None);
    check(&mut cache, &format!("064.{end}"), 1, 100, Some(64));
}

#[test]
fn j31_a_place_depends_on_every_byte_of_the_end_and_on_the_length() {
    // What SplitMix64 says first when it begins with 0.
    assert_eq!(mix(0x9e37_79b9_7f4a_7c15), 0xe220_a839_7b1d_cdaf);
    let apart = |tokens: Vec<Vec<u8>>| {
        let mut places: Vec<u64> = tokens.iter().map(|token| hash(token)).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), tokens.len());
    };
    let end = b"0123456789abcdef";
    apart((0..256).map(|len| [vec![b'x'; len].as_slice(), end].concat()).collect());
    apart((0..=end.len()).map(|from| end[from..].to_vec()).collect());
    let changed = |at: usize| {
        let mut other = end.to_vec();
        other[at] ^= 1;
        other
    };
    apart((0..end.len()).map(changed).chain([end.to_vec()]).collect());
}

#[test]
fn x11_a_token_takes_over_memory_that_is_not_much_larger() {
    let mut cache = cache(1, 10_000);
    let mut before = std::ptr::null();
    // The length of each token, the memory that it lies in, and whether that is the one's before.
    for (round, (len, memory, taken_over)) in
        [(60, 60, false), (60, 60, true), (60 - SPARE_BYTES, 60, true), (11, 11, false)]
            .into_iter()
            .chain([(12, 12, false), (12, 12, true)])
            .enumerate()
    {
        let token = format!("{round}{}", "x".repeat(len - 1));
        put(&mut cache, &token, 7, 200);
        let entry = cache.slots[0].as_ref().unwrap();
        assert_eq!(entry.token, token.as_bytes());
        assert_eq!(entry.token.capacity(), memory, "round {round}");
        assert_eq!(entry.token.as_ptr() == before, taken_over, "round {round}");
        before = entry.token.as_ptr();
    }
}
