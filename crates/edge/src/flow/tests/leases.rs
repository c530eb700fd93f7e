//! Passes that a VM takes along, what it tells of them, and what it does while the sidecar is away.

use super::*;

const MS: Duration = Duration::from_millis(1);

fn send(world: &mut World) -> End {
    world.send("POST", AGENTS, &[("authorization", &good())])
}

/// Between two ticks, so that what is told waits.
fn send_quickly(world: &mut World) -> End {
    let bearer = good();
    world.send_between_ticks(&[
        (":method", "POST"),
        (":path", AGENTS),
        (":authority", "gateway"),
        ("authorization", &bearer),
    ])
}

/// The document's limiter is this one; the credential and the principal are remembered.
fn world(limiter: Value) -> World {
    let mut world = World::with(|document| document["limiter"] = limiter);
    assert_eq!(send(&mut world).verdict(), "passed");
    world.calls.clear();
    world
}

fn grant(id: u64, passes: u32) -> Value {
    json!({"lease": {"id": id, "passes": passes, "ttl_ms": 100}, "share": 2})
}

/// What the last question to the limiter said.
fn asked(world: &World) -> Value {
    let call = world.calls.last().expect("nothing was asked");
    serde_json::from_str(call.strip_prefix("/v1/lease ").unwrap()).unwrap()
}

fn rate(suite: &Suite, end: &End) -> (String, String, String) {
    let edits = suite.on_response(end.record(), &[(":status", "200")]);
    let value = |name: &str| {
        let find = edits.iter().find_map(|edit| match edit {
            Edit::Set(ours, value) if ours == name => Some(value.to_string()),
            _ => None,
        });
        find.unwrap_or_default()
    };
    (value("x-ratelimit-remaining"), value("ratelimit"), value("x-ratelimit-degraded"))
}

#[test]
fn a_busy_callers_requests_ask_nobody_until_the_passes_or_their_time_are_used_up() {
    let mut world = world(json!({}));
    world.lease = grant(7, 2);
    assert_eq!(send(&mut world).verdict(), "passed");
    assert_eq!(
        (asked(&world)["want"].clone(), asked(&world)["returns"].clone()),
        (json!(1), Value::Null)
    );
    for left in ["598", "597"] {
        let end = send(&mut world);
        assert_eq!(world.calls, [""; 0], "on a pass");
        let (remaining, state, degraded) = rate(&world.suite, &end);
        assert_eq!((remaining.as_str(), degraded.as_str()), (left, ""));
        assert_eq!(state, format!("\"tenant\";r={left};t=0"));
    }
    world.lease = grant(8, 1);
    send(&mut world);
    assert_eq!(asked(&world)["want"], 2, "used up soon");
    world.pass(100 * MS);
    send(&mut world);
    assert_eq!(world.asked(), ["/v1/lease"], "the deadline runs from the sending");
    // Another cost, another route, another caller's tenant: nothing of these passes is theirs.
    world.lease = grant(9, 8);
    send(&mut world);
    world.send("GET", AGENTS, &[("authorization", &good())]);
    assert_eq!(world.asked(), ["/v1/lease"]);
}

/// A VM that wants 8 passes at a time and holds some.
fn busy(limiter: Value) -> World {
    let mut world = world(limiter);
    for id in 1..100 {
        world.lease = grant(id, 8);
        send(&mut world);
        if !world.calls.is_empty() && asked(&world)["want"] == 8 {
            return world;
        }
    }
    panic!("it never wants 8");
}

#[test]
fn what_was_taken_along_is_good_whatever_the_sidecar_says_then() {
    type Change = fn(&mut World);
    let cases: [(&str, Change); 3] = [
        ("429 quota_exceeded", |world| world.check = json!({"allowed": false, "limits": []})),
        ("503 limiter_unavailable", |world| world.away = vec!["/v1/lease"]),
        ("503 limiter_unavailable", |world| world.limiter_status = 503),
    ];
    for (then, change) in cases {
        let mut world = busy(json!("closed"));
        change(&mut world);
        let (mut passed, mut asked) = (0, 0);
        let last = loop {
            let end = send(&mut world);
            if end.verdict() != "passed" {
                break end;
            }
            (passed, asked) = (passed + 1, asked + usize::from(!world.calls.is_empty()));
        };
        assert_eq!(last.verdict(), then);
        // One asks while some are left, and has one of them.
        assert!(passed >= 8 && asked == 1, "{passed} passed, {asked} of them asked: {then}");
    }
}

