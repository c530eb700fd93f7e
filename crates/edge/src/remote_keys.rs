//! Key sets that the filter fetches itself, where no sidecar does (design §3.1): one VM of the process fetches, and
//! all of them use what it found within a tick. Who fetches is settled in data that all VMs share, by compare and
//! set with a deadline, as the tick runs in every worker and in the main thread. An identity provider that is away
//! or hostile changes nothing: the keys before stay, until they are too old (acceptance J13 to J19).
//! Knows neither hosts nor tokens.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, time::Duration};

use gatehouse_authn::{KeySet, jwks};
use serde::{Deserialize, Serialize};

use crate::{
    config::{KeySource, Suite, issuer::Direct},
    feed::{Purpose, RootCall},
    state::{KeyIdAnswer, VmState},
    step::Call,
};

/// For how long keys are used that nobody could fetch again.
const MAX_STALE: Duration = Duration::from_secs(4 * 3600);
/// An unknown key id costs at most one fetch per issuer in this time, whoever asks (acceptance J14). What is fetched
/// on schedule does not count.
const COOL_DOWN: Duration = Duration::from_secs(30);
/// No provider is asked on schedule more often, whatever its answer's `max-age` says.
const MIN_REFRESH: Duration = Duration::from_secs(30);
/// The longest wait between tries of a provider that fails.
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// A time further ahead than this was written under a clock that has been set back since.
const CLOCK_SLACK: Duration = Duration::from_secs(5);
/// Before a record is this old nobody leads by it: VMs that tick as one each make it, and the last one wins.
const SETTLING: Duration = Duration::from_millis(200);
/// The longest lease there is: twice the longest time-out, and a second.
const MAX_LEASE: Duration = Duration::from_secs(21);

/// Data that all VMs of a process share.
pub trait Shared {
    /// A value, and the number by which to set it. `None` if nobody has set it.
    fn get(&self, key: &str) -> Option<(Vec<u8>, u32)>;

    /// Sets a value, unless somebody has set it since `cas` was read; 0 sets it anyhow.
    fn set(&self, key: &str, value: &[u8], cas: u32) -> bool;
}

/// For a host that shares nothing (Kong, unless its operator declared a zone): each VM has its own.
#[derive(Debug, Default)]
pub struct Unshared(RefCell<BTreeMap<String, (Vec<u8>, u32)>>);

impl Shared for Unshared {
    fn get(&self, key: &str) -> Option<(Vec<u8>, u32)> {
        self.0.try_borrow().ok()?.get(key).cloned()
    }

    fn set(&self, key: &str, value: &[u8], cas: u32) -> bool {
        let Ok(mut values) = self.0.try_borrow_mut() else { return false };
        let held = values.get(key).map_or(0, |(_, cas)| *cas);
        let fits = cas == 0 || cas == held;
        if fits {
            values.insert(key.to_owned(), (value.to_vec(), held.wrapping_add(1).max(1)));
        }
        fits
    }
}

/// What one VM knows of the keys of each issuer, by its place in the configuration.
#[derive(Debug)]
pub(crate) struct RemoteKeys {
    issuers: Vec<Remote>,
    fetches: u64,
    /// Differs between VMs: leases and jitter come from it.
    noise: u64,
}

#[derive(Debug, Default)]
struct Remote {
    /// As it was at the last tick.
    head: Head,
    /// The generation that this VM uses, and when it was last known to be the provider's.
    adopted: (u64, u64),
    /// A token came with a key id that is not known.
    wanted: bool,
    fetch: Option<Fetch>,
}

/// A fetch that this VM leads.
#[derive(Debug, Clone, Copy)]
struct Fetch {
    number: u64,
    lease: u64,
    /// Ticks after which no answer is to be expected, whatever the clock does.
    ticks_left: u64,
    for_key_id: bool,
}

/// What all VMs know of an issuer's keys. Times are milliseconds since the Unix epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Head {
    /// Of the set that is published; 0 before the first.
    generation: u64,
    /// When that set was last seen at the provider.
    fetched_ms: u64,
    /// When it is to be fetched again.
    due_ms: u64,
    /// Tries that failed since it was fetched.
    failures: u32,
    /// From when leases may be taken.
    settled_ms: u64,
    /// Who fetches, until when.
    lease: u64,
    lease_until_ms: u64,
    /// Until when no unknown key id causes a fetch, and whether the last one that did was answered.
    cool_until_ms: u64,
    key_id_answered: bool,
}

