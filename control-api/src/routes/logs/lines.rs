//! From bytes that anybody may have written to lines of text: what is no UTF-8 is U+FFFD, a line that is too long comes in
//! pieces, and nothing is looked at twice. Knows nothing of where the bytes were.

/// A longer line comes in pieces.
pub const LINE_BYTES: usize = 8 << 10;

/// A line, or a piece of one.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece {
    /// The number of the byte behind it, and behind the end of its line.
    pub end: u64,
    /// Without the end of its line.
    pub text: String,
    /// Whether its line goes on behind it.
    pub partial: bool,
}

/// The lines of the part of a log that begins at the byte `from`, as far as they end behind `after`.
pub fn pieces(from: u64, bytes: &[u8], after: u64) -> impl Iterator<Item = Piece> {
    let seen = usize::try_from(after.saturating_sub(from)).unwrap_or(usize::MAX);
    let (mut at, mut rest) = (from.max(after), bytes.get(seen..).unwrap_or_default());
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let window = rest.get(..LINE_BYTES).unwrap_or(rest);
        let (taken, shown, partial) = match window.iter().position(|byte| *byte == b'\n') {
            Some(end) => (end + 1, end, false),
            None => {
                let whole = whole(window, window.len() < rest.len());
                (whole, whole, true)
            }
        };
        let text = rest.get(..shown).unwrap_or_default();
        let text = text.strip_suffix(b"\r").filter(|_| !partial).unwrap_or(text);
        let text = String::from_utf8_lossy(text).into_owned();
        at = at.saturating_add(taken as u64);
        rest = rest.get(taken..).unwrap_or_default();
        Some(Piece { end: at, text, partial })
    })
}

/// How much of a cut line to take: no character is cut, where there are more bytes behind it.
fn whole(window: &[u8], more: bool) -> usize {
    if !more {
        return window.len();
    }
    match std::str::from_utf8(window) {
        Err(error) if error.error_len().is_none() && error.valid_up_to() > 0 => error.valid_up_to(),
        _ => window.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(from: u64, bytes: &[u8], after: u64, expected: &[(u64, &str, bool)]) {
        let found: Vec<Piece> = pieces(from, bytes, after).collect();
        let expected: Vec<Piece> = expected
            .iter()
            .map(|(end, text, partial)| Piece {
                end: *end,
                text: (*text).to_owned(),
                partial: *partial,
            })
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn lines_are_shown_with_where_they_end() {
        check(0, b"", 0, &[]);
        check(
            0,
            b"a\nbc\r\n\nd",
            0,
            &[(2, "a", false), (6, "bc", false), (7, "", false), (8, "d", true)],
        );
        check(10, b"a\nb\n", 12, &[(14, "b", false)]);
        check(10, b"a\nb\n", 14, &[]);
        check(10, b"a\nb\n", 99, &[]);
        check(0, b"\xff\xfe\0\x1b[1m\n", 0, &[(8, "\u{fffd}\u{fffd}\0\u{1b}[1m", false)]);
    }

    #[test]
    fn a_long_line_comes_in_pieces_that_cut_no_character() {
        let mut line = vec![b'x'; LINE_BYTES - 1];
        line.extend("é".as_bytes());
        line.extend(b"yz\n");
        let found: Vec<Piece> = pieces(0, &line, 0).collect();
        let ends: Vec<(u64, bool)> = found.iter().map(|piece| (piece.end, piece.partial)).collect();
        assert_eq!(ends, [(LINE_BYTES as u64 - 1, true), (LINE_BYTES as u64 + 4, false)]);
        assert_eq!(found[1].text, "éyz");
        // However it is cut, all of it is there once.
        for after in 0..line.len() as u64 {
            let rest: u64 = pieces(0, &line, after).last().map_or(after, |piece| piece.end);
            assert_eq!(rest, line.len() as u64);
        }
        // What is no text is cut anywhere.
        assert!(pieces(0, &[0x80; 3 * LINE_BYTES], 0).all(|piece| piece.partial));
    }
}
