//! Tells the control API, once per tenant and day, that most of a day's quota is used.
//! What cannot be told is logged and left: the answers carry the same.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use gatehouse_contract::{TenantId, sidecar::QuotaWarning};
use gatehouse_ratelimit::{Decision, Name, Rule, Timestamp};
use tokio::sync::mpsc;

/// From this part of the day's quota on, in percent.
pub const WARN_PERCENT: u64 = 80;
/// Tenants that are told of in a day, and what waits to be told.
const TENANTS: usize = 100_000;
const WAITING: usize = 1024;
const DAY_MS: u64 = 86_400_000;

/// Who was told of today.
#[derive(Debug)]
pub struct Quotas {
    told: Mutex<(u32, HashSet<TenantId>)>,
    outbox: mpsc::Sender<QuotaWarning>,
}

impl Quotas {
    pub fn new() -> (Self, mpsc::Receiver<QuotaWarning>) {
        let (outbox, warnings) = mpsc::channel(WAITING);
        (Self { told: Mutex::default(), outbox }, warnings)
    }

    /// The part of the day's quota that is used, in percent, from [`WARN_PERCENT`] on.
    pub fn percent(
        &self,
        tenant: TenantId,
        rules: &[Rule],
        decision: &Decision,
        now: Timestamp,
    ) -> Option<u8> {
        let (rule, standing) =
            rules.iter().zip(&decision.standings).find(|(rule, _)| rule.name == Name::Day)?;
        let percent = u64::from(standing.used) * 100 / u64::from(rule.max.max(1));
        if percent < WARN_PERCENT {
            return None;
        }
        let day = u32::try_from(now.as_ms() / DAY_MS).unwrap_or(u32::MAX);
        if self.is_news(tenant, day) {
            let (used, limit) = (standing.used, rule.max);
            tracing::info!(tenant.id = %tenant, day, used, limit, "most of a day's quota is used");
            // Full: the control API is away; the log has it.
            self.outbox.try_send(QuotaWarning { tenant, day, used, limit }).unwrap_or_default();
        }
        Some(u8::try_from(percent.min(100)).unwrap_or(100))
    }

    fn is_news(&self, tenant: TenantId, day: u32) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.0 != day {
            *told = (day, HashSet::new());
        }
        told.1.len() < TENANTS && told.1.insert(tenant)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use gatehouse_ratelimit::{Span, Standing, keys};

    use super::*;

    #[test]
    fn from_eighty_percent_on_it_is_said_and_told_once_a_day() {
        let (quotas, mut told) = Quotas::new();
        let tenant = "0191d6b0-7c3e-7aaa-8bbb-0123456789ab".parse().unwrap();
        let rules = [
            Rule::new(Name::Tenant, 9, Span::from_secs(60), keys::ANY),
            Rule::new(Name::Day, 1000, Span::from_secs(60), keys::ANY),
        ];
        for (used, day, percent, news) in [
            (799, 7, None, false),
            (800, 7, Some(80), true),
            (801, 7, Some(80), false),
            (1000, 7, Some(100), false),
            (5000, 8, Some(100), true),
        ] {
            let standing = |used| {
                let now = Some(Duration::ZERO);
                Standing { used, free_in: now, pass_in: now }
            };
            let standings = vec![standing(9), standing(used)];
            let decision = Decision { allowed: true, standings };
            let now = Timestamp::from_ms(day * DAY_MS + 1);
            assert_eq!(quotas.percent(tenant, &rules, &decision, now), percent, "{used}");
            assert_eq!(told.try_recv().is_ok(), news, "{used}");
        }
    }
}