/// The answer of a provider, as far as it matters.
#[derive(Debug)]
pub(crate) struct Fetched<'a> {
    pub(crate) status: Option<u16>,
    pub(crate) cache_control: Option<&'a [u8]>,
    pub(crate) body: &'a [u8],
}

impl Suite {
    /// The issuers whose keys the filter fetches itself.
    pub(crate) fn direct(&self) -> impl Iterator<Item = (usize, &Direct)> {
        self.issuers.iter().enumerate().filter_map(|(place, issuer)| match &issuer.keys {
            KeySource::Direct(direct) => Some((place, direct)),
            KeySource::Sidecar | KeySource::Inline(_) => None,
        })
    }

    /// A token came with a key id that the set in use does not have. `Answered`: the provider has not got it either,
    /// as far as it may be asked. `Unavailable`: nobody knows yet.
    pub(crate) fn remote_key_unknown(
        &self,
        vm: &mut VmState,
        issuer: usize,
        now: Duration,
    ) -> KeyIdAnswer {
        let Some(remote) = vm.remote.issuer(issuer) else { return KeyIdAnswer::Unavailable };
        if !is_due(remote.head.cool_until_ms, now, COOL_DOWN) {
            return match remote.head.key_id_answered {
                true => KeyIdAnswer::Answered,
                false => KeyIdAnswer::Unavailable,
            };
        }
        remote.wanted = true;
        KeyIdAnswer::Unavailable
    }

    /// Adopts what others have published, and fetches what is due, for every issuer.
    pub(crate) fn tick_remote_keys(
        &self,
        vm: &mut VmState,
        shared: &dyn Shared,
        now: Duration,
        calls: &mut Vec<RootCall>,
    ) {
        if !self.parts.authenticates() {
            return;
        }
        for (place, direct) in self.direct() {
            let keys = SharedKeys::of(self, place, direct, shared);
            let Some((mut head, cas)) = keys.head() else {
                let settled_ms = ms(now.saturating_add(SETTLING));
                keys.set_head(&Head { settled_ms, ..Head::default() }, 0);
                continue;
            };
            keys.adopt(vm, place, &head, now);
            let lease = vm.remote.roll();
            let Some(remote) = vm.remote.issuer(place) else { continue };
            remote.head = head.clone();
            if let Some(fetch) = &mut remote.fetch {
                fetch.ticks_left = fetch.ticks_left.saturating_sub(1);
                if fetch.ticks_left > 0 {
                    continue;
                }
                remote.fetch = None;
            }
            // Somebody has asked for it, or whoever wants it must ask again later.
            remote.wanted &= is_due(head.cool_until_ms, now, COOL_DOWN);
            let on_schedule = head.is_due(direct, now);
            let for_key_id = remote.wanted;
            let free = is_due(head.lease_until_ms, now, MAX_LEASE)
                && is_due(head.settled_ms, now, SETTLING);
            if !(on_schedule || for_key_id) || !free {
                continue;
            }
            let wait = direct.lease();
            head.lease = lease;
            head.lease_until_ms = ms(now.saturating_add(wait));
            if for_key_id {
                head.cool_until_ms = ms(now.saturating_add(COOL_DOWN));
                head.key_id_answered = false;
            }
            if !keys.set_head(&head, cas) {
                continue;
            }
            remote.wanted &= !for_key_id;
            remote.head = head;
            vm.remote.fetches = vm.remote.fetches.wrapping_add(1);
            let number = vm.remote.fetches;
            let ticks_left = self.ticks(wait);
            let Some(remote) = vm.remote.issuer(place) else { continue };
            remote.fetch = Some(Fetch { number, lease, ticks_left, for_key_id });
            calls.push(RootCall {
                call: Call {
                    to: Rc::clone(&direct.target),
                    method: "GET",
                    path: direct.path.clone(),
                    body: Vec::new(),
                    timeout_ms: direct.timeout_ms,
                    request_id: None,
                },
                purpose: Purpose::keys(place, number),
            });
        }
    }

