//! Makes inputs: seeds with a few changes, with words that mean something to one of the grammars, and with pieces of
//! each other. The same number of the run makes the same inputs. Knows no targets.

/// SplitMix64: small, and the same everywhere.
pub struct Random(pub u64);

/// Words that one of the grammars knows: JSON, JOSE, HTTP, URIs, cookies, lengths.
const WORDS: &[&[u8]] = &[
    b".",
    b"..",
    b"=",
    b"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b";",
    b"; ",
    b"&",
    b"?",
    b"%",
    b"%2f",
    b"%2e",
    b"%00",
    b"%C0%AF",
    b"+",
    b"//",
    b"/../",
    b"\\",
    b" ",
    b"\t",
    b"\r\n",
    b"\0",
    b"\xff",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xc3\xa4",
    b"[[[[[[[[[[[[[[[[[",
    b"{\"a\":{\"a\":",
    b"null",
    b"true",
    b"0",
    b"-0",
    b"-1",
    b"1e400",
    b"1e-400",
    b"1.5",
    b"9007199254740993",
    b"18446744073709551616",
    b"\\u0000",
    b"\\ud800",
    b"\\ud83d\\ude00",
    b"none",
    b"\"alg\":\"ES256\",",
    b"\"crit\":[],",
    b"\"exp\":1,",
    b"\"k\":\"AA\",",
    b"\"kid\":\"",
    b"Bearer ",
    b"bearer",
    b"access_token=",
    b"access%5Ftoken=",
    b"token=",
    b"__Host-gatehouse=",
    b"x-tenant-id",
    b"X_Gatehouse-Context",
    b"authorization",
    b"\n--\n",
    b"gk_",
    b"\x01\0\0\0",
    b"\xff\xff\xff\xff",
    b"\0\0\0\x80",
    b"\x07\0\0\0",
];

/// The longest input: a little more than the longest of everything that is read.
const MAX_BYTES: usize = 70 * 1024;

impl Random {
    /// A number below `bound`; 0 where that is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let bound = u64::try_from(bound).unwrap_or(u64::MAX).max(1);
        usize::try_from(mixed % bound).unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap_or(0)
    }

    fn one<'a, T: ?Sized>(&mut self, of: &[&'a T], none: &'a T) -> &'a T {
        of.get(self.below(of.len())).copied().unwrap_or(none)
    }
}

/// An input from `seeds`: one of them, changed in up to four places.
pub fn input(seeds: &[&[u8]], random: &mut Random) -> Vec<u8> {
    let mut bytes = random.one(seeds, b"".as_slice()).to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len().saturating_add(1));
        let to = at.saturating_add(random.below(bytes.len().saturating_sub(at).saturating_add(1)));
        match random.below(9) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random.byte()),
            2 => insert(&mut bytes, at, random.one(WORDS, b"".as_slice())),
            3 => drop(bytes.drain(at..to)),
            4 => {
                let part: Vec<u8> = bytes.drain(at..to).collect();
                let at = random.below(bytes.len().saturating_add(1));
                insert(&mut bytes, at, &part);
            }
            5 => {
                let part = bytes.get(at..to).unwrap_or_default().to_vec();
                let times = 1 << (2 * random.below(5));
                insert(&mut bytes, at, &part.repeat(times));
            }
            6 => {
                let other = random.one(seeds, b"".as_slice());
                let from = random.below(other.len().saturating_add(1));
                let until = from.saturating_add(random.below(64)).min(other.len());
                insert(&mut bytes, at, other.get(from..until).unwrap_or_default());
            }
            7 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = random.byte();
                }
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
        }
        bytes.truncate(MAX_BYTES);
    }
    bytes
}

fn insert(bytes: &mut Vec<u8>, at: usize, part: &[u8]) {
    bytes.splice(at..at, part.iter().copied());
}
