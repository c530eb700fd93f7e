//! `traceparent` as the W3C has it (Trace Context §3.2): a sound one goes on as it came, anything else is nobody's trace
//! and goes with its `tracestate`, so that whoever traces behind begins anew and never meets two.
//! Knows neither spans nor hosts.

/// Of version 00: version, trace-id, parent-id and flags, with a dash between them.
const LENGTH: usize = 55;

/// Whether `value` names a trace and a parent.
pub(crate) fn is_sound(value: &[u8]) -> bool {
    let (Some(known), Some(rest)) = (value.get(..LENGTH), value.get(LENGTH..)) else {
        return false;
    };
    let mut parts = known.split(|byte| *byte == b'-');
    let (Some(version), Some(trace), Some(parent), Some(flags), None) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let is = |part: &[u8], length| {
        let digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        part.len() == length && part.iter().all(digit)
    };
    let names = |part: &[u8], length| is(part, length) && part.iter().any(|byte| *byte != b'0');
    // A later version may have more behind the flags; version ff there is none.
    let ends = rest.is_empty() || (version != b"00" && rest.first() == Some(&b'-'));
    is(version, 2)
        && version != b"ff"
        && names(trace, 32)
        && names(parent, 16)
        && is(flags, 2)
        && ends
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x10_a_traceparent_is_sound_by_the_letter() {
        let sound = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(sound.len(), LENGTH);
        let zeros = "0".repeat(32);
        for (value, expected) in [
            (sound.to_owned(), true),
            (sound.replacen("00-", "01-", 1), true),
            (format!("{}-more", sound.replacen("00-", "cc-", 1)), true),
            (format!("{}more", sound.replacen("00-", "cc-", 1)), false),
            (format!("{sound}-more"), false),
            (sound.replacen("00-", "ff-", 1), false),
            (sound.to_uppercase(), false),
            (sound.replace("4bf92f3577b34da6a3ce929d0e0e4736", &zeros), false),
            (sound.replace("00f067aa0ba902b7", &zeros[..16]), false),
            (sound.replace('-', "_"), false),
            (sound.replacen('-', "0", 1), false),
            (format!("{sound},{sound}"), false),
            (sound[..54].to_owned(), false),
            (format!(" {sound}"), false),
            (sound.replace("01", "g1"), false),
            (String::new(), false),
        ] {
            assert_eq!(is_sound(value.as_bytes()), expected, "{value:?}");
        }
    }
}
