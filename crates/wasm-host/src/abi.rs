//! The one function of the ABI that the SDK cannot be trusted with: its reading of a header map unwraps UTF-8 in
//! names and panics on every status it does not expect, and a panic here is an outage (acceptance J30). This one
//! takes any bytes, copies nothing, and makes of any failure a value.
//! Knows nothing of what headers mean.

#![expect(unsafe_code, reason = "calling the host; nothing else in this crate may")]

use std::ptr;

use proxy_wasm::types::MapType;

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
}

/// The status for "done".
const OK: u32 = 0;

/// A header map in the ABI's form: a count, that many pairs of lengths, then names and values, each with a NUL
/// behind it; all numbers are little-endian `u32`.
#[derive(Debug)]
pub(crate) struct HeaderMap(Vec<u8>);

impl HeaderMap {
    /// Reads a map from the host; `None` if the host has none.
    pub(crate) fn read(map: MapType) -> Option<Self> {
        let mut data: *mut u8 = ptr::null_mut();
        let mut size: usize = 0;
        // SAFETY: the host writes one pointer and one length to these two places, which live until it returns.
        let status =
            unsafe { proxy_get_header_map_pairs(map as u32, &raw mut data, &raw mut size) };
        if status != OK {
            return None;
        }
        if data.is_null() {
            return Some(Self(Vec::new()));
        }
        // SAFETY: the host got this memory from `proxy_on_memory_allocate`, which leaks a boxed slice of exactly
        // `size` bytes of this module's allocator, and hands it over: nobody else frees it.
        Some(Self(unsafe { Vec::from_raw_parts(data, size, size) }))
    }

    /// The pairs in their order; `None` if the host's lengths do not fit its bytes.
    pub(crate) fn pairs(&self) -> Option<Vec<(&[u8], &[u8])>> {
        if self.0.is_empty() {
            return Some(Vec::new());
        }
        let (count, rest) = number(&self.0)?;
        let (lengths, mut texts) = rest.split_at_checked(count.checked_mul(8)?)?;
        lengths
            .chunks_exact(8)
            .map(|pair| {
                let (name, rest) = number(pair)?;
                let (value, _) = number(rest)?;
                Some((text(&mut texts, name)?, text(&mut texts, value)?))
            })
            .collect()
    }
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

    fn map(pairs: &[(&[u8], &[u8])]) -> HeaderMap {
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
            assert_eq!(map(&pairs).pairs(), Some(pairs));
        }
        assert_eq!(HeaderMap(Vec::new()).pairs(), Some(Vec::new()));
    }

    #[test]
    fn a_map_that_is_cut_or_lies_about_its_lengths_is_none() {
        let whole = map(&[(b"name", b"value"), (b"x", b"")]).0;
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