    /// Takes the answer to a fetch: publishes the keys, or keeps those before.
    pub(crate) fn on_fetched(
        &self,
        vm: &mut VmState,
        (place, number): (usize, u64),
        fetched: &Fetched<'_>,
        shared: &dyn Shared,
        now: Duration,
    ) {
        if !self.parts.authenticates() {
            return;
        }
        let jitter = vm.remote.roll();
        let Some((_, direct)) = self.direct().find(|(direct, _)| *direct == place) else { return };
        let Some(remote) = vm.remote.issuer(place) else { return };
        let Some(fetch) = remote.fetch.take_if(|fetch| fetch.number == number) else { return };
        let keys = SharedKeys::of(self, place, direct, shared);
        let Some((mut head, cas)) = keys.head().filter(|(head, _)| head.lease == fetch.lease)
        else {
            // Somebody else leads by now.
            return;
        };
        head.lease = 0;
        head.lease_until_ms = 0;
        match fetched.text() {
            Some(text) => {
                if head.generation == 0 || keys.text(head.generation).as_deref() != Some(text) {
                    head.generation = head.generation.wrapping_add(1).max(1);
                    keys.set_text(head.generation, text);
                }
                head.fetched_ms = ms(now);
                head.failures = 0;
                head.due_ms = ms(now.saturating_add(jittered(fetched.refresh(direct), jitter)));
                head.key_id_answered |= fetch.for_key_id;
            }
            None => {
                head.failures = head.failures.saturating_add(1);
                head.due_ms = ms(now.saturating_add(backoff(head.failures, jitter)));
            }
        }
        if keys.set_head(&head, cas) {
            keys.adopt(vm, place, &head, now);
            if let Some(remote) = vm.remote.issuer(place) {
                remote.head = head;
            }
        }
    }
}

impl RemoteKeys {
    /// `noise` is what no other VM has.
    pub(crate) fn new(noise: u64) -> Self {
        Self { issuers: Vec::new(), fetches: 0, noise }
    }

    /// Another number each time, never 0. Not for secrets.
    fn roll(&mut self) -> u64 {
        self.noise = self.noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.noise ^ self.noise >> 29).max(1)
    }

    fn issuer(&mut self, place: usize) -> Option<&mut Remote> {
        if self.issuers.len() <= place {
            self.issuers.resize_with(place.checked_add(1)?, Remote::default);
        }
        self.issuers.get_mut(place)
    }
}

// === impl Head ===

impl Head {
    fn is_due(&self, direct: &Direct, now: Duration) -> bool {
        let longest = if self.failures > 0 { MAX_BACKOFF } else { direct.refresh };
        is_due(self.due_ms, now, longest)
            || Duration::from_millis(self.fetched_ms) > now.saturating_add(CLOCK_SLACK)
    }
}

// === impl Direct ===

impl Direct {
    /// Twice the time that an answer may take, and a second.
    fn lease(&self) -> Duration {
        let wait_ms = self.timeout_ms.saturating_mul(2).saturating_add(1000);
        Duration::from_millis(wait_ms).min(MAX_LEASE)
    }
}

// === impl Fetched ===

impl<'a> Fetched<'a> {
    /// Reads the answer's headers.
    pub(crate) fn read<N: AsRef<[u8]>, V: AsRef<[u8]>>(
        headers: &'a [(N, V)],
        body: &'a [u8],
    ) -> Self {
        let find = |wanted: &str| {
            headers.iter().find_map(|(name, value)| {
                name.as_ref().eq_ignore_ascii_case(wanted.as_bytes()).then_some(value.as_ref())
            })
        };
        let status =
            find(":status").and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
        Self { status, cache_control: find("cache-control"), body }
    }

    /// The key set, if it is one with a key that can be used (acceptance J15).
    fn text(&self) -> Option<&'a [u8]> {
        let set = KeySet::parse(self.body).ok()?;
        (self.status == Some(200) && !set.keys().is_empty()).then_some(self.body)
    }

    /// The answer's `max-age` within its bounds (acceptance J17).
    fn refresh(&self, direct: &Direct) -> Duration {
        let directives = self.cache_control.unwrap_or_default().split(|byte| *byte == b',');
        let max_age = directives.filter_map(|directive| {
            let text = std::str::from_utf8(directive).ok()?.trim();
            let (name, value) = text.split_once('=')?;
            let seconds = value.trim_matches('"').parse().ok()?;
            name.eq_ignore_ascii_case("max-age").then(|| Duration::from_secs(seconds))
        });
        max_age.min().map_or(direct.refresh, |max_age| max_age.max(MIN_REFRESH).min(direct.refresh))
    }
}

