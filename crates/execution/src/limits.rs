//! What one run may use. The numbers are the specification's defaults (§3.3). A version
//! names others within the platform's bounds, and who submits names lower ones.
//! Knows nothing of who enforces them.

use std::{collections::BTreeMap, ops::RangeInclusive, str::FromStr, time::Duration};

use serde_json::{Map, Value};

/// The limits of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// CPU time per second of wall time, in thousandths of one core.
    pub cpu_millis: u32,
    /// Memory of the whole sandbox, its kernel and its tmpfs contents included.
    pub memory_bytes: u64,
    /// Wall time from the agent's start to its end; fetching the image and making the sandbox do not count.
    pub timeout: Duration,
    /// Wall time in which the agent must have been started: the image fetched, the sandbox made.
    pub start_timeout: Duration,
    /// Between SIGTERM, at the time limit or at a cancellation, and SIGKILL to all that is left.
    pub grace: Duration,
    /// Host tasks of the sandbox. A backstop: the sandbox's own kernel needs 21 to 25 at idle.
    pub host_pids: u32,
    /// Processes within the sandbox (`RLIMIT_NPROC` of its user).
    pub processes: u32,
    /// Open files per process (`RLIMIT_NOFILE`).
    pub open_files: u32,
    /// Largest single file (`RLIMIT_FSIZE`).
    pub file_bytes: u64,
    /// Size of `/tmp`. Its contents count against `memory_bytes`: whichever is reached first ends what is written (ADR 0056).
    pub scratch_bytes: u64,
    /// Size of `/run/agent`, where the result is written.
    pub exchange_bytes: u64,
    /// Largest result, from the result file or from standard output.
    pub output_bytes: usize,
    /// How much of standard error is kept.
    pub log_bytes: usize,
    /// Requests through the egress proxy.
    pub egress_requests: u32,
}

macro_rules! nameable {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $least:expr, $most:expr;)+) => {
        /// A limit that can be named for a version or for one execution.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Limit { $($(#[$doc])* $variant),+ }

        impl Limit {
            /// Every one.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// What it is called, with its unit.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// What the platform lets a version name.
            pub const fn range(self) -> RangeInclusive<u64> {
                match self { $(Self::$variant => $least..=$most),+ }
            }
        }
    };
}

nameable! {
    /// [`Limits::cpu_millis`].
    Cpu = "cpu_millis", 100, 4000;
    /// [`Limits::memory_bytes`]: the sandbox's own kernel needs some 40 MiB of it.
    Memory = "memory_bytes", 64 * MIB, 8192 * MIB;
    /// [`Limits::scratch_bytes`].
    Scratch = "scratch_bytes", MIB, 4096 * MIB;
    /// [`Limits::processes`], which the host's own bound holds with room to spare.
    Processes = "processes", 1, 256;
    /// [`Limits::open_files`].
    OpenFiles = "open_files", 16, 16_384;
    /// [`Limits::output_bytes`]: an event carries it, and a broker takes no more.
    Output = "output_bytes", 1024, MIB;
    /// [`Limits::timeout`] in seconds.
    Timeout = "timeout_s", 1, 3600;
    /// [`Limits::egress_requests`].
    EgressRequests = "egress_requests", 0, 10_000;
}

/// Some limits by name, each within its range. What is not named stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Named(BTreeMap<Limit, u64>);

/// A limit that is unknown, no number or beyond its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no limit within the platform's bounds")]
pub struct Invalid;

const MIB: u64 = 1 << 20;

impl Limits {
    /// How long the agent runs until it is said that its time comes to an end: 80 % of [`Limits::timeout`] (RES-001).
    pub fn warn_after(&self) -> Duration {
        self.timeout * 4 / 5
    }

    /// What `limit` is here.
    pub fn of(&self, limit: Limit) -> u64 {
        match limit {
            Limit::Cpu => self.cpu_millis.into(),
            Limit::Memory => self.memory_bytes,
            Limit::Scratch => self.scratch_bytes,
            Limit::Processes => self.processes.into(),
            Limit::OpenFiles => self.open_files.into(),
            Limit::Output => u64::try_from(self.output_bytes).unwrap_or(u64::MAX),
            Limit::Timeout => self.timeout.as_secs(),
            Limit::EgressRequests => self.egress_requests.into(),
        }
    }

