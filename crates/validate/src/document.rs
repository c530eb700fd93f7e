//! The document of the module: which routes have a schema. Knows neither hosts nor headers but the two that tell what a
//! body is.

use gatehouse_contract::{Document, Mistake, Reason, document};

use crate::{judge::Refusal, media, schema::Schema};

/// The largest body that may be allowed: Envoy holds no more of one by default.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;
/// What a route takes that does not say.
const DEFAULT_BODY_BYTES: u64 = 256 * 1024;
/// The routes of a document.
const MAX_ROUTES: usize = 500;

/// The rules of a document.
#[derive(Debug)]
pub struct Validator {
    rules: Vec<Rule>,
    hold_headers: bool,
}

/// What a route says of its bodies.
#[derive(Debug)]
pub(crate) struct Rule {
    method: String,
    /// `None` stands for any one segment.
    segments: Vec<Option<Box<str>>>,
    max_body_bytes: usize,
    schema: Schema,
}

impl Validator {
    /// Compiles a document, whole or not at all.
    pub fn compile(text: &str) -> Result<Self, Vec<Mistake>> {
        document::read(text, |doc| {
            let hold_headers = doc.flag("hold_headers", false);
            let rules = doc.objects("routes", rule);
            let (hold_headers, rules) = (hold_headers?, rules?);
            match rules.len() {
                0 => doc.note("routes", "no routes", "write one, or leave the module out"),
                1..=MAX_ROUTES => {}
                _ => doc.note("routes", "too many routes", format!("write at most {MAX_ROUTES}")),
            }
            for (place, rule) in rules.iter().enumerate() {
                if rules.iter().take(place).any(|other| other.is_for_the_requests_of(rule)) {
                    let name = format!("routes[{place}]");
                    doc.note(&name, "the same method and path stand above", "keep one of them");
                }
            }
            Some(Self { rules, hold_headers })
        })
    }

    /// Whether the host lets bodies come while headers wait, so that no upstream hears of a request before its body is
    /// judged. A host that does not would wait forever.
    pub fn holds_headers(&self) -> bool {
        self.hold_headers
    }

    /// The rule for `path`, which is in its one form: the first of the document that fits.
    pub(crate) fn find(&self, method: &[u8], path: &str) -> Option<(usize, &Rule)> {
        let mut rules = self.rules.iter().enumerate();
        rules.find(|(_, rule)| rule.method.as_bytes() == method && rule.fits(path))
    }

    /// Whether some rule is for this method.
    pub(crate) fn knows(&self, method: &[u8]) -> bool {
        self.rules.iter().any(|rule| rule.method.as_bytes() == method)
    }

    pub(crate) fn rule(&self, place: usize) -> Option<&Rule> {
        self.rules.get(place)
    }
}

impl Rule {
    /// The largest body that it takes, in bytes.
    pub(crate) fn max_body_bytes(&self) -> usize {
        self.max_body_bytes
    }

    /// Whether a body with these headers can be judged. `content_type` is `None` where it is absent or stands twice.
    pub(crate) fn accepts(
        &self,
        content_type: Option<&[u8]>,
        is_encoded: bool,
    ) -> Result<(), Refusal> {
        let refused = |detail| Err(Refusal::new(Reason::MediaTypeUnsupported, detail));
        if !content_type.is_some_and(media::is_json) {
            return refused("the body must be JSON in UTF-8 and its content-type must say so");
        }
        if is_encoded {
            return refused("the body must have no content-encoding");
        }
        Ok(())
    }

    /// Judges a whole body.
    pub(crate) fn judge(&self, body: &[u8]) -> Result<(), Refusal> {
        if body.len() > self.max_body_bytes {
            return Err(Refusal::too_large());
        }
        self.schema.judge(body)
    }

    fn fits(&self, path: &str) -> bool {
        let mut parts = path.strip_prefix('/').unwrap_or(path).split('/');
        let fits = self.segments.iter().all(|segment| match (segment, parts.next()) {
            (Some(literal), Some(part)) => literal.as_ref() == part,
            (None, Some(part)) => !part.is_empty(),
            (_, None) => false,
        });
        fits && parts.next().is_none()
    }

    fn is_for_the_requests_of(&self, other: &Self) -> bool {
        self.method == other.method && self.segments == other.segments
    }
}

fn rule(doc: &Document<'_>) -> Option<Rule> {
    let method = doc.parsed::<Method>("method", "POST, PUT, PATCH or DELETE");
    let template =
        doc.parsed::<Template>("path", "a path such as \"/api/v1/registry/agents/{id}\"");
    let most = MAX_BODY_BYTES as u64;
    let max_body_bytes = doc.integer("max_body_bytes", Some(DEFAULT_BODY_BYTES), 1..=most);
    let schema = match doc.raw("schema") {
        None => {
            doc.note("schema", "missing", "write a JSON Schema 2020-12");
            None
        }
        Some(schema) => match Schema::compiled(schema) {
            Ok(schema) => Some(schema),
            Err(faults) => {
                for fault in faults {
                    doc.note(
                        "schema",
                        format!("at \"{}\": {}", fault.pointer, fault.cause),
                        fault.mend,
                    );
                }
                None
            }
        },
    };
    let (Method(method), Template(template)) = (method?, template?);
    let parts = template.strip_prefix('/').unwrap_or(&template).split('/');
    let segments = parts.map(|part| (!part.starts_with('{')).then(|| part.into())).collect();
    let max_body_bytes = usize::try_from(max_body_bytes?).ok()?;
    Some(Rule { method, segments, max_body_bytes, schema: schema? })
}

struct Method(String);

impl std::str::FromStr for Method {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        matches!(text, "POST" | "PUT" | "PATCH" | "DELETE").then(|| Self(text.to_owned())).ok_or(())
    }
}

struct Template(String);

impl std::str::FromStr for Template {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let plain = |part: &str| {
            let name =
                part.strip_prefix('{').and_then(|part| part.strip_suffix('}')).unwrap_or(part);
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            !name.is_empty() && !matches!(name, "." | "..") && name.bytes().all(fits)
        };
        let parts = text.strip_prefix('/').ok_or(())?;
        parts.split('/').all(plain).then(|| Self(text.to_owned())).ok_or(())
    }
}

#[cfg(test)]
mod tests;
