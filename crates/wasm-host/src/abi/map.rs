//! A header map in the ABI's form: a count, that many pairs of lengths, then names and values, each with a NUL
//! behind it; all numbers are little-endian `u32`. Any bytes are a name and a value.
//! Knows no hosts.

use super::{Map, header_map};

/// A map as the host gave it: one allocation for all of it.
#[derive(Debug)]
pub(crate) struct HeaderMap(Vec<u8>);

impl HeaderMap {
    /// Reads a map from the host; `None` if the host has none.
    pub(crate) fn read(map: Map) -> Option<Self> {
        header_map(map).map(Self)
    }

    /// The pairs in their order; `None` if the host's lengths do not fit its bytes.
    pub(crate) fn pairs(&self) -> Option<Vec<(&[u8], &[u8])>> {
        if self.0.is_empty() {
            return Some(Vec::new());
        }
        let (count, rest) = number(&self.0)?;
        let (lengths, mut texts) = rest.split_at_checked(count.checked_mul(8)?)?;
        // Reserved once: an iterator that may fail tells no length. The bytes of the lengths are there.
        let mut pairs = Vec::with_capacity(count);
        for pair in lengths.chunks_exact(8) {
            let (name, rest) = number(pair)?;
            let (value, _) = number(rest)?;
            pairs.push((text(&mut texts, name)?, text(&mut texts, value)?));
        }
        Some(pairs)
    }
}

/// The map of these pairs. What does not fit into its numbers cannot be in memory either.
pub(super) fn encode(pairs: &[(&str, &str)]) -> Vec<u8> {
    let size = |text: &str| u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes();
    let texts: usize = pairs.iter().map(|(name, value)| name.len() + value.len() + 10).sum();
    let mut bytes = Vec::with_capacity(texts + 4);
    bytes.extend_from_slice(&u32::try_from(pairs.len()).unwrap_or(u32::MAX).to_le_bytes());
    for (name, value) in pairs {
        bytes.extend_from_slice(&size(name));
        bytes.extend_from_slice(&size(value));
    }
    for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
        bytes.extend_from_slice(text.as_bytes());
        bytes.push(0);
    }
    bytes
}

fn number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<4>()?;
    Some((usize::try_from(u32::from_le_bytes(*number)).ok()?, rest))
}

/// The next `length` bytes and the NUL behind them.
fn text<'a>(texts: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (text, rest) = texts.split_at_checked(length)?;
    let (_nul, rest) = rest.split_first()?;
    *texts = rest;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(pairs: &[(&[u8], &[u8])]) -> HeaderMap {
        let length = |text: &[u8]| u32::try_from(text.len()).unwrap().to_le_bytes();
        let mut bytes = u32::try_from(pairs.len()).unwrap().to_le_bytes().to_vec();
        for (name, value) in pairs {
            bytes.extend(length(name));
            bytes.extend(length(value));
        }
        for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
            bytes.extend_from_slice(text);
            bytes.push(0);
        }
        HeaderMap(bytes)
    }

    #[test]
    fn j30_any_bytes_are_a_name_and_a_value() {
        let all: Vec<u8> = (0..=255).collect();
        for pairs in [
            vec![],
            vec![(b":path".as_slice(), b"/".as_slice())],
            vec![(b"".as_slice(), b"".as_slice()), (b"a", b"")],
            vec![(all.as_slice(), b"\0\xff\xc3".as_slice()), (b"\xff", all.as_slice())],
        ] {
            assert_eq!(wire(&pairs).pairs(), Some(pairs));
        }
        assert_eq!(HeaderMap(Vec::new()).pairs(), Some(Vec::new()));
    }

    #[test]
    fn what_is_sent_reads_as_it_was_meant() {
        for pairs in [vec![], vec![(":path", "/"), ("a", ""), ("", "\u{e9}")]] {
            let expected = pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
            let sent = HeaderMap(encode(&pairs));
            assert_eq!(sent.pairs(), Some(expected.collect()));
        }
    }

    #[test]
    fn a_map_that_is_cut_or_lies_about_its_lengths_is_none() {
        let whole = wire(&[(b"name", b"value"), (b"x", b"")]).0;
        for end in 1..whole.len() {
            assert_eq!(HeaderMap(whole[..end].to_vec()).pairs(), None, "cut at {end}");
        }
        for at in [0, 3, 4, 7, 8, 11] {
            let mut lie = whole.clone();
            lie[at] = 0xff;
            assert_eq!(HeaderMap(lie).pairs(), None, "lie at {at}");
        }
    }
}
