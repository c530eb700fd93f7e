//! What a VM counts between two ticks, for the host's own metrics: an array in the VM, so that a request costs no call.
//! Knows no hosts.

use gatehouse_contract::Tier;

macro_rules! counted {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            const WORDS: &'static [&'static str] = &[$($word),+];
        }
    };
}

counted! {
    /// What became of a request at the limiter.
    Outcome {
        /// The sidecar, or this VM as the document has it, let it pass.
        Allowed = "allowed",
        /// It passed on a lease.
        Leased = "leased",
        /// It was over a limit.
        Denied = "denied",
        /// The sidecar was away, and this VM's share let it pass.
        Shared = "shared",
        /// The sidecar was away, and the policy is open.
        Open = "open",
        /// The sidecar was away, and it was refused.
        Refused = "refused",
        /// It would not have passed but for shadow mode.
        Shadowed = "shadowed",
        /// An internal caller.
        Bypassed = "bypassed",
    }
}

counted! {
    /// What else happened.
    Event {
        /// Passes that were taken along.
        PassesGranted = "passes_granted",
        /// Passes that nobody used in time.
        PassesExpired = "passes_expired",
        /// Passes that were handed back.
        PassesReturned = "passes_returned",
        /// Questions that nobody answered.
        Unanswered = "unanswered",
        /// The breaker opened.
        BreakerOpened = "breaker_opened",
        /// Requests of clients that failed to authenticate too often.
        FailedAuthnRefused = "failed_authn_refused",
        /// Costs that were charged afterwards.
        ChargedLater = "charged_later",
        /// Costs that could not be noted for want of a place.
        ChargesLost = "charges_lost",
    }
}

const OF_OUTCOMES: usize = Tier::ALL.len() * Outcome::WORDS.len();
const ALL: usize = OF_OUTCOMES + Event::WORDS.len();

/// The counters since the last tick.
#[derive(Debug)]
pub(crate) struct Counts([u64; ALL]);

impl Default for Counts {
    fn default() -> Self {
        Self([0; ALL])
    }
}

impl Counts {
    /// How many there are.
    pub(crate) const ALL: usize = ALL;

    /// The counters' names, by place.
    pub(crate) fn names() -> impl Iterator<Item = String> {
        let outcomes = Tier::ALL.iter().flat_map(|tier| {
            Outcome::WORDS.iter().map(move |word| format!("gatehouse_limiter_{tier}_{word}"))
        });
        outcomes.chain(Event::WORDS.iter().map(|word| format!("gatehouse_limiter_{word}")))
    }

    pub(crate) fn outcome(&mut self, tier: Tier, outcome: Outcome) {
        let tier = match tier {
            Tier::Free => 0,
            Tier::Pro => 1,
            Tier::Enterprise => 2,
        };
        self.add(tier * Outcome::WORDS.len() + outcome as usize, 1);
    }

    pub(crate) fn event(&mut self, event: Event, times: u64) {
        self.add(OF_OUTCOMES + event as usize, times);
    }

    fn add(&mut self, place: usize, times: u64) {
        if let Some(count) = self.0.get_mut(place) {
            *count = count.saturating_add(times);
        }
    }

    /// What was counted, by place, and begins anew.
    pub(crate) fn take(&mut self) -> Vec<(usize, u64)> {
        let counted = std::mem::take(self).0.into_iter().enumerate();
        counted.filter(|(_, count)| *count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_the_name_of_what_it_counts() {
        let names: Vec<String> = Counts::names().collect();
        assert_eq!(names.len(), ALL);
        let mut counts = Counts::default();
        counts.outcome(Tier::Free, Outcome::Allowed);
        counts.outcome(Tier::Enterprise, Outcome::Bypassed);
        counts.event(Event::PassesGranted, 7);
        counts.event(Event::ChargesLost, 1);
        let counted: Vec<String> = counts
            .take()
            .iter()
            .map(|(place, count)| format!("{} {count}", names[*place]))
            .collect();
        assert_eq!(
            counted,
            [
                "gatehouse_limiter_free_allowed 1",
                "gatehouse_limiter_enterprise_bypassed 1",
                "gatehouse_limiter_passes_granted 7",
                "gatehouse_limiter_charges_lost 1",
            ]
        );
        assert_eq!(counts.take(), []);
    }
}
