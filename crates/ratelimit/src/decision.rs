//! The verdict over all limits of a request: all are charged or none, a denial charges nothing.
//! Knows neither where windows are kept nor how a verdict is sent.

use std::{cmp::Reverse, time::Duration};

use gatehouse_contract::sidecar::{CheckAnswer, LimitState};

use crate::policy::{Name, Rule};

/// How one limit stands after the decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// What its window holds, this request's charge included. May exceed a limit that was lowered.
    pub used: u32,
    /// How long until one more fits; zero when one does now, `None` when none ever will.
    pub free_in: Option<Duration>,
    /// How long until this request would have fitted; zero when it did.
    pub pass_in: Option<Duration>,
}

/// Whether a request may pass, and how every limit stands, in the order of its rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may pass.
    pub allowed: bool,
    /// One per rule.
    pub standings: Vec<Standing>,
}

/// What a client sees of one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown<'a> {
    /// What it is about.
    pub name: &'a str,
    /// Requests per window.
    pub limit: u32,
    /// The window in seconds.
    pub window_s: u32,
    /// What is left.
    pub remaining: u32,
    /// Seconds until one more passes; 0 while some are left.
    pub reset_s: u32,
}

/// What a request of `cost` must leave room for: a cost of 0 asks whether one more would pass.
pub const fn weight(cost: u32) -> u32 {
    if cost == 0 { 1 } else { cost }
}

impl Decision {
    /// How long a client must wait before this request passes, when it may not now: `None` when waiting does not
    /// help (a limit of 0, a cost above a limit) or when it passed.
    pub fn retry_after(&self) -> Option<Duration> {
        if self.allowed {
            return None;
        }
        let mut longest = Duration::ZERO;
        for standing in &self.standings {
            longest = longest.max(standing.pass_in?);
        }
        Some(longest)
    }

    /// As [`Self::retry_after`], in whole seconds, as an answer tells it.
    pub fn retry_after_s(&self) -> Option<u32> {
        self.retry_after().map(|wait| whole_seconds(wait).max(1))
    }

    /// How the limits are shown. The first is the one that a client should see: the longest wait among those that
    /// deny, else the lowest share left, else the longest reset (acceptance R6). The burst guard comes last unless it
    /// denies: what it has left says nothing about the next minute.
    pub fn shown(&self, rules: &[Rule]) -> Vec<Shown<'static>> {
        let limits = rules.iter().zip(&self.standings).map(|(rule, standing)| {
            let denies = !self.allowed && standing.pass_in != Some(Duration::ZERO);
            let wait =
                if denies { standing.pass_in.unwrap_or(Duration::MAX) } else { Duration::ZERO };
            let shown = Shown::new(rule, standing);
            let share_left =
                u64::from(shown.remaining) * u64::from(u32::MAX) / u64::from(rule.max.max(1));
            let guard = rule.name == Name::Burst;
            let reset = Reverse(shown.reset_s);
            ((Reverse(denies), Reverse(wait), guard, share_left, reset), shown)
        });
        let mut limits: Vec<_> = limits.collect();
        limits.sort_by_key(|(order, _)| *order);
        limits.into_iter().map(|(_, shown)| shown).collect()
    }

    /// The answer on the wire; its limits in the order of [`Self::shown`].
    pub fn answer(&self, rules: &[Rule]) -> CheckAnswer {
        let limits = self.shown(rules).into_iter().map(|shown| LimitState {
            name: shown.name.to_owned(),
            limit: shown.limit,
            window_s: shown.window_s,
            remaining: shown.remaining,
            reset_s: shown.reset_s,
        });
        CheckAnswer {
            allowed: self.allowed,
            retry_after_s: self.retry_after_s(),
            degraded: false,
            day_used_percent: None,
            limits: limits.collect(),
        }
    }
}

impl Shown<'static> {
    fn new(rule: &Rule, standing: &Standing) -> Self {
        Self {
            name: rule.name.as_str(),
            limit: rule.max,
            window_s: rule.span.seconds(),
            remaining: rule.max.saturating_sub(standing.used),
            // A limit of 0 never resets; its window stands for that, since the header takes a number.
            reset_s: standing.free_in.map_or(rule.span.seconds(), whole_seconds),
        }
    }
}

impl<'a> From<&'a LimitState> for Shown<'a> {
    fn from(state: &'a LimitState) -> Self {
        Self {
            name: &state.name,
            limit: state.limit,
            window_s: state.window_s,
            remaining: state.remaining,
            reset_s: state.reset_s,
        }
    }
}

/// Rounded up: a client that waits this long has waited long enough.
fn whole_seconds(wait: Duration) -> u32 {
    u32::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
