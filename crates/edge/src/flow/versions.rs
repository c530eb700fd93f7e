//! Which API version answers (design §3.5): the one that the path names, else `Accept`, else the tenant's pin, else
//! the default. A path without a version gets the one that was found, before roles and limits are asked about it
//! (acceptance V12). Where only the caller can decide, pin or grace, the rest waits until it is known.
//! Knows neither credentials nor hosts' functions.

use std::{mem, rc::Rc, time::Duration};

use gatehouse_contract::{Reason, TenantId, sidecar::PrincipalFacts};
use serde_json::Value;

use super::{NamedTenant, Request};
use crate::{
    config::{Host, Suite},
    reply::Refusal,
    state::VmState,
    step::Edit,
    vary::Vary,
    version::{
        Accepted, Closed, Content, Event, Malformed, Named, Notice, Version, VersionSource,
        lifecycle,
    },
    view::{RequestView, Scan},
};

/// The path before a version was put into it, where Envoy's access log looks for it.
const ORIGINAL_PATH: &str = "x-envoy-original-path";

/// What of a request's version only its caller can decide.
#[derive(Debug, Default)]
pub(super) enum Undecided {
    #[default]
    Nothing,
    /// The tenant's pin may name another version than the default.
    Pin(Box<Unversioned>),
    /// The version is closed, but to some tenants.
    Grace,
}

/// A request whose path and `Accept` name no version.
#[derive(Debug)]
pub(super) struct Unversioned {
    pub(super) method: Box<str>,
    /// The path below the version that is to be.
    pub(super) below: Box<str>,
    pub(super) query: Option<Box<str>>,
    /// The tenant that is named beside the path.
    pub(super) outside: NamedTenant,
    pub(super) accepted: Accepted,
}

/// A path that got a version.
pub(super) struct Versioned {
    pub(super) path: String,
    /// The path below the version.
    pub(super) below: usize,
    /// Set where the tenant's pin may still name another version.
    pub(super) open: Option<Accepted>,
}

/// Who asks for a version.
#[derive(Debug, Clone, Copy)]
enum Asker {
    /// Nobody knows yet.
    Later,
    /// Nobody will know.
    Anyone,
    Tenant(TenantId),
}

impl Suite {
    /// Finds the version. `Some` where the path named none and has one now. Preflights are answered by versions that
    /// are gone, too: else no script would see the 410 of the request behind it.
    pub(super) fn resolve(
        &self,
        vm: &mut VmState,
        request: &mut Request,
        (view, found): (&RequestView<'_>, &Scan<'_>),
        path: &str,
        now: Duration,
    ) -> Result<Option<Versioned>, Box<Refusal>> {
        if !self.parts.versions() {
            return Ok(None);
        }
        if let Some(of_vendor) = found.content_of_vendor {
            request.content = Content::read(of_vendor, &self.versions);
        }
        let accepted = || match found.accepts_of_vendor {
            true => Accepted::read(view.all(b"accept"), &self.versions),
            false => Ok(Accepted::default()),
        };
        match self.versions.of_path(path) {
            Named::Outside => Ok(None),
            Named::Unknown(below) => Err(self.not_served(Reason::VersionUnknown, below, now)),
            Named::Served(place, below) => {
                if self.versions.strict {
                    request.record.vary.add(Vary::ACCEPT);
                }
                if found.accepts_of_vendor {
                    self.compare(vm, request, place, accepted(), now)?;
                }
                self.announce(request, (place, below), VersionSource::Path);
                if !found.is_preflight() {
                    self.open(vm, request, place, Asker::Later, now)?;
                }
                Ok(None)
            }
            Named::Unversioned(below) => {
                request.record.vary.add(Vary::ACCEPT);
                let accepted = accepted().map_err(|malformed| self.invalid(malformed, now))?;
                if accepted.only_unknown() {
                    return Err(self.not_served(Reason::VersionNotAcceptable, below, now));
                }
                let Some(default) = self.versions.default_place() else { return Ok(None) };
                let place = accepted.best.unwrap_or(default);
                let named = accepted.best.is_some();
                let source = if named { VersionSource::Accept } else { VersionSource::Default };
                self.announce(request, (place, below), source);
                // Where no record stands behind the gateway, no tenant has a pin.
                let open = (!named && self.sidecar.is_some()).then_some(accepted);
                if open.is_none() {
                    self.accept(request, &accepted, (place, below), now)?;
                    if !found.is_preflight() {
                        self.open(vm, request, place, Asker::Later, now)?;
                    }
                }
                let path = self.versions.path(place, below).unwrap_or_default();
                let below = path.len().saturating_sub(below.len());
                Ok(Some(Versioned { path, below, open }))
            }
        }
    }

