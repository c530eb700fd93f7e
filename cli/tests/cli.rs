//! The command line from outside: arguments and stdin in; stdout, stderr and the exit code out, whole, as goldens.
//! They are renewed with `UPDATE_GOLDEN=1 cargo test -p gatehouse-cli` and read in review.

#![cfg(test)]

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::json;

fn here(part: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(part)
}

/// Runs `gatehouse` with these words as arguments, in the folder of the test data, and shows what came of it.
fn run(arguments: &str, stdin: &[u8], environment: &[(&str, &str)]) -> String {
    let mut child = Command::new(env!("CARGO_BIN_EXE_gatehouse"))
        .args(arguments.split_whitespace())
        .current_dir(here("data"))
        .env_remove("NO_COLOR")
        .env_remove("CLICOLOR_FORCE")
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Commands that read no stdin may be gone already.
    let _gone = child.stdin.take().unwrap().write_all(stdin);
    let output = child.wait_with_output().unwrap();
    let code = output.status.code().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    format!("$ gatehouse {arguments}\nexit {code}\n--- stdout\n{stdout}--- stderr\n{stderr}")
}

/// Compares one run with `goldens/<name>.txt`; `exit` stands here too, so that renewing goldens cannot change it.
fn check_with(name: &str, exit: i32, arguments: &str, stdin: &[u8]) {
    let got = run(arguments, stdin, &[]);
    assert!(got.contains(&format!("\nexit {exit}\n")), "{got}");
    let golden = here("goldens").join(format!("{name}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&golden, &got).unwrap();
    }
    let reviewed = fs::read_to_string(&golden).expect("the golden is committed");
    assert_eq!(got, reviewed, "{}", golden.display());
}

fn check(name: &str, exit: i32, arguments: &str) {
    check_with(name, exit, arguments, b"");
}

/// Verifies the token of `data/<token>` within its lifetime.
fn check_token(name: &str, exit: i32, token: &str, arguments: &str) {
    let arguments = format!("verify token --jwks jwks.json {arguments}");
    check_with(name, exit, arguments.trim(), &fs::read(here("data").join(token)).unwrap());
}

#[test]
fn help_has_examples_and_wrong_usage_is_64() {
    check("help", 0, "--help");
    check("lint-help", 0, "lint --help");
    check("verify-help", 0, "verify --help");
    check("verify-token-help", 0, "verify token --help");
    check("verify-audit-help", 0, "verify audit --help");
    check("verify-execution-help", 0, "verify execution --help");
    check("explain-help", 0, "explain --help");
    check("schema-help", 0, "schema --help");
    check("convert-help", 0, "convert --help");
    check("completions-help", 0, "completions --help");
    check("completions-unknown", 64, "completions tcsh");
    check("no-command", 64, "");
    check("unknown-flag", 64, "lint --frobnicate x.json");
    check("unknown-role", 64, "explain --config warnings.json GET / --role owner");
    check("explain-lower-case", 64, "explain --config warnings.json get /");
    check("lint-folder", 66, "lint .");
    check("leeway-too-large", 64, "verify token --jwks jwks.json --leeway 301");
}

#[test]
fn lint_prints_every_mistake_and_warning() {
    check("lint-good", 0, "lint ../../../examples/gateway/suite.json");
    check("lint-warnings", 0, "lint warnings.json");
    check("lint-strict", 1, "lint --strict warnings.json");
    check("lint-mistakes", 1, "lint mistakes.json");
    check("lint-twice", 1, "lint twice.json");
    check("lint-not-json", 1, "lint not.json");
    check("lint-many", 66, "lint two-issuers.json mistakes.json absent.json");
}

#[test]
fn lint_finds_edge_documents_in_manifests() {
    for (name, file) in [
        ("lint-wasmplugin", "istio/base/wasmplugin.yaml"),
        ("lint-envoyfilter", "istio/base/envoyfilter.yaml"),
        ("lint-kong", "kong/kong.yaml"),
    ] {
        check(name, 0, &format!("lint --strict ../../../{file}"));
    }
    let validate = "lint --strict ../../../istio/validate";
    check("lint-validate-wasmplugin", 0, &format!("{validate}/wasmplugin.yaml"));
    check("lint-validate-envoyfilter", 0, &format!("{validate}/envoyfilter.yaml"));
    check("lint-validate", 1, "lint --module validate bodies.json");
    check("lint-validate-waits", 1, "lint validate-waits.yaml");
    check("lint-unsafe-envoy", 1, "lint unsafe-envoy.yaml");
    check("lint-unsafe-istio", 1, "lint unsafe-istio.yaml");
    check("lint-kong-headers", 1, "lint kong-headers.yaml");
    check("lint-waits-istio", 1, "lint waits-istio.yaml");
    check_with("lint-not-ours", 1, "lint -", b"apiVersion: apps/v1\nkind: Deployment\n");
    check_with("lint-stdin", 1, "lint -", b"host: envoy\nsignatures: natve\n");
    check_with("lint-not-yaml", 1, "lint -", b"a: [");
}

/// The chain that is rendered for Istio is one; in others who comes too early is named, in whichever file it stands.
#[test]
fn lint_puts_single_modules_into_the_order_of_their_proxy() {
    check("lint-chain", 0, "lint --strict ../../../istio/chain/wasmplugins.yaml");
    check("lint-chain-order", 1, "lint chain-front.yaml chain-back.yaml");
    let base = "../../../istio/base";
    check("lint-chain-twice", 1, &format!("lint {base}/wasmplugin.yaml {base}/envoyfilter.yaml"));
    let validate = "../../../istio/validate";
    let both = format!("lint --strict {validate}/wasmplugin.yaml {base}/wasmplugin.yaml");
    check("lint-chain-validate", 0, &both);
}

/// The specification's own samples: Kong refuses the one (`iss` is no claim that its plugin verifies), and the first
/// of January 2027 is no Saturday.
#[test]
fn lint_diagnoses_the_samples_of_the_specification() {
    check("lint-spec-kong-jwt", 1, "lint spec-kong-jwt.yaml");
    check("lint-spec-deprecation", 1, "lint spec-deprecation.yaml");
}

#[test]
fn lint_knows_the_single_module() {
    check("lint-auth", 0, "lint --module auth auth.json");
    check("lint-auth-as-suite", 1, "lint auth.json");
}

#[test]
fn every_command_speaks_json() {
    check("json-lint", 66, "lint --json mistakes.json warnings.json absent.json");
    check("json-convert", 1, "convert --json convert-kong-local.json");
    let explain = "explain --json --config ../../../examples/gateway/suite.json";
    check("json-explain", 0, &format!("{explain} POST /api/v1/registry/agents --role developer"));
    check("json-explain-denied", 1, &format!("{explain} GET /api/v1/registry/agents"));
    check_token("json-token", 0, "good.jwt", "--json --now 1700000100");
    check_token("json-token-forged", 1, "forged.jwt", "--json --now 1700000100");
    check("json-absent", 66, "convert --json absent.yaml");
}

#[test]
fn convert_names_whatever_has_no_equivalent() {
    check("convert-kong", 0, "convert convert-kong.yaml");
    check("convert-kong-local", 1, "convert convert-kong-local.json");
    check("convert-kong-for-envoy", 0, "convert --host envoy --sidecar sidecar convert-kong.yaml");
    check("convert-envoy", 1, "convert convert-envoy.yaml");
    check("convert-descriptors", 1, "convert convert-descriptors.yaml");
    let by = "convert --sidecar 127.0.0.1:7070";
    check("convert-kong-keys", 1, &format!("{by} convert-kong-keys.yaml"));
    check("convert-kong-bad-keys", 1, &format!("{by} convert-kong-bad-keys.yaml"));
    check("convert-spec-kong-jwt", 1, "convert spec-kong-jwt.yaml");
    check("convert-nothing", 66, "convert mistakes.json");
    check("convert-not-json", 66, "convert not.json");
}

/// A member that no converter knows stands in each object of the source in turn, and is named by its path.
#[test]
fn convert_drops_nothing_in_silence() {
    let jwks = json!({"http_uri": {"uri": "https://a.example/k", "cluster": "a", "timeout": "1s"}});
    let service = json!({"grpc_service": {"envoy_grpc": {"cluster_name": "ratelimit"}}});
    let limit = json!({"unit": "minute", "requests_per_unit": 60});
    let typed = "type.googleapis.com/envoy.extensions.filters.http";
    for (source, places) in [
        (
            json!({
                "plugins": [
                    {"name": "jwt", "config": {"claims_to_verify": ["exp"]}},
                    {"name": "rate-limiting", "config": {"minute": 60}},
                ],
                "consumers": [{"username": "a", "jwt_secrets": [{"key": "https://a.example"}]}],
            }),
            &[
                "plugins[0]",
                "plugins[0].config",
                "plugins[1]",
                "plugins[1].config",
                "consumers[0]",
                "consumers[0].jwt_secrets[0]",
            ][..],
        ),
        (json!({"kind": "KongPlugin", "plugin": "jwt", "config": {}}), &["config"]),
        (
            json!({"http_filters": [
                {"typed_config": {
                    "@type": format!("{typed}.jwt_authn.v3.JwtAuthentication"),
                    "providers": {"a": {"remote_jwks": jwks, "from_headers": [{"name": "x"}]}},
                }},
                {"typed_config": {
                    "@type": format!("{typed}.ratelimit.v3.RateLimit"),
                    "rate_limit_service": service,
                }},
            ]}),
            &[
                "http_filters[0].typed_config",
                "http_filters[0].typed_config.providers.a",
                "http_filters[0].typed_config.providers.a.remote_jwks",
                "http_filters[0].typed_config.providers.a.remote_jwks.http_uri",
                "http_filters[0].typed_config.providers.a.from_headers[0]",
                "http_filters[1].typed_config",
                "http_filters[1].typed_config.rate_limit_service",
                "http_filters[1].typed_config.rate_limit_service.grpc_service",
                "http_filters[1].typed_config.rate_limit_service.grpc_service.envoy_grpc",
            ],
        ),
        (
            json!({"domain": "a", "descriptors": [{"key": "tier", "value": "free", "rate_limit": limit}]}),
            &["descriptors[0]", "descriptors[0].rate_limit"],
        ),
    ] {
        for place in places {
            let mut source = source.clone();
            let pointer = place.replace(['.', '['], "/").replace(']', "");
            source.pointer_mut(&format!("/{pointer}")).unwrap()["zzz"] = json!(1);
            let said = run("convert -", source.to_string().as_bytes(), &[]);
            let named = format!("$.{place}.zzz: has no equivalent and is left out");
            assert!(said.contains(&named), "{named}\n{said}");
        }
    }
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&format!("completions {shell}"), b"", &[]);
        for word in ["explain", "convert", "strict", "payload-only"] {
            assert!(script.contains(word), "{word} for {shell}:\n{script}");
        }
    }
}

