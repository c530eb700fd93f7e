//! The exact log: every charge with its millisecond. A charge leaves exactly a window after it was made, for the
//! price of a record that grows with the limit. The Redis ring and the sorted set are two ways to keep it.
//! Knows no limit's name and no key.

use std::{collections::VecDeque, time::Duration};

use crate::window::{MAX_COUNT, Span, Timestamp};

/// The most entries: a charge beyond them joins the newest, which moves to its time. It then leaves later than it
/// might, never earlier.
pub const MAX_ENTRIES: usize = 65_536;

/// Charges, the oldest first; those of one millisecond are one entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    entries: VecDeque<(u64, u32)>,
    total: u64,
}

impl Log {
    /// Forgets what was charged a window before `now` or earlier. A clock that steps back frees nothing; a record
    /// more than a window ahead of it is dropped.
    pub fn advance(&mut self, span: Span, now: Timestamp) {
        let newest = self.entries.back().map_or(0, |(at, _)| *at);
        if newest > now.as_ms().saturating_add(span.ms()) {
            *self = Self::default();
        }
        while let Some((at, amount)) = self.entries.front().copied() {
            if at + span.ms() > now.as_ms() {
                break;
            }
            self.entries.pop_front();
            self.total -= u64::from(amount);
        }
    }

    /// What is charged within the window.
    pub fn used(&self) -> u32 {
        u32::try_from(self.total).unwrap_or(u32::MAX)
    }

    /// Adds a charge at `now`, or at the newest entry's time if that is later. An entry counts at most
    /// [`MAX_COUNT`]; only forced charges can reach it.
    pub fn add(&mut self, now: Timestamp, amount: u32) {
        let full = self.entries.len() >= MAX_ENTRIES;
        match self.entries.back_mut() {
            Some((at, count)) if *at >= now.as_ms() || full => {
                *at = (*at).max(now.as_ms());
                let added = amount.min(MAX_COUNT - *count);
                *count += added;
                self.total += u64::from(added);
            }
            _ => {
                let added = amount.min(MAX_COUNT);
                self.entries.push_back((now.as_ms(), added));
                self.total += u64::from(added);
            }
        }
    }

    /// What was charged in a slot of the window's.
    pub fn count(&self, span: Span, slot: u64) -> u32 {
        let within = self.entries.iter().filter(|(at, _)| at / span.slot_ms() == slot);
        within.fold(0, |sum: u32, (_, amount)| sum.saturating_add(*amount))
    }

    /// Adds a charge to the last millisecond of a slot.
    pub fn insert(&mut self, span: Span, slot: u64, amount: u32) {
        let at = span.slot_end(slot);
        let place = self.entries.partition_point(|(other, _)| *other < at);
        let amount = amount.min(MAX_COUNT);
        match self.entries.get_mut(place) {
            Some((other, count)) if *other == at => {
                let added = amount.min(MAX_COUNT - *count);
                *count += added;
                self.total += u64::from(added);
            }
            _ => {
                self.entries.insert(place, (at, amount));
                self.total += u64::from(amount);
            }
        }
    }

    /// How long until `weight` fits under `max`, when nothing else is charged: zero when it does now, `None` when
    /// it never will.
    pub fn wait(&self, span: Span, now: Timestamp, max: u32, weight: u32) -> Option<Duration> {
        let bearable = u64::from(max.checked_sub(weight)?);
        let mut left = self.total;
        if left <= bearable {
            return Some(Duration::ZERO);
        }
        for (at, amount) in &self.entries {
            left -= u64::from(*amount);
            if left <= bearable {
                return Some(Duration::from_millis((at + span.ms()).saturating_sub(now.as_ms())));
            }
        }
        None
    }
}
