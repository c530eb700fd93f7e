//! Answers of the last moments, so that a crowd of workers asks once. Only for as long as the change feed is alive:
//! whatever a change may touch is dropped before any filter hears of it, and what was asked for before is not kept.
//! Knows neither the feed nor the record; time comes by argument.

use std::time::Duration;

use gatehouse_contract::sidecar::{Change, PrincipalFacts};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::{feed::Heard, lru::Lru};

/// "The record wins" must not lag behind it by more than this here.
const KEEP: Duration = Duration::from_secs(1);
const KEEP_WORTHLESS: Duration = Duration::from_secs(10);
/// Some 5 MB each.
const ENTRIES: usize = 10_000;

/// A credential, as what its answer is kept under: nothing secret stays in memory.
pub type Digest = [u8; 32];

pub fn digest(parts: &[&[u8]]) -> Digest {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

pub struct Kept {
    facts: Lru<Digest, (PrincipalFacts, Instant)>,
    worthless: Lru<Digest, Instant>,
    /// How often something was dropped.
    dropped: u64,
}

/// When something was asked for, as far as changes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    dropped: u64,
    at: Instant,
}

impl Kept {
    pub fn new() -> Self {
        Self { facts: Lru::new(ENTRIES), worthless: Lru::new(ENTRIES), dropped: 0 }
    }

    pub const fn asked(&self, now: Instant) -> Asked {
        Asked { dropped: self.dropped, at: now }
    }

    pub fn facts(&mut self, of: &Digest, now: Instant) -> Option<PrincipalFacts> {
        let (facts, until) = self.facts.get(of)?;
        (now < *until).then(|| facts.clone())
    }

    pub fn is_worthless(&mut self, of: &Digest, now: Instant) -> bool {
        self.worthless.get(of).is_some_and(|until| now < *until)
    }

    /// Keeps facts, unless a change came after they were asked for.
    pub fn keep(&mut self, of: Digest, facts: &PrincipalFacts, asked: Asked) {
        if asked.dropped == self.dropped {
            self.facts.insert(of, (facts.clone(), asked.at + KEEP));
        }
    }

    pub fn keep_worthless(&mut self, of: Digest, asked: Asked) {
        if asked.dropped == self.dropped {
            self.worthless.insert(of, asked.at + KEEP_WORTHLESS);
        }
    }

    /// Drops what a change may touch. All of it: what is kept is young, and changes are rare.
    pub fn hear(&mut self, heard: &Heard) {
        let touches = |change: &Change| match change {
            Change::Tenant { .. } | Change::Subject { .. } | Change::Credential { .. } => true,
            // The deny list is looked at whatever is kept.
            Change::Keys { .. } | Change::Deny(_) => false,
        };
        let all = match heard {
            Heard::Everything => true,
            Heard::Changes(changes) => changes.iter().any(touches),
        };
        if all {
            self.dropped += 1;
            self.facts.clear();
            self.worthless.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> PrincipalFacts {
        PrincipalFacts::member("0191d6b0-7c3e-7aaa-8bbb-0123456789ab".parse().unwrap(), "1")
    }

    #[test]
    fn an_answer_is_kept_for_a_moment_from_the_asking_and_no_longer() {
        let (mut kept, now) = (Kept::new(), Instant::now());
        let asked = kept.asked(now);
        kept.keep([1; 32], &facts(), asked);
        kept.keep_worthless([2; 32], asked);
        for (later_ms, known, worthless) in [
            (0, true, true),
            (999, true, true),
            (1000, false, true),
            (9_999, false, true),
            (10_000, false, false),
        ] {
            let at = now + Duration::from_millis(later_ms);
            assert_eq!(kept.facts(&[1; 32], at).is_some(), known, "{later_ms} ms later");
            assert_eq!(kept.is_worthless(&[2; 32], at), worthless, "{later_ms} ms later");
        }
        assert_eq!(kept.facts(&[2; 32], now), None);
        assert!(!kept.is_worthless(&[1; 32], now));
    }

    #[test]
    fn a_change_drops_what_is_kept_and_what_was_asked_for_before_it() {
        let tenant = facts().tenant;
        for (change, drops) in [
            (Change::Tenant { tenant }, true),
            (Change::Subject { tenant, subject: "x".into() }, true),
            (Change::Credential { credential: "x".into() }, true),
            (Change::Keys { issuer: "x".into() }, false),
        ] {
            let (mut kept, now) = (Kept::new(), Instant::now());
            let before = kept.asked(now);
            kept.keep([1; 32], &facts(), before);
            kept.hear(&Heard::Changes(vec![change.clone()]));
            assert_eq!(kept.facts(&[1; 32], now).is_none(), drops, "{change:?}");
            kept.keep([2; 32], &facts(), before);
            kept.keep_worthless([3; 32], before);
            assert_eq!(kept.facts(&[2; 32], now).is_none(), drops, "{change:?}");
            assert_eq!(!kept.is_worthless(&[3; 32], now), drops, "{change:?}");
            let after = kept.asked(now);
            kept.keep([2; 32], &facts(), after);
            assert!(kept.facts(&[2; 32], now).is_some());
            kept.hear(&Heard::Everything);
            assert_eq!(kept.facts(&[2; 32], now), None);
        }
    }

    #[test]
    fn parts_do_not_run_together() {
        assert_ne!(digest(&[b"ab", b"c"]), digest(&[b"a", b"bc"]));
        assert_eq!(digest(&[b"a", b"b"]), digest(&[b"a", b"b"]));
    }
}
