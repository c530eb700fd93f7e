//! What a filter is answered, over readings that a test makes up.

use std::cell::RefCell;

use gatehouse_contract::sidecar::Denied;

use super::*;

fn changed(n: u64) -> Change {
    Change::Credential { credential: n.to_string() }
}

fn read(epoch: &str, sequence: u64, news: News) -> Result<Reading, Error> {
    let heartbeat_age = Some(Duration::from_secs(1));
    Ok(Reading::Feed(Read { epoch: epoch.to_owned(), sequence, heartbeat_age, news }))
}

fn ask(epoch: &str, after: u64) -> Ask {
    Ask { epoch: Some(epoch.to_owned()), after }
}

/// `epoch:sequence alive`, then the changes' names or the snapshot's length.
fn shown(answer: &ChangesAnswer) -> String {
    let news = match &answer.snapshot {
        Some(list) => format!("snapshot of {}", list.len()),
        None => answer
            .changes
            .iter()
            .map(|change| match change {
                Change::Credential { credential } => credential.as_str(),
                _ => "?",
            })
            .collect::<Vec<_>>()
            .join(","),
    };
    let alive = if answer.alive { "alive" } else { "silent" };
    format!("{}:{} {alive} {news}", answer.epoch, answer.sequence)
}

#[test]
fn a_filter_hears_what_it_missed_or_the_whole_deny_list() {
    let (feed, told) = (Feed::default(), RefCell::new(Vec::new()));
    let tell = |heard: &Heard| told.borrow_mut().push(heard.clone());
    let check = |epoch, after, expected| {
        assert_eq!(shown(&feed.answer(&ask(epoch, after))), expected, "{epoch}:{after}");
    };
    check("", 0, ":0 silent snapshot of 0");
    let denied = Denied::Token { token: "t".into(), until_s: u64::MAX };
    feed.take(read("e", 7, News::Snapshot(vec![denied])), Instant::now(), tell);
    check("e", 7, "e:7 alive ");
    feed.take(read("e", 9, News::Changes(vec![changed(8), changed(9)])), Instant::now(), tell);
    feed.take(read("e", 9, News::Changes(vec![])), Instant::now(), tell);
    check("e", 7, "e:9 alive 8,9");
    check("e", 8, "e:9 alive 9");
    check("e", 9, "e:9 alive ");
    // Before what is kept, ahead of it, another epoch, no epoch.
    for (epoch, after) in [("e", 6), ("e", 10), ("d", 9), ("", 9)] {
        check(epoch, after, "e:9 alive snapshot of 1");
    }
    assert_eq!(
        *told.borrow(),
        [Heard::Everything, Heard::Changes(vec![changed(8), changed(9)])],
        "nothing is told when there is nothing"
    );
    assert!(feed.denies_token("t"));
    feed.take(read("f", 0, News::Snapshot(vec![])), Instant::now(), tell);
    check("e", 9, "f:0 alive snapshot of 0");
    assert!(!feed.denies_token("t"));
}

#[test]
fn a_long_way_is_walked_in_steps() {
    let feed = Feed::default();
    feed.take(read("e", 0, News::Snapshot(vec![])), Instant::now(), |_| {});
    for batch in 0..3 {
        let changes = (1..=1000).map(|n| changed(batch * 1000 + n)).collect();
        let more = feed.take(
            read("e", batch * 1000 + 1000, News::Changes(changes)),
            Instant::now(),
            |_| {},
        );
        assert!(more, "a full reading is followed by another");
    }
    let mut after = 0;
    for expected in [1000, 2000, 3000, 3000] {
        let answer = feed.answer(&ask("e", after));
        assert_eq!(answer.sequence, expected);
        after = answer.sequence;
    }
    for batch in 3..12 {
        let changes = (1..=1000).map(|n| changed(batch * 1000 + n)).collect();
        feed.take(read("e", batch * 1000 + 1000, News::Changes(changes)), Instant::now(), |_| {});
    }
    assert!(feed.answer(&ask("e", 2000)).snapshot.is_none());
    assert!(feed.answer(&ask("e", 1999)).snapshot.is_some());
}

#[test]
fn a_feed_without_a_young_heartbeat_is_silent() {
    let (feed, now) = (Feed::default(), Instant::now());
    let beat = |age: Option<u64>| {
        Ok(Reading::Feed(Read {
            epoch: "e".into(),
            sequence: 0,
            heartbeat_age: age.map(Duration::from_millis),
            news: News::Snapshot(vec![]),
        }))
    };
    for (age_ms, expected) in
        [(None, false), (Some(0), true), (Some(4_000), true), (Some(5_001), false)]
    {
        feed.take(beat(age_ms), now, |_| {});
        assert_eq!(feed.live_epoch().is_some(), expected, "{age_ms:?}");
        assert_eq!(feed.answer(&ask("e", 0)).alive, expected, "{age_ms:?}");
    }
    for silent in [Reading::None, Reading::WentBack] {
        feed.take(beat(Some(0)), now, |_| {});
        assert!(feed.live_epoch().is_some());
        feed.take(Ok(silent), now, |_| {});
        assert!(feed.live_epoch().is_none());
    }
    // A reading that failed leaves the heartbeat to its age.
    feed.take(beat(Some(0)), now, |_| {});
    feed.take(Err(Error::Resting), now, |_| {});
    assert!(feed.live_epoch().is_some());
}
