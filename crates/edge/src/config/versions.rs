//! The `versions` of the edge document: what is served, and how each version ends. Dates become seconds and header
//! texts here, once. Knows no requests.

use std::{rc::Rc, str::FromStr};

use gatehouse_contract::{ApiVersion, Document, TenantId};

use super::{Parts, Warnings};
use crate::version::{
    Lifecycle, MAX_SERVED, Version, Versions, date,
    lifecycle::{Date, Link, Window},
};

/// The vendor of our media types (specification GAV-003).
const VENDOR: &str = "greenlang";

/// How long a deprecated version is supported at least (specification GAV-001).
const SUPPORT_S: u64 = 365 * 24 * 60 * 60;

const DATE: &str = "a day such as \"2027-06-01\", or an instant such as \"2027-06-01T10:00:00Z\"";
const SERVED: &str = "write one of the versions in \"served\"";

/// The single module leaves versions to others: where it finds none, it knows none.
pub(super) fn read(doc: &Document<'_>, parts: Parts, warnings: &mut Warnings) -> Option<Versions> {
    if parts.versions() {
        return doc.object("versions", |doc| {
            let versions = read_versions(doc, warnings);
            if parts == Parts::Version && versions.as_ref().is_some_and(Versions::grants_grace) {
                let cause = "the module `version` stands before whoever knows a tenant";
                doc.note("lifecycle", cause, "remove \"grace\", or load the suite");
            }
            versions
        });
    }
    // Routes stand under every version, whoever chooses it.
    let served = doc.object_opt("versions", |doc| {
        for name in ["default", "vendor", "strict", "lifecycle"] {
            let _judged_elsewhere = doc.raw(name);
        }
        doc.parsed_list::<ApiVersion>("served", "a version such as \"v1\"")
    })?;
    let served = served.unwrap_or_default().into_iter();
    Some(Versions::chosen_elsewhere(served.map(|version| version.as_str().into())))
}

fn read_versions(doc: &Document<'_>, warnings: &mut Warnings) -> Option<Versions> {
    let served = doc.parsed_list::<ApiVersion>("served", "a version such as \"v1\"");
    let default = doc.parsed::<ApiVersion>("default", "one of the versions that are served");
    let vendor = doc.parsed_or::<Vendor>(
        "vendor",
        Vendor(VENDOR.to_owned()),
        "letters, digits and \"-\": what follows \"application/vnd.\" in media types",
    );
    let strict = doc.flag("strict", false);
    let known = served.as_deref();
    let mut at = 0_usize;
    let ends = doc.objects("lifecycle", |doc| {
        let path = format!("$.versions.lifecycle[{at}]");
        at = at.saturating_add(1);
        read_end(doc, known, (&path, &mut *warnings))
    });
    if let Some(served) = known {
        if served.len() > MAX_SERVED {
            doc.note("served", "too many versions", format!("list at most {MAX_SERVED}"));
        }
        if has_twins(served) {
            doc.note("served", "a version stands twice", "write each once");
        }
        if default.as_ref().is_some_and(|default| !served.contains(default)) {
            doc.note("default", "is not served", SERVED);
        }
    }
    let (served, mut ends) = (served?, ends?);
    let named: Vec<ApiVersion> = ends.iter().map(|(version, _)| version.clone()).collect();
    if has_twins(&named) {
        doc.note("lifecycle", "a version stands twice", "write one entry per version");
    }
    let (default, vendor, strict) = (default?, vendor?, strict?);
    let place = served.iter().position(|version| *version == default)?;
    let served = served.iter().map(|version| {
        let end = ends.iter_mut().find(|(of, _)| of == version);
        let life = end.and_then(|(_, life)| life.take()).map(Rc::new);
        Version { token: version.as_str().into(), life }
    });
    Some(Versions::new(served.collect(), place, &vendor.0, strict))
}

fn has_twins(versions: &[ApiVersion]) -> bool {
    let earlier = |at: usize| versions.get(..at).unwrap_or_default();
    versions.iter().enumerate().any(|(at, version)| earlier(at).contains(version))
}

