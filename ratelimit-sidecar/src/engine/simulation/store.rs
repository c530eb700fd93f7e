//! The store of the simulated world: the model behind a clock of its own, which may lose all that it holds.

use std::collections::HashMap;

use gatehouse_ratelimit::{
    Declaration, Refused, Return, Rule, Run, Take, Taken, Timestamp, model,
    state::{Declared, State},
};

use super::world::MS;

/// How long a store that began anew waits for declarations.
const SETTLE: u64 = 1_000 * MS;

#[derive(Default)]
pub struct Store {
    pub skew: u64,
    pub began: u64,
    pub run: u64,
    pub windows: HashMap<String, (State, Declared)>,
}

impl Store {
    pub fn clock(&self, now: u64) -> Timestamp {
        Timestamp::from_ms((now + self.skew) / MS)
    }

    pub fn take(&mut self, take: &Take, now: u64) -> Result<Taken, Refused> {
        let run = Run(self.run);
        if take.run.is_some_and(|known| known != run) {
            return Err(Refused::Anew(run));
        }
        if self.run > 1 && now < self.began + SETTLE {
            return Err(Refused::Settling(run));
        }
        let at = self.clock(now);
        let mut states: Vec<State> =
            take.rules.iter().map(|rule| self.window(rule).0.clone()).collect();
        let granted = model::take(take, &mut states.iter_mut().collect::<Vec<_>>(), at);
        for (rule, state) in take.rules.iter().zip(states) {
            self.window(rule).0 = state;
        }
        let model::Granted { waiting, ahead, decision } = granted;
        Ok(Taken { waiting, ahead, decision, at, run })
    }

    pub fn give_back(&mut self, give: &Return, now: u64) {
        if give.run != Run(self.run) {
            return;
        }
        let at = self.clock(now);
        for rule in give.rules.iter() {
            let state = &mut self.window(rule).0;
            let one = Return { rules: [rule.clone()].into(), ..give.clone() };
            model::give_back(&one, &mut [state], at);
        }
    }

    pub fn declare(&mut self, declaration: &Declaration, now: u64) {
        let at = self.clock(now);
        if declaration.run == Run(self.run) {
            let (state, declared) = self.window(&declaration.rule);
            model::declare(declaration, state, declared, at);
        }
    }

    fn window(&mut self, rule: &Rule) -> &mut (State, Declared) {
        let fresh = || (State::new(rule.algorithm()), Declared::default());
        self.windows.entry(rule.key_tail().to_owned()).or_insert_with(fresh)
    }
}
