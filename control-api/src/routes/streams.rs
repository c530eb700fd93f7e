//! Seeing an execution while it goes on: an answer that waits for its next change (long poll), and its events as they are
//! told (server-sent events). Who waits costs a place in memory and nothing else ([`crate::watchers`]).
//! Knows nothing of logs.

pub mod sse;

use std::time::Duration;

use axum::{
    extract::{Path, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, request::Parts},
    response::{IntoResponse, Response},
};
use gatehouse_contract::{ExecutionId, Reason, TenantId};
use gatehouse_events::Kind;
use gatehouse_execution::ExecutionState;
use gatehouse_service::{Reply, app::Patience, exit::chain};
use gatehouse_store::{Error, OpCtx, events::Recorded};
use tokio::time::timeout;
use tracing::debug;

use self::sse::{Frames, Source, Step};
use crate::{
    access::Caller,
    routes::{Api, executions, history, path_id, refused},
    watchers::{Closed, Watching, rights::Right},
};

/// An answer waits no longer than this.
const LONGEST: Duration = Duration::from_secs(60);
/// RFC 7240: what the caller would like, and what of it was done.
const PREFER: HeaderName = HeaderName::from_static("prefer");
const APPLIED: HeaderName = HeaderName::from_static("preference-applied");
/// Events that are read at once.
const EVENTS: u32 = 50;

/// How long an answer may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// It was not asked for.
    No,
    /// By the parameter `wait`.
    Asked(Duration),
    /// By `Prefer: wait=N`.
    Preferred(Duration),
}

/// `GET /api/v1/runtime/executions/{execution}`: as it is, or as it is after its next change.
pub async fn read(
    State(api): State<Api>,
    caller: Caller,
    path: Path<String>,
    parts: Parts,
) -> Result<Response, Reply> {
    let wait = Wait::of(&parts)?;
    let bound = match wait {
        Wait::No => Duration::ZERO,
        Wait::Asked(bound) | Wait::Preferred(bound) => bound,
    };
    if !bound.is_zero() {
        let id: ExecutionId = path_id(&path.0)?;
        if let Some(patience) = parts.extensions.get::<Patience>() {
            patience.longer(bound);
        }
        changed(&api, &caller.op(), id, (bound, parts)).await?;
    }
    let mut response = executions::read(State(api), caller, path).await?;
    if let Wait::Preferred(bound) = wait
        && let Ok(applied) = HeaderValue::from_str(&format!("wait={}", bound.as_secs()))
    {
        response.headers_mut().insert(APPLIED, applied);
    }
    Ok(response)
}

/// Ends when the execution has changed or is settled, at the bound, or when the process goes down.
async fn changed(
    api: &Api,
    op: &OpCtx,
    id: ExecutionId,
    (bound, parts): (Duration, Parts),
) -> Result<(), Reply> {
    let place = (op.tenant, id);
    let mut watching = api.watchers.watch(place)?;
    // First how far it is, then whether it is settled: what happens in between ends the wait.
    let found = watching.read(api.store.executions_beyond(&[(place, 0)])).await;
    let Some((_, seen)) = found.map_err(refused)?.first().copied() else { return Ok(()) };
    let run = watching.read(async { api.store.tenant(op).await?.last_run(id).await }).await;
    if run.map_err(refused)?.is_none_or(|run| run.settled) {
        return Ok(());
    }
    let mut right = api.rights.hold(parts);
    let waiting = async {
        tokio::select! {
            () = right.lost() => {}
            _ = watching.beyond(seen) => {}
        }
    };
    drop(timeout(bound, waiting).await);
    // The token may have expired meanwhile.
    right.judge(api).await
}

