//! The deny list of a VM: tokens that are good by their signature and worth nothing. Bounded by entries; where it is
//! full it says so, and every token asks (fail closed). Knows neither feeds nor where entries come from.

use std::time::Duration;

use gatehouse_contract::{TenantId, sidecar::Denied};
use hashbrown::HashMap;

/// The most entries: about 6 MiB.
const MAX_ENTRIES: usize = 65_536;
/// How long an entry stays beyond its end: leeway lets tokens live on, and a clock that ran an hour ahead must not
/// have forgotten what still counts (acceptance J40).
const KEPT_BEYOND: Duration = Duration::from_secs(2 * 3600);

#[derive(Debug, Default)]
pub(super) struct DenyList {
    tokens: HashMap<Box<str>, u64>,
    subjects: HashMap<TenantId, HashMap<Box<str>, Before>>,
    /// How many entries `subjects` has.
    subject_entries: usize,
    /// Something did not fit: what is not in the list may be denied nevertheless.
    over: bool,
}

/// Tokens of a subject issued before a time.
#[derive(Debug, Clone, Copy)]
struct Before {
    before_s: u64,
    until_s: u64,
}

impl DenyList {
    /// Whether an entry had no place since the list was last replaced.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Adds an entry; what has expired by itself makes room. An entry only ever denies more.
    pub(super) fn add(&mut self, denied: Denied, now: Duration) {
        self.add_within(denied, now, MAX_ENTRIES);
    }

    fn add_within(&mut self, denied: Denied, now: Duration, most: usize) {
        if self.len() >= most && !self.over {
            self.forget_expired(now);
        }
        if self.len() >= most {
            self.over = true;
            return;
        }
        match denied {
            Denied::Token { token, until_s } => {
                let until = self.tokens.entry(token.into_boxed_str()).or_default();
                *until = until_s.max(*until);
            }
            Denied::IssuedBefore { tenant, subject, before_s, until_s } => {
                let subjects = self.subjects.entry(tenant).or_default();
                let fresh = Before { before_s, until_s };
                let mut new = false;
                let known = subjects.entry(subject.into_boxed_str()).or_insert_with(|| {
                    new = true;
                    fresh
                });
                known.before_s = known.before_s.max(before_s);
                known.until_s = known.until_s.max(until_s);
                self.subject_entries = self.subject_entries.saturating_add(usize::from(new));
            }
        }
    }

    /// Whether the token of this mark is denied. An entry counts until it is forgotten: nothing good ends by that,
    /// as the token itself has expired by then.
    pub(super) fn has_token(&self, mark: &str) -> bool {
        !self.tokens.is_empty() && self.tokens.contains_key(mark)
    }

    /// Whether tokens of this subject that were issued at this time are denied; those that do not say when are.
    pub(super) fn has_subject(
        &self,
        tenant: &TenantId,
        subject: &str,
        issued_at: Option<Duration>,
    ) -> bool {
        if self.subjects.is_empty() {
            return false;
        }
        let entry = self.subjects.get(tenant).and_then(|subjects| subjects.get(subject));
        entry.is_some_and(|entry| {
            issued_at.is_none_or(|issued_at| issued_at < Duration::from_secs(entry.before_s))
        })
    }

    fn forget_expired(&mut self, now: Duration) {
        let alive = |until_s| Duration::from_secs(until_s).saturating_add(KEPT_BEYOND) > now;
        self.tokens.retain(|_, until_s| alive(*until_s));
        for subjects in self.subjects.values_mut() {
            subjects.retain(|_, entry| alive(entry.until_s));
        }
        self.subjects.retain(|_, subjects| !subjects.is_empty());
        self.subject_entries = self.subjects.values().map(HashMap::len).sum();
    }

    fn len(&self) -> usize {
        self.tokens.len().saturating_add(self.subject_entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;

    fn token(number: usize, until_s: u64) -> Denied {
        Denied::Token { token: format!("mark-{number}"), until_s }
    }

    fn before(subject: &str, before_s: u64) -> Denied {
        let subject = subject.to_owned();
        Denied::IssuedBefore { tenant: tenant(), subject, before_s, until_s: 10_000 }
    }

    fn tenant() -> TenantId {
        "0191d6b0-7c3e-7aaa-8bbb-0123456789ab".parse().unwrap()
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_subject_s_tokens_are_denied_by_when_they_were_issued() {
        let mut list = DenyList::default();
        list.add(before("a", 100), seconds(0));
        list.add(before("a", 90), seconds(0));
        let other = "0191d6b0-7c3e-7aaa-8bbb-0123456789ac".parse().unwrap();
        for (tenant, subject, issued_at, denied) in [
            (tenant(), "a", Some(99), true),
            (tenant(), "a", Some(100), false),
            (tenant(), "a", None, true),
            (tenant(), "b", Some(99), false),
            (other, "a", Some(99), false),
        ] {
            let got = list.has_subject(&tenant, subject, issued_at.map(seconds));
            assert_eq!(got, denied, "{subject} {issued_at:?}");
        }
    }

    #[test]
    fn a_list_that_is_full_says_so_and_what_has_expired_makes_room() {
        let mut list = DenyList::default();
        list.add_within(token(1, 100), seconds(0), 2);
        list.add_within(before("a", 100), seconds(0), 2);
        assert!(!list.is_over());
        // Long expired: its place is taken.
        list.add_within(token(2, 3 * HOUR), seconds(101 + 2 * HOUR), 2);
        assert!(!list.is_over());
        assert!(!list.has_token("mark-1") && list.has_token("mark-2"));
        list.add_within(token(3, 3 * HOUR), seconds(101 + 2 * HOUR), 2);
        assert!(list.is_over() && !list.has_token("mark-3"));
        list.clear();
        assert!(!list.is_over() && !list.has_token("mark-2"));
    }

    #[test]
    fn j40_an_hour_ahead_forgets_nothing_that_counts() {
        let mut list = DenyList::default();
        list.add_within(token(1, 100), seconds(0), 1);
        list.add_within(token(2, 100), seconds(101 + HOUR), 1);
        assert!(list.has_token("mark-1") && list.is_over());
    }
}
