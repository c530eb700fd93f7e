//! How two things that cost processor time are compared on a machine that does other things too: in turns so short
//! that whatever the neighbours do meets both alike, in the order A B B A so that a slow drift cancels, and with the
//! turns that were disturbed most left out. Knows nothing of what costs.

use anyhow::Result;

/// How long and how often.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Values that are found one after the other, each by itself: their spread says what one of them is worth.
    pub rounds: usize,
    /// Turns of A B B A in each.
    pub turns: usize,
}

/// What one turn cost: the mean of its two goes on each side.
#[derive(Debug, Clone, Copy)]
struct Turn {
    ours: f64,
    theirs: f64,
}

/// What one round found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Round {
    /// The cost of ours.
    pub ours: f64,
    /// The cost of what stands beside it.
    pub theirs: f64,
}

impl Round {
    /// Ours ÷ theirs.
    pub fn ratio(&self) -> f64 {
        self.ours / self.theirs
    }

    /// The middle half of the turns by their ratio, added up on each side.
    fn of(turns: &mut [Turn]) -> Self {
        let ratio = |turn: &Turn| turn.ours / turn.theirs;
        turns.sort_by(|one, other| ratio(one).total_cmp(&ratio(other)));
        let outer = turns.len() / 4;
        let middle = turns.get(outer..turns.len().saturating_sub(outer)).unwrap_or_default();
        let count = middle.len() as f64;
        Self {
            ours: middle.iter().map(|turn| turn.ours).sum::<f64>() / count,
            theirs: middle.iter().map(|turn| turn.theirs).sum::<f64>() / count,
        }
    }
}

/// Runs both sides in turns; each go returns what it cost.
pub fn compare<S>(
    plan: Plan,
    (ours, theirs): (&mut S, &mut S),
    mut go: impl FnMut(&mut S) -> Result<f64>,
) -> Result<Vec<Round>> {
    let mut rounds = Vec::with_capacity(plan.rounds);
    for _ in 0..plan.rounds {
        let mut turns = Vec::with_capacity(plan.turns);
        for _ in 0..plan.turns {
            let first = go(ours)?;
            let second = go(theirs)?;
            let third = go(theirs)?;
            let last = go(ours)?;
            turns.push(Turn { ours: (first + last) / 2.0, theirs: (second + third) / 2.0 });
        }
        rounds.push(Round::of(&mut turns));
    }
    Ok(rounds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drift_cancels_and_disturbed_turns_do_not_count() {
        // A cost that grows with every go, and one go in nine that a neighbour made three times as dear.
        let mut time = 0.0;
        let mut gone = 0;
        let go = |cost: &mut f64| {
            time += 0.001;
            gone += 1;
            Ok(*cost * (1.0 + time) * if gone % 9 == 0 { 3.0 } else { 1.0 })
        };
        let plan = Plan { rounds: 5, turns: 20 };
        let rounds = compare(plan, (&mut 1.2, &mut 1.0), go).unwrap();
        assert_eq!(rounds.len(), 5);
        for round in rounds {
            assert!((round.ratio() - 1.2).abs() < 0.02, "{round:?}");
        }
    }

    #[test]
    fn a_round_is_the_middle_half_of_its_turns() {
        let turn = |ours| Turn { ours, theirs: 1.0 };
        let mut turns = [9.0, 1.0, 1.2, 0.1].map(turn);
        assert_eq!(Round::of(&mut turns), Round { ours: 1.1, theirs: 1.0 });
        assert_eq!(Round::of(&mut [turn(2.0)]), Round { ours: 2.0, theirs: 1.0 });
    }
}