#[test]
fn schema_prints_what_is_committed() {
    let got = run("schema", b"", &[]);
    let committed = fs::read_to_string(here("../../docs/schema/edge.json")).unwrap();
    assert_eq!(
        got,
        format!("$ gatehouse schema\nexit 0\n--- stdout\n{committed}--- stderr\n"),
        "`cargo xtask codegen` renews it"
    );
}

#[test]
fn a_good_token_is_valid_for_its_issuer_audience_and_time() {
    check_token("token-good", 0, "good.jwt", "--now 1700000100");
    let exact = "--issuer https://auth.example --audience https://api.example --algorithm RS256";
    check_token("token-exact", 0, "good.jwt", &format!("--now 1700000100 {exact}"));
    check_token(
        "token-other-issuer",
        1,
        "good.jwt",
        "--now 1700000100 --issuer https://auth.example/",
    );
    check_token("token-other-audience", 1, "good.jwt", "--now 1700000100 --audience other");
    check_token("token-other-algorithm", 1, "good.jwt", "--now 1700000100 --algorithm ES256");
    check_token("token-last-second", 0, "good.jwt", "--now 1700000959");
    check_token("token-expired", 1, "good.jwt", "--now 1700000960");
    check_token("token-expired-long-ago", 1, "good.jwt", "");
    check_token("token-from-the-future", 1, "good.jwt", "--now 1699999000");
}

