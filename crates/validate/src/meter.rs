//! How much judging one body may cost. Knows no schemas.

use std::cell::Cell;

/// Steps that any body may take: a large schema over a small body.
const STEPS: u64 = 100_000;
/// Steps for each byte of a body: honest schemas take less than ten, but for those with large patterns.
const STEPS_PER_BYTE: u64 = 256;
/// The most, however large the body: tens of milliseconds, for which a worker serves nobody else.
const MAX_STEPS: u64 = 4_000_000;
/// Errors that are made before the first ones are taken; each alternative of an `anyOf` makes its own.
const MAX_ERRORS: u32 = 256;

/// Counts down the steps of one pass over one body. Once nothing is left every value looks like `null` without
/// members, so that whatever is under way comes to its end; what it then says is worth nothing.
#[derive(Debug)]
pub(crate) struct Meter {
    left: Cell<u64>,
    errors: Cell<u32>,
    /// What a byte of a text costs that is looked at; each look may be a pattern's.
    text_steps: usize,
}

impl Meter {
    pub(crate) fn for_body(bytes: usize, text_steps: usize) -> Self {
        let by_size = STEPS_PER_BYTE.saturating_mul(u64::try_from(bytes).unwrap_or(u64::MAX));
        let left = by_size.saturating_add(STEPS).min(MAX_STEPS);
        Self { left: Cell::new(left), errors: Cell::new(0), text_steps }
    }

    /// Takes `steps`; `false` once nothing is left.
    pub(crate) fn spend(&self, steps: usize) -> bool {
        let steps = u64::try_from(steps).unwrap_or(u64::MAX);
        let left = self.left.get().saturating_sub(steps);
        self.left.set(left);
        left > 0
    }

    /// Takes what reading `text` is worth, by a pattern or whatever else.
    pub(crate) fn spend_text(&self, text: &str) -> bool {
        self.spend(text.len().saturating_add(1).saturating_mul(self.text_steps))
    }

    /// Takes what comparing so many bytes is worth.
    pub(crate) fn spend_bytes(&self, bytes: usize) -> bool {
        self.spend(bytes / 32 + 1)
    }

    pub(crate) fn is_spent(&self) -> bool {
        self.left.get() == 0
    }

    /// Counts an error; after too many of them nothing is left.
    pub(crate) fn count_error(&self) {
        let errors = self.errors.get().saturating_add(1);
        self.errors.set(errors);
        if errors > MAX_ERRORS {
            self.left.set(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_after_the_steps_or_the_errors() {
        let meter = Meter::for_body(1, 1);
        assert!(meter.spend(100_255));
        assert!(!meter.spend(1));
        assert!(meter.is_spent());
        assert!(!Meter::for_body(usize::MAX, 1).spend(4_000_000));
        let meter = Meter::for_body(0, 10);
        assert!(meter.spend_text(&"x".repeat(9_998)));
        assert!(!meter.spend_text(""));
        let meter = Meter::for_body(1, 1);
        (0..256).for_each(|_| meter.count_error());
        assert!(!meter.is_spent());
        meter.count_error();
        assert!(meter.is_spent());
    }
}
