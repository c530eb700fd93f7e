//! Bytes, eight at a time: what every request does to every byte of its token. In a Wasm VM the library's functions go
//! byte by byte. Knows nothing of what the bytes mean.

/// The highest bit of each byte.
const HIGH: u64 = 0x8080_8080_8080_8080;

/// `byte` in each of eight places.
const fn each(byte: u8) -> u64 {
    0x0101_0101_0101_0101 * byte as u64
}

/// Where `wanted` first stands.
pub fn find(bytes: &[u8], wanted: u8) -> Option<usize> {
    let (words, rest) = bytes.as_chunks::<8>();
    let pattern = each(wanted);
    for (place, word) in words.iter().enumerate() {
        // A byte is zero where it is the wanted one. Borrows run upwards only: the lowest mark is never wrong.
        let zero = u64::from_le_bytes(*word) ^ pattern;
        let marks = zero.wrapping_sub(each(1)) & !zero & HIGH;
        if marks != 0 {
            return Some(place * 8 + marks.trailing_zeros() as usize / 8);
        }
    }
    let found = rest.iter().position(|byte| *byte == wanted)?;
    Some(words.len() * 8 + found)
}

/// Whether both are the same bytes. Not for secrets: it ends at the first difference.
pub fn same(one: &[u8], other: &[u8]) -> bool {
    let ((words, rest), (others, tail)) = (one.as_chunks::<8>(), other.as_chunks::<8>());
    let equal =
        |(one, other): (&[u8; 8], &[u8; 8])| u64::from_le_bytes(*one) == u64::from_le_bytes(*other);
    one.len() == other.len() && words.iter().zip(others).all(equal) && rest == tail
}

/// Which of eight bytes are from `first` to `last`: the highest bit of each. None of them may have it set already.
pub(crate) const fn within(word: u64, first: u8, last: u8) -> u64 {
    // No byte carries into the next: both terms are below 0x80.
    (word + each(0x80 - first)) & !(word + each(0x7f - last)) & HIGH
}

/// Which of eight bytes are ASCII letters: the highest bit of each. None of them may have it set already.
pub(crate) const fn letters(word: u64) -> u64 {
    within(word | each(0x20), b'a', b'z')
}

/// How many bytes from the first on `slow` takes. `fits` is asked about eight ASCII bytes at once and marks those that it
/// knows to be taken; it may leave out what is rare.
pub(crate) fn leading(bytes: &[u8], fits: impl Fn(u64) -> u64, slow: impl Fn(u8) -> bool) -> usize {
    let (words, _) = bytes.as_chunks::<8>();
    let mut count = 0;
    for word in words {
        let ascii = u64::from_le_bytes(*word);
        if ascii & HIGH != 0 || fits(ascii) != HIGH {
            let here = word.iter().take_while(|byte| slow(**byte)).count();
            if here < word.len() {
                return count + here;
            }
        }
        count += word.len();
    }
    let rest = bytes.get(count..).unwrap_or_default();
    count + rest.iter().take_while(|byte| slow(**byte)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every byte in every place of something long enough to have whole words and a rest.
    fn each_place(mut check: impl FnMut(&[u8], usize, u8)) {
        for length in [1, 7, 8, 9, 16, 21] {
            for place in 0..length {
                for byte in 0..=u8::MAX {
                    let mut bytes = vec![b'a'; length];
                    bytes[place] = byte;
                    check(&bytes, place, byte);
                }
            }
        }
    }

    #[test]
    fn a_byte_is_found_where_it_first_stands() {
        each_place(|bytes, _, byte| {
            let expected = bytes.iter().position(|have| *have == byte);
            assert_eq!(find(bytes, byte), expected, "{bytes:?} {byte}");
            assert_eq!(find(bytes, b'.'), bytes.iter().position(|have| *have == b'.'), "{bytes:?}");
        });
        // Neighbours that a borrow could mark.
        assert_eq!(find(b"//././././", b'.'), Some(2));
        assert_eq!(find(b"", b'.'), None);
    }

    #[test]
    fn only_equal_bytes_are_the_same() {
        each_place(|bytes, place, byte| {
            let mut other = bytes.to_vec();
            assert!(same(bytes, &other));
            other[place] = byte ^ 0x80;
            assert!(!same(bytes, &other), "{bytes:?}");
            other.pop();
            assert!(!same(bytes, &other), "{bytes:?}");
        });
    }

    #[test]
    fn words_say_what_their_bytes_are() {
        let slow = |byte: u8| byte.is_ascii_alphabetic() || (b'-'..=b'9').contains(&byte);
        each_place(|bytes, _, _| {
            let expected = bytes.iter().take_while(|byte| slow(**byte)).count();
            let fits = |word| letters(word) | within(word, b'-', b'9');
            assert_eq!(leading(bytes, fits, slow), expected, "{bytes:?}");
            // A fast path that knows less finds the same.
            assert_eq!(leading(bytes, letters, slow), expected, "{bytes:?}");
        });
    }
}
