//! The request's id: a well-formed one is kept, else one is made (acceptance X10).
//! Knows no source of randomness: the shell brings the seed.

use std::rc::Rc;

/// The longest id that is taken over from a client, in bytes.
const MAX_BYTES: usize = 128;

/// Makes ids from a seed that differs per VM. Not for secrets: whoever sees an id may guess the next.
#[derive(Debug, Clone)]
pub struct Ids {
    state: [u64; 2],
}

impl Ids {
    /// Takes 128 bits that no other VM has.
    pub fn new(seed: [u64; 2]) -> Self {
        Self { state: seed }
    }

    /// A new id in the form of a version 4 UUID (RFC 9562 §5.4).
    pub fn next_id(&mut self) -> Rc<str> {
        let [counter, offset] = &mut self.state;
        *counter = counter.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let high = mix(*counter ^ offset.rotate_left(32)) & 0xffff_ffff_ffff_0fff | 0x4000;
        let low = mix(counter.wrapping_add(*offset)) & 0x3fff_ffff_ffff_ffff | 1 << 63;
        // On the stack, so that making an id costs one allocation.
        let mut text = [b'-'; 36];
        let halves = high.to_be_bytes().into_iter().chain(low.to_be_bytes());
        let digits = halves.flat_map(|byte| [byte >> 4, byte & 0xf]);
        let places = text.iter_mut().enumerate().filter(|(at, _)| !matches!(at, 8 | 13 | 18 | 23));
        for ((_, place), digit) in places.zip(digits) {
            *place = if digit < 10 { b'0' + digit } else { b'a' + digit - 10 };
        }
        std::str::from_utf8(&text).unwrap_or_default().into()
    }
}

/// The finaliser of SplitMix64: a bijection, so that a counter never repeats.
fn mix(mut value: u64) -> u64 {
    value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

/// `value` as an id, when it is safe in headers, logs and JSON.
pub fn accept(value: &[u8]) -> Option<&str> {
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if value.is_empty() || value.len() > MAX_BYTES || !value.iter().all(fits) {
        return None;
    }
    std::str::from_utf8(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x10_only_harmless_ids_are_kept() {
        let longest = "a".repeat(MAX_BYTES);
        for good in ["a", "0191d6b0-7c3e-7aaa-8bbb-0123456789ab", "req_1.2", longest.as_str()] {
            assert_eq!(accept(good.as_bytes()), Some(good));
        }
        let longer = "a".repeat(MAX_BYTES + 1);
        for bad in ["", "a b", "a,b", "a\r\nx: y", "\u{e9}", "a\"", "<a>", longer.as_str()] {
            assert_eq!(accept(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(accept(b"\xff"), None);
    }

    #[test]
    fn made_ids_are_uuids_that_differ_within_and_between_vms() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..10 {
            let mut ids = Ids::new([seed, 7]);
            for _ in 0..1000 {
                let id = ids.next_id();
                assert_eq!(id.len(), 36);
                assert_eq!(id.as_bytes()[14], b'4');
                assert!(b"89ab".contains(&id.as_bytes()[19]), "{id}");
                assert!(accept(id.as_bytes()).is_some());
                assert!(seen.insert(id));
            }
        }
    }
}
