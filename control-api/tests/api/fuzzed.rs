//! The OpenAPI document as Schemathesis reads it, asked of the real service: nothing that it makes of the document brings
//! down an operation, and every answer is one that the document names. Seeded and bounded, the same cases each time.

use std::{fs, process::Command};

use crate::world::World;

/// What each answer is held to.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";
/// Fewer cases than this are no run of the whole document.
const FEWEST_CASES: u32 = 2000;

#[test]
fn what_the_document_allows_and_what_it_forbids_is_answered_as_it_says() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    world.published(&tenant, &world.member(&tenant, "developer"), "agent-a");
    let program = std::env::var("GATEHOUSE_TEST_SCHEMATHESIS")
        .expect("GATEHOUSE_TEST_SCHEMATHESIS is not set: run `cargo xtask test`");
    let settings = world.setup.dir.path().join("schemathesis.toml");
    fs::write(&settings, format!("[parameters]\ntenant = \"{}\"\n", tenant.id)).unwrap();
    let url = &world.service.url;
    let admin = world.member(&tenant, "admin");
    // A whole run as the platform; what only a tenant's own may do, as its admin.
    let mut cases = 0;
    for (token, phases, examples) in
        [(&world.platform, "examples,coverage,fuzzing", "4"), (&admin, "examples,fuzzing", "6")]
    {
        let out = Command::new("timeout")
            .arg("120")
            .arg(&program)
            .arg("--config-file")
            .arg(&settings)
            .args(["--no-color", "run"])
            .arg(format!("{url}/api/v1/openapi.json"))
            .args(["--url", url])
            .args(["--header", &format!("Authorization: Bearer {token}")])
            .args(["--header", "X-Gatehouse-Reason: a test", "--header", "If-Match: *"])
            .args(["--phases", phases, "--checks", CHECKS, "--max-examples", examples])
            // One thread: of two, Python 3.11 counts the depth of what they parse together, and stops (SystemError).
            .args(["--generation-deterministic", "--seed", "1", "--workers", "1"])
            // Their success ends the very credential, or key, that the rest is asked with.
            .args(["--exclude-path-regex", "revoke-tokens$|signing-keys$"])
            .current_dir(world.setup.dir.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success(), "{said}\n{}", String::from_utf8_lossy(&out.stderr));
        let generated = said.lines().find_map(|line| {
            let (count, _) = line.trim().split_once(" generated,")?;
            count.parse::<u32>().ok()
        });
        cases += generated.unwrap_or_else(|| panic!("{said}"));
    }
    assert!(cases >= FEWEST_CASES, "{cases}");
}
