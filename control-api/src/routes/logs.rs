//! What agents log: of an attempt that has ended the kept end of it, of one that runs what is there of late; and all of it as
//! it comes, attempt after attempt. A line is shown with the number of the byte behind it: by claim and number a reader goes on
//! where it was, whether what it reads is still live or kept by then.
//! Knows neither who wrote a line nor what it says.

mod follow;
mod lines;

use axum::{
    extract::{Path, State},
    http::{StatusCode, Uri, header, request::Parts},
    response::{IntoResponse, Response},
};
use gatehouse_contract::{ExecutionId, Reason};
use gatehouse_execution::outcome::Captured;
use gatehouse_redis_kit::logs::{Logs, PARTS, Place};
use gatehouse_service::Reply;
use gatehouse_store::{
    OpCtx,
    logs::{LogHead, LogSeal, Run},
};
use serde_json::{Value, json};

use self::lines::{Piece, pieces};
use crate::{
    access::Caller,
    routes::{
        Api, path_id, refused,
        streams::{foreign, last_event_id, sse},
        timestamp,
    },
    watchers::Watchers,
};

/// Running logs, and who waits for them.
#[derive(Clone)]
pub struct Live {
    pub logs: Logs,
    pub watchers: Watchers<Place>,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Asked {
    follow: bool,
    attempt: Option<u32>,
}

/// Whether the query asks to follow: then it is answered in another media type.
pub fn follows(uri: &Uri) -> bool {
    asked(uri).is_ok_and(|asked| asked.follow)
}

/// `GET /api/v1/runtime/executions/{execution}/logs`.
pub async fn read(
    State(api): State<Api>,
    caller: Caller,
    Path(execution): Path<String>,
    parts: Parts,
) -> Result<Response, Reply> {
    let id: ExecutionId = path_id(&execution)?;
    let asked = asked(&parts.uri)?;
    let op = caller.op();
    if asked.follow {
        let from = match last_event_id(&parts.headers)? {
            Some(text) => Some(position(text).ok_or_else(foreign)?),
            None => None,
        };
        return follow::begin(api, op, id, (asked.attempt, from), parts).await;
    }
    let mut tx = api.store.tenant(&op).await.map_err(refused)?;
    let run = tx.last_run(id).await.map_err(refused)?.ok_or(Reason::NotFound)?;
    let heads = tx.logs(id).await.map_err(refused)?;
    let live = run.running.then_some(run);
    let chosen = chosen(&heads, live, asked.attempt);
    let mut shown = match chosen {
        Some(One::Kept(head)) => {
            let log = tx.log_of(id, head.lease_epoch).await.map_err(refused)?.unwrap_or_default();
            of_kept(head, &log)
        }
        Some(One::Live(run)) => {
            let seal = tx.log_seal().await.map_err(refused)?;
            // Redis is asked without a connection to the database being held for it.
            drop(tx);
            of_live(&api, &op, (id, run), &seal).await
        }
        None if asked.attempt.is_none() => of_nothing(run),
        None => return Err(Reason::NotFound.into()),
    };
    let ended = heads.iter().map(|head| {
        json!({"lease_epoch": head.lease_epoch, "attempt": head.attempt, "started_at": timestamp(head.at),
            "total_bytes": head.total_bytes})
    });
    if let Some(members) = shown.as_object_mut() {
        members.insert("attempts".to_owned(), ended.collect());
    }
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    Ok((StatusCode::OK, headers, sse::harmless(&shown)).into_response())
}

fn asked(uri: &Uri) -> Result<Asked, Reply> {
    let invalid = |detail| Reply::new(Reason::QueryInvalid).detail(detail);
    let mut asked = Asked::default();
    let mut seen = Vec::new();
    for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        match (name.as_ref(), value.as_ref()) {
            ("follow", "true") => asked.follow = true,
            ("follow", "false") => asked.follow = false,
            ("follow", _) => return Err(invalid("follow is true or false")),
            ("attempt", number) => {
                let number = number.parse().ok().filter(|number| *number > 0);
                asked.attempt =
                    Some(number.ok_or_else(|| invalid("attempt is a number from 1 on"))?);
            }
            _ => return Err(invalid("known here are follow and attempt")),
        }
        if seen.contains(&name) {
            return Err(invalid("a parameter stands twice"));
        }
        seen.push(name);
    }
    Ok(asked)
}

