//! The change feed as a VM hears it (design §3.1): it asks its sidecar again and again what has changed, forgets what
//! an answer names, and knows for how long it has heard nothing. Silence is never a yes: see [`Standing`].
//! Knows neither hosts nor what is decided by facts.

use std::{rc::Rc, time::Duration};

use gatehouse_contract::sidecar::{CHANGES_PATH, Change, ChangesAnswer};

use crate::{
    config::{Decides, Host, Sidecar, Suite},
    remote_keys::{Fetched, Shared},
    state::VmState,
    step::{Answer, Call},
};

/// For so long without a sign of life nothing is doubted.
const TRUSTED: Duration = Duration::from_secs(30);
/// A clock that is set back by no more than this is a clock that was set right.
const CLOCK_SLACK: Duration = Duration::from_secs(5);
/// The longest name of an epoch.
const MAX_EPOCH_BYTES: usize = 64;

/// How soon a VM uses keys that another one fetched.
const ADOPTION: Duration = Duration::from_millis(250);
/// How soon the host has what was counted, where nothing else needs a tick.
const COUNTED: Duration = Duration::from_secs(1);
/// While more is denied than fits, the list is asked for anew this often.
const OVER_TICKS: u32 = 240;

/// How far what a VM remembers may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The feed was heard of late, or there is none: what is remembered counts.
    Live,
    /// Silence: every credential asks before use. Where nobody answers, API keys and sessions get 503, and tokens
    /// that are remembered go on ([`VmState::last_token`], [`VmState::last_principal`]).
    AskFirst,
    /// Silence for too long, or nothing was ever heard, or more is denied than fits: every credential asks before
    /// use, and where nobody answers, it gets 503.
    Lost,
}

/// Where a VM stands in the feed.
#[derive(Debug, Default)]
pub(crate) struct Feed {
    position: Option<Position>,
    waiting: Option<Poll>,
    polls: u64,
    /// For how many ticks more was denied than fits.
    over_ticks: u32,
}

#[derive(Debug)]
struct Position {
    epoch: String,
    sequence: u64,
    /// When the last poll was sent that was answered by a living feed.
    alive_at: Duration,
}

/// A poll that has no answer yet.
#[derive(Debug)]
struct Poll {
    number: u64,
    sent_at: Duration,
    /// Ticks after which no answer is to be expected, whatever the clock does.
    ticks_left: u64,
}

/// A call-out of the root context.
#[derive(Debug)]
pub struct RootCall {
    /// What to ask.
    pub call: Call,
    /// To be handed back with the answer.
    pub purpose: Purpose,
}

/// What a call-out of the root context was for. Opaque to shells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purpose(For);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum For {
    /// The poll of this number.
    Feed(u64),
    /// The keys of the issuer at this place, by the fetch of this number.
    Keys(usize, u64),
    /// Passes that were handed back: whatever is answered, they are gone.
    Returned,
    /// The charge of this number.
    Charged(u64),
}

/// The answer of a [`RootCall`].
#[derive(Debug)]
pub struct RootAnswer<'a, N, V> {
    /// What the call was for.
    pub purpose: Purpose,
    /// Empty where nobody answered.
    pub headers: &'a [(N, V)],
    /// The body.
    pub body: &'a [u8],
}

/// An answer that cannot be followed: the next poll asks for everything.
struct Gap;

impl Suite {
    /// How often the shell is to call [`Self::on_tick`]; `None` for never.
    pub fn tick_period(&self) -> Option<Duration> {
        let poll = self.sidecar.as_ref().map(|sidecar| sidecar.poll);
        let adopt = self.direct().next().map(|_some| ADOPTION);
        let counts = self.counts().then_some(COUNTED);
        poll.into_iter().chain(adopt).chain(counts).min()
    }

    /// Whether there is something to count, and a host that takes counts.
    fn counts(&self) -> bool {
        let limits = match self.limiter.decides {
            Decides::Sidecar(_) | Decides::Local { .. } => true,
            Decides::Nobody => self.limiter.failed_authn_per_minute.is_some(),
        };
        let versions = self.versions.default_place().is_some();
        (limits || versions) && self.host == Host::Envoy
    }

    /// How many ticks cover `time`, rounded up.
    pub(crate) fn ticks(&self, time: Duration) -> u64 {
        let period_ms = self.tick_period().map_or(1, |period| period.as_millis()).max(1);
        u64::try_from(time.as_millis().div_ceil(period_ms)).unwrap_or(u64::MAX).max(2)
    }

    /// How far what `vm` remembers may be used. Where no record stands behind the gateway, nothing that is remembered
    /// can be revoked.
    pub(crate) fn standing(&self, vm: &VmState, now: Duration) -> Standing {
        let Some(sidecar) = &self.sidecar else { return Standing::Live };
        let silent_for = vm.feed.silent_for(now);
        if vm.deny_list_is_over() {
            Standing::Lost
        } else if silent_for < TRUSTED {
            Standing::Live
        } else if silent_for < sidecar.max_silence {
            Standing::AskFirst
        } else {
            Standing::Lost
        }
    }

    /// Does what is due. `now` is the time since the Unix epoch.
    pub fn on_tick(&self, vm: &mut VmState, shared: &dyn Shared, now: Duration) -> Vec<RootCall> {
        let mut calls = Vec::new();
        if let Some(sidecar) = &self.sidecar {
            calls.extend(self.poll(vm, sidecar, now));
        }
        self.tick_remote_keys(vm, shared, now, &mut calls);
        self.tick_limits(vm, now, &mut calls);
        calls
    }

