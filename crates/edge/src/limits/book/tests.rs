//! Passes over time: every test names times in milliseconds since the first question.

use gatehouse_contract::sidecar::{CheckAnswer, LimitState};

use super::*;

const TENANT: &str = "0191d6b0-7c3e-7aaa-8bbb-0123456789ab";
const PATIENCE: Duration = Duration::from_millis(50);

fn asker(route: usize) -> Asker<'static> {
    Asker {
        tenant: TENANT.parse().unwrap(),
        tier: Tier::Pro,
        limits: None,
        subject: None,
        route,
        cost: 1,
    }
}

fn at(ms: u64) -> Duration {
    Duration::from_millis(1000 + ms)
}

fn granted(remaining: u32) -> Granted {
    let limit = LimitState {
        name: "tenant".to_owned(),
        limit: 600,
        window_s: 60,
        remaining,
        reset_s: if remaining == 0 { 9 } else { 0 },
    };
    let answer = CheckAnswer {
        allowed: true,
        retry_after_s: None,
        degraded: false,
        day_used_percent: None,
        limits: vec![limit],
    };
    let shown = Rc::new(Shown::of(&answer).unwrap());
    Granted { shown, remaining, reset_s: answer.limits[0].reset_s, degraded: false }
}

fn lease(id: u64, passes: u32) -> Option<(Lease, Granted)> {
    Some((Lease { id, passes, ttl_ms: 100 }, granted(500)))
}

/// Asks at a time and gets passes.
fn ask(book: &mut Book, route: usize, ms: u64, grant: Option<(Lease, Granted)>) -> u32 {
    let want = book.want(&asker(route), at(ms), PATIENCE);
    book.answered(&asker(route), at(ms), grant);
    want
}

/// Uses every pass of a lease.
fn use_up(book: &mut Book, ms: u64) {
    let used = (0..=MAX_WANT).take_while(|_| book.pass(&asker(1), at(ms)).is_some()).count();
    assert!(used <= MAX_WANT as usize, "more passes than any lease has");
}

fn returns(book: &mut Book) -> Vec<(u64, u32)> {
    let mut all: Vec<_> =
        book.take_returns().into_iter().map(|back| (back.lease, back.unused)).collect();
    all.sort_unstable();
    all
}

#[test]
fn a_pass_is_used_until_its_deadline_counted_from_the_sending() {
    let mut book = Book::default();
    ask(&mut book, 1, 0, lease(7, 3));
    let left = |book: &mut Book, ms| book.pass(&asker(1), at(ms)).map(|pass| pass.remaining);
    assert_eq!(left(&mut book, 10), Some(502));
    // Who asks for something else has no part in it.
    assert!(book.pass(&asker(2), at(10)).is_none());
    assert!(book.pass(&Asker { cost: 2, ..asker(1) }, at(10)).is_none());
    assert!(book.pass(&Asker { tier: Tier::Enterprise, ..asker(1) }, at(10)).is_none());
    assert!(book.pass(&Asker { subject: Some("s"), ..asker(1) }, at(10)).is_none());
    let own = Overrides { per_window: Some(1), ..Overrides::default() };
    assert!(book.pass(&Asker { limits: Some(&own), ..asker(1) }, at(10)).is_none());
    assert_eq!(left(&mut book, 99), Some(501));
    assert_eq!(left(&mut book, 100), None, "the nearest one that is too late");
    assert_eq!(returns(&mut book), [(7, 1)]);
    assert_eq!(returns(&mut book), [], "handed back once");
}

/// A hash tells two askers apart nearly always; this is what does always.
#[test]
fn askers_are_the_same_only_in_everything() {
    let own = Overrides { per_window: Some(1), ..Overrides::default() };
    let tenant = "0191d6b0-7c3e-7aaa-8bbb-0123456789ac".parse().unwrap();
    let askers = [
        asker(1),
        asker(2),
        Asker { tenant, ..asker(1) },
        Asker { cost: 2, ..asker(1) },
        Asker { tier: Tier::Enterprise, ..asker(1) },
        Asker { subject: Some("s"), ..asker(1) },
        Asker { subject: Some("t"), ..asker(1) },
        Asker { limits: Some(&own), ..asker(1) },
    ];
    for (at, one) in askers.iter().enumerate() {
        for (of, other) in askers.iter().enumerate() {
            assert_eq!(one.equivalent(&other.key()), at == of, "{at} {of}");
        }
    }
}