#[test]
fn a_bad_token_is_refused_with_its_reason() {
    check_token("token-forged", 1, "forged.jwt", "--now 1700000100");
    check_token("token-none", 1, "none.jwt", "--now 1700000100");
    check_token("token-unknown-key", 1, "unknown-key.jwt", "--now 1700000100");
    check_token("token-no-tenant", 1, "no-tenant.jwt", "--now 1700000100");
    check_token("token-not-a-token", 1, "jwks.json", "");
    check_with("token-empty", 1, "verify token --jwks jwks.json", b"");
    check_with("token-too-long", 1, "verify token --jwks jwks.json", &[b'a'; 9000]);
    check("keys-absent", 66, "verify token --jwks absent.json");
    check("keys-private", 66, "verify token --jwks private.json");
    check("keys-not-a-set", 66, "verify token --jwks mistakes.json");
}

#[test]
fn a_message_is_any_bytes_and_its_signature_alone_counts() {
    check_token("message-good", 0, "message.jws", "--payload-only");
    check_token("message-of-claims", 0, "good.jwt", "--payload-only --algorithm RS256");
    check_token("message-other-algorithm", 1, "message.jws", "--payload-only --algorithm PS256");
    check_token("message-forged", 1, "message-forged.jws", "--payload-only");
    check_token("message-no-claims", 1, "message.jws", "");
    check_token("message-and-claims", 64, "message.jws", "--payload-only --issuer x");
    let secret = fs::read(here("data").join("message-secret.jws")).unwrap();
    let with = |keys: &str| format!("verify token --payload-only --jwks {keys}");
    check_with("message-secret", 0, &with("secrets.json"), &secret);
    check_with("message-secret-public-keys", 1, &with("jwks.json"), &secret);
}