#[test]
fn a_subject_has_passes_of_its_own_only_where_subjects_are_named() {
    for (subjects, expected) in [(false, Value::Null), (true, json!("s"))] {
        let mut world = world(json!({ "subjects": subjects }));
        send(&mut world);
        assert_eq!(asked(&world)["check"]["subject"], expected);
    }
}

#[test]
fn limits_of_the_record_are_told_and_part_of_the_key() {
    let mut world = World::new();
    let own = |per_window| {
        Some(gatehouse_contract::sidecar::Overrides {
            per_window: Some(per_window),
            ..Default::default()
        })
    };
    world.principal.1.limits = own(7);
    send(&mut world);
    assert_eq!(asked(&world)["check"]["limits"], json!({"per_window": 7}));
    world.lease = grant(1, 8);
    send(&mut world);
    assert_eq!(send(&mut world).verdict(), "passed");
    assert_eq!(world.calls, [""; 0]);
    // The record changed: what was taken along under the old limits is handed back, and used by nobody.
    world.principal.1.limits = own(8);
    world.changes = vec![Change::Tenant { tenant: TENANT.parse().unwrap() }];
    send(&mut world);
    assert_eq!(world.asked(), ["/v1/principal", "/v1/lease"]);
    assert_eq!(asked(&world)["returns"], json!([{"lease": 1, "unused": 7}]));
}

#[test]
fn what_is_unused_is_handed_back_once_with_the_next_question_or_the_tick() {
    let mut world = world(json!({}));
    world.lease = grant(7, 3);
    send(&mut world);
    world.pass(100 * MS);
    world.lease = json!({});
    send_quickly(&mut world);
    assert_eq!(asked(&world)["returns"], json!([{"lease": 7, "unused": 3}]));
    assert_eq!(asked(&world)["holder"].as_str().map(str::len), Some(36));
    world.tick();
    send_quickly(&mut world);
    assert_eq!(asked(&world)["returns"], Value::Null, "never twice");
    assert_eq!(world.told, [""; 0]);
    // Who got none asks for none for a moment.
    world.pass(5 * MS);
    world.lease = grant(8, 3);
    send_quickly(&mut world);
    world.pass(100 * MS);
    world.away = vec!["/v1/lease"];
    world.tick();
    world.tick();
    let returns: Value = json!([{"lease": 8, "unused": 3}]);
    assert_eq!(world.told.len(), 1, "sent once, whatever becomes of it: {:?}", world.told);
    assert!(world.told[0].ends_with(&format!("\"want\":0,\"returns\":{returns}}}")));
}

#[test]
fn without_a_clock_or_on_a_host_with_a_coarse_one_nothing_is_taken_along() {
    let mut blind = World::new();
    blind.vm = VmState::new([1, 2]);
    let mut kong = World::with(|document| {
        document["host"] = "kong".into();
        document["sidecar"]["target"] = "127.0.0.1:9000".into();
        document["limiter"] = json!({});
    });
    for world in [&mut blind, &mut kong] {
        world.lease = grant(7, 8);
        for _ in 0..3 {
            send(world);
            assert_eq!(asked(world)["want"], 0);
        }
    }
}

#[test]
fn r14_an_outage_costs_five_questions_and_then_one_in_200_ms() {
    let mut world = world(json!("closed"));
    world.away = vec!["/v1/lease"];
    for _ in 0..5 {
        assert_eq!(send(&mut world).verdict(), "503 limiter_unavailable");
        assert_eq!(world.asked(), ["/v1/lease"]);
    }
    for _ in 0..20 {
        assert_eq!(send(&mut world).verdict(), "503 limiter_unavailable");
        assert_eq!(world.calls, [""; 0], "the breaker is open");
    }
    world.pass(199 * MS);
    send(&mut world);
    assert_eq!(world.calls, [""; 0]);
    world.pass(MS);
    send(&mut world);
    assert_eq!(world.asked(), ["/v1/lease"], "a probe");
    send(&mut world);
    assert_eq!(world.calls, [""; 0]);
    world.away.clear();
    world.pass(200 * MS);
    for _ in 0..3 {
        assert_eq!(send(&mut world).verdict(), "passed");
        assert_eq!(world.asked(), ["/v1/lease"], "closed again");
    }
}

