//! How many credentials that turned out to be worth nothing one client address may have asked the control API for.
//! Whoever is over it is answered 503 where only the control API could tell: never let through, and never told
//! that a key is bad that was not looked at. Time comes by argument.

use std::time::Duration;

use tokio::time::Instant;

use crate::lru::Lru;

const MISSES: u32 = 20;
const WINDOW: Duration = Duration::from_secs(10);
const ADDRESSES: usize = 10_000;
/// A longer text is no address.
const ADDRESS_BYTES: usize = 64;

pub struct Misses(Lru<String, (Instant, u32)>);

impl Misses {
    pub fn new() -> Self {
        Self(Lru::new(ADDRESSES))
    }

    /// Whether the control API may be asked for this client.
    pub fn may_ask(&mut self, client: Option<&str>, now: Instant) -> bool {
        let Some((begun, misses)) = self.0.get(name(client)) else { return true };
        now.saturating_duration_since(*begun) >= WINDOW || *misses < MISSES
    }

    /// What this client showed was worth nothing.
    pub fn missed(&mut self, client: Option<&str>, now: Instant) {
        match self.0.get(name(client)) {
            Some((begun, misses)) if now.saturating_duration_since(*begun) < WINDOW => *misses += 1,
            _ => self.0.insert(name(client).to_owned(), (now, 1)),
        }
    }
}

/// Clients without an address share one budget.
fn name(client: Option<&str>) -> &str {
    client.filter(|client| client.len() <= ADDRESS_BYTES).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_misses_are_bounded_in_any_window_and_anothers_are_not_touched() {
        let (mut misses, start) = (Misses::new(), Instant::now());
        for n in 0..MISSES {
            assert!(misses.may_ask(Some("a"), start), "{n}");
            misses.missed(Some("a"), start);
        }
        assert!(!misses.may_ask(Some("a"), start));
        assert!(misses.may_ask(Some("b"), start));
        let end = start + WINDOW;
        assert!(!misses.may_ask(Some("a"), end - Duration::from_millis(1)));
        assert!(misses.may_ask(Some("a"), end));
        misses.missed(Some("a"), end);
        assert!(misses.may_ask(Some("a"), end));
        for _ in 0..MISSES {
            misses.missed(None, end);
        }
        assert!(!misses.may_ask(Some(&"x".repeat(65)), end), "no address is one client");
    }
}