#[test]
fn explain_names_the_rule_and_the_verdict() {
    let explain = |name: &str, exit: i32, request: &str| {
        let arguments = format!("explain --config ../../../examples/gateway/suite.json {request}");
        check(name, exit, &arguments);
    };
    explain("explain-allowed", 0, "POST /api/v1/registry/agents --role developer");
    explain("explain-denied", 1, "POST /api/v1/registry/agents --role viewer");
    explain("explain-no-credential", 1, "GET /api/v1/registry/agents");
    explain("explain-public", 0, "POST /oauth2/token");
    explain("explain-platform", 0, "POST /api/v1/factory/tenants --platform");
    explain("explain-key", 0, "GET /api/v1/registry/agents --role viewer --scope agents:read");
    explain(
        "explain-key-narrowed",
        1,
        "DELETE /api/v1/registry/agents/7 --role admin --scope agents:read",
    );
    explain("explain-another-tenant", 1, "GET /api/v1/factory/tenants/7 --role admin");
    check(
        "explain-shadow",
        0,
        "explain --config shadow.json POST /api/v1/registry/agents --role viewer",
    );
    check(
        "explain-roles-from-claims",
        0,
        "explain --config no-record.json POST /api/v1/registry/agents --role developer",
    );
    explain("explain-admin-is-not-platform", 1, "POST /api/v1/factory/tenants --role admin");
    explain("explain-head", 0, "HEAD /api/v1/registry/%61gents/7?x=1 --role viewer");
    explain("explain-dots", 1, "GET /api/v1/../v1/registry/agents --role admin");
    explain("explain-unknown-version", 1, "GET /api/v9/registry/agents --role admin");
    explain("explain-unknown-path", 1, "GET /internal/v1/principal --role admin --platform");
    explain("explain-other-method", 1, "PATCH /api/v1/registry/agents --role admin");
    explain("explain-unknown-issuer", 66, "GET / --role admin --issuer https://x.example");
}

