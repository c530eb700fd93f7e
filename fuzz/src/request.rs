//! Whole requests: a header map in the ABI's form, then what the sidecar answers to each call-out, through the policy
//! of the committed example. The same request comes several times, so that passes which it took along are used.
//! Knows what must hold of any request, not what a good one is.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use gatehouse_authn::Portable;
use gatehouse_contract::sidecar::{
    JWKS_PATH, LEASE_PATH, Lease, LeaseAnswer, LeaseAsk, PRINCIPAL_PATH,
};
use gatehouse_edge::{Answer, Edit, Parts, RequestView, Step, Suite, VmState};

use crate::abi::{self, HeaderMap};

/// What separates the answers from the map and from each other.
const SEPARATOR: &[u8] = b"\n--\n";
/// The most call-outs of one request: keys, keys again, the principal, the limiter.
const MAX_CALLS: usize = 4;
/// How often a request comes.
const TIMES: usize = 6;
const NOW: Duration = Duration::from_secs(1_800_000_000);
const DOCUMENT: &str = include_str!("../../examples/gateway/suite.json");

thread_local! {
    static SUITE: Option<Suite> = suite();
    /// Kept between inputs, as a VM keeps it: forgotten now and then, so that runs do not differ much.
    static VM: RefCell<Vm> = RefCell::new(Vm::new());
}

fn suite() -> Option<Suite> {
    let document = DOCUMENT.replace("\"native\"", "\"portable\"");
    // Each place for a version leads somewhere, and two of them end.
    let document = document.replace(
        r#""versions": { "served": ["v1"], "default": "v1" }"#,
        r#""versions": {"served": ["v1", "v2", "v3"], "default": "v1", "lifecycle": [
            {"version": "v1", "deprecated": "2026-06-01", "sunset": "2028-06-01", "successor": "v2"},
            {"version": "v3", "deprecated": "2024-06-01", "sunset": "2026-06-01",
             "grace": ["0191d6b0-7c3e-7aaa-8bbb-0123456789ab"]}
        ]}"#,
    );
    Suite::compile(&document, Parts::Suite).ok().map(|(suite, _warnings)| suite)
}

/// A VM, and what it was given of limits.
struct Vm {
    state: VmState,
    /// Its monotonic clock.
    clock: Rc<Cell<Duration>>,
    inputs: u32,
    /// Every lease, with the time at which it was asked for.
    leases: Vec<(Duration, Lease)>,
    /// Requests that were decided on a pass.
    used: u64,
    /// Passes that were handed back.
    returned: u64,
}

impl Vm {
    fn new() -> Self {
        let clock = Rc::new(Cell::new(Duration::ZERO));
        let time = Rc::clone(&clock);
        let state = VmState::new([1, 2]).with_clock(Box::new(move || time.get()));
        Self { state, clock, inputs: 0, leases: Vec::new(), used: 0, returned: 0 }
    }

    fn pass(&self, by_ms: usize) {
        let by = Duration::from_millis(u64::try_from(by_ms).unwrap_or(0));
        self.clock.set(self.clock.get() + by);
    }

    /// The limiter is asked: what is handed back was given, and never twice.
    fn asked(&mut self, ask: &[u8]) {
        let ask = serde_json::from_slice::<LeaseAsk>(ask);
        assert!(ask.is_ok(), "{ask:?}");
        let Ok(ask) = ask else { return };
        assert!(ask.check.is_some_and(|check| check.cost > 0), "a request that costs nothing");
        for back in &ask.returns {
            let given = self.leases.iter().any(|(_, lease)| lease.id == back.lease);
            assert!(given, "{back:?} was never given");
            self.returned += u64::from(back.unused);
        }
        self.balance();
    }

    /// The limiter's answer, as anybody can read it.
    fn answered(&mut self, asked_at: Duration, answer: &[u8]) {
        let answer = serde_json::from_slice::<LeaseAnswer>(answer).ok();
        let lease = answer.filter(|answer| answer.check.is_some()).and_then(|answer| answer.lease);
        self.leases.extend(lease.map(|lease| (asked_at, lease)));
    }

    /// A request was decided without a question: on a pass of a lease that lives.
    fn passed(&mut self) {
        let now = self.clock.get();
        let lives = |(asked_at, lease): &(Duration, Lease)| {
            lease.passes > 0 && now < *asked_at + Duration::from_millis(lease.ttl_ms.into())
        };
        assert!(self.leases.iter().any(lives), "no lease lives at {now:?}: {:?}", self.leases);
        self.used += 1;
        self.balance();
    }

    fn balance(&self) {
        let given: u64 = self.leases.iter().map(|(_, lease)| u64::from(lease.passes)).sum();
        assert!(self.used + self.returned <= given, "more passes than were given");
    }
}

