//! Rate decisions and what clients see of them.

use super::*;

fn send(world: &mut World) -> End {
    world.send("POST", AGENTS, &[("authorization", &good())])
}

fn seen(suite: &Suite, end: &End, status: u16) -> BTreeMap<String, String> {
    let status = status.to_string();
    let sets = suite.on_response(end.record(), &[(":status", status)]).into_iter();
    sets.filter_map(|edit| match edit {
        Edit::Set(name, value) => Some((name.to_string(), value.to_string())),
        Edit::Add(..) | Edit::Remove(_) | Edit::UpstreamUri(_) => None,
    })
    .collect()
}

#[test]
fn r7_the_question_names_the_template_and_method_not_the_raw_path() {
    let mut world = World::new().roles(&[Role::Admin], false);
    let path = format!("{AGENTS}/%37?x=1");
    let end = world.send("DELETE", &path, &[("authorization", &good())]);
    assert_eq!(end.verdict(), "passed");
    let expected = format!(
        r#""check":{{"tenant":"{TENANT}","tier":"pro","method":"DELETE","route":"{AGENTS}/{{agent}}","cost":1}},"want":0}}"#
    );
    let asked = world.calls.last().unwrap();
    assert!(asked.starts_with("/v1/lease {") && asked.ends_with(&expected), "{asked}");
}

#[test]
fn r9_the_tightest_limit_is_on_every_response() {
    let mut world = World::new();
    let end = send(&mut world);
    let headers = seen(&world.suite, &end, 304);
    assert_eq!(headers["x-ratelimit-limit"], "600");
    assert_eq!(headers["x-ratelimit-remaining"], "599");
    assert_eq!(headers["x-ratelimit-reset"], "0");
    assert_eq!(headers["api-version"], "v1");
    assert_eq!(headers["x-request-id"], *end.record().request_id);
    assert!(!headers.contains_key("cache-control"));
    for status in [401, 403, 429] {
        assert_eq!(seen(&world.suite, &end, status)["cache-control"], "no-store");
    }
}

#[test]
fn r10_a_denial_says_when_a_retry_passes() {
    let mut world = World::new();
    let denied = |retry_after_s: Value, reset_s: u32| {
        json!({"allowed": false, "retry_after_s": retry_after_s, "limits": [
            {"name": "tenant", "limit": 60, "window_s": 60, "remaining": 0, "reset_s": reset_s},
        ]})
    };
    for (answer, retry_after) in [
        (denied(json!(7), 7), "7"),
        (denied(json!(3), 9), "9"),
        (denied(json!(0), 0), "1"),
        (denied(Value::Null, 0), "1"),
        (json!({"allowed": false, "limits": []}), "1"),
    ] {
        world.check = answer;
        let end = send(&mut world);
        assert_eq!(end.verdict(), "429 quota_exceeded");
        assert_eq!(end.header("retry-after"), Some(retry_after));
        assert_eq!(end.header("cache-control"), Some("no-store"));
        assert_eq!(end.header("x-envoy-ratelimited"), Some("true"));
    }
    world.check = denied(json!(7), 7);
    let end = send(&mut world);
    assert_eq!(end.header("x-ratelimit-limit"), Some("60"));
    assert_eq!(end.header("x-ratelimit-remaining"), Some("0"));
    assert_eq!(end.header("x-ratelimit-reset"), Some("7"));
}

#[test]
fn r11_every_policy_and_the_standing_of_the_tightest_are_told() {
    let mut world = World::new();
    let end = send(&mut world);
    let headers = seen(&world.suite, &end, 200);
    assert_eq!(headers["ratelimit-policy"], "\"tenant\";q=600;w=60, \"endpoint\";q=1000;w=60");
    assert_eq!(headers["ratelimit"], "\"tenant\";r=599;t=0");
}

#[test]
fn r12_a_denied_grpc_call_ends_with_status_8_and_its_headers() {
    let mut world = World::new();
    world.check = json!({"allowed": false, "retry_after_s": 7, "limits": [
        {"name": "tenant", "limit": 60, "window_s": 60, "remaining": 0, "reset_s": 7},
    ]});
    let end = world.send(
        "POST",
        AGENTS,
        &[("authorization", &good()), ("content-type", "application/grpc")],
    );
    assert_eq!(end.reply().grpc.as_ref().map(|grpc| grpc.code), Some(8));
    assert_eq!(end.header("retry-after"), Some("7"));
    assert_eq!(end.header("ratelimit"), Some("\"tenant\";r=0;t=7"));
}

