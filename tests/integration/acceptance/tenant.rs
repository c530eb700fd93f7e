//! T1–T7, T9, T10: who the upstream is told that calls, and that nobody else can tell it.

use std::sync::Arc;

use gatehouse_contract::header;
use gatehouse_tests::{
    envoy,
    http::{Message, Request, serve},
};
use serde_json::{Value, json};

use super::gate::{
    AGENTS, EVIL, Gate, PUBLIC, Plan, SUBJECT, TENANT, VIEWER, get, token, verdict, with_claim,
};

/// Everything that [`header::IDENTITY`] names, in spellings that some upstream reads as the same.
fn spellings(name: &str) -> Vec<String> {
    let upper: String = name
        .split('-')
        .map(|word| {
            let (first, rest) = word.split_at(1);
            first.to_uppercase() + rest
        })
        .collect::<Vec<_>>()
        .join("-");
    let last_underscore = match name.rsplit_once('-') {
        Some((head, tail)) => format!("{head}_{tail}"),
        None => name.to_owned(),
    };
    vec![name.to_owned(), upper, name.replace('-', "_"), last_underscore, name.to_uppercase()]
}

/// Nothing of what the client claimed is there.
#[track_caller]
fn clean(saw: &Message, what: &str) {
    let text = String::from_utf8_lossy(&saw.bytes()).into_owned();
    let trailers = format!("{:?}", saw.trailers);
    assert!(!text.contains(EVIL) && !trailers.contains(EVIL), "{what}: {text} {trailers}");
}

/// The values of every header that spells this name.
fn spelt(saw: &Message, name: &str) -> Vec<String> {
    saw.headers
        .iter()
        .chain(saw.trailers.iter())
        .filter(|(found, _)| header::spells(found, name))
        .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
        .collect()
}

#[test]
fn t1_what_clients_claim_is_gone_on_every_path() {
    let gate = Gate::open();
    for name in header::IDENTITY {
        for spelling in spellings(name) {
            let public = Request::new("GET", PUBLIC).header(&spelling, EVIL);
            let saw = gate.allows(&public);
            clean(&saw, &spelling);
            assert_eq!(spelt(&saw, name), [""; 0], "{spelling}: nobody called");
            let protected = get().bearer(&token()).header(&spelling, EVIL);
            clean(&gate.allows(&protected), &spelling);
        }
    }
    // A public route tells the upstream nothing even of a good token's owner.
    let saw = gate.allows(&Request::new("GET", PUBLIC).bearer(&token()));
    for name in header::IDENTITY {
        assert_eq!(spelt(&saw, name), [""; 0], "{name}");
    }
    // What is not ours stays.
    let saw = gate.allows(&Request::new("GET", PUBLIC).header("X-Tenant", EVIL));
    assert_eq!(saw.headers.all("x-tenant"), [EVIL]);
}