/// What an issuer's keys are called in shared data. Another address is another set.
struct SharedKeys<'s> {
    shared: &'s dyn Shared,
    head: String,
    set: String,
}

impl<'s> SharedKeys<'s> {
    fn of(suite: &Suite, place: usize, direct: &Direct, shared: &'s dyn Shared) -> Self {
        let issuer = suite.issuers.get(place).map_or("", |issuer| &*issuer.rules.issuer);
        // None of them has a space.
        let name = format!("{issuer} {} {}", direct.target.name, direct.path);
        Self {
            shared,
            head: format!("gatehouse keys {name}"),
            set: format!("gatehouse jwks {name}"),
        }
    }

    /// What is no head is as good as none, and is replaced.
    fn head(&self) -> Option<(Head, u32)> {
        let (text, cas) = self.shared.get(&self.head)?;
        Some((serde_json::from_slice(&text).unwrap_or_default(), cas))
    }

    fn set_head(&self, head: &Head, cas: u32) -> bool {
        let text = serde_json::to_vec(head).unwrap_or_default();
        self.shared.set(&self.head, &text, cas)
    }

    /// The published set, if it is of this generation.
    fn text(&self, generation: u64) -> Option<Vec<u8>> {
        let (mut value, _) = self.shared.get(&self.set)?;
        let of = value.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes))?;
        (of == generation && value.len() <= jwks::MAX_SET_BYTES.saturating_add(8))
            .then(|| value.split_off(8))
    }

    fn set_text(&self, generation: u64, text: &[u8]) {
        let value = [&generation.to_le_bytes(), text].concat();
        let cas = self.shared.get(&self.set).map_or(0, |(_, cas)| cas);
        // If another leader was faster, its head will not fit this set, nor this head its set.
        let _set = self.shared.set(&self.set, &value, cas);
    }

    /// Makes this VM use what is published.
    fn adopt(&self, vm: &mut VmState, place: usize, head: &Head, now: Duration) {
        let seen = (head.generation, head.fetched_ms);
        let Some(remote) = vm.remote.issuer(place) else { return };
        if head.generation == 0 || remote.adopted == seen {
            return;
        }
        let fetched_at = Duration::from_millis(head.fetched_ms);
        // Within the slack it was fetched now; beyond it, it is fetched again.
        let from = if fetched_at > now { now } else { fetched_at };
        if remote.adopted.0 == head.generation {
            remote.adopted = seen;
            vm.keys_confirmed(place, from, MAX_STALE);
        } else if let Some(text) = self.text(head.generation)
            && let Ok(set) = KeySet::parse(&text)
        {
            remote.adopted = seen;
            vm.load_keys(place, set, head.generation, (from, MAX_STALE));
        }
    }
}

/// Whether a time has come. One that is further ahead than anybody would set it was set under another clock.
fn is_due(at_ms: u64, now: Duration, longest: Duration) -> bool {
    let at = Duration::from_millis(at_ms);
    at <= now || at.saturating_sub(now) > longest.saturating_add(CLOCK_SLACK)
}

/// Between nine tenths and all of `interval`, so that processes do not ask as one.
fn jittered(interval: Duration, random: u64) -> Duration {
    let tenth = interval / 10;
    let part = u32::try_from(random % 1024).unwrap_or_default();
    interval.saturating_sub(tenth.saturating_mul(part) / 1024)
}

/// Twice as long after every failure, less up to a half.
fn backoff(failures: u32, random: u64) -> Duration {
    let doubled = 1_u32.checked_shl(failures.saturating_sub(1).min(16)).unwrap_or(u32::MAX);
    let longest = Duration::from_secs(1).saturating_mul(doubled).min(MAX_BACKOFF);
    let part = u32::try_from(random % 1024).unwrap_or_default();
    longest.saturating_sub((longest / 2).saturating_mul(part) / 1024)
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