#[test]
fn r9_a_reset_since_the_epoch_is_asked_for() {
    let mut world = World::with(|document| document["limiter"] = json!({"reset": "epoch"}));
    world.check = json!({"allowed": false, "retry_after_s": 7, "limits": [
        {"name": "tenant", "limit": 60, "window_s": 60, "remaining": 0, "reset_s": 7},
    ]});
    let end = send(&mut world);
    assert_eq!(end.header("x-ratelimit-reset"), Some("1800000007"));
    assert_eq!(end.header("retry-after"), Some("7"), "always from now");
    assert_eq!(end.header("ratelimit"), Some("\"tenant\";r=0;t=7"));
}

#[test]
fn r13_an_upstreams_own_headers_are_replaced_kept_or_weighed_and_never_doubled() {
    let theirs = |remaining: &'static str| {
        vec![
            (":status", "200"),
            ("X-RateLimit-Limit", "50"),
            ("x-ratelimit-remaining", remaining),
            ("x-ratelimit-remaining", remaining),
        ]
    };
    for (word, remaining, expected) in [
        ("override", "3", "599 of 600"),
        ("keep", "3", "3 of 50"),
        ("keep", "700", "700 of 50"),
        ("lowest", "3", "3 of 50"),
        ("lowest", "700", "599 of 600"),
        ("lowest", "many", "599 of 600"),
    ] {
        let limiter = json!({"upstream_headers": word});
        let mut world = World::with(|document| document["limiter"] = limiter);
        let end = send(&mut world);
        let theirs = theirs(remaining);
        let edits = world.suite.on_response(end.record(), &theirs);
        let all = world.upstream(&theirs, &edits);
        let one = |name: &str| {
            let mut values = all.iter().filter(|(ours, _)| ours == name).map(|(_, value)| value);
            let value = values.next().cloned().unwrap_or_default();
            assert_eq!(values.next(), None, "{name} twice: {word} {remaining}");
            value
        };
        let seen = format!("{} of {}", one("x-ratelimit-remaining"), one("x-ratelimit-limit"));
        assert_eq!(seen, expected, "{word} {remaining}");
        assert_eq!(
            one("ratelimit").is_empty(),
            expected.ends_with("50"),
            "one family or the other"
        );
        // Without headers of its own it gets ours.
        let edits = world.suite.on_response(end.record(), &[(":status", "200")]);
        assert!(edits.contains(&Edit::Set("x-ratelimit-remaining".into(), 599.into())));
    }
}

#[test]
fn r25_most_of_the_days_quota_used_is_a_warning() {
    let mut world = World::new();
    let end = send(&mut world);
    assert!(!seen(&world.suite, &end, 200).contains_key("x-ratelimit-warning"));
    world.check["day_used_percent"] = 83.into();
    let end = send(&mut world);
    assert_eq!(seen(&world.suite, &end, 200)["x-ratelimit-warning"], "\"day\";used=83");
}

#[test]
fn r14_a_limiter_that_is_away_follows_the_declared_policy() {
    let away = |limiter: &str| {
        let limiter = limiter.to_owned();
        let mut world = World::with(move |document| document["limiter"] = limiter.into());
        world.away = vec!["/v1/lease"];
        world
    };
    let mut closed = away("closed");
    let end = send(&mut closed);
    assert_eq!(end.verdict(), "503 limiter_unavailable");
    assert_eq!(end.header("retry-after"), Some("1"));
    let mut open = away("open");
    let end = send(&mut open);
    assert_eq!(end.verdict(), "passed");
    let headers = seen(&open.suite, &end, 200);
    assert_eq!(headers["x-ratelimit-degraded"], "true");
    assert!(!headers.contains_key("x-ratelimit-limit"));
    open.away.clear();
    let end = send(&mut open);
    assert!(!seen(&open.suite, &end, 200).contains_key("x-ratelimit-degraded"));
}

#[test]
fn r14_an_answer_that_is_no_decision_counts_as_away() {
    let mut world = World::new();
    for broken in [json!({}), json!([]), json!({"allowed": "yes", "limits": []})] {
        world.check = broken;
        assert_eq!(send(&mut world).verdict(), "503 limiter_unavailable");
    }
}

#[test]
fn t5_responses_carry_no_identity_headers_in_any_spelling() {
    let mut world = World::new();
    let end = send(&mut world);
    let removed = |headers: &[(&str, &str)]| -> Vec<String> {
        let edits = world.suite.on_response(end.record(), headers);
        edits
            .into_iter()
            .filter_map(|edit| match edit {
                Edit::Remove(name) => Some(name.to_string()),
                Edit::Set(..) | Edit::Add(..) | Edit::UpstreamUri(_) => None,
            })
            .collect()
    };
    for name in gatehouse_contract::header::IDENTITY.iter().chain(&["X_Tenant_ID", "x-gatehouse-x"])
    {
        assert_eq!(removed(&[(":status", "200"), (name, "a"), ("x-tenant", "b")]), [*name]);
    }
    assert_eq!(removed(&[(":status", "200"), ("x-tenant", "b"), ("server", "envoy")]), [""; 0]);
}
