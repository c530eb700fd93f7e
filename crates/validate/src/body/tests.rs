//! What is a body, and what is not.

use super::*;

fn check(text: &str, expected: Result<(), Malformed>) {
    assert_eq!(read(text.as_bytes()).map(drop), expected, "{text:.60}");
}

fn nested(depth: usize) -> String {
    format!("{}1{}", "[".repeat(depth), "]".repeat(depth))
}

#[test]
fn x7_only_one_json_value_is_a_body() {
    for good in
        ["1", " {\"a\":[null,true,-1.5e3,\"\\u00e9\"]} ", "\"\"", "{\"a\":1,\"A\":1,\"\":1}"]
    {
        check(good, Ok(()));
    }
    for bad in [
        "",
        " ",
        "{",
        "{}{}",
        "{} x",
        "{\"a\":1,}",
        "{'a':1}",
        "[1,]",
        "01",
        "+1",
        "NaN",
        "1e400",
        "nul",
        "\u{feff}{}",
        "\"\\ud800\"",
        "\"\u{1}\"",
        "{\"a\":1",
        "{1:2}",
        "// a\n1",
    ] {
        check(bad, Err(Malformed::NotJson));
    }
    assert_eq!(read(b"\"\xff\""), Err(Malformed::NotJson));
    assert_eq!(read(b"{\"\xc0\xaf\":1}"), Err(Malformed::NotJson));
}

#[test]
fn x7_a_member_that_stands_twice_is_refused_however_it_is_written() {
    check(r#"{"a":1,"b":2,"a":3}"#, Err(Malformed::Twins));
    check(r#"[{"b":{"a":1,"\u0061":3}}]"#, Err(Malformed::Twins));
    check(r#"{"a":{"a":1},"b":{"a":1}}"#, Ok(()));
}

#[test]
fn x7_nesting_ends_at_64() {
    check(&nested(64), Ok(()));
    check(&nested(65), Err(Malformed::TooDeep));
    check(&nested(100_000), Err(Malformed::TooDeep));
    check(&format!("{}1{}", "{\"a\":".repeat(64), "}".repeat(64)), Ok(()));
    check(&format!("{}1{}", "{\"a\":".repeat(65), "}".repeat(65)), Err(Malformed::TooDeep));
    check(&"[".repeat(64), Err(Malformed::NotJson));
}

#[test]
fn members_are_in_the_order_of_their_names() {
    let Ok(Value::Object(members)) = read(br#"{"b":1,"a":2,"c":3}"#) else { panic!() };
    assert_eq!(members.iter().map(|(name, _)| name.as_ref()).collect::<String>(), "abc");
}

#[test]
fn numbers_compare_by_what_they_mean() {
    let ascending = [
        "-1.7e308",
        "-1e38",
        "-9223372036854775808",
        "-1.5",
        "-1",
        "-0.5",
        "0",
        "0.5",
        "1",
        "1.5",
        "9007199254740992",
        "9007199254740993",
        "18446744073709551615",
        "1e20",
        "1e38",
        "1.7e308",
    ];
    let number = |text: &'static str| match read(text.as_bytes()) {
        Ok(Value::Number(number)) => number,
        other => panic!("{other:?}"),
    };
    for (place, one) in ascending.iter().enumerate() {
        for (other_place, other) in ascending.iter().enumerate() {
            let expected = place.cmp(&other_place);
            assert_eq!(compare_numbers(&number(one), &number(other)), expected, "{one} {other}");
        }
    }
    for (one, other) in
        [("1", "1.0"), ("0", "-0.0"), ("10", "1e1"), ("9007199254740992", "9007199254740992.0")]
    {
        assert_eq!(compare_numbers(&number(one), &number(other)), Ordering::Equal, "{one} {other}");
    }
}
