//! The document, whole, as a reviewed golden; and what an image cannot do to it.
//! When it changes on purpose, put what the failing test prints into `golden.json` and read the difference.

use super::*;

const PLACES: Places<'_> = Places {
    rootfs: "/state/images/chain/rootfs",
    exchange: "/state/bundles/id/agent",
    scratch: "/state/bundles/id/scratch",
    cgroup: "/gatehouse/worker/id",
    egress: None,
};

fn id() -> SandboxId {
    SandboxId { execution: "0191d6b0-7c3e-7aaa-8bbb-0123456789ab".parse().unwrap(), epoch: 3 }
}

fn start() -> Start {
    Start {
        entrypoint: Some(vec!["/agent".to_owned()]),
        env: Some(vec!["RUST_LOG=info".to_owned(), "HOME=/root".to_owned()]),
        ..Start::default()
    }
}

#[test]
fn the_document_is_the_golden() {
    let document = document(id(), &start(), &Limits::default(), &PLACES).unwrap();
    let shown = serde_json::to_string_pretty(&document).unwrap() + "\n";
    // Compared as values: the order of members is up to serde_json's features.
    let golden: Value = serde_json::from_str(include_str!("golden.json")).unwrap();
    assert_eq!(document, golden, "{shown}");
}

#[test]
fn an_image_chooses_its_start_line_and_nothing_else() {
    let mut greedy = start();
    greedy.user = Some("0:0".to_owned());
    greedy.working_dir = Some("/data".to_owned());
    let ours = document(id(), &start(), &Limits::default(), &PLACES).unwrap();
    let mut theirs = document(id(), &greedy, &Limits::default(), &PLACES).unwrap();
    assert_eq!(theirs["process"]["cwd"].take(), "/data");
    theirs["process"]["cwd"] = "/".into();
    assert_eq!(theirs, ours);
}

#[test]
fn with_egress_it_is_in_its_makers_network_and_knows_the_proxy() {
    let variables = ["HTTP_PROXY=http://ours".to_owned()];
    let places = Places { egress: Some(&variables), ..PLACES };
    let mut image = start();
    image.env = Some(vec!["HTTP_PROXY=http://theirs".to_owned(), "HTTP_PROXYX=1".to_owned()]);
    let mut with = document(id(), &image, &Limits::default(), &places).unwrap();
    let env = with["process"]["env"].take();
    let path = "PATH=/usr/local/bin:/usr/bin:/bin";
    assert_eq!(env, json!(["HTTP_PROXYX=1", path, "HOME=/tmp", "HTTP_PROXY=http://ours"]));
    let network = with["linux"]["namespaces"][1].take();
    assert_eq!(network, json!({"type": "network", "path": "/proc/self/ns/net"}));
    // And nothing else.
    let mut without = document(id(), &image, &Limits::default(), &PLACES).unwrap();
    assert_eq!(without["process"]["env"].take()[0], "HTTP_PROXY=http://theirs");
    assert_eq!(without["linux"]["namespaces"][1].take(), json!({"type": "network"}));
    assert_eq!(with, without);
}

#[test]
fn a_start_line_that_cannot_be_used_is_refused() {
    type Change = fn(&mut Start);
    let table: [(Change, &str); 7] = [
        (|s| s.entrypoint = None, "entry point"),
        (|s| s.entrypoint = Some(vec![String::new()]), "entry point"),
        (|s| s.cmd = Some(vec!["a\0b".to_owned()]), "entry point"),
        (|s| s.env = Some(vec!["=x".to_owned()]), "environment"),
        (|s| s.env = Some(vec!["NAME".to_owned()]), "environment"),
        (|s| s.env = Some(vec!["A=\0".to_owned()]), "environment"),
        (|s| s.working_dir = Some("data".to_owned()), "working directory"),
    ];
    for (change, what) in table {
        let mut bad = start();
        change(&mut bad);
        let refused = document(id(), &bad, &Limits::default(), &PLACES);
        assert_eq!(refused, Err(Error::Start(what)));
    }
}

#[test]
fn an_id_has_one_spelling_and_one_length() {
    assert_eq!(id().to_string(), "0191d6b0-7c3e-7aaa-8bbb-0123456789ab-00000003");
    for epoch in [0, 3, u32::MAX] {
        let id = SandboxId { epoch, ..id() };
        assert_eq!(id.to_string().len(), 45);
        assert_eq!(id.to_string().parse(), Ok(id));
    }
    for bad in [
        "",
        "x",
        "0191d6b0-7c3e-7aaa-8bbb-0123456789ab",
        "0191d6b0-7c3e-7aaa-8bbb-0123456789ab-3",
        "0191d6b0-7c3e-7aaa-8bbb-0123456789ab-0000000A",
        "0191D6B0-7c3e-7aaa-8bbb-0123456789ab-00000003",
        "../b0-7c3e-7aaa-8bbb-0123456789ab-00000003",
    ] {
        assert_eq!(bad.parse::<SandboxId>(), Err(NotASandboxId), "{bad:?}");
    }
}