    /// A request that goes on without a caller.
    pub(super) fn settle_anyone(
        &self,
        vm: &mut VmState,
        request: &mut Request,
        open: Option<&Versioned>,
        now: Duration,
    ) -> Result<(), Box<Refusal>> {
        let Some(place) = request.version.filter(|_| self.parts.versions()) else { return Ok(()) };
        if let Some(Versioned { path, below, open: Some(accepted) }) = open {
            let below = path.get(*below..).unwrap_or_default();
            self.accept(request, accepted, (place, below), now)?;
            return self.open(vm, request, place, Asker::Anyone, now);
        }
        match mem::take(&mut request.undecided) {
            Undecided::Grace => self.open(vm, request, place, Asker::Anyone, now),
            Undecided::Pin(_) | Undecided::Nothing => Ok(()),
        }
    }

    /// A request whose caller is known: what waited for it is decided, and the use is counted.
    pub(super) fn settle_version(
        &self,
        vm: &mut VmState,
        request: &mut Request,
        facts: &PrincipalFacts,
        now: Duration,
    ) -> Result<(), Box<Refusal>> {
        let version = request.version.filter(|_| self.parts.versions());
        let Some(mut place) = version else { return Ok(()) };
        let asker = Asker::Tenant(facts.tenant);
        match mem::take(&mut request.undecided) {
            Undecided::Nothing => {}
            Undecided::Grace => self.open(vm, request, place, asker, now)?,
            Undecided::Pin(unversioned) => {
                // A public route answers the same to whoever asks.
                if !request.public
                    && let Some(pinned) = self.pinned(vm, request, facts, now)
                {
                    self.replace(request, &unversioned, (place, pinned));
                    place = pinned;
                }
                let Unversioned { accepted, below, .. } = unversioned.as_ref();
                self.accept(request, accepted, (place, below), now)?;
                self.open(vm, request, place, asker, now)?;
            }
        }
        vm.versions.used(place, facts.tier);
        self.note_use(vm, request, facts, place, now);
        Ok(())
    }

    /// The version that the tenant is pinned to. A pin to one that is not served is none: it is counted and noted.
    fn pinned(
        &self,
        vm: &mut VmState,
        request: &mut Request,
        facts: &PrincipalFacts,
        now: Duration,
    ) -> Option<usize> {
        let pin = facts.version_pin.as_deref()?;
        let place = self.versions.place_of(pin);
        if place.is_none() {
            vm.versions.pin_not_served(&self.versions);
            if vm.versions.is_due(usize::MAX, Some(facts.tenant), now) {
                let tenant = facts.tenant;
                request.record.notes.push(format!(
                    "tenant {tenant} is pinned to version {}, which is not served: the default answers",
                    pin.escape_default()
                ));
            }
        }
        place
    }

    /// Another version than the one that stood for it so far: another path, another route.
    fn replace(
        &self,
        request: &mut Request,
        unversioned: &Unversioned,
        (from, to): (usize, usize),
    ) {
        let Unversioned { method, below, query, outside, .. } = unversioned;
        self.announce(request, (to, below), VersionSource::Pin);
        let Some(path) = self.versions.path(to, below).filter(|_| from != to) else { return };
        request.place = self.routes.place(method, &path);
        request.named = self.named_in(*outside, &request.place, &path);
        request.signs = self.signs(&path);
        let target = self.forwarded_as(&path, query.as_deref());
        let same = |edit: &&mut Edit| match (edit, &target) {
            (Edit::Set(name, _), Edit::Set(wanted, _)) => name == wanted,
            (Edit::UpstreamUri(_), Edit::UpstreamUri(_)) => true,
            _ => false,
        };
        match request.edits.iter_mut().find(same) {
            Some(edit) => *edit = target,
            None => request.edits.push(target),
        }
    }

    /// Every response says from here on which version answers, and how that one ends.
    fn announce(
        &self,
        request: &mut Request,
        (place, below): (usize, &str),
        source: VersionSource,
    ) {
        let Some(Version { token, life }) = self.versions.get(place) else { return };
        request.version = Some(place);
        request.record.version = Some(Rc::clone(token));
        request.record.source = Some(source);
        request.record.notice = life.as_ref().map(|life| Box::new(Notice::new(life, below)));
    }

    /// The version answers, and the body is meant for it.
    fn open(
        &self,
        vm: &mut VmState,
        request: &mut Request,
        place: usize,
        asker: Asker,
        now: Duration,
    ) -> Result<(), Box<Refusal>> {
        let life = self.versions.get(place).and_then(|version| version.life.as_ref());
        if let Some((life, closed)) =
            life.and_then(|life| Some((life, life.closed(now.as_secs())?)))
        {
            match asker {
                _ if life.dry_run => vm.versions.event(place, Event::WouldRefuse),
                Asker::Later if !life.grace.is_empty() => request.undecided = Undecided::Grace,
                Asker::Tenant(tenant) if life.grace.contains(&tenant) => {}
                Asker::Later | Asker::Anyone | Asker::Tenant(_) => {
                    vm.versions.event(place, Event::Refused);
                    return Err(self.closed(closed, now));
                }
            }
        }
        match request.content.fits(place) {
            true => Ok(()),
            false => {
                let refusal = self.unserved(Reason::MediaTypeUnsupported, now);
                Err(Box::new(refusal.detail("the body is in another version's media type")))
            }
        }
    }