#[test]
fn explain_says_each_decision_in_its_order() {
    let explain = |name: &str, exit: i32, request: &str| {
        check(name, exit, &format!("explain --config lifecycle.json {request}"));
    };
    explain("explain-file", 0, "--request create.http --role developer --at 2026-06-01");
    explain("explain-own-credential", 1, "--request create.http --at 2026-06-01T10:00:00Z");
    explain("explain-json-file", 0, "--request request.json --role viewer --at 1780000000");
    explain("explain-gone", 1, "GET /api/v1/registry/agents --role viewer --at 2027-06-01");
    explain(
        "explain-pin",
        0,
        "GET /api/registry/agents --role viewer --pin v1 --tier pro --at 2026-06-01",
    );
    let preflight = "-H Origin:https://app.example -H Access-Control-Request-Method:POST";
    explain("explain-preflight", 0, &format!("OPTIONS /api/v2/registry/agents {preflight}"));
    explain("explain-query-token", 1, "GET /api/v2/registry/agents?access_token=a.b.c&x=1");
    explain("explain-bad-header", 64, "GET / -H nothing");
    explain("explain-bad-time", 64, "GET / --at tomorrow");
    explain("explain-no-request", 64, "--role viewer");
    let lines = b"GET /api/v2/registry/agents\nX-Api-Key: secret\nno header\n";
    check_with("explain-bad-file", 66, "explain --config lifecycle.json --request -", lines);
}

#[test]
fn explain_prints_no_credential() {
    for (arguments, stdin) in [
        ("--request -", "GET /api/v2/registry/agents\nAuthorization: Bearer s3cret\n"),
        ("--request -", "GET /api/v2/registry/agents\nCookie: a=1; __Host-gatehouse=s3cret\n"),
        ("--request -", "GET /api/v2/registry/agents\nX-API-Key: s3cret\n"),
        ("--request -", "GET /oauth2/login\nCookie: b=s3cret; __Host-gatehouse=s3cret\n"),
        ("GET /api/v2/registry/agents?access_token=s3cret", ""),
        ("GET /oauth2/login?access_token=s3cret", ""),
    ] {
        for json in ["", "--json "] {
            let arguments = format!("explain {json}--config lifecycle.json {arguments}");
            let got = run(&arguments, stdin.as_bytes(), &[]);
            let (_, said) = got.split_once("--- stdout").unwrap();
            assert!(!said.contains("s3cret"), "{got}");
        }
    }
}

#[test]
fn explain_applies_what_an_issuer_may_grant() {
    let explain = |name: &str, exit: i32, request: &str| {
        let issuer = "--config two-issuers.json --issuer https://foreign.example";
        check(name, exit, &format!("explain {issuer} {request}"));
    };
    explain("explain-capped", 1, "POST /api/v1/registry/agents --role developer");
    explain("explain-within-the-cap", 0, "POST /api/v1/runtime/executions --role operator");
    explain("explain-foreign-platform", 1, "POST /api/v1/factory/tenants --platform");
    let manifest = "explain --config ../../../istio/base/wasmplugin.yaml";
    check("explain-manifest", 0, &format!("{manifest} GET /api/v1/registry/agents --role viewer"));
    check("explain-chain", 66, "explain --config chain-front.yaml GET /");
    check("explain-broken-document", 66, "explain --config mistakes.json GET / --role viewer");
}

#[test]
fn no_color_wins_over_forced_colour() {
    for arguments in ["lint --help", "lint warnings.json"] {
        let forced = run(arguments, b"", &[("CLICOLOR_FORCE", "1")]);
        assert!(forced.contains('\u{1b}'), "{forced}");
        for name in ["CLICOLOR_FORCE", "TERM"] {
            let plain = run(arguments, b"", &[(name, "1"), ("NO_COLOR", "1")]);
            assert!(!plain.contains('\u{1b}'), "{plain}");
        }
    }
}

#[test]
fn every_golden_belongs_to_a_case() {
    let cases = include_str!("cli.rs");
    for entry in fs::read_dir(here("goldens")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(cases.contains(&format!("\"{name}\"")), "{}", path.display());
    }
}