#[test]
fn t2_no_spelling_duplicate_or_byte_of_a_tenant_header_gets_through() {
    let gate = Gate::open();
    let check = |what: &str, request: Request| {
        let saw = gate.allows(&request.bearer(&token()));
        clean(&saw, what);
        assert_eq!(spelt(&saw, header::TENANT_ID), [TENANT], "{what}");
    };
    check("none", get());
    for spelling in ["X-Tenant-ID", "x_tenant_id", "X-Tenant_ID", "X_TENANT-id", "x-tenant-id"] {
        check(spelling, get().header(spelling, EVIL));
        check(spelling, get().header(spelling, ""));
        check(spelling, get().raw(spelling.as_bytes(), b"\xff\xfe"));
    }
    let every =
        get().header("x_tenant_id", EVIL).header("X-Tenant_ID", EVIL).header("X-Tenant-ID", EVIL);
    check("three spellings", every);
    // The same name twice may be read in two ways: refused, or joined by the codec and then gone.
    for twice in [
        get().header("X-Tenant-ID", EVIL).header("X-Tenant-ID", EVIL),
        get().header("X-Tenant-ID", EVIL).header("x-tenant-id", TENANT),
    ] {
        let answer = gate.send(&twice.bearer(&token()));
        match verdict(&answer).as_str() {
            "400 header_invalid" => {}
            "200" => clean(&serve::seen(&answer).unwrap(), "twice"),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn t3_exactly_one_value_is_set() {
    let gate = Gate::open();
    let spoofed = header::IDENTITY.iter().fold(get().bearer(&token()), |request, name| {
        request.header(name, EVIL).header(&name.replace('-', "_"), EVIL)
    });
    for request in [get().bearer(&token()), spoofed] {
        let saw = gate.allows(&request);
        clean(&saw, "spoofed");
        for (name, value) in [
            ("x-tenant-id", TENANT),
            ("x-tenant-tier", "enterprise"),
            ("x-user-id", SUBJECT),
            ("x-user-roles", "developer"),
            ("x-auth-method", "jwt"),
        ] {
            assert_eq!(spelt(&saw, name), [value], "{name}");
        }
    }
    // Another caller of the same tenant on the same connection gets its own.
    let saw = gate.allows(&get().bearer(&with_claim("sub", json!(VIEWER))));
    assert_eq!(spelt(&saw, "x-user-id"), [VIEWER]);
    assert_eq!(spelt(&saw, "x-user-roles"), ["viewer"]);
}

#[test]
fn t4_connection_cannot_nominate_what_we_set() {
    let gate = Gate::open();
    for options in [
        "X-Tenant-ID",
        "x_tenant_id",
        "keep-alive, X-Tenant-ID, X-User-Roles",
        "X-User-ID,X-Auth-Method,X-Tenant-Tier",
        "x-request-id, baggage",
        "X-Gatehouse-Context",
    ] {
        let saw = gate.allows(&get().bearer(&token()).header("Connection", options));
        for (name, value) in
            [("x-tenant-id", TENANT), ("x-user-id", SUBJECT), ("x-user-roles", "developer")]
        {
            assert_eq!(spelt(&saw, name), [value], "{options}: {name}");
        }
        assert_eq!(spelt(&saw, "authorization").len(), 1, "{options}");
        assert_eq!(spelt(&saw, "x-request-id").len(), 1, "{options}");
        assert_eq!(spelt(&saw, "baggage"), [format!("tenant.id={TENANT}")], "{options}");
        let claimed =
            get().bearer(&token()).header("Connection", options).header("X-Tenant-ID", EVIL);
        clean(&gate.allows(&claimed), options);
    }
    // Envoy itself takes what is nominated off before any filter: who gives the credential up has none.
    let given_up = get().bearer(&token()).header("Connection", "Authorization");
    gate.denies(&given_up, "401 credential_missing");
    // What is not ours may be nominated.
    let saw =
        gate.allows(&get().bearer(&token()).header("Connection", "X-Own").header("X-Own", "1"));
    assert_eq!(spelt(&saw, "x-tenant-id"), [TENANT]);
}

/// Trailers in both directions and both protocols.
fn with_trailers(bootstrap: &mut Value) -> Option<()> {
    envoy::manager(bootstrap)?
        .insert("http_protocol_options".to_owned(), json!({"enable_trailers": true}));
    envoy::cluster(bootstrap, "control-api")?.insert(
        "typed_extension_protocol_options".to_owned(),
        json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http_protocol_options": {"enable_trailers": true}},
        }}),
    );
    Some(())
}

#[test]
fn t5_trailers_and_responses_carry_nothing_internal() {
    let telling: serve::Handler = Arc::new(|request| {
        let answer = serve::echo(request).with("X-Own", "kept");
        header::IDENTITY.iter().fold(answer, |answer, name| answer.with(name, EVIL))
    });
    let gate = Gate::with(Plan {
        upstream: telling,
        bootstrap: Box::new(with_trailers),
        ..Plan::default()
    });
    let with_trailers = |path: &str, trailers: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\nTE: trailers\r\n\
             Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n{trailers}\r\n",
            token()
        )
    };
    let send = |bytes: String| {
        let answer = gatehouse_tests::http::exchange(gate.envoy.listen, bytes.as_bytes()).unwrap();
        assert_eq!(answer.status().unwrap(), 200, "{answer:?}");
        answer
    };
    let saw = serve::seen(&send(with_trailers(AGENTS, "X-Own: kept\r\n"))).unwrap();
    assert_eq!(saw.trailers.all("x-own"), ["kept"], "trailers do pass");
    for path in [AGENTS, PUBLIC] {
        for name in header::IDENTITY {
            for spelling in spellings(name) {
                let trailers = format!("{spelling}: {EVIL}\r\nX-Own: kept\r\n");
                let saw = serve::seen(&send(with_trailers(path, &trailers))).unwrap();
                clean(&saw, &spelling);
                assert_eq!(saw.trailers.all("x-own"), ["kept"]);
            }
        }
    }
    for path in [AGENTS, PUBLIC, "/.well-known/openid-configuration"] {
        let answer = gate.send(&Request::new("GET", path).bearer(&token()));
        assert_eq!(answer.headers.all("x-own"), ["kept"]);
        for name in header::IDENTITY {
            assert_eq!(answer.headers.all(name), [""; 0], "{path}: {name}");
        }
    }
}

