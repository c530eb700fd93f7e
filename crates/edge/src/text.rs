//! Header values that requests share or that need no allocation: most of what a request sets was made before it
//! came. Knows no headers.

use std::{fmt, ops::Deref, rc::Rc};

/// A header's value.
#[derive(Clone)]
pub enum Text {
    /// Known when this was built.
    Static(&'static str),
    /// Made once for many requests, by the configuration or for a caller.
    Shared(Rc<str>),
    /// Made for one request.
    Owned(String),
    /// A number.
    Number(Digits),
}

/// A number's decimal digits.
#[derive(Clone, Copy)]
pub struct Digits {
    bytes: [u8; MAX_DIGITS],
    from: usize,
}

/// Of `u32::MAX`.
const MAX_DIGITS: usize = 10;

// === impl Text ===

impl Text {
    /// The value.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Static(text) => text,
            Self::Shared(text) => text,
            Self::Owned(text) => text,
            Self::Number(digits) => digits.as_str(),
        }
    }

    /// The value, to be changed; `None` if others have it, too.
    pub(crate) fn as_owned(&mut self) -> Option<&mut String> {
        match self {
            Self::Owned(text) => Some(text),
            Self::Static(_) | Self::Shared(_) | Self::Number(_) => None,
        }
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl From<&'static str> for Text {
    fn from(text: &'static str) -> Self {
        Self::Static(text)
    }
}

impl From<Rc<str>> for Text {
    fn from(text: Rc<str>) -> Self {
        Self::Shared(text)
    }
}

impl From<&Rc<str>> for Text {
    fn from(text: &Rc<str>) -> Self {
        Self::Shared(Rc::clone(text))
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::Owned(text)
    }
}

impl From<u32> for Text {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

/// Two texts are equal when they say the same, however they are kept.
impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Text {}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        **self == *other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        **self == **other
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

// === impl Digits ===

impl From<u32> for Digits {
    fn from(mut number: u32) -> Self {
        let mut digits = Self { bytes: [b'0'; MAX_DIGITS], from: MAX_DIGITS };
        for place in digits.bytes.iter_mut().rev() {
            // Below 10, so that it fits.
            *place = b'0'.saturating_add((number % 10) as u8);
            digits.from = digits.from.saturating_sub(1);
            number /= 10;
            if number == 0 {
                break;
            }
        }
        digits
    }
}

impl Digits {
    fn as_str(&self) -> &str {
        let digits = self.bytes.get(self.from..).unwrap_or_default();
        std::str::from_utf8(digits).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_their_digits() {
        for number in [0, 1, 9, 10, 59, 60, 99, 100, 6000, 999_999, u32::MAX - 1, u32::MAX] {
            assert_eq!(&*Text::from(number), number.to_string());
        }
    }

    #[test]
    fn texts_are_equal_by_what_they_say() {
        let shared: Rc<str> = "60".into();
        let all = [Text::from("60"), (&shared).into(), "60".to_owned().into(), 60.into()];
        assert!(all.iter().all(|text| *text == all[0] && format!("{text}") == "60"));
        assert_ne!(all[0], Text::from(61));
    }
}
