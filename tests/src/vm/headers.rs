//! Header maps: the pairs as a host holds them, and the ABI's serialised form
//! (`u32 count`, `count` × (`u32 name length`, `u32 value length`), then `name \0 value \0` each; little endian).

use std::fmt;

use anyhow::{Context, Result, ensure};

/// Headers in the order of the wire; names may repeat.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(Vec<u8>, Vec<u8>)>);

/// As people write headers, for the message of a failed assertion.
impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy;
        f.debug_map().entries(self.iter().map(|(n, v)| (text(n), text(v)))).finish()
    }
}

impl Headers {
    /// The pairs as they are given.
    pub fn new<N: AsRef<[u8]>, V: AsRef<[u8]>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        Self(pairs.into_iter().map(|(n, v)| (n.as_ref().to_vec(), v.as_ref().to_vec())).collect())
    }

    /// Every pair.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(name, value)| (name.as_slice(), value.as_slice()))
    }

    /// How many pairs.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every value of `name`, in any case, as text for assertions (bytes that are no UTF-8 are replaced).
    pub fn all(&self, name: &str) -> Vec<String> {
        self.values(name.as_bytes()).map(|v| String::from_utf8_lossy(v).into_owned()).collect()
    }

    /// The value of `name` if it stands exactly once.
    pub fn one(&self, name: &str) -> Option<String> {
        let mut all = self.all(name);
        if all.len() == 1 { all.pop() } else { None }
    }

    pub(crate) fn values(&self, name: &[u8]) -> impl Iterator<Item = &[u8]> {
        let name = name.to_vec();
        self.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(&name)).map(|(_, value)| value)
    }

    pub(crate) fn add(&mut self, name: &[u8], value: &[u8]) {
        self.0.push((name.to_vec(), value.to_vec()));
    }

    pub(crate) fn remove(&mut self, name: &[u8]) {
        self.0.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
    }

    /// One value where there were any, behind all others, as Envoy does it.
    pub(crate) fn replace(&mut self, name: &[u8], value: &[u8]) {
        self.remove(name);
        self.0.push((name.to_vec(), value.to_vec()));
    }

    pub(crate) fn lower_case_names(&mut self) {
        for (name, _) in &mut self.0 {
            name.make_ascii_lowercase();
        }
    }

    pub(crate) fn to_wire(&self) -> Vec<u8> {
        let mut out = word(self.0.len());
        for (name, value) in &self.0 {
            out.extend(word(name.len()));
            out.extend(word(value.len()));
        }
        for (name, value) in &self.0 {
            out.extend_from_slice(name);
            out.push(0);
            out.extend_from_slice(value);
            out.push(0);
        }
        out
    }

    pub(crate) fn from_wire(bytes: &[u8]) -> Result<Self> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let mut sizes = Reader(bytes);
        let count = sizes.word()?;
        let table = count.checked_mul(8).context("header map: count overflows")?;
        let mut text = Reader(bytes.get(4 + table..).context("header map: table cut off")?);
        let mut headers = Self::default();
        for _ in 0..count {
            let (name, value) = (sizes.word()?, sizes.word()?);
            let name = text.terminated(name)?.to_vec();
            let value = text.terminated(value)?.to_vec();
            headers.0.push((name, value));
        }
        ensure!(text.0.is_empty(), "header map: {} bytes too many", text.0.len());
        Ok(headers)
    }
}

fn word(n: usize) -> Vec<u8> {
    u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes().to_vec()
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(n).context("header map: cut off")?;
        self.0 = tail;
        Ok(head)
    }

    fn word(&mut self) -> Result<usize> {
        let bytes: [u8; 4] = self.take(4)?.try_into()?;
        Ok(usize::try_from(u32::from_le_bytes(bytes))?)
    }

    fn terminated(&mut self, n: usize) -> Result<&'a [u8]> {
        let text = self.take(n)?;
        ensure!(self.take(1)? == [0], "header map: no terminator");
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_form_round_trips_and_its_damage_is_refused() {
        let headers = Headers::new([("a", "1"), ("b", ""), ("a", "2")]);
        let wire = headers.to_wire();
        assert_eq!(Headers::from_wire(&wire).unwrap(), headers);
        for cut in 1..wire.len() {
            assert!(Headers::from_wire(&wire[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn replace_leaves_one_value() {
        let mut headers = Headers::new([("x", "1"), ("y", "2"), ("X", "3")]);
        headers.replace(b"x", b"9");
        assert_eq!(headers, Headers::new([("y", "2"), ("x", "9")]));
    }
}
