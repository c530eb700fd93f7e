//! Which driver the configuration names, and where it may not be used.

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf, str::FromStr};

use gatehouse_contract::{Document, TenantId, document::Words};

use crate::config;

/// A driver, with what it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// gVisor.
    Runsc(PathBuf),
    /// The machine's own kernel: for development.
    Process(Demo),
    /// A pretence: for tests and benches.
    Sim(Demo),
}

/// The only tenants that a driver runs agents of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demo(pub BTreeSet<TenantId>);

/// A driver's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Runsc,
    Process,
    Sim,
}

/// Reads `driver` and the members that belong to it.
pub fn read(doc: &Document<'_>) -> Option<Choice> {
    let name = doc.word_or("driver", Name::Runsc, "\"runsc\", \"process\" or \"sim\"");
    let tenants = doc.parsed_list::<TenantId>("demo_tenants", "a tenant's id");
    let name = name?;
    if name == Name::Runsc {
        if !tenants?.is_empty() {
            doc.note("demo_tenants", "runsc runs every tenant's agents", "leave it out");
            return None;
        }
        let runsc = config::folder(doc, "runsc", "the absolute path of gVisor's runsc");
        return runsc.map(Choice::Runsc);
    }
    if doc.raw("runsc").is_some() {
        let cause = format!("the driver \"{}\" does not use it", name.word());
        doc.note("runsc", cause, "leave it out, or take the driver \"runsc\"");
        return None;
    }
    let mend = "name the demo tenants that may run without isolation, or take the driver \"runsc\"";
    doc.refuse_empty("demo_tenants", tenants.as_deref(), mend);
    let tenants = Demo(tenants.filter(|tenants| !tenants.is_empty())?.into_iter().collect());
    Some(if name == Name::Process { Choice::Process(tenants) } else { Choice::Sim(tenants) })
}

impl Choice {
    /// Its name in the configuration.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Runsc(_) => Name::Runsc.word(),
            Self::Process(_) => Name::Process.word(),
            Self::Sim(_) => Name::Sim.word(),
        }
    }

    /// The tenants that it is for, where it is not for all.
    pub const fn demo(&self) -> Option<&Demo> {
        match self {
            Self::Runsc(_) => None,
            Self::Process(demo) | Self::Sim(demo) => Some(demo),
        }
    }

    /// Notes URLs of other machines where the driver is for this one alone (design §5). Their text is not told.
    pub fn refuse_other_machines(&self, doc: &Document<'_>, urls: &[&str]) -> Option<()> {
        if matches!(self, Self::Runsc(_)) || urls.iter().all(|url| is_here(url)) {
            return Some(());
        }
        doc.note(
            "driver",
            format!("\"{}\", but a database or Redis is on another machine", self.name()),
            "use it with this machine's own, or take the driver \"runsc\"",
        );
        None
    }
}

/// Whether the URL's host is this machine. What cannot be understood is not.
fn is_here(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    if scheme.ends_with("+unix") {
        return true;
    }
    // A parameter may name another host than the authority does.
    if url.contains('?') {
        return false;
    }
    let authority = rest.split('/').next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let host = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

// === impl Name ===

impl Words for Name {
    const WORDS: &'static [&'static str] = &["runsc", "process", "sim"];

    fn word(&self) -> &'static str {
        match self {
            Self::Runsc => "runsc",
            Self::Process => "process",
            Self::Sim => "sim",
        }
    }
}

impl FromStr for Name {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Runsc, Self::Process, Self::Sim]
            .into_iter()
            .find(|name| name.word() == text)
            .ok_or(())
    }
}
