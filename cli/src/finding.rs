//! One thing that is found in a file: where, what, and what to write instead. Knows no rules.

use std::fmt;

use anstyle::{AnsiColor, Style};
use gatehouse_contract::Mistake;
use gatehouse_edge::Warning;
use serde_json::{Value, json};

use crate::source::Place;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// Whoever reads the file refuses it, or it means something else than it says.
    Mistake,
    /// Allowed, and probably not meant.
    Warning,
}

/// One thing that is found.
#[derive(Debug, Clone)]
pub struct Finding {
    pub weight: Weight,
    /// A JSON path.
    pub path: String,
    pub cause: String,
    /// `None` where the cause says it.
    pub mend: Option<String>,
    /// Where it stands in the text, if that is known.
    pub place: Option<Place>,
}

impl Finding {
    pub fn mistake(path: impl Into<String>, cause: impl Into<String>, mend: &str) -> Self {
        Self {
            weight: Weight::Mistake,
            path: path.into(),
            cause: cause.into(),
            mend: Some(mend.to_owned()),
            place: None,
        }
    }

    pub fn warning(path: impl Into<String>, cause: impl Into<String>, mend: &str) -> Self {
        Self { weight: Weight::Warning, ..Self::mistake(path, cause, mend) }
    }

    /// The same of a document that stands at `at` within another one.
    pub fn within(self, at: &str) -> Self {
        let inner = self.path.strip_prefix('$').unwrap_or(&self.path);
        Self { path: format!("{at}{inner}"), ..self }
    }

    /// The line for people.
    pub fn line(&self, file: &str) -> String {
        let (bold, yellow) = (Style::new().bold(), AnsiColor::Yellow.on_default());
        let place = self.place.map(|(line, column)| format!(":{line}:{column}"));
        let place = place.unwrap_or_default();
        let weight = match self.weight {
            Weight::Mistake => String::new(),
            Weight::Warning => format!("{yellow}warning:{yellow:#} "),
        };
        format!("{bold}{file}{place}:{bold:#} {weight}{self}")
    }

    /// The object for programs.
    pub fn object(&self) -> Value {
        let weight = match self.weight {
            Weight::Mistake => "mistake",
            Weight::Warning => "warning",
        };
        json!({
            "weight": weight,
            "path": self.path,
            "cause": self.cause,
            "mend": self.mend,
            "line": self.place.map(|(line, _)| line),
            "column": self.place.map(|(_, column)| column),
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.cause)?;
        self.mend.as_ref().map_or(Ok(()), |mend| write!(f, "; {mend}"))
    }
}

impl From<Mistake> for Finding {
    fn from(Mistake { path, cause, mend }: Mistake) -> Self {
        Self { weight: Weight::Mistake, path, cause, mend: Some(mend), place: None }
    }
}

impl From<Warning> for Finding {
    fn from(Warning { path, text }: Warning) -> Self {
        Self { weight: Weight::Warning, path, cause: text, mend: None, place: None }
    }
}
