//! Whole requests: a header map in the ABI's form, then what the sidecar answers to each call-out, through the policy
//! of the committed example.
//! Knows what must hold of any request, not what a good one is.

use std::{cell::RefCell, time::Duration};

use gatehouse_authn::Portable;
use gatehouse_edge::{Answer, Edit, Parts, RequestView, Step, Suite, VmState};

use crate::abi::{self, HeaderMap};

/// What separates the answers from the map and from each other.
const SEPARATOR: &[u8] = b"\n--\n";
/// The most call-outs of one request: keys, keys again, the principal, the limiter.
const MAX_CALLS: usize = 4;
const NOW: Duration = Duration::from_secs(1_800_000_000);
const DOCUMENT: &str = include_str!("../../examples/gateway/suite.json");

thread_local! {
    static SUITE: Option<Suite> = suite();
    /// Kept between inputs, as a VM keeps it: forgotten now and then, so that runs do not differ much.
    static VM: RefCell<(VmState, u32)> = RefCell::new((VmState::new([1, 2]), 0));
}

fn suite() -> Option<Suite> {
    let document = DOCUMENT.replace("\"native\"", "\"portable\"");
    Suite::compile(&document, Parts::Suite).ok().map(|(suite, _warnings)| suite)
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

/// Every request ends in one verdict, and nothing that was not safe gets into a header (acceptance J30, T6).
pub fn request(data: &[u8]) -> bool {
    let mut parts = Pieces::of(data);
    let Some(map) = parts.next().and_then(|map| HeaderMap::read(map.to_vec())) else {
        return false;
    };
    let Some(pairs) = map.pairs() else { return false };
    SUITE.with(|suite| {
        let suite = suite.as_ref();
        assert!(suite.is_some(), "the example compiles");
        let Some(suite) = suite else { return false };
        VM.with_borrow_mut(|(vm, requests)| {
            *requests += 1;
            if requests.is_multiple_of(64) {
                *vm = VmState::new([1, 2]);
            }
            follow(suite, vm, &pairs, parts)
        })
    })
}

fn follow(
    suite: &Suite,
    vm: &mut VmState,
    pairs: &[(&[u8], &[u8])],
    mut answers: Pieces<'_>,
) -> bool {
    let mut step = suite.on_request(vm, &RequestView::of(pairs), NOW, &Portable);
    for _ in 0..=MAX_CALLS {
        match step {
            Step::Continue { edits, record } => {
                for edit in edits.iter().chain(&suite.on_response(&record, pairs)) {
                    assert!(is_safe(edit), "{edit:?}");
                }
                return true;
            }
            Step::Reply(_) => return false,
            Step::Call { pending, .. } => {
                let answer = match answers.next() {
                    Some(body) => Answer::Sidecar { status: 200, body },
                    None => Answer::Unavailable,
                };
                step = suite.on_answer(vm, *pending, answer, NOW, &Portable);
            }
        }
    }
    assert!(matches!(step, Step::Continue { .. } | Step::Reply(_)), "no end of call-outs");
    false
}

fn is_safe(edit: &Edit) -> bool {
    let safe = |text: &str| text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    match edit {
        Edit::Set(_, value) => safe(value),
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