/// The export of `data/audit.jsonl` after `change`, from stdin.
fn check_audit(name: &str, exit: i32, change: impl FnOnce(&mut Vec<String>)) {
    let text = fs::read_to_string(here("data/audit.jsonl")).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    change(&mut lines);
    let text = lines.join("\n") + "\n";
    check_with(name, exit, "verify audit - --jwks audit-jwks.json", text.as_bytes());
}

#[test]
fn mtd5_verify_audit_accepts_an_export_and_names_what_was_changed() {
    check("verify-audit-good", 0, "verify audit audit.jsonl --jwks audit-jwks.json");
    check("verify-audit-json", 0, "--json verify audit audit.jsonl --jwks audit-jwks.json");
    check_audit("verify-audit-one-byte", 1, |lines| {
        lines[2] = lines[2].replace("\"subject\":\"s\"", "\"subject\":\"t\"");
    });
    check_audit("verify-audit-removed", 1, |lines| drop(lines.remove(2)));
    check_audit("verify-audit-moved", 1, |lines| lines.swap(1, 2));
    check_audit("verify-audit-cut", 1, |lines| lines.truncate(5));
    check_audit("verify-audit-tail", 1, |lines| drop(lines.drain(5..9)));
    check_audit("verify-audit-other-head", 1, |lines| {
        let head = lines[4].split("\"head\":\"").nth(1).unwrap().trim_end_matches("\"}").to_owned();
        let end =
            lines[9].split("\"head\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        lines[9] = lines[9].replace(&end, &head);
    });
    // Another installation's keys.
    check("verify-audit-other-keys", 1, "verify audit audit.jsonl --jwks jwks.json");
    check(
        "verify-audit-kept",
        1,
        "verify audit audit.jsonl --jwks audit-jwks.json --head audit.jsonl",
    );
    check("verify-audit-absent", 66, "verify audit absent.jsonl --jwks audit-jwks.json");
    check("verify-audit-not-keys", 66, "verify audit audit.jsonl --jwks audit.jsonl");
    check_with("verify-audit-not-text", 1, "verify audit - --jwks audit-jwks.json", b"\xff\xfe\n");
}

/// The answer of `data/execution.json` after `change`, from stdin.
fn check_execution(name: &str, exit: i32, change: impl FnOnce(&mut serde_json::Value)) {
    let text = fs::read(here("data/execution.json")).unwrap();
    let mut answer = serde_json::from_slice(&text).unwrap();
    change(&mut answer);
    check_with(name, exit, "verify execution -", answer.to_string().as_bytes());
}

#[test]
fn verify_execution_accepts_an_answer_and_names_what_was_changed() {
    check("verify-execution-good", 0, "verify execution execution.json");
    check("verify-execution-json", 0, "--json verify execution execution.json");
    let again = "verify execution execution.json --recomputed";
    check("verify-execution-again", 0, &format!("{again} execution-again.json"));
    check("verify-execution-again-of-another", 66, &format!("{again} execution.json"));
    check(
        "verify-execution-other-input",
        1,
        "verify execution execution.json --input request.json",
    );
    let zeros = format!("verify execution execution.json --hash sha256:{}", "0".repeat(64));
    check("verify-execution-other-hash", 1, &zeros);
    check_execution("verify-execution-image", 1, |answer| {
        let image = answer["provenance"]["image"].as_str().unwrap().replace("aaaa", "bbbb");
        answer["provenance"]["image"] = json!(image);
    });
    check_execution("verify-execution-output", 1, |answer| answer["output"]["kg"] = json!("33.6"));
    check_execution("verify-execution-number", 1, |answer| {
        answer["input"]["litres"] = json!(1u64 << 53)
    });
    check_execution("verify-execution-bare", 0, |answer| {
        answer.as_object_mut().unwrap().retain(|name, _| name == "hash" || name == "provenance");
    });
    check_execution("verify-execution-form", 66, |answer| {
        answer["provenance"]["form"] = json!("v9")
    });
    check_execution("verify-execution-more", 66, |answer| answer["provenance"]["x"] = json!(1));
}