#[test]
fn r14_while_the_sidecar_is_away_its_last_word_on_the_share_counts_and_is_charged_afterwards() {
    let mut world = World::with(|document| document["limiter"] = json!({}));
    world.lease = json!({"share": 2});
    send(&mut world);
    world.away = vec!["/v1/lease", "/v1/check"];
    for left in ["1", "0"] {
        let end = send(&mut world);
        assert_eq!(end.verdict(), "passed");
        let (remaining, _, degraded) = rate(&world.suite, &end);
        assert_eq!((remaining.as_str(), degraded.as_str()), (left, "true"));
    }
    let end = send(&mut world);
    assert_eq!(end.verdict(), "429 quota_exceeded", "the nearest deny");
    assert_eq!(end.header("x-ratelimit-degraded"), Some("true"));
    assert_eq!(end.header("retry-after"), Some("61"));
    assert_eq!(end.header("x-ratelimit-limit"), Some("2"));
    // The sidecar is back: what passed is charged, once and anyhow.
    world.told.clear();
    world.away.clear();
    world.pass(Duration::from_secs(2));
    world.tick();
    let expected = format!(
        r#"/v1/check {{"tenant":"{TENANT}","tier":"pro","method":"POST","route":"{AGENTS}","cost":2,"forced":true}}"#
    );
    assert_eq!(world.told, [expected]);
    world.tick();
    assert_eq!(world.told.len(), 1);
    let end = send(&mut world);
    assert_eq!(rate(&world.suite, &end).2, "");
}

#[test]
fn r14_where_no_share_was_told_the_document_has_one_or_nobody_passes() {
    let away = |limiter: Value| {
        let mut world = World::with(|document| document["limiter"] = limiter);
        world.away = vec!["/v1/lease"];
        [send(&mut world).verdict(), send(&mut world).verdict()]
    };
    let closed = "503 limiter_unavailable";
    assert_eq!(away(json!({})), [closed, closed]);
    assert_eq!(away(json!({"local_share": {"pro": 1}})), ["passed", "429 quota_exceeded"]);
    assert_eq!(away(json!({"local_share": {"pro": 0}})), [closed, closed]);
    assert_eq!(away(json!({"local_share": {"free": 9}})), [closed, closed]);
    assert_eq!(away(json!({"away": {"pro": "open"}})), ["passed", "passed"]);
    assert_eq!(
        away(json!({"away": {"pro": "closed"}, "local_share": {"pro": 9}})),
        [closed, closed]
    );
    assert_eq!(away(json!({"away": {"free": "open"}})), [closed, closed]);
}

#[test]
fn r14_a_told_share_of_none_lets_nobody_pass() {
    let mut world =
        World::with(|document| document["limiter"] = json!({"local_share": {"pro": 9}}));
    world.lease = json!({"share": 0});
    send(&mut world);
    world.away = vec!["/v1/lease"];
    assert_eq!(send(&mut world).verdict(), "503 limiter_unavailable");
}

#[test]
fn a_sidecar_that_says_that_nobody_passes_is_not_away() {
    let mut world = world(json!({"away": "open"}));
    world.limiter_status = 503;
    for _ in 0..9 {
        assert_eq!(send(&mut world).verdict(), "503 limiter_unavailable");
        assert_eq!(world.asked(), ["/v1/lease"], "no breaker opens");
    }
    world.limiter_status = 500;
    assert_eq!(send(&mut world).verdict(), "passed", "no decision");
}

#[test]
fn r14_a_decision_without_the_shared_count_says_so() {
    let mut world = World::new();
    world.check["degraded"] = true.into();
    let end = send(&mut world);
    assert_eq!(rate(&world.suite, &end).2, "true");
    world.lease = grant(1, 2);
    send(&mut world);
    let end = send(&mut world);
    assert_eq!(world.calls, [""; 0]);
    assert_eq!(rate(&world.suite, &end).2, "true", "on a pass, too");
}

