//! Prometheus' text form (exposition format 0.0.4), and histograms in it.
//! Knows no metric.

use std::{
    fmt::{Display, Formatter, Result, Write},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// The text as it grows.
pub struct Text(pub String);

/// Values below each of its bounds.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    bounds: &'static [u64; N],
    buckets: [AtomicU64; N],
    count: AtomicU64,
    sum: AtomicU64,
}

/// Microseconds, shown as seconds.
pub struct Seconds(pub u64);

impl Text {
    pub fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing into a String cannot fail.
        write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n").unwrap_or_default();
    }

    pub fn line(&mut self, name: &str, labels: &str, value: impl Display) {
        writeln!(self.0, "{name}{labels} {value}").unwrap_or_default();
    }

    /// A family of one line.
    pub fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.head(name, kind, help);
        self.line(name, "", value);
    }
}

impl<const N: usize> Histogram<N> {
    /// `bounds` are the upper ends of its buckets, rising.
    pub fn new(bounds: &'static [u64; N]) -> Self {
        Self {
            bounds,
            buckets: [const { AtomicU64::new(0) }; N],
            count: AtomicU64::new(0),
            sum: AtomicU64::new(0),
        }
    }

    pub fn saw(&self, value: u64) {
        self.count.fetch_add(1, Relaxed);
        self.sum.fetch_add(value, Relaxed);
        // Each counts for itself alone: one write per value, not one per bound above it.
        if let Some((_, bucket)) =
            self.bounds.iter().zip(&self.buckets).find(|(bound, _)| value <= **bound)
        {
            bucket.fetch_add(1, Relaxed);
        }
    }

    /// `shown` is how a bound and the sum are written.
    pub fn render<D: Display>(
        &self,
        text: &mut Text,
        (name, help): (&str, &str),
        shown: fn(u64) -> D,
    ) {
        text.head(name, "histogram", help);
        let bucket = format!("{name}_bucket");
        let mut below = 0;
        for (bound, value) in self.bounds.iter().zip(&self.buckets) {
            below += value.load(Relaxed);
            text.line(&bucket, &format!("{{le=\"{}\"}}", shown(*bound)), below);
        }
        // Read after the buckets: never less than they are.
        let count = self.count.load(Relaxed).max(below);
        text.line(&bucket, "{le=\"+Inf\"}", count);
        text.line(&format!("{name}_sum"), "", shown(self.sum.load(Relaxed)));
        text.line(&format!("{name}_count"), "", count);
    }
}

impl Display for Seconds {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_add_up_and_what_is_above_all_bounds_is_counted() {
        let histogram = Histogram::new(&[10, 100]);
        for value in [1, 10, 11, 1000] {
            histogram.saw(value);
        }
        let mut text = Text(String::new());
        histogram.render(&mut text, ("x_seconds", "Help"), Seconds);
        assert_eq!(
            text.0,
            "# HELP x_seconds Help\n# TYPE x_seconds histogram\n\
             x_seconds_bucket{le=\"0.000010\"} 2\nx_seconds_bucket{le=\"0.000100\"} 3\n\
             x_seconds_bucket{le=\"+Inf\"} 4\nx_seconds_sum 0.001022\nx_seconds_count 4\n"
        );
    }
}