#[test]
fn t6_claims_that_would_split_a_header_are_refused() {
    let gate = Gate::open();
    gate.allows(&get().bearer(&with_claim("sub", json!(SUBJECT))));
    for bad in [
        "a\r\nX-Tenant-ID: x",
        "a\nb",
        "a\rb",
        "a\u{0}b",
        "caf\u{e9}",
        "\u{202e}x",
        " padded",
        "padded ",
        "a b",
        "\u{7f}",
        "\u{1f600}",
    ] {
        let answer = gate.send(&get().bearer(&with_claim("sub", json!(bad))));
        assert_eq!(verdict(&answer), "403 permission_denied", "{bad:?}");
        let tenant = gate.send(&get().bearer(&with_claim("tenant_id", json!(bad))));
        assert_eq!(verdict(&tenant), "403 tenant_invalid", "{bad:?}");
        for answer in [answer, tenant] {
            assert_eq!(answer.headers.all("x-tenant-id"), [""; 0]);
        }
    }
    gate.sound();
}

#[test]
fn t7_every_value_of_a_header_is_judged_by_itself() {
    let gate = Gate::open();
    gate.allows(&get().bearer(&token()).header("Accept", "a").header("Accept", "b"));
    // A second value behind a good or an innocent first is seen, wherever it stands.
    for request in [
        get().bearer(&token()).bearer("x"),
        get().header("Authorization", "").bearer(&token()).bearer(&token()),
    ] {
        let verdict = verdict(&gate.send(&request));
        assert!(verdict.starts_with("400") || verdict.starts_with("401"), "{verdict}");
    }
    let overridden = get().bearer(&token()).header("X-HTTP-Method-Override", "");
    gate.denies(&overridden, "400 header_invalid");
    let spread = get()
        .bearer(&token())
        .header("Connection", "keep-alive")
        .header("Connection", "X-Tenant-ID")
        .header("Baggage", "a=1")
        .header("Baggage", &format!("tenant.id={EVIL},b=2"));
    let saw = gate.allows(&spread);
    clean(&saw, "spread");
    assert_eq!(spelt(&saw, header::TENANT_ID), [TENANT]);
}

#[test]
fn t10_the_tenant_member_of_baggage_is_ours_and_the_others_stay() {
    let gate = Gate::open();
    let ours = format!("tenant.id={TENANT}");
    let check = |sent: &[&str], expected: String| {
        let request =
            sent.iter().fold(get().bearer(&token()), |request, v| request.header("Baggage", v));
        assert_eq!(spelt(&gate.allows(&request), "baggage"), [expected], "{sent:?}");
    };
    check(&[], ours.clone());
    check(&["a=1"], format!("a=1,{ours}"));
    check(&[&format!("tenant.id={EVIL}")], ours.clone());
    check(&[&format!("a=1,tenant.id={EVIL};p=1,b=2")], format!("a=1,b=2,{ours}"));
    check(&[&format!(" tenant.id = {EVIL} ")], ours.clone());
    check(&["a=1", &format!("tenant.id={EVIL}"), "c=3"], format!("a=1,c=3,{ours}"));
    let public = Request::new("GET", PUBLIC).header("Baggage", &format!("a=1,tenant.id={EVIL}"));
    assert_eq!(spelt(&gate.allows(&public), "baggage"), ["a=1"]);
}