#[test]
fn r24_what_a_response_cost_beyond_its_charge_is_charged_afterwards_once() {
    let mut world = World::with(|document| {
        document["limiter"] = json!({
            "cost_header": "X-Cost", "costs": [{"method": "POST", "route": AGENTS, "cost": 3}],
        });
    });
    let mut told = |headers: &[(&str, &str)]| {
        let end = send(&mut world);
        assert_eq!(asked(&world)["check"]["cost"], 3);
        let mut record = end.record().clone();
        assert!(record.is_unsettled());
        world.suite.settle(&mut world.vm, &mut record, headers, world.now);
        world.suite.settle(&mut world.vm, &mut record, headers, world.now);
        assert!(!record.is_unsettled());
        let removed = world
            .suite
            .on_response(&record, headers)
            .iter()
            .any(|edit| matches!(edit, Edit::Remove(name) if name == "x-cost"));
        assert_eq!(removed, !headers.is_empty(), "no client sees it");
        world.told.clear();
        world.tick();
        world
            .told
            .iter()
            .map(|told| told.split("\"cost\":").nth(1).unwrap().to_owned())
            .collect::<Vec<String>>()
    };
    let forced = |cost: u32| vec![format!("{cost},\"forced\":true}}")];
    let none: Vec<String> = Vec::new();
    assert_eq!(told(&[("x-cost", "10")]), forced(7));
    assert_eq!(told(&[("X-Cost", "4"), ("x-cost", " 5 ")]), forced(2), "the greatest");
    assert_eq!(told(&[("x-cost", "4000000000")]), forced(999_997), "bounded");
    for headers in [[("x-cost", "3")], [("x-cost", "0")], [("x-cost", "-9")], [("x-cost", "many")]]
    {
        assert_eq!(told(&headers), none, "{headers:?}");
    }
    assert_eq!(told(&[]), none);
}

#[test]
fn r21_in_shadow_everybody_passes_everything_is_counted_and_no_header_lies() {
    let limiter = json!({"shadow": true, "away": "closed"});
    let mut world = World::with(|document| document["limiter"] = limiter);
    let end = send(&mut world);
    assert_eq!(rate(&world.suite, &end), Default::default());
    assert_eq!(end.record().shadowed, None);
    world.check = json!({"allowed": false, "retry_after_s": 7, "limits": [
        {"name": "tenant", "limit": 60, "window_s": 60, "remaining": 0, "reset_s": 7},
    ]});
    let end = send(&mut world);
    assert_eq!(end.verdict(), "passed");
    assert_eq!(world.asked(), ["/v1/lease"]);
    assert_eq!(end.record().shadowed.map(|reason| reason.code()), Some("quota_exceeded"));
    assert_eq!(rate(&world.suite, &end), Default::default());
    world.away = vec!["/v1/lease"];
    let end = send(&mut world);
    assert_eq!(end.verdict(), "passed");
    assert_eq!(end.record().shadowed.map(|reason| reason.code()), Some("limiter_unavailable"));
    let counts = counted(&mut world);
    assert_eq!(counts["gatehouse_limiter_pro_shadowed"], 2);
    assert_eq!(counts["gatehouse_limiter_pro_allowed"], 1);
}

fn counted(world: &mut World) -> BTreeMap<String, u64> {
    let names: Vec<String> = world.suite.counter_names().collect();
    let counts = world.suite.take_counts(&mut world.vm);
    counts.into_iter().map(|(place, count)| (names[place].clone(), count)).collect()
}

#[test]
fn what_became_of_requests_is_counted_by_tier_and_outcome() {
    let mut world = world(json!({"local_share": {"pro": 1}}));
    world.lease = json!({"lease": {"id": 1, "passes": 1, "ttl_ms": 100}});
    for _ in 0..2 {
        send(&mut world);
    }
    world.lease = json!({});
    world.away = vec!["/v1/lease"];
    for _ in 0..2 {
        send(&mut world);
    }
    world.away.clear();
    world.check["allowed"] = false.into();
    send(&mut world);
    let expected = [
        ("gatehouse_limiter_charged_later", 1),
        ("gatehouse_limiter_passes_granted", 1),
        ("gatehouse_limiter_pro_allowed", 2),
        ("gatehouse_limiter_pro_denied", 2),
        ("gatehouse_limiter_pro_leased", 1),
        ("gatehouse_limiter_pro_shared", 1),
        ("gatehouse_limiter_unanswered", 2),
        ("gatehouse_version_v1_pro", 6),
    ];
    let counts = counted(&mut world);
    let got: Vec<_> = counts.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    assert_eq!(got, expected);
    assert!(counted(&mut world).is_empty(), "begins anew");
}
