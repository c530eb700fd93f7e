//! The sums behind [`crate::take`]: what the Redis function and the memory store do to the windows of one request.
//! Pure: callers bring the windows, in the order of the rules, and `now`. Knows no keys and no runs.

use crate::{
    decision::{Decision, Standing, weight},
    policy::Rule,
    state::{Declared, State},
    take::{Declaration, Return, Take},
    window::Timestamp,
};

/// What was charged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// How many of those who wait may pass.
    pub waiting: u32,
    /// How many passes go ahead.
    pub ahead: u32,
    /// The verdict and the standings.
    pub decision: Decision,
}

/// Weighs a take at `now` and charges what it grants to all windows, or nothing to any.
pub fn take(take: &Take, windows: &mut [&mut State], now: Timestamp) -> Granted {
    for (rule, window) in take.rules.iter().zip(windows.iter_mut()) {
        window.advance(rule, now);
    }
    let (waiting, ahead) = grant(take, windows, now);
    let spend = |passes: u32| take.cost.saturating_mul(passes);
    if take.cost > 0 && waiting > 0 {
        for (rule, window) in take.rules.iter().zip(windows.iter_mut()) {
            window.charge(rule, now, spend(waiting), spend(ahead), take.hold);
        }
    }
    let allowed = waiting == take.waiting.max(1);
    let standings = take.rules.iter().zip(windows.iter()).map(|(rule, window)| Standing {
        used: window.used(rule, now),
        free_in: window.wait(rule, now, 1),
        pass_in: if allowed {
            Some(std::time::Duration::ZERO)
        } else {
            window.wait(rule, now, weight(take.cost))
        },
    });
    let standings = standings.collect();
    Granted { waiting, ahead, decision: Decision { allowed, standings } }
}

/// How many passes those who wait get, and how many go ahead.
fn grant(take: &Take, windows: &[&mut State], now: Timestamp) -> (u32, u32) {
    let waiting = take.waiting.max(1);
    let weight = weight(take.cost);
    let rooms = || take.rules.iter().zip(windows.iter()).map(|(r, window)| window.room(r, now));
    if take.forced {
        return (waiting, 0);
    }
    let fitting = rooms().map(|room| room / weight).min().unwrap_or(u32::MAX);
    if take.cost == 0 {
        return (if fitting > 0 { waiting } else { 0 }, 0);
    }
    let granted = waiting.min(fitting);
    let booked = |(rule, window): (&Rule, &&mut State)| window.reaches(rule, now, take.hold);
    if granted < waiting || take.ahead == 0 || !take.rules.iter().zip(windows).all(booked) {
        return (granted, 0);
    }
    // Whoever holds a lease must leave room for the others: near the limit nothing goes ahead.
    let part = |room: u32| (room - granted * weight) / take.divisor.max(1) / weight;
    (granted, rooms().map(part).min().unwrap_or(u32::MAX).min(take.ahead))
}

/// Credits what a lease did not use. `windows` as in [`take`].
pub fn give_back(give: &Return, windows: &mut [&mut State], now: Timestamp) {
    let amount = give.cost.saturating_mul(give.passes);
    for (rule, window) in give.rules.iter().zip(windows.iter_mut()) {
        window.advance(rule, now);
        window.credit(rule, give.at, give.hold, amount);
    }
}

/// Raises a window to what was declared.
pub fn declare(
    declaration: &Declaration,
    window: &mut State,
    declared: &mut Declared,
    now: Timestamp,
) {
    window.advance(&declaration.rule, now);
    window.declare(&declaration.rule, declared, &declaration.charges, now);
}

#[cfg(test)]
mod tests;