#[test]
fn a_clock_that_runs_back_ends_a_lease() {
    let mut book = Book::default();
    ask(&mut book, 1, 500, lease(7, 3));
    assert!(book.pass(&asker(1), at(499)).is_none());
    assert_eq!(returns(&mut book), [(7, 3)]);
}

#[test]
fn an_answer_that_comes_too_late_is_worth_nothing_and_handed_back() {
    let mut book = Book::default();
    let asked_at = at(0);
    book.want(&asker(1), asked_at, PATIENCE);
    book.answered(&asker(1), asked_at, lease(7, 3));
    assert!(book.pass(&asker(1), at(150)).is_none());
    assert_eq!(returns(&mut book), [(7, 3)]);
}

#[test]
fn r9_what_is_left_falls_to_what_was_left_beyond_the_lease_and_agrees_with_the_reset() {
    let mut book = Book::default();
    let nothing_left = Some((Lease { id: 7, passes: 2, ttl_ms: 100 }, granted(0)));
    ask(&mut book, 1, 0, nothing_left);
    let mut seen = || book.pass(&asker(1), at(1)).map(|pass| (pass.remaining, pass.reset_s));
    assert_eq!((seen(), seen(), seen()), (Some((1, 0)), Some((0, 9)), None));
}

#[test]
fn what_is_wanted_doubles_while_it_is_used_up_soon_and_halves_when_it_expires() {
    let mut book = Book::default();
    assert_eq!(ask(&mut book, 1, 0, None), 0, "nobody knows yet whether more will come");
    assert_eq!(ask(&mut book, 1, 200, None), 0, "seldom");
    assert_eq!(ask(&mut book, 1, 250, lease(1, 1)), 1, "often");
    for (ms, want) in [
        (260, 2),
        (262, 4),
        (264, 8),
        (266, 16),
        (268, 32),
        (270, 64),
        (272, 128),
        (274, 256),
        (276, 512),
        (290, 512),
    ] {
        use_up(&mut book, ms);
        assert_eq!(ask(&mut book, 1, ms, lease(ms, want)), want, "at {ms}");
    }
    // Used up, but not soon: no reason to want more, nor less.
    use_up(&mut book, 345);
    assert_eq!(ask(&mut book, 1, 350, lease(2, 512)), 512);
    // Nor where half of it was used in its time.
    (0..256).for_each(|_| assert!(book.pass(&asker(1), at(440)).is_some()));
    assert!(book.pass(&asker(1), at(450)).is_none());
    assert_eq!(ask(&mut book, 1, 455, lease(3, 512)), 512);
    for (ms, want) in [(560, 256), (670, 128), (780, 64)] {
        assert!(book.pass(&asker(1), at(ms)).is_none());
        assert_eq!(ask(&mut book, 1, ms, lease(ms, want)), want, "at {ms}");
    }
}

#[test]
fn one_request_asks_while_few_are_left_and_the_others_go_on() {
    let mut book = Book::default();
    ask(&mut book, 1, 0, None);
    assert!(!book.runs_low(&asker(1), at(1)), "there is nothing to run out of");
    for (ms, want) in [(10, 1), (11, 2), (12, 4), (13, 8)] {
        assert_eq!(ask(&mut book, 1, ms, lease(ms, want)), want);
        if want < 8 {
            use_up(&mut book, ms);
        }
    }
    for left in (0..8).rev() {
        assert_eq!(book.runs_low(&asker(1), at(14)), left < 8 / LOW, "{left} after this");
        if left == 1 {
            assert!(!book.runs_low(&asker(1), at(113)), "it is over");
            break;
        }
        assert!(book.pass(&asker(1), at(14)).is_some());
    }
    assert_eq!(book.want(&asker(1), at(14), PATIENCE), 8);
    assert!(!book.runs_low(&asker(1), at(15)), "one asks");
    assert!(book.pass(&asker(1), at(15)).is_some());
    // It brings none: the others use what is left, and only later is asked again.
    book.answered(&asker(1), at(14), None);
    assert!(!book.runs_low(&asker(1), at(18)));
    assert!(book.runs_low(&asker(1), at(19)));
    assert_eq!(book.want(&asker(1), at(19), PATIENCE), 8);
    book.answered(&asker(1), at(19), lease(9, 8));
    let left = (0..20).take_while(|_| book.pass(&asker(1), at(20)).is_some()).count();
    assert_eq!(left, 9, "what is left of the old one, then the new one");
}

