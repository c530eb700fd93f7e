//! Protocol Buffers by hand, as much as `envoy.service.ratelimit.v3` takes: fields are read where they lie, and written
//! behind each other into one buffer. Groups, which proto3 does not have, are refused. The tests compare both sides
//! with derived messages. Knows no message and no limit.

/// The bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// A field's value, as far as its wire type tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// A varint: numbers, truths, enumerations.
    Number(u64),
    /// A length and bytes: texts, messages.
    Bytes(&'a [u8]),
    /// Four or eight bytes; no field of ours has this type.
    Fixed,
}

/// The fields of a message with their numbers, in the order of its bytes. Ends after the first error.
#[derive(Debug, Clone)]
pub struct Fields<'a>(&'a [u8]);

// === impl Value ===

impl<'a> Value<'a> {
    pub fn number(self) -> Result<u64, Malformed> {
        match self {
            Self::Number(number) => Ok(number),
            Self::Bytes(_) | Self::Fixed => Err(Malformed),
        }
    }

    /// A number of 32 bits: what is beyond them is cut off, as Protocol Buffers have it.
    pub fn number32(self) -> Result<u32, Malformed> {
        self.number().map(|number| u32::try_from(number & 0xffff_ffff).unwrap_or_default())
    }

    pub fn bytes(self) -> Result<&'a [u8], Malformed> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Number(_) | Self::Fixed => Err(Malformed),
        }
    }
}

// === impl Fields ===

impl<'a> Fields<'a> {
    pub const fn of(message: &'a [u8]) -> Self {
        Self(message)
    }

    fn read(&mut self) -> Result<(u32, Value<'a>), Malformed> {
        let key = u32::try_from(self.varint()?).map_err(|_| Malformed)?;
        let value = match key & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            _ => return Err(Malformed),
        };
        if key >> 3 == 0 { Err(Malformed) } else { Ok((key >> 3, value)) }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    /// At most 64 bits in at most ten bytes.
    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for (index, byte) in self.0.iter().enumerate().take(10) {
            if index == 9 && *byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if *byte < 0x80 {
                self.take(index + 1)?;
                return Ok(value);
            }
        }
        Err(Malformed)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let read = self.read();
        if read.is_err() {
            self.0 = &[];
        }
        Some(read)
    }
}

// === What is written ===

/// A number, unless it is 0, which proto3 does not write.
pub fn number(out: &mut Vec<u8>, field: u8, value: u32) {
    if value > 0 {
        out.push(field << 3);
        varint(out, u64::from(value));
    }
}

/// A text or bytes, unless there are none.
pub fn bytes(out: &mut Vec<u8>, field: u8, value: &[u8]) {
    if !value.is_empty() {
        out.push(field << 3 | 2);
        varint(out, value.len() as u64);
        out.extend_from_slice(value);
    }
}

/// A message within the message, an empty one as well.
pub fn message(out: &mut Vec<u8>, field: u8, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(field << 3 | 2);
    let at = out.len();
    // Its length, which nearly always takes one byte.
    out.push(0);
    write(out);
    let length = out.len() - at - 1;
    match (u8::try_from(length), out.get_mut(at)) {
        (Ok(short @ ..0x80), Some(place)) => *place = short,
        _ => {
            let mut written = Vec::with_capacity(4);
            varint(&mut written, length as u64);
            out.splice(at..=at, written);
        }
    }
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