/// One entry of `lifecycle`, without an end where none is in sight.
fn read_end(
    doc: &Document<'_>,
    served: Option<&[ApiVersion]>,
    (path, warnings): (&str, &mut Warnings),
) -> Option<(ApiVersion, Option<Lifecycle>)> {
    let version = doc.parsed::<ApiVersion>("version", "one of the versions that are served");
    let released = doc.parsed_opt::<Moment>("released", DATE);
    let deprecated = doc.parsed_opt::<Moment>("deprecated", DATE);
    let sunset = doc.parsed_opt::<Moment>("sunset", DATE);
    let successor = doc.parsed_opt::<ApiVersion>("successor", "another version that is served");
    let guide = doc.parsed_opt::<Guide>("guide", "an https address without spaces");
    let phase = Phase {
        deprecated: deprecated.as_ref().and_then(moment),
        sunset: sunset.as_ref().and_then(moment),
    };
    let brownouts = doc.objects("brownouts", |doc| read_window(doc, phase, (path, warnings)));
    let grace = doc.parsed_list::<TenantId>("grace", "a tenant's id (a UUID)");
    let dry_run = doc.flag("dry_run", false);

    let is_served = |version: &ApiVersion| served.is_none_or(|served| served.contains(version));
    if version.as_ref().is_some_and(|version| !is_served(version)) {
        doc.note("version", "is not served", SERVED);
    }
    if let Some(Some(successor)) = &successor {
        if !is_served(successor) {
            doc.note("successor", "is not served", SERVED);
        }
        if version.as_ref() == Some(successor) {
            doc.note("successor", "is the version itself", "write another version");
        }
    }
    if let (Some(Some(released)), Some(from)) = (&released, phase.deprecated)
        && from < released.0
    {
        doc.note("deprecated", "is before the release", "write a later date");
    }
    phase.check(doc, (path, warnings));
    if dry_run == Some(true) {
        let text = "the version goes on after its sunset and in its brown-outs; write false";
        warnings.add(format!("{path}.dry_run"), text);
    }
    let (successor, guide, brownouts, grace) = (successor?, guide?, brownouts?, grace?);
    let (version, dry_run) = (version?, dry_run?);
    let _read = (released?, deprecated?, sunset?);
    let Some(deprecated_s) = phase.deprecated else {
        let ends = successor.is_some() || !brownouts.is_empty() || !grace.is_empty() || dry_run;
        if ends {
            let cause = "missing, and the entry says how the version ends";
            doc.note("deprecated", cause, format!("write {DATE}"));
        }
        return Some((version, None));
    };
    let sunset = match phase.sunset {
        Some(at_s) => Some(Date::sunset(at_s)?),
        None => None,
    };
    let guide = guide.as_ref().map(|guide| guide.0.as_str());
    let successor = successor.as_ref().map(ApiVersion::as_str);
    let life = Lifecycle {
        deprecated: Date::deprecation(deprecated_s),
        link: Link::new(successor, guide, sunset.is_some()),
        sunset,
        brownouts,
        grace,
        dry_run,
    };
    Some((version, Some(life)))
}

fn read_window(
    doc: &Document<'_>,
    phase: Phase,
    (path, warnings): (&str, &mut Warnings),
) -> Option<Window> {
    let (from, until) = (doc.parsed::<Moment>("from", DATE), doc.parsed::<Moment>("until", DATE));
    let window = Window { from_s: from?.0, until_s: until?.0 };
    if window.until_s <= window.from_s {
        doc.note("until", "is not after \"from\"", "write a later instant");
    }
    if phase.sunset.is_some_and(|sunset| window.until_s > sunset) {
        doc.note("until", "is after the sunset", "write an instant before it");
    }
    if phase.deprecated.is_some_and(|from| window.from_s < from) {
        let text = "a brown-out begins before the deprecation: nobody was told yet";
        warnings.add(format!("{path}.brownouts"), text);
    }
    Some(window)
}

/// When a version is deprecated and when it ends.
#[derive(Debug, Clone, Copy)]
struct Phase {
    deprecated: Option<u64>,
    sunset: Option<u64>,
}

impl Phase {
    fn check(self, doc: &Document<'_>, (path, warnings): (&str, &mut Warnings)) {
        match (self.deprecated, self.sunset) {
            (None, Some(_)) => {
                let cause = "a version ends that was never deprecated";
                doc.note("sunset", cause, "write \"deprecated\", too");
            }
            (Some(from), Some(until)) if until < from => {
                doc.note("sunset", "is before the deprecation", "write a later date");
            }
            (Some(from), Some(until)) if until.saturating_sub(from) < SUPPORT_S => {
                let text = "less than 12 months after the deprecation (specification GAV-001); \
                            write a later date";
                warnings.add(format!("{path}.sunset"), text);
            }
            (_, _) => {}
        }
    }
}

fn moment(read: &Option<Moment>) -> Option<u64> {
    read.as_ref().map(|moment| moment.0)
}

/// Seconds since the Unix epoch.
struct Moment(u64);

impl FromStr for Moment {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        date::from_iso(text).map(Self).ok_or(())
    }
}

/// Where people read about a change.
struct Guide(String);

impl FromStr for Guide {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let host =
            text.strip_prefix("https://").is_some_and(|rest| !rest.starts_with(['/', '?', '#']));
        let fits = host && text.len() > "https://".len();
        let plain = !text.chars().any(|c| c.is_whitespace() || c.is_control());
        (fits && plain).then(|| Self(text.to_owned())).ok_or(())
    }
}

/// A part of a media type's name.
struct Vendor(String);

impl FromStr for Vendor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let fits = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        fits.then(|| Self(text.to_owned())).ok_or(())
    }
}
