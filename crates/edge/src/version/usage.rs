//! Who uses which version, for the host's metrics and for the log (acceptance V13): numbers in the VM, and a bounded
//! table of who was noted when. Knows no hosts.

use std::time::Duration;

use gatehouse_contract::{TenantId, Tier};

use super::Versions;
use crate::state::Halves;

/// What else happens to a version than being used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// A path named it and `Accept` contradicted.
    Contradicted,
    /// It was refused: it is gone, or in a brown-out.
    Refused,
    /// It would have been refused but for its dry run.
    WouldRefuse,
}

const EVENTS: [&str; 3] = ["contradicted", "refused", "would_refuse"];

/// Counters of one version.
const PER_VERSION: usize = Tier::ALL.len() + EVENTS.len();

/// Behind the counters of all versions.
const PIN_NOT_SERVED: &str = "gatehouse_version_pin_not_served";

/// One line per key and this long.
const NOTED_EVERY: Duration = Duration::from_secs(60);
/// How many keys one half of the table holds.
const NOTED_PER_HALF: usize = 1024;

/// What was counted, and who was noted.
#[derive(Debug)]
pub(crate) struct Usage {
    /// As long as the highest place that was counted at: bounded by the document.
    counts: Vec<u64>,
    noted: Halves<(usize, Option<TenantId>), Duration>,
}

impl Default for Usage {
    fn default() -> Self {
        Self { counts: Vec::new(), noted: Halves::new(NOTED_PER_HALF) }
    }
}

impl Usage {
    /// The counters' names, by place: letters, digits and `_`.
    pub(crate) fn names(versions: &Versions) -> impl Iterator<Item = String> {
        // Who chooses counts.
        let tokens = || versions.tokens().filter(|_| versions.default_place().is_some());
        let of_versions = tokens().flat_map(|token| {
            let token: String =
                token.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
            let words = Tier::ALL.iter().map(|tier| tier.as_str()).chain(EVENTS);
            words.map(move |word| format!("gatehouse_version_{token}_{word}"))
        });
        let pins = tokens().next().is_some().then(|| PIN_NOT_SERVED.to_owned());
        of_versions.chain(pins)
    }

    /// A caller of this tier used that version.
    pub(crate) fn used(&mut self, version: usize, tier: Tier) {
        let tier = match tier {
            Tier::Free => 0,
            Tier::Pro => 1,
            Tier::Enterprise => 2,
        };
        self.add(version.saturating_mul(PER_VERSION).saturating_add(tier));
    }

    pub(crate) fn event(&mut self, version: usize, event: Event) {
        let place = Tier::ALL.len().saturating_add(event as usize);
        self.add(version.saturating_mul(PER_VERSION).saturating_add(place));
    }

    /// A tenant's pin names a version that is not served.
    pub(crate) fn pin_not_served(&mut self, versions: &Versions) {
        self.add(versions.tokens().count().saturating_mul(PER_VERSION));
    }

    fn add(&mut self, place: usize) {
        if self.counts.len() <= place {
            self.counts.resize(place.saturating_add(1), 0);
        }
        if let Some(count) = self.counts.get_mut(place) {
            *count = count.saturating_add(1);
        }
    }

    /// What was counted, by place, and begins anew.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = (usize, u64)> {
        let counts = self.counts.iter_mut().map(std::mem::take).enumerate();
        counts.filter(|(_, count)| *count > 0)
    }

    /// Whether a line is due about this tenant, or about nobody known, and that version.
    pub(crate) fn is_due(
        &mut self,
        version: usize,
        tenant: Option<TenantId>,
        now: Duration,
    ) -> bool {
        let key = (version, tenant);
        let recent = self
            .noted
            .get(&key)
            .is_some_and(|at| now.checked_sub(*at).is_some_and(|since| since < NOTED_EVERY));
        if !recent {
            self.noted.insert(key, now);
        }
        !recent
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::versions, *};

    #[test]
    fn v13_every_counter_has_the_name_of_what_it_counts() {
        let versions = versions(&["v1", "v1-beta"]);
        let names: Vec<String> = Usage::names(&versions).collect();
        assert_eq!(names.len(), 2 * PER_VERSION + 1);
        let mut usage = Usage::default();
        usage.used(0, Tier::Free);
        usage.used(1, Tier::Enterprise);
        usage.used(1, Tier::Enterprise);
        usage.event(0, Event::Contradicted);
        usage.event(1, Event::WouldRefuse);
        usage.pin_not_served(&versions);
        let counted: Vec<String> =
            usage.take().map(|(place, count)| format!("{} {count}", names[place])).collect();
        assert_eq!(
            counted,
            [
                "gatehouse_version_v1_free 1",
                "gatehouse_version_v1_contradicted 1",
                "gatehouse_version_v1_beta_enterprise 2",
                "gatehouse_version_v1_beta_would_refuse 1",
                "gatehouse_version_pin_not_served 1",
            ]
        );
        assert_eq!(usage.take().count(), 0);
        assert_eq!(Usage::names(&Versions::chosen_elsewhere(std::iter::empty())).count(), 0);
    }

    #[test]
    fn v13_a_line_is_due_once_a_minute_per_tenant_and_version() {
        let mut usage = Usage::default();
        let tenant = |last: u64| {
            let id = format!("0191d6b0-7c3e-7aaa-8bbb-{last:012}");
            Some(id.parse::<TenantId>().unwrap())
        };
        let at = Duration::from_secs;
        for (version, tenant, now_s, expected) in [
            (0, tenant(1), 1000, true),
            (0, tenant(1), 1059, false),
            (0, tenant(2), 1059, true),
            (1, tenant(1), 1059, true),
            (0, None, 1059, true),
            (0, tenant(1), 1060, true),
            // A clock that jumped back says nothing of when it was.
            (0, tenant(1), 10, true),
        ] {
            assert_eq!(usage.is_due(version, tenant, at(now_s)), expected, "{tenant:?} {now_s}");
        }
        for last in 0..10_000 {
            usage.is_due(0, tenant(last), at(5000));
        }
        assert!(usage.noted.len() <= 2 * NOTED_PER_HALF);
    }
}
