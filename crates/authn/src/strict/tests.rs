//! What is read, what is refused, and where everything stands. Knows nothing of tokens.

use super::*;

fn check(text: &str, expected: Result<(), Fault>) {
    assert_eq!(Document::read(text.as_bytes().to_vec(), 3).map(drop), expected, "{text}");
}

#[test]
fn j10_refuses_a_member_that_stands_twice_at_any_depth() {
    check(r#"{"a":1,"b":1}"#, Ok(()));
    check(r#"{"a":1,"a":1}"#, Err(Fault::MemberTwice));
    check(r#"{"a":1,"\u0061":1}"#, Err(Fault::MemberTwice));
    check(r#"{"a":{"a":1},"b":[{"a":1}]}"#, Ok(()));
    check(r#"{"b":{"a":1,"c":2,"a":3}}"#, Err(Fault::MemberTwice));
    check(r#"{"b":[{"a":1,"a":3}]}"#, Err(Fault::MemberTwice));
    check(r#"{"":1,"":1}"#, Err(Fault::MemberTwice));
}

#[test]
fn j10_refuses_nesting_beyond_the_bound() {
    check(r#"{"a":{"b":[1]}}"#, Ok(()));
    check(r#"{"a":{"b":[[]]}}"#, Err(Fault::TooDeep));
    check(r#"{"a":{"b":[{}]}}"#, Err(Fault::TooDeep));
}

#[test]
fn takes_one_object_and_nothing_else() {
    for bad in [
        "",
        "[]",
        "1",
        "null",
        "{} {}",
        "{}x",
        "{\"a\":1e400}",
        "{a:1}",
        "{\"a\":1,}",
        "\u{feff}{}",
        r#"{"a":"\ud800"}"#,
        "{\"a\":\"\n\"}",
        "{\"a\":NaN}",
        "{\"a\":01}",
    ] {
        check(bad, Err(Fault::NotAnObject));
    }
    let not_utf8 = Document::read(b"{\"a\":\"\xff\"}".to_vec(), 3);
    assert_eq!(not_utf8.map(drop), Err(Fault::NotAnObject));
}

#[test]
fn keeps_whole_numbers_exact() {
    let text = br#"{"a":18446744073709551615,"b":-1,"c":1.5}"#;
    let read = Document::read(text.to_vec(), 3).unwrap();
    let read = read.root();
    assert!(matches!(read.get("a"), Some(Value::Whole(u64::MAX))));
    assert!(matches!(read.get("b"), Some(Value::Fraction(-1.0))));
    assert!(matches!(read.get("c"), Some(Value::Fraction(1.5))));
    assert!(read.has("c") && !read.has("d"));
}

#[test]
fn finds_every_value_where_it_stands() {
    let text = r#" {"a" : [null,{"a":"x","b":[]},true,"\u0079\n","ä"],"" :{"a~b":"\u00e4" , "n":1}, "z":"end"} "#;
    let read = Document::read(text.as_bytes().to_vec(), 4).unwrap();
    let root = read.root();
    let text_at = |value: Option<Value<'_>>| value.and_then(Value::as_str).map(str::to_owned);
    assert_eq!(text_at(root.get("z")).as_deref(), Some("end"));
    let inner = root.get("").unwrap();
    assert_eq!(text_at(inner.member("a~b")).as_deref(), Some("ä"));
    assert!(matches!(inner.member("n"), Some(Value::Whole(1))));
    assert!(inner.member("a").is_none() && inner.member("z").is_none());
    let Some(Value::List(list)) = root.get("a") else { panic!() };
    let items: Vec<_> = list.iter().collect();
    assert!(matches!(items[..], [Value::Null, Value::Object(_), Value::Bool(true), ..]));
    assert_eq!(text_at(items[1].member("a")).as_deref(), Some("x"));
    assert!(items[1].member("null").is_none());
    let Some(Value::List(empty)) = items[1].member("b") else { panic!() };
    assert_eq!(empty.iter().count(), 0);
    assert_eq!(items[3].as_str(), Some("y\n"));
    assert_eq!((items[4].as_str(), items.len()), (Some("ä"), 5));
    assert_eq!(read.text(), text);
}

#[test]
fn j10_many_members_are_compared_too() {
    for count in [1, 2, 15, 16, 17, 18, 400] {
        let members = |last: usize| {
            let names = (0..count - 1).chain([last]);
            let members: Vec<_> = names.map(|name| format!("\"n{name}\":[{name}]")).collect();
            format!("{{{}}}", members.join(","))
        };
        check(&members(count), Ok(()));
        for twin in [0, (count - 1) / 2, count.saturating_sub(2)] {
            let expected = if count > 1 { Err(Fault::MemberTwice) } else { Ok(()) };
            check(&members(twin), expected);
        }
    }
}

#[test]
fn j10_names_that_share_their_beginning_and_length_are_told_apart() {
    let long = "n".repeat(300);
    for (one, other) in [
        ("tenant_id", "tenant_ix"),
        ("tenants", "tenantz"),
        ("tenant_", "tenant_i"),
        ("a", "a\\u0000"),
        (&format!("{long}a"), &format!("{long}b")),
        (&format!("{long}a"), &long),
    ] {
        check(&format!(r#"{{"{one}":1,"{other}":2}}"#), Ok(()));
        check(&format!(r#"{{"{one}":1,"{other}":2,"{one}":3}}"#), Err(Fault::MemberTwice));
        let text = format!(r#"{{"{one}":1,"{other}":2}}"#);
        let read = Document::read(text.into_bytes(), 3).unwrap();
        let at = |name: &str| read.root().get(&name.replace("\\u0000", "\0"));
        assert!(matches!((at(one), at(other)), (Some(Value::Whole(1)), Some(Value::Whole(2)))));
        assert!(at(&format!("{one}?")).is_none() && at("").is_none());
    }
}