/// `GET /api/v1/runtime/executions/{execution}/events`: those that were told, and those that will be, until it is settled.
pub async fn events(
    State(api): State<Api>,
    caller: Caller,
    Path(execution): Path<String>,
    parts: Parts,
) -> Result<Response, Reply> {
    let id: ExecutionId = path_id(&execution)?;
    no_parameters(&parts.uri)?;
    let after: u64 = match last_event_id(&parts.headers)? {
        None => 0,
        Some(text) => text.parse().map_err(|_| foreign())?,
    };
    let op = caller.op();
    let watching = api.watchers.watch((caller.tenant, id))?;
    // With the last one that is known, which says whether more will come.
    let told = since(&api, &op, &watching, after.saturating_sub(1)).await.map_err(refused)?;
    if told.is_empty() {
        let any = since(&api, &op, &watching, 0).await.map_err(refused)?;
        return Err(if any.is_empty() { Reason::NotFound.into() } else { foreign() });
    }
    let over = told.last().is_some_and(ends);
    let news: Vec<Recorded> = told.into_iter().filter(|one| one.seq > after).collect();
    if over && news.is_empty() {
        // Who has all is told to come no more: an EventSource would for ever.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let mut frames = Frames::begin();
    let after = shown(&mut frames, &news).unwrap_or(after);
    let right = api.rights.hold(parts);
    let stream = (!over).then_some(Events { api, op, id, after, watching, right });
    Ok(sse::answer(frames, stream))
}

/// A stream of events that goes on.
struct Events {
    api: Api,
    op: OpCtx,
    id: ExecutionId,
    after: u64,
    watching: Watching<(TenantId, ExecutionId)>,
    right: Right,
}

impl Source for Events {
    async fn next(mut self) -> Step<Self> {
        let moved = tokio::select! {
            () = self.right.lost() => return Step::Over,
            moved = self.watching.beyond(self.after) => moved,
            () = sse::quiet() => return Step::Go(Frames::heartbeat(), self),
        };
        let number = match moved {
            Ok(number) => number,
            Err(Closed) => return Step::Over,
        };
        if !self.right.stands(&self.api).await {
            return Step::Over;
        }
        let told = match since(&self.api, &self.op, &self.watching, self.after).await {
            Ok(told) => told,
            Err(error) => {
                // Whoever reads comes again with what it has.
                debug!(execution.id = %self.id, error = %chain(&error), "a stream ends early");
                return Step::Over;
            }
        };
        let mut frames = Frames::default();
        // What was told and is there no more is passed over.
        self.after = shown(&mut frames, &told).unwrap_or(number);
        if told.last().is_some_and(ends) { Step::Last(frames) } else { Step::Go(frames, self) }
    }
}

async fn since(
    api: &Api,
    op: &OpCtx,
    watching: &Watching<(TenantId, ExecutionId)>,
    after: u64,
) -> Result<Vec<Recorded>, Error> {
    let (_, id) = watching.key();
    watching.read(async { api.store.tenant(op).await?.told_since(id, after, EVENTS).await }).await
}

/// Writes them, and returns the last one's number.
fn shown(frames: &mut Frames, told: &[Recorded]) -> Option<u64> {
    for one in told {
        frames.add(&one.seq.to_string(), one.event.kind().as_str(), &history::shown(one));
    }
    told.last().map(|one| one.seq)
}

/// Whether nothing follows by itself. What somebody starts anew goes on behind it.
fn ends(told: &Recorded) -> bool {
    use gatehouse_events::Event;
    match told.event.kind() {
        Kind::ExecutionCompleted
        | Kind::ExecutionFailed
        | Kind::ExecutionTimedOut
        | Kind::ExecutionGivenUp
        | Kind::ExecutionCancelled => true,
        _ => {
            matches!(&told.event, Event::ExecutionLost(lost) if lost.state == ExecutionState::DeadLetter)
        }
    }
}

/// Where a reader was when its stream ended.
pub fn last_event_id(headers: &HeaderMap) -> Result<Option<&str>, Reply> {
    let mut values = headers.get_all("last-event-id").iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| foreign()),
        (Some(_), Some(_)) => Err(foreign()),
    }
}

pub fn foreign() -> Reply {
    Reply::new(Reason::HeaderInvalid)
        .detail("Last-Event-ID is none of this stream's: begin without one")
}

pub fn no_parameters(uri: &Uri) -> Result<(), Reply> {
    match uri.query() {
        None | Some("") => Ok(()),
        Some(_) => Err(Reply::new(Reason::QueryInvalid).detail("no parameter is known here")),
    }
}

// === impl Wait ===

impl Wait {
    /// The parameter before the preference.
    fn of(parts: &Parts) -> Result<Self, Reply> {
        let invalid = |detail| Reply::new(Reason::QueryInvalid).detail(detail);
        let mut asked = None;
        let query = parts.uri.query().unwrap_or_default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if name != "wait" || asked.is_some() {
                return Err(invalid("known here is wait, once"));
            }
            let bound = seconds(value.strip_suffix('s').unwrap_or(&value));
            let bound = bound.filter(|bound| *bound <= LONGEST);
            asked = Some(bound.ok_or_else(|| invalid("wait is a number of seconds, at most 60"))?);
        }
        let preferred =
            || preferred(&parts.headers).map(|bound| Self::Preferred(bound.min(LONGEST)));
        Ok(asked.map(Self::Asked).or_else(preferred).unwrap_or(Self::No))
    }
}

/// `wait=N` among the preferences (RFC 7240 §2, §4.3); the first counts, and what cannot be read is no preference.
fn preferred(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    let mut preferences = values.flat_map(|value| value.split(',')).filter_map(|preference| {
        let (name, value) = preference.split(';').next()?.split_once('=')?;
        name.trim().eq_ignore_ascii_case("wait").then(|| value.trim().trim_matches('"'))
    });
    seconds(preferences.next()?)
}

fn seconds(text: &str) -> Option<Duration> {
    let digits = text.len() <= 9 && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| digits)?;
    Some(Duration::from_secs(number))
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn check(query: &str, prefer: &[&str], expected: Option<Wait>) {
        let mut request = Request::builder().uri(format!("/x{query}"));
        for value in prefer {
            request = request.header(PREFER, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        assert_eq!(Wait::of(&parts).ok(), expected, "{query} {prefer:?}");
    }

    #[test]
    fn a_wait_is_asked_for_or_preferred_and_has_a_bound() {
        let asked = |s| Some(Wait::Asked(Duration::from_secs(s)));
        let preferred = |s| Some(Wait::Preferred(Duration::from_secs(s)));
        check("", &[], Some(Wait::No));
        check("?wait=30", &[], asked(30));
        check("?wait=30s", &["wait=1"], asked(30));
        check("?wait=0", &[], asked(0));
        check("?wait=60", &[], asked(60));
        for bad in
            ["?wait=61", "?wait=", "?wait=-1", "?wait=1.5", "?wait=+1", "?wait=1&wait=1", "?x=1"]
        {
            check(bad, &[], None);
        }
        check("", &["respond-async, Wait = \"5\" ; x=1"], preferred(5));
        check("", &["respond-async", "wait=7, wait=9"], preferred(7));
        check("", &["wait=3600"], preferred(60));
        for none in ["wait", "wait=x", "waiting=5", "wait=99999999999999999999"] {
            check("", &[none], Some(Wait::No));
        }
    }
}
