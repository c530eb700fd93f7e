//! Templates and queries; whole requests are in `flow/tests/shape.rs`.

use super::*;

fn known(record: &RequestRecord) -> Known<'_> {
    Known { record, caller: None, route: Some("/api/v1/x/{id}") }
}

fn record() -> RequestRecord {
    RequestRecord::new("r1".into(), Some("v1".into()))
}

#[test]
fn a_value_is_its_pieces_or_nothing() {
    let record = record();
    for (text, expected) in [
        ("plain", Some("plain")),
        ("${request_id}", Some("r1")),
        ("a ${version}/${request_id} b", Some("a v1/r1 b")),
        ("${route}", Some("/api/v1/x/{id}")),
        ("x${tenant}", None),
        ("$5 {tenant} $", Some("$5 {tenant} $")),
    ] {
        let template: Template = text.parse().unwrap();
        assert_eq!(template.render(known(&record)).as_deref(), expected, "{text}");
    }
    for bad in [
        "${",
        "${tenant",
        "${}",
        "${Tenant}",
        "${tenant_id}",
        "a\nb",
        "a\rb",
        " a",
        "\u{e9}",
        "${${tenant}}",
    ] {
        assert!(bad.parse::<Template>().is_err(), "{bad}");
    }
}

#[test]
fn a_query_keeps_every_other_byte_and_its_order() {
    let op = |op: &str| -> Op {
        let words: Vec<&str> = op.split(' ').collect();
        match words.as_slice() {
            ["set", name, value] => Op::Set((*name).into(), value.parse().unwrap()),
            ["add", name, value] => Op::Add((*name).into(), value.parse().unwrap()),
            ["remove", name] => Op::Remove((*name).into()),
            ["rename", from, to] => Op::Rename { from: (*from).into(), to: (*to).into() },
            other => panic!("{other:?}"),
        }
    };
    let record = record();
    for (ops, before, after) in [
        (vec!["remove a"], Some("b=%2f&a=1&&c=+"), Some("b=%2f&&c=+")),
        (vec!["remove a"], Some("%61=1&a"), None),
        (vec!["remove a"], None, None),
        (vec!["set a x"], Some("a=1&b&a=2"), Some("b&a=x")),
        (vec!["set a x"], None, Some("a=x")),
        (vec!["add a x"], Some("a=1"), Some("a=1&a=x")),
        (vec!["add r ${route}"], Some("q"), Some("q&r=%2Fapi%2Fv1%2Fx%2F%7Bid%7D")),
        (vec!["add t ${tenant}"], Some("q"), Some("q")),
        (vec!["set q ${tenant}"], Some("q=evil&r"), Some("r")),
        (vec!["rename q s"], Some("q=%2f&qq=1&%71=2"), Some("s=%2f&qq=1&s=2")),
        (vec!["remove a", "rename b a"], Some("a=1&b=2"), Some("a=2")),
        (vec![], Some("x=${tenant}"), Some("x=${tenant}")),
    ] {
        let query = ops.iter().map(|text| op(text)).collect();
        let transforms = Transforms { query, ..Transforms::default() };
        assert_eq!(
            transforms.query(before, known(&record)).as_deref(),
            after,
            "{ops:?} {before:?}"
        );
    }
}
