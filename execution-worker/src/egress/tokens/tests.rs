//! Answers as the two families of interfaces give them, whole and in every pair of parts; and what must count nothing.

use super::*;

const JSON: &str = "application/json; charset=utf-8";
const EVENTS: &str = "text/event-stream";

/// Read whole, byte by byte, and cut in two at every place.
fn check(media_type: &str, body: &str, expected: u64) {
    let read = |parts: &[&[u8]]| {
        let mut meter = Meter::new(media_type, false);
        parts.iter().for_each(|part| meter.read(part));
        meter.tokens()
    };
    let bytes = body.as_bytes();
    assert_eq!(read(&[bytes]), expected, "{body}");
    assert_eq!(read(&bytes.chunks(1).collect::<Vec<_>>()), expected, "{body}");
    for at in 0..bytes.len() {
        let (head, tail) = bytes.split_at(at);
        assert_eq!(read(&[head, tail]), expected, "{body} at {at}");
    }
}

#[test]
fn both_forms_of_a_whole_answer_are_counted() {
    check(
        JSON,
        r#"{"id":"chatcmpl-1","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant",
            "content":"{\"usage\":{\"total_tokens\":9}}"},"finish_reason":"stop"}],"usage":{"prompt_tokens":12,
            "completion_tokens":30,"total_tokens":42,"prompt_tokens_details":{"cached_tokens":7}}}"#,
        42,
    );
    check(
        JSON,
        r#"{"type":"message","content":[{"type":"text","text":"hi"}],"usage":{"input_tokens":10,
            "cache_read_input_tokens":100,"cache_creation_input_tokens":1000,"output_tokens":5}}"#,
        1115,
    );
    check(
        JSON,
        r#"{"object":"list","data":[{"embedding":[0.1,2e3,-4]}],"usage":{"prompt_tokens":8,"total_tokens":8}}"#,
        8,
    );
    check(
        JSON,
        r#"{"object":"response","usage":{"input_tokens":3,"output_tokens":4,"total_tokens":7}}"#,
        7,
    );
}

#[test]
fn both_forms_of_a_streamed_answer_are_counted() {
    check(
        EVENTS,
        "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":null}\n\n\
         data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":6,\"total_tokens\":11}}\n\ndata: [DONE]\n\n",
        11,
    );
    // The last count includes the ones before it.
    check(
        EVENTS,
        "event: message_start\r\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":25,\"output_tokens\":1}}}\r\n\r\n\
         event: ping\r\ndata: {\"type\":\"ping\"}\r\n\r\n\
         event: message_delta\r\ndata: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":15}}\r\n\r\n",
        40,
    );
    check(
        EVENTS,
        "event: response.completed\ndata: {\"response\":{\"usage\":\ndata: {\"total_tokens\":9}}}\n\n",
        9,
    );
    // An event that breaks off spoils none behind it.
    check(EVENTS, "data: {\"usage\":{\"a\":\"\n\ndata: {\"usage\":{\"total_tokens\":3}}\n\n", 3);
}

#[test]
fn what_is_no_usage_counts_nothing() {
    for body in [
        "",
        "[]",
        "{}",
        r#"{"usage":"total_tokens"}"#,
        r#"{"usage":{"total_tokens":"42"}}"#,
        r#"{"usage":{"total_tokens":-42}}"#,
        r#"{"usage":{"total_tokens":4.2}}"#,
        r#"{"usage":{"total_tokens":4e2}}"#,
        r#"{"usage":{"total_tokens":99999999999999999999999}}"#,
        r#"{"usage":{"details":{"total_tokens":42}}}"#,
        r#"{"usage":[{"total_tokens":42}]}"#,
        r#"[{"usage":{"total_tokens":42}}]"#,
        r#"{"choices":[{"usage":{"total_tokens":42}}]}"#,
        r#"{"choice":{"usage":{"total_tokens":42}}}"#,
        r#"{"total_tokens":42}"#,
        r#"{"text":"\"usage\":{\"total_tokens\":42}"}"#,
        r#"{"us\u0061ge":{"total_tokens":42}}"#,
        "}}}]]]{{{[[",
    ] {
        check(JSON, body, 0);
    }
    check(
        EVENTS,
        "event: {\"usage\":{\"total_tokens\":42}}\n\nid: 1\n\n: data: {\"usage\":{\"total_tokens\":42}}\n\n",
        0,
    );
    check("text/plain", r#"{"usage":{"total_tokens":42}}"#, 0);
    let mut encoded = Meter::new(JSON, true);
    encoded.read(br#"{"usage":{"total_tokens":42}}"#);
    assert_eq!(encoded.tokens(), 0);
}

#[test]
fn depth_and_length_cost_no_memory() {
    let mut meter = Meter::new(JSON, false);
    for _ in 0..1000 {
        meter.read(&[b'['; 1000]);
    }
    meter.read(b"{\"");
    meter.read(&vec![b'x'; 1_000_000]);
    assert!(meter.scan.name.capacity() <= 2 * NAME_BYTES, "{}", meter.scan.name.capacity());
}
