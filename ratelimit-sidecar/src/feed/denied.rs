//! The deny list in memory. Entries that have expired by themselves go when they are many.
//! Knows no feed.

use std::{
    collections::HashMap,
    time::{SystemTime, UNIX_EPOCH},
};

use gatehouse_contract::{TenantId, sidecar::Denied};

/// Tokens that ended this long ago are kept, for clocks that differ.
const GRACE_S: u64 = 120;

#[derive(Debug, Default)]
pub struct DenyList {
    tokens: HashMap<String, u64>,
    /// By tenant, then subject: issued before, until.
    issued: HashMap<TenantId, HashMap<String, (u64, u64)>>,
    /// How many there were when expired ones were last dropped.
    swept: usize,
}

impl DenyList {
    pub fn from_entries(entries: Vec<Denied>) -> Self {
        let mut list = Self::default();
        for denied in entries {
            list.add(denied);
        }
        list
    }

    pub fn add(&mut self, denied: Denied) {
        match denied {
            Denied::Token { token, until_s } => {
                let until = self.tokens.entry(token).or_default();
                *until = until_s.max(*until);
            }
            Denied::IssuedBefore { tenant, subject, before_s, until_s } => {
                let subjects = self.issued.entry(tenant).or_default();
                let (before, until) = subjects.entry(subject).or_default();
                (*before, *until) = (before_s.max(*before), until_s.max(*until));
            }
        }
        if self.len() > 2 * self.swept.max(1000) {
            self.sweep(now_s());
        }
    }

    fn sweep(&mut self, now_s: u64) {
        let live = |until_s: u64| until_s + GRACE_S >= now_s;
        self.tokens.retain(|_, until_s| live(*until_s));
        self.issued.retain(|_, subjects| {
            subjects.retain(|_, (_, until_s)| live(*until_s));
            !subjects.is_empty()
        });
        self.swept = self.len();
    }

    pub fn has_token(&self, mark: &str) -> bool {
        self.tokens.contains_key(mark)
    }

    /// A token that does not say when it was issued counts as older than everything.
    pub fn has_issue(&self, tenant: TenantId, subject: &str, issued_at_s: Option<u64>) -> bool {
        let found = self.issued.get(&tenant).and_then(|subjects| subjects.get(subject));
        found.is_some_and(|(before_s, _)| issued_at_s.is_none_or(|at_s| at_s < *before_s))
    }

    pub fn len(&self) -> usize {
        self.tokens.len() + self.issued.values().map(HashMap::len).sum::<usize>()
    }

    pub fn list(&self) -> Vec<Denied> {
        let tokens = self
            .tokens
            .iter()
            .map(|(token, until_s)| Denied::Token { token: token.clone(), until_s: *until_s });
        let issued = self.issued.iter().flat_map(|(tenant, subjects)| {
            subjects.iter().map(|(subject, (before_s, until_s))| Denied::IssuedBefore {
                tenant: *tenant,
                subject: subject.clone(),
                before_s: *before_s,
                until_s: *until_s,
            })
        });
        tokens.chain(issued).collect()
    }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(n: u128) -> TenantId {
        TenantId::new(uuid::Uuid::from_u128(n))
    }

    #[test]
    fn a_token_issued_before_the_time_or_at_an_unknown_one_is_denied() {
        let before = |before_s| Denied::IssuedBefore {
            tenant: tenant(1),
            subject: "u".into(),
            before_s,
            until_s: u64::MAX / 2,
        };
        // The later one counts, whatever the order.
        let list = DenyList::from_entries(vec![before(100), before(50)]);
        for (n, subject, at_s, expected) in [
            (1, "u", Some(99), true),
            (1, "u", None, true),
            (1, "u", Some(100), false),
            (1, "v", Some(99), false),
            (2, "u", Some(99), false),
        ] {
            assert_eq!(
                list.has_issue(tenant(n), subject, at_s),
                expected,
                "{n} {subject} {at_s:?}"
            );
        }
        assert_eq!(list.list(), [before(100)]);
    }

    #[test]
    fn what_has_expired_goes_and_the_rest_stays() {
        let token = |n: u64, until_s| Denied::Token { token: n.to_string(), until_s };
        let mut list = DenyList::default();
        for n in 0..3000 {
            list.add(token(n, if n % 100 == 0 { now_s() + 1000 } else { 1 }));
        }
        assert!(list.len() < 2100, "{}", list.len());
        list.sweep(now_s());
        assert_eq!(list.len(), 30);
        assert!(list.has_token("100") && !list.has_token("101"));
    }
}