    /// A path and an `Accept` that name versions: the path wins, unless the document has such requests refused.
    fn compare(
        &self,
        vm: &mut VmState,
        request: &mut Request,
        place: usize,
        accepted: Result<Accepted, Malformed>,
        now: Duration,
    ) -> Result<(), Box<Refusal>> {
        match accepted {
            Ok(accepted) if !accepted.contradicts(place) => return Ok(()),
            Err(malformed) if self.versions.strict => return Err(self.invalid(malformed, now)),
            Ok(_) if self.versions.strict => {
                let refusal = self.unserved(Reason::VersionInvalid, now);
                let cause = "the path and the Accept header name different versions";
                return Err(Box::new(refusal.detail(cause)));
            }
            Ok(_) | Err(_) => {}
        }
        vm.versions.event(place, Event::Contradicted);
        if let Some(Version { token, .. }) = self.versions.get(place)
            && vm.versions.is_due(place, None, now)
        {
            let note =
                format!("a path names version {token}, and Accept contradicts it: the path wins");
            request.record.notes.push(note);
        }
        Ok(())
    }

    /// What `Accept` leaves out does not answer, whoever chose it.
    fn accept(
        &self,
        request: &mut Request,
        accepted: &Accepted,
        (place, below): (usize, &str),
        now: Duration,
    ) -> Result<(), Box<Refusal>> {
        if !accepted.excludes(place) {
            return Ok(());
        }
        // It is not that version that answers.
        request.record.notice = None;
        Err(self.not_served(Reason::VersionNotAcceptable, below, now))
    }

    /// One line per tenant, version and minute, so that who must be told of the end is known.
    fn note_use(
        &self,
        vm: &mut VmState,
        request: &mut Request,
        facts: &PrincipalFacts,
        place: usize,
        now: Duration,
    ) {
        let Some(Version { token, life: Some(life) }) = self.versions.get(place) else { return };
        if !life.is_deprecated(now.as_secs()) || !vm.versions.is_due(place, Some(facts.tenant), now)
        {
            return;
        }
        let source = request.record.source.map_or("default", VersionSource::as_str);
        let beyond = match life.closed(now.as_secs()) {
            Some(_) if life.dry_run => ", and passes by the dry run alone",
            Some(_) => ", and passes by grace",
            None => "",
        };
        request.record.notes.push(format!(
            "tenant {} ({}) uses the deprecated version {token}, named by {source}{beyond}",
            facts.tenant, facts.tier
        ));
    }

    fn closed(&self, closed: Closed, now: Duration) -> Box<Refusal> {
        let refusal = self.unserved(Reason::VersionGone, now);
        Box::new(match closed {
            Closed::Gone => refusal,
            Closed::BrownOut { until_s } => {
                let left = until_s.saturating_sub(now.as_secs()).max(1);
                refusal
                    .detail("this version ends soon; for a while it does not answer, so that it is noticed")
                    .header("retry-after", left.to_string())
            }
        })
    }

    /// Names what is served, and where the default has the same.
    fn not_served(&self, reason: Reason, below: &str, now: Duration) -> Box<Refusal> {
        let refusal = self.unserved(reason, now);
        let path = self.versions.default_place();
        Box::new(match path.and_then(|place| self.versions.path(place, below)) {
            Some(path) => refusal.header(lifecycle::LINK, format!("<{path}>; rel=\"alternate\"")),
            None => refusal,
        })
    }

    fn invalid(&self, malformed: Malformed, now: Duration) -> Box<Refusal> {
        Box::new(self.unserved(Reason::VersionInvalid, now).detail(malformed.to_string()))
    }

    fn unserved(&self, reason: Reason, now: Duration) -> Refusal {
        Refusal::new(reason).with("supported", self.supported(now))
    }

    /// The versions that answer, but for brown-outs.
    fn supported(&self, now: Duration) -> Value {
        let open = |token: &&Rc<str>| {
            let version = self.versions.place_of(token).and_then(|place| self.versions.get(place));
            let life = version.and_then(|version| version.life.as_ref());
            let gone = life.and_then(|life| life.closed(now.as_secs())) == Some(Closed::Gone);
            !gone
        };
        self.versions.tokens().filter(open).map(AsRef::<str>::as_ref).collect()
    }

    /// Where the access log finds the path that the client sent. On Kong it has it by itself.
    pub(super) fn note_original(&self, request: &mut Request, path: &str, query: Option<&str>) {
        let Edit::Set(_, target) = self.forwarded_as(path, query) else { return };
        if self.host == Host::Envoy {
            request.edits.push(Edit::Set(ORIGINAL_PATH.into(), target));
        }
    }
}

impl Versioned {
    /// What waits for the caller, if anything does.
    pub(super) fn unversioned(
        &self,
        method: &str,
        query: Option<&str>,
        outside: NamedTenant,
    ) -> Option<Unversioned> {
        Some(Unversioned {
            method: method.into(),
            below: self.path.get(self.below..).unwrap_or_default().into(),
            query: query.map(Into::into),
            outside,
            accepted: self.open?,
        })
    }
}