/// `<claim>-<number of the byte behind the last line>`.
fn position(text: &str) -> Option<(u64, u64)> {
    let (epoch, end) = text.split_once('-')?;
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    Some((epoch.parse().ok()?, end.parse().ok()?)).filter(|_| plain)
}

/// Which log is shown.
#[derive(Clone, Copy)]
enum One<'a> {
    Kept(&'a LogHead),
    Live(Run),
}

/// The newest of that number; of no number the newest.
fn chosen(heads: &[LogHead], live: Option<Run>, attempt: Option<u32>) -> Option<One<'_>> {
    let wanted = |number: u32| attempt.is_none_or(|attempt| attempt == number);
    if let Some(run) = live.filter(|run| wanted(run.attempt)) {
        return Some(One::Live(run));
    }
    heads.iter().find(|head| wanted(head.attempt)).map(One::Kept)
}

fn of_kept(head: &LogHead, log: &Captured) -> Value {
    let kept = log.bytes.len() as u64;
    let from = log.total_bytes.saturating_sub(kept);
    let mut lines = Vec::new();
    lines.extend(gap(0, from));
    lines.extend(pieces(from, &log.bytes, 0).map(|piece| line(&piece)));
    json!({"lease_epoch": head.lease_epoch, "attempt": head.attempt, "live": false,
        "total_bytes": log.total_bytes, "dropped_bytes": from, "truncated": from > 0, "lines": lines})
}

/// What is there of a running attempt's log. Where Redis is away nothing is: its end is kept all the same.
async fn of_live(
    api: &Api,
    op: &OpCtx,
    (execution, run): (ExecutionId, Run),
    seal: &LogSeal,
) -> Value {
    let place = Place { tenant: op.tenant, execution, epoch: run.lease_epoch };
    let (mut lines, mut end, mut dropped) = (Vec::new(), 0, 0);
    if let Some(live) = &api.live {
        for _ in 0..PARTS {
            let Ok(parts) = live.logs.behind(&place, end).await else { break };
            if parts.is_empty() {
                break;
            }
            for part in parts {
                let Ok(bytes) = seal.open((execution, run.lease_epoch, part.from), &part.sealed)
                else {
                    continue;
                };
                dropped += part.from.saturating_sub(end);
                lines.extend(gap(end, part.from));
                lines.extend(pieces(part.from, &bytes, end).map(|piece| line(&piece)));
                end = part.end;
            }
        }
    }
    json!({"lease_epoch": run.lease_epoch, "attempt": run.attempt, "live": true,
        "total_bytes": end, "dropped_bytes": dropped, "truncated": dropped > 0, "lines": lines})
}

fn of_nothing(run: Run) -> Value {
    json!({"lease_epoch": run.lease_epoch, "attempt": run.attempt, "live": false,
        "total_bytes": 0, "dropped_bytes": 0, "truncated": false, "lines": []})
}

fn line(piece: &Piece) -> Value {
    json!({"end": piece.end, "text": piece.text, "partial": piece.partial})
}

/// What stands where some is missing.
fn gap(from: u64, to: u64) -> Option<Value> {
    (to > from).then(|| json!({"end": to, "dropped_bytes": to - from}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_known_and_said_once() {
        let ask = |query: &str| asked(&format!("/x{query}").parse().unwrap()).ok();
        let follow = |follow, attempt| Some(Asked { follow, attempt });
        assert_eq!(ask(""), follow(false, None));
        assert_eq!(ask("?follow=true&attempt=2"), follow(true, Some(2)));
        assert_eq!(ask("?follow=false"), follow(false, None));
        for bad in
            ["?follow", "?follow=1", "?attempt=0", "?attempt=x", "?x=1", "?follow=true&follow=true"]
        {
            assert_eq!(ask(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_position_is_two_numbers() {
        assert_eq!(position("3-1042"), Some((3, 1042)));
        for bad in
            ["", "-", "3", "3-", "-4", "3-4-5", "+3-4", "3-+4", "x-1", "99999999999999999999-1"]
        {
            assert_eq!(position(bad), None, "{bad}");
        }
    }
}