    /// These, with what is named in the place of what was.
    #[must_use]
    pub fn with(mut self, named: &Named) -> Self {
        for (limit, value) in named.iter() {
            // A range holds no more than its field does.
            let small = u32::try_from(value).unwrap_or(u32::MAX);
            match limit {
                Limit::Cpu => self.cpu_millis = small,
                Limit::Memory => self.memory_bytes = value,
                Limit::Scratch => {
                    self.scratch_bytes = value;
                    // One file may fill it.
                    self.file_bytes = self.file_bytes.max(value);
                }
                Limit::Processes => self.processes = small,
                Limit::OpenFiles => self.open_files = small,
                Limit::Output => self.output_bytes = usize::try_from(value).unwrap_or(usize::MAX),
                Limit::Timeout => self.timeout = Duration::from_secs(value),
                Limit::EgressRequests => self.egress_requests = small,
            }
        }
        self
    }

    /// All that can be named, as a JSON object.
    pub fn shown(&self) -> Value {
        let member = |limit: &Limit| (limit.name().to_owned(), self.of(*limit).into());
        Value::Object(Limit::ALL.iter().map(member).collect())
    }
}

// === impl Limit ===

impl FromStr for Limit {
    type Err = Invalid;

    fn from_str(name: &str) -> Result<Self, Invalid> {
        Self::ALL.iter().copied().find(|limit| limit.name() == name).ok_or(Invalid)
    }
}

// === impl Named ===

impl Named {
    /// Names one more.
    ///
    /// # Errors
    /// [`Invalid`] beyond [`Limit::range`].
    pub fn set(&mut self, limit: Limit, value: u64) -> Result<(), Invalid> {
        if !limit.range().contains(&value) {
            return Err(Invalid);
        }
        self.0.insert(limit, value);
        Ok(())
    }

    /// What is named.
    pub fn iter(&self) -> impl Iterator<Item = (Limit, u64)> {
        self.0.iter().map(|(limit, value)| (*limit, *value))
    }

    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is named, as a JSON object.
    pub fn to_json(&self) -> Value {
        let members: Map<String, Value> =
            self.iter().map(|(limit, value)| (limit.name().to_owned(), value.into())).collect();
        Value::Object(members)
    }

    /// Reads what [`Named::to_json`] wrote.
    ///
    /// # Errors
    /// [`Invalid`] for anything else.
    pub fn from_json(value: &Value) -> Result<Self, Invalid> {
        let mut named = Self::default();
        for (name, value) in value.as_object().ok_or(Invalid)? {
            named.set(name.parse()?, value.as_u64().ok_or(Invalid)?)?;
        }
        Ok(named)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cpu_millis: 1000,
            memory_bytes: 512 * MIB,
            timeout: Duration::from_secs(300),
            start_timeout: Duration::from_secs(60),
            grace: Duration::from_secs(10),
            host_pids: 512,
            processes: 64,
            open_files: 1024,
            file_bytes: 1024 * MIB,
            scratch_bytes: 1024 * MIB,
            exchange_bytes: 16 * MIB,
            output_bytes: 1 << 20,
            log_bytes: 64 << 10,
            egress_requests: 100,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_named_stands_in_the_place_of_the_default_and_nothing_else_does() {
        for limit in Limit::ALL {
            let range = limit.range();
            for value in [*range.start(), *range.end()] {
                let mut named = Named::default();
                named.set(*limit, value).unwrap();
                let made = Limits::default().with(&named);
                for other in Limit::ALL {
                    let expected =
                        if other == limit { value } else { Limits::default().of(*other) };
                    assert_eq!(made.of(*other), expected, "{limit:?} {other:?}");
                }
                assert_eq!(Named::from_json(&named.to_json()), Ok(named));
            }
        }
    }

    #[test]
    fn nothing_is_named_beyond_its_range_and_the_defaults_are_within() {
        for limit in Limit::ALL {
            let range = limit.range();
            let mut named = Named::default();
            assert_eq!(named.set(*limit, range.end() + 1), Err(Invalid), "{limit:?}");
            if let Some(below) = range.start().checked_sub(1) {
                assert_eq!(named.set(*limit, below), Err(Invalid), "{limit:?}");
            }
            assert!(range.contains(&Limits::default().of(*limit)), "{limit:?}");
        }
        for bad in [json!(null), json!([]), json!({"cpu": 1}), json!({"cpu_millis": "1000"})] {
            assert_eq!(Named::from_json(&bad), Err(Invalid), "{bad}");
        }
    }
}
