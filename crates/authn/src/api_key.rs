//! API keys (specification GAA-003, design §3.1): their text, and the mark by which a service that holds a pepper
//! knows one again. `gk_<env>_<id>_<secret><checksum>`: the id finds the record, the secret has 256 bits, and the
//! checksum tells a mistyped key from an unknown one before anybody is asked.
//! Knows neither records nor who owns a key.

use std::{collections::BTreeMap, fmt, str::FromStr};

use gatehouse_contract::ApiKeyId;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

/// What every key begins with.
pub const PREFIX: &str = "gk_";
/// The longest key, in bytes.
pub const MAX_BYTES: usize =
    PREFIX.len() + ENV_CHARS_MAX + 1 + ID_CHARS + 1 + SECRET_CHARS + CHECK_CHARS;

const ENV_CHARS_MAX: usize = 8;
/// A UUID without hyphens.
const ID_CHARS: usize = 32;
/// 256 bits in base 62.
const SECRET_CHARS: usize = 43;
/// 32 bits in base 62.
const CHECK_CHARS: usize = 6;
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A well-formed key. Nothing is known of whether it was ever made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ApiKey<'k> {
    whole: &'k str,
    id: ApiKeyId,
}

/// The text is no key: another form, or a checksum that does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an API key")]
pub struct NotAKey;

/// The environment that a key names, so that people and scanners tell a test key from a live one: 1 to 8 lower-case
/// letters and digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment(String);

/// The secret keys of the marks, by id. The one that is current makes new marks; the others still compare, so that
/// it can be replaced.
#[derive(Clone)]
pub struct Peppers {
    current: String,
    by_id: BTreeMap<String, [u8; 32]>,
}

/// A pepper's id is not among the peppers, or there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the current pepper is not among the peppers")]
pub struct NoSuchPepper;

/// What is stored of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Which pepper made it.
    pub pepper_id: String,
    /// HMAC-SHA-256 of the whole key under that pepper.
    pub hmac: [u8; 32],
}

// === impl ApiKey ===

impl<'k> ApiKey<'k> {
    /// Reads a key. Whoever calls has the whole credential and nothing around it.
    ///
    /// # Errors
    /// [`NotAKey`].
    pub fn parse(text: &'k str) -> Result<Self, NotAKey> {
        let mut parts = text.strip_prefix(PREFIX).ok_or(NotAKey)?.split('_');
        let (Some(env), Some(id), Some(rest), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(NotAKey);
        };
        env.parse::<Environment>()?;
        let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let (_secret, check) = rest.split_at_checked(SECRET_CHARS).ok_or(NotAKey)?;
        let sound = id.len() == ID_CHARS
            && id.bytes().all(hex)
            && check.len() == CHECK_CHARS
            && rest.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let signed = text.len().checked_sub(CHECK_CHARS).and_then(|end| text.get(..end));
        if !sound || signed.is_none_or(|signed| checksum(signed) != check) {
            return Err(NotAKey);
        }
        let id = uuid::Uuid::try_parse(id).map_err(|_not_hex| NotAKey)?;
        Ok(Self { whole: text, id: ApiKeyId::new(id) })
    }

    /// The id of its record.
    pub const fn id(self) -> ApiKeyId {
        self.id
    }
}

/// The text of a new key. `secret` is 256 random bits.
pub fn compose(environment: &Environment, id: ApiKeyId, secret: [u8; 32]) -> String {
    let id = id.as_uuid();
    let mut text =
        format!("{PREFIX}{}_{}_{}", environment.0, id.simple(), base62(&secret, SECRET_CHARS));
    let check = checksum(&text);
    text.push_str(&check);
    text
}

fn checksum(text: &str) -> String {
    base62(&crc32fast::hash(text.as_bytes()).to_be_bytes(), CHECK_CHARS)
}

/// `number`, big-endian, as that many digits. What does not fit is cut off at the front: callers bring enough digits.
fn base62(number: &[u8], digits: usize) -> String {
    let mut number = number.to_vec();
    let mut text = vec![b'0'; digits];
    for place in text.iter_mut().rev() {
        let mut rest = 0_u16;
        for byte in &mut number {
            let value = rest << 8 | u16::from(*byte);
            // `rest` is below 62, so that the quotient is below 256.
            *byte = u8::try_from(value / 62).unwrap_or(u8::MAX);
            rest = value % 62;
        }
        *place = DIGITS.get(usize::from(rest)).copied().unwrap_or(b'0');
    }
    text.into_iter().map(char::from).collect()
}

/// A key is a secret: only its id is shown.
impl fmt::Debug for ApiKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey({}, …)", self.id)
    }
}

// === impl Environment ===

impl FromStr for Environment {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        let fits = (1..=ENV_CHARS_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        fits.then(|| Self(text.to_owned())).ok_or(NotAKey)
    }
}

// === impl Peppers ===

impl Peppers {
    /// Takes the peppers. Each is 256 random bits.
    ///
    /// # Errors
    /// [`NoSuchPepper`].
    pub fn new(current: String, by_id: BTreeMap<String, [u8; 32]>) -> Result<Self, NoSuchPepper> {
        if by_id.contains_key(&current) { Ok(Self { current, by_id }) } else { Err(NoSuchPepper) }
    }

    /// What to store of a new key; `None` never, as the current pepper is among them.
    pub fn mark(&self, key: ApiKey<'_>) -> Option<Mark> {
        let hmac = self.mac(&self.current, key)?.finalize().into_bytes().into();
        Some(Mark { pepper_id: self.current.clone(), hmac })
    }