#[test]
fn r9_passes_say_no_more_than_the_sidecar_does_meanwhile() {
    let mut book = Book::default();
    ask(&mut book, 1, 0, lease(7, 3));
    let mut told = |heard: u32| {
        book.heard(&asker(1), heard);
        book.heard(&asker(2), 1);
        book.pass(&asker(1), at(1)).map(|pass| pass.remaining)
    };
    assert_eq!((told(600), told(400), told(401)), (Some(502), Some(401), Some(400)));
}

#[test]
fn one_question_at_a_time_wants_passes() {
    let mut book = Book::default();
    ask(&mut book, 1, 0, None);
    let mut want = |ms| book.want(&asker(1), at(ms), PATIENCE);
    assert_eq!((want(10), want(11), want(59)), (1, 0, 0));
    assert_eq!(want(60), 1, "nobody answered");
    book.answered(&asker(1), at(60), lease(3, 1));
    assert!(book.pass(&asker(1), at(61)).is_some());
    assert_eq!(book.want(&asker(1), at(62), PATIENCE), 2);
}

#[test]
fn a_tenant_whose_facts_changed_has_no_passes() {
    let mut book = Book::default();
    let other =
        Asker { tenant: "0191d6b0-7c3e-7aaa-8bbb-0123456789ac".parse().unwrap(), ..asker(1) };
    ask(&mut book, 1, 0, lease(1, 2));
    book.want(&other, at(0), PATIENCE);
    book.answered(&other, at(0), lease(2, 2));
    book.drop_tenant(asker(1).tenant);
    assert!(book.pass(&asker(1), at(1)).is_none());
    assert_eq!(returns(&mut book), [(1, 2)]);
    assert!(book.pass(&other, at(1)).is_some());
    book.drop_all();
    assert!(book.pass(&other, at(1)).is_none());
    assert_eq!(returns(&mut book), [(2, 1)]);
}

#[test]
fn the_book_is_bounded_and_what_it_drops_is_handed_back() {
    let mut book = Book::default();
    let many = 3 * KEYS_PER_HALF;
    for route in 0..many {
        ask(&mut book, route, 0, lease(route as u64, 1));
        assert!(book.young.len() + book.old.len() <= 2 * KEYS_PER_HALF);
    }
    let mut back = 0;
    loop {
        let some = book.take_returns();
        assert!(some.len() <= RETURNS_AT_ONCE);
        if some.is_empty() {
            break;
        }
        back += some.len();
    }
    assert_eq!(back, KEYS_PER_HALF);
    // A key holds few leases.
    let mut book = Book::default();
    for id in 0..5 {
        ask(&mut book, many, id, lease(90 + id, 1));
    }
    assert_eq!(returns(&mut book), [(92, 1), (93, 1), (94, 1)]);
    assert_eq!(book.sweep(at(200)), 2);
    assert_eq!(book.sweep(at(20_000)), 0);
    assert!(book.young.is_empty() && book.old.is_empty(), "idle keys are forgotten");
}

#[test]
fn no_pass_is_used_twice_or_late_whatever_comes() {
    let mut random = 3_u64;
    let mut book = Book::default();
    let (mut ms, mut next, mut granted, mut used, mut back) = (0, 0, 0_u64, 0_u64, 0_u64);
    for _ in 0..50_000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ms += (random >> 60) * ((random >> 50) & 3);
        let route = usize::try_from((random >> 40) & 3).unwrap();
        let low = book.runs_low(&asker(route), at(ms));
        if !low && book.pass(&asker(route), at(ms)).is_some() {
            used += 1;
        } else {
            let want = book.want(&asker(route), at(ms), PATIENCE);
            assert!(want <= MAX_WANT);
            let passes = want.min(u32::try_from((random >> 30) & 15).unwrap());
            next += 1;
            granted += u64::from(passes);
            book.answered(&asker(route), at(ms), lease(next, passes));
        }
        if random & (1 << 20) == 0 {
            back += book.take_returns().iter().map(|back| u64::from(back.unused)).sum::<u64>();
        }
    }
    book.drop_all();
    loop {
        let some = book.take_returns();
        back += some.iter().map(|back| u64::from(back.unused)).sum::<u64>();
        if some.is_empty() {
            break;
        }
    }
    assert!(used > 1000, "{used}");
    assert_eq!(used + back, granted, "every pass is used or handed back");
}