/// A map is read as it was written, or not at all.
pub fn header_map(data: &[u8]) -> bool {
    let Some(map) = HeaderMap::read(data.to_vec()) else { return false };
    let Some(pairs) = map.pairs() else { return false };
    let size: usize = pairs.iter().map(|(name, value)| name.len() + value.len()).sum();
    assert!(size <= data.len(), "more bytes than there were");
    let texts: Option<Vec<(&str, &str)>> = pairs
        .iter()
        .map(|(name, value)| {
            Some((std::str::from_utf8(name).ok()?, std::str::from_utf8(value).ok()?))
        })
        .collect();
    if let Some(texts) = texts {
        let again = HeaderMap::read(abi::encode(&texts));
        let again = again.as_ref().and_then(HeaderMap::pairs);
        assert_eq!(again, Some(pairs), "written and read again");
    }
    true
}

/// Every request ends in one verdict, nothing that was not safe gets into a header (acceptance J30, T6), and no pass is
/// used twice, or late.
pub fn request(data: &[u8]) -> bool {
    let mut pieces = Pieces::of(data);
    let Some(map) = pieces.next().and_then(|map| HeaderMap::read(map.to_vec())) else {
        return false;
    };
    let Some(pairs) = map.pairs() else { return false };
    let mut answers = Answers { keys: pieces.next(), principal: pieces.next(), limits: pieces };
    SUITE.with(|suite| {
        let suite = suite.as_ref();
        assert!(suite.is_some(), "the example compiles");
        let Some(suite) = suite else { return false };
        VM.with_borrow_mut(|vm| {
            vm.inputs += 1;
            if vm.inputs.is_multiple_of(64) {
                *vm = Vm::new();
            }
            let mut accepted = false;
            for _ in 0..TIMES {
                vm.pass(data.len() % 16);
                if !follow(suite, vm, &pairs, &mut answers) {
                    break;
                }
                accepted = true;
            }
            accepted
        })
    })
}

fn follow(suite: &Suite, vm: &mut Vm, pairs: &[(&[u8], &[u8])], answers: &mut Answers<'_>) -> bool {
    let mut step = suite.on_request(&mut vm.state, &RequestView::of(pairs), NOW, &Portable);
    let mut limit_asked = false;
    for _ in 0..=MAX_CALLS {
        match step {
            Step::Continue { edits, record } => {
                for edit in edits.iter().chain(&suite.on_response(&record, pairs)) {
                    assert!(is_safe(edit), "{edit:?}");
                }
                if record.limit.is_some() && !limit_asked {
                    vm.passed();
                }
                return true;
            }
            Step::Reply(_) => return false,
            Step::Call { call, pending } => {
                let asked_at = vm.clock.get();
                let limits = call.path == LEASE_PATH;
                if limits {
                    vm.asked(&call.body);
                }
                limit_asked |= limits;
                let body = answers.to(&call.path);
                vm.pass(body.map_or(0, |body| body.len() % 4));
                if let (true, Some(body)) = (limits, body) {
                    vm.answered(asked_at, body);
                }
                let answer = match body {
                    Some(body) => Answer::Sidecar { status: 200, body },
                    None => Answer::Unavailable,
                };
                step = suite.on_answer(&mut vm.state, *pending, answer, NOW, &Portable);
            }
        }
    }
    assert!(matches!(step, Step::Continue { .. } | Step::Reply(_)), "no end of call-outs");
    false
}

/// What the sidecar says: of keys, of the principal, and then to each question of the limiter another thing.
struct Answers<'d> {
    keys: Option<&'d [u8]>,
    principal: Option<&'d [u8]>,
    limits: Pieces<'d>,
}

impl<'d> Answers<'d> {
    /// Whatever a VM remembers and does not ask for, the others stay what they are.
    fn to(&mut self, path: &str) -> Option<&'d [u8]> {
        match path.split('?').next() {
            Some(JWKS_PATH) => self.keys,
            Some(PRINCIPAL_PATH) => self.principal,
            _ => self.limits.next(),
        }
    }
}

fn is_safe(edit: &Edit) -> bool {
    let safe = |text: &str| text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    match edit {
        Edit::Set(_, value) | Edit::Add(_, value) => safe(value),
        Edit::Remove(_) => true,
        Edit::UpstreamUri(target) => target.starts_with('/') && safe(target),
    }
}

/// The pieces of an input.
struct Pieces<'d>(Option<&'d [u8]>);

impl<'d> Pieces<'d> {
    fn of(data: &'d [u8]) -> Self {
        Self(Some(data))
    }
}

impl<'d> Iterator for Pieces<'d> {
    type Item = &'d [u8];

    fn next(&mut self) -> Option<&'d [u8]> {
        let data = self.0.take()?;
        let end = data.windows(SEPARATOR.len()).position(|window| window == SEPARATOR);
        match end {
            None => Some(data),
            Some(end) => {
                self.0 = data.get(end + SEPARATOR.len()..);
                data.get(..end)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_of_leases_is_decided_on_passes() {
        let seed = std::fs::read(crate::corpus::folder("request").join("lease")).unwrap();
        assert!(request(&seed));
        VM.with_borrow(|vm| assert_eq!((vm.used, vm.leases.len()), (3, 2)));
    }
}
