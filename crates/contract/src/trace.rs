//! `traceparent` as the W3C has it (Trace Context §3.2). What is not sound by the letter is nobody's trace.
//! Knows neither spans nor hosts.

/// Of version 00: version, trace-id, parent-id and flags, with a dash between them.
const LENGTH: usize = 55;

/// Whether `value` names a trace and a parent.
pub fn is_sound(value: &[u8]) -> bool {
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

/// A sound one as version 00 has it, which is all that we know of: 55 characters, of a later version's flags the
/// first alone. `None` for anything else.
pub fn carried(value: &[u8]) -> Option<String> {
    let known = value.get(..LENGTH).filter(|_| is_sound(value))?;
    let mut text = std::str::from_utf8(known).ok()?.to_owned();
    if !text.starts_with("00") {
        let sampled = text.bytes().last().is_some_and(|digit| b"13579bdf".contains(&digit));
        text.replace_range(..2, "00");
        text.replace_range(53.., if sampled { "01" } else { "00" });
    }
    Some(text)
}

/// The id of the trace that a carried one names: 32 hexadecimal digits.
pub fn id(carried: &str) -> &str {
    carried.get(3..35).unwrap_or_default()
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

    #[test]
    fn one_is_carried_as_we_know_it() {
        let sound = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let later = |flags| format!("cc{}{flags}", &sound[2..53]);
        for (value, expected) in [
            (sound.to_owned(), Some(sound)),
            (later("01-more"), Some(sound)),
            (later("ff"), Some(sound)),
            (later("fe-x"), Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00")),
            (format!("{sound}-more"), None),
            (String::new(), None),
        ] {
            let carried = carried(value.as_bytes());
            assert_eq!(carried.as_deref(), expected, "{value}");
            assert!(carried.is_none_or(|one| id(&one) == "4bf92f3577b34da6a3ce929d0e0e4736"));
        }
    }
}