    /// Takes the answer of a [`RootCall`]. One that comes late is ignored: its question was asked again.
    pub fn on_root_answer<N: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        vm: &mut VmState,
        answer: &RootAnswer<'_, N, V>,
        shared: &dyn Shared,
        now: Duration,
    ) {
        let RootAnswer { purpose, headers, body } = answer;
        match purpose.0 {
            For::Feed(number) => self.on_changes(vm, number, Answer::read(headers, body), now),
            For::Keys(place, number) => {
                let fetched = Fetched::read(headers, body);
                self.on_fetched(vm, (place, number), &fetched, shared, now);
            }
            For::Returned => {}
            For::Charged(number) => {
                self.on_charged(vm, number, Answer::read(headers, body));
            }
        }
    }

    fn poll(&self, vm: &mut VmState, sidecar: &Sidecar, now: Duration) -> Option<RootCall> {
        let over_ticks = vm.feed.over_ticks.saturating_add(1);
        vm.feed.over_ticks = if vm.deny_list_is_over() { over_ticks } else { 0 };
        if vm.feed.over_ticks >= OVER_TICKS {
            // A new list lacks what has expired, and may fit.
            vm.feed.over_ticks = 0;
            vm.feed.position = None;
        }
        // After twice the time that an answer may take the host has lost it.
        let wait = Duration::from_millis(sidecar.identity_timeout_ms.saturating_mul(2));
        let (number, path) = vm.feed.poll(self.ticks(wait), now)?;
        let to = Rc::clone(&sidecar.target);
        let timeout_ms = sidecar.identity_timeout_ms;
        let call = Call { to, method: "GET", path, body: Vec::new(), timeout_ms, request_id: None };
        Some(RootCall { call, purpose: Purpose(For::Feed(number)) })
    }

    fn on_changes(&self, vm: &mut VmState, number: u64, answer: Answer<'_>, now: Duration) {
        let Some(poll) = vm.feed.waiting.take_if(|poll| poll.number == number) else { return };
        let Answer::Sidecar { status: 200, body } = answer else { return };
        let Ok(answer) = serde_json::from_slice::<ChangesAnswer>(body) else { return };
        if self.hear(vm, answer, poll.sent_at, now).is_err() {
            vm.feed.position = None;
        }
    }

    fn hear(
        &self,
        vm: &mut VmState,
        answer: ChangesAnswer,
        sent_at: Duration,
        now: Duration,
    ) -> Result<(), Gap> {
        let ChangesAnswer { epoch, sequence, alive, changes, snapshot, keys } = answer;
        for (issuer, generation) in keys {
            let place = self.issuers.iter().position(|known| *known.rules.issuer == *issuer);
            if let Some(place) = place {
                vm.keys_changed(place, generation);
            }
        }
        let goes_on =
            vm.feed.position.as_ref().is_some_and(|at| {
                snapshot.is_none() && at.epoch == epoch && at.sequence <= sequence
            });
        match (&mut vm.feed.position, snapshot) {
            (Some(at), _) if goes_on => {
                at.sequence = sequence;
                // Changes are true whoever lives; only that there are no others is not.
                if alive {
                    at.alive_at = sent_at;
                }
                for change in &changes {
                    if let Change::Tenant { tenant } = change {
                        vm.limits.book.drop_tenant(*tenant);
                    }
                }
                vm.apply(changes, now);
            }
            // Whatever else a dead relay's sidecar says may lack what was denied since: silence, and no gap.
            _ if !alive => {}
            (_, Some(denied)) if is_epoch(&epoch) => {
                vm.begin_anew(denied, now);
                vm.limits.book.drop_all();
                vm.feed.position = Some(Position { epoch, sequence, alive_at: sent_at });
            }
            _ => return Err(Gap),
        }
        Ok(())
    }
}

/// An epoch goes into the next poll's query as it stands.
fn is_epoch(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=MAX_EPOCH_BYTES).contains(&text.len()) && text.bytes().all(fits)
}

// === impl Feed ===

impl Feed {
    /// For how long no living feed was heard.
    fn silent_for(&self, now: Duration) -> Duration {
        let Some(Position { alive_at, .. }) = &self.position else { return Duration::MAX };
        match now.checked_sub(*alive_at) {
            Some(silent_for) => silent_for,
            None if alive_at.saturating_sub(now) <= CLOCK_SLACK => Duration::ZERO,
            // The clock was set back: nobody knows for how long.
            None => Duration::MAX,
        }
    }

    /// The number and the path of the poll that is due: one at a time.
    fn poll(&mut self, ticks: u64, now: Duration) -> Option<(u64, String)> {
        if let Some(waiting) = &mut self.waiting {
            waiting.ticks_left = waiting.ticks_left.saturating_sub(1);
            if waiting.ticks_left > 0 {
                return None;
            }
        }
        self.polls = self.polls.wrapping_add(1);
        self.waiting = Some(Poll { number: self.polls, sent_at: now, ticks_left: ticks });
        let path = match &self.position {
            None => CHANGES_PATH.to_owned(),
            Some(Position { epoch, sequence, .. }) => {
                format!("{CHANGES_PATH}?epoch={epoch}&after={sequence}")
            }
        };
        Some((self.polls, path))
    }
}

// === impl Purpose ===

impl Purpose {
    /// The keys of the issuer at `place`, by the fetch of this number.
    pub(crate) fn keys(place: usize, number: u64) -> Self {
        Self(For::Keys(place, number))
    }

    /// Passes that were handed back.
    pub(crate) fn returned() -> Self {
        Self(For::Returned)
    }

    /// The charge of this number.
    pub(crate) fn charged(number: u64) -> Self {
        Self(For::Charged(number))
    }
}

#[cfg(test)]
mod tests;