    /// Whether `mark` is this key's, in constant time. A pepper that is gone knows no key.
    pub fn knows(&self, key: ApiKey<'_>, mark: &Mark) -> bool {
        self.mac(&mark.pepper_id, key).is_some_and(|mac| mac.verify_slice(&mark.hmac).is_ok())
    }

    fn mac(&self, pepper_id: &str, key: ApiKey<'_>) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.by_id.get(pepper_id)?).ok()?;
        mac.update(key.whole.as_bytes());
        Some(mac)
    }
}

/// Secrets: only their ids are shown.
impl fmt::Debug for Peppers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peppers({:?}, current {:?})", self.by_id.keys(), self.current)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0191d6b0-7c3e-7aaa-8bbb-0123456789ab";

    fn key(secret: [u8; 32]) -> String {
        compose(&"live".parse().unwrap(), ID.parse().unwrap(), secret)
    }

    fn peppers(current: &str, ids: &[(&str, u8)]) -> Peppers {
        let by_id = ids.iter().map(|(id, byte)| ((*id).to_owned(), [*byte; 32])).collect();
        Peppers::new(current.to_owned(), by_id).unwrap()
    }

    #[test]
    fn a_key_reads_as_it_was_composed() {
        for secret in [[0; 32], [255; 32], [7; 32]] {
            let text = key(secret);
            assert_eq!(ApiKey::parse(&text).unwrap().id().to_string(), ID);
            assert_eq!(text.len(), "gk_live__".len() + ID_CHARS + SECRET_CHARS + CHECK_CHARS);
        }
        // By another implementation of base 62 and CRC-32.
        assert_eq!(
            key([0xff; 32]),
            "gk_live_0191d6b07c3e7aaa8bbb0123456789ab_yhjskwdA6OZ1AL1YmHWZWm8LLG7HjnuCA2j5rOw8Xp10bQAde"
        );
        assert_ne!(key([1; 32]), key([2; 32]));
    }

    #[test]
    fn a_mistyped_key_is_none() {
        let good = key([7; 32]);
        assert!(ApiKey::parse(&good).is_ok());
        for at in 0..good.len() {
            let mut bytes = good.clone().into_bytes();
            bytes[at] = if bytes[at] == b'1' { b'2' } else { b'1' };
            let bad = String::from_utf8(bytes).unwrap();
            assert_eq!(ApiKey::parse(&bad), Err(NotAKey), "{bad}");
            assert_eq!(ApiKey::parse(&good[..at]), Err(NotAKey), "{}", &good[..at]);
        }
        for bad in ["", "gk_", "gk_live", "gk_live_x_y", &format!("{good}0"), &format!(" {good}")] {
            assert_eq!(ApiKey::parse(bad), Err(NotAKey), "{bad}");
        }
    }

    /// Whose checksum fits is no key yet: each part has its form, and nothing else is one.
    #[test]
    fn a_checksum_does_not_make_a_key() {
        let check = |head: String, expected: bool| {
            let text = format!("{head}{}", checksum(&head));
            assert_eq!(ApiKey::parse(&text).is_ok(), expected, "{text}");
        };
        let (id, secret) = ("0191d6b07c3e7aaa8bbb0123456789ab", "s".repeat(SECRET_CHARS));
        let with = |env: &str, id: &str, secret: &str| format!("{PREFIX}{env}_{id}_{secret}");
        for env in ["live", "l", "12345678"] {
            check(with(env, id, &secret), true);
        }
        for env in ["", "123456789", "Live", "li-ve", "l\u{e9}"] {
            check(with(env, id, &secret), false);
        }
        for bad in [
            "0191D6B07C3E7AAA8BBB0123456789AB",
            "0191d6b07c3e7aaa8bbb0123456789a",
            "0191d6b07c3e7aaa8bbb0123456789abc",
            "0191d6b0-7c3e-7aaa-8bbb-0123456789ab",
            "{0191d6b07c3e7aaa8bbb0123456789ab}",
            "0191d6b07c3e7aaa8bbb0123456789ag",
        ] {
            check(with("live", bad, &secret), false);
        }
        for bad in [&secret[1..], &format!("{secret}s"), &format!("{}-", &secret[1..])] {
            check(with("live", id, bad), false);
        }
        let longest = with("12345678", id, &secret);
        assert_eq!(longest.len() + CHECK_CHARS, MAX_BYTES);
    }

    #[test]
    fn neither_a_key_nor_a_pepper_is_shown() {
        let text = key([7; 32]);
        let shown = format!("{:?} {:?}", ApiKey::parse(&text).unwrap(), peppers("a", &[("a", 77)]));
        assert_eq!(shown, format!("ApiKey({ID}, …) Peppers([\"a\"], current \"a\")"));
    }

    #[test]
    fn a_mark_knows_its_key_under_any_pepper_that_is_kept() {
        let (mine, other) = (key([1; 32]), key([2; 32]));
        let (mine, other) = (ApiKey::parse(&mine).unwrap(), ApiKey::parse(&other).unwrap());
        let mark = peppers("a", &[("a", 1)]).mark(mine).unwrap();
        let both = peppers("b", &[("a", 1), ("b", 2)]);
        assert!(both.knows(mine, &mark));
        assert!(!both.knows(other, &mark));
        assert!(!peppers("b", &[("b", 1)]).knows(mine, &mark));
        assert!(!peppers("a", &[("a", 3)]).knows(mine, &mark));
        assert_eq!(both.mark(mine).unwrap().pepper_id, "b");
    }
}
