//! What a reader asks of a document, as JSON Schema (draft 2020-12): the reader runs over no document at all, and each
//! getter tells what it would have taken. A member that is told twice may be either.
//! Says no more than a getter knows: what depends on two members is the reader's alone. Knows no reader.

use std::{cell::RefCell, ops::RangeInclusive};

use serde_json::{Map, Value, json};

use super::Document;

/// The members of one object.
#[derive(Debug, Default)]
pub(super) struct Sheet(Vec<Member>);

#[derive(Debug)]
struct Member {
    name: &'static str,
    presence: Presence,
    forms: Vec<Value>,
}

#[derive(Debug)]
enum Presence {
    Required,
    Optional,
    Or(Value),
}

/// What one getter takes.
#[derive(Debug)]
pub(super) struct Form {
    schema: Value,
    presence: Presence,
}

/// The schema of the objects that `build` reads, without `$schema` and `$id`.
pub fn describe<T>(build: impl FnOnce(&Document<'_>) -> Option<T>) -> Value {
    let (members, mistakes) = (Map::new(), RefCell::default());
    let root = Document {
        members: &members,
        path: "$".to_owned(),
        asked: RefCell::default(),
        mistakes: &mistakes,
        sheet: Some(RefCell::default()),
    };
    // There is no document: nothing comes of it.
    drop(build(&root));
    root.told()
}

impl<'a> Document<'a> {
    pub(super) fn tell(&self, name: &'static str, form: Form) {
        let Some(sheet) = &self.sheet else { return };
        let Form { schema, presence } = form;
        let mut sheet = sheet.borrow_mut();
        match sheet.0.iter_mut().find(|member| member.name == name) {
            Some(member) => {
                member.presence = presence;
                if !member.forms.contains(&schema) {
                    member.forms.push(schema);
                }
            }
            None => sheet.0.push(Member { name, presence, forms: vec![schema] }),
        }
    }

    pub(super) fn tell_not_empty(&self, name: &'static str) {
        let Some(sheet) = &self.sheet else { return };
        for member in sheet.borrow_mut().0.iter_mut().filter(|member| member.name == name) {
            member.presence = Presence::Required;
            for form in member.forms.iter_mut().filter_map(Value::as_object_mut) {
                form.insert("minItems".to_owned(), json!(1));
            }
        }
    }

    /// What `build` asks of an object.
    pub(super) fn describe_within<T>(
        &self,
        build: impl FnOnce(&Document<'a>) -> Option<T>,
    ) -> Form {
        let within = Document {
            members: self.members,
            path: self.path.clone(),
            asked: RefCell::default(),
            mistakes: self.mistakes,
            sheet: Some(RefCell::default()),
        };
        drop(build(&within));
        Form::of(within.told())
    }

    fn told(self) -> Value {
        let asked = self.asked.into_inner();
        let members = self.sheet.map(RefCell::into_inner).unwrap_or_default().0;
        // What was looked at and never told may be anything: a schema refuses nothing that the reader takes.
        let untold = asked.iter().filter(|name| members.iter().all(|member| member.name != **name));
        let mut properties: Map<String, Value> =
            untold.map(|name| ((*name).to_owned(), Value::Bool(true))).collect();
        let mut required = Vec::new();
        for member in members {
            if let Presence::Required = member.presence {
                required.push(member.name);
            }
            properties.insert(member.name.to_owned(), member.schema());
        }
        let mut schema =
            json!({"type": "object", "additionalProperties": false, "properties": properties});
        if let (Some(schema), false) = (schema.as_object_mut(), required.is_empty()) {
            schema.insert("required".to_owned(), json!(required));
        }
        schema
    }
}

impl Member {
    /// `null` counts as absent, and so it fits whatever may be absent.
    fn schema(self) -> Value {
        let optional = !matches!(self.presence, Presence::Required);
        let mut forms = self.forms;
        if let (true, [form]) = (optional, forms.as_mut_slice()) {
            allow_null(form);
        } else if optional {
            forms.push(json!({"type": "null"}));
        }
        let mut schema = match (forms.len(), forms.pop()) {
            (1, Some(form)) => form,
            (_, Some(last)) => {
                forms.push(last);
                json!({ "anyOf": forms })
            }
            (_, None) => Value::Bool(true),
        };
        if let (Some(schema), Presence::Or(default)) = (schema.as_object_mut(), self.presence) {
            schema.insert("default".to_owned(), default);
        }
        schema
    }
}

fn allow_null(form: &mut Value) {
    let Some(form) = form.as_object_mut() else { return };
    if let Some(Value::Array(words)) = form.get_mut("enum") {
        words.push(Value::Null);
    }
    if let Some(kind) = form.get_mut("type") {
        *kind = json!([kind, "null"]);
    }
}

// === impl Form ===

impl Form {
    fn of(schema: Value) -> Self {
        Self { schema, presence: Presence::Optional }
    }

    pub(super) fn text(expected: &str) -> Self {
        Self::of(json!({"type": "string", "minLength": 1, "description": expected}))
    }

    pub(super) fn words(words: &[&str], expected: &str) -> Self {
        Self::of(json!({"enum": words, "description": expected}))
    }

    pub(super) fn integer(range: &RangeInclusive<u64>) -> Self {
        Self::of(json!({"type": "integer", "minimum": range.start(), "maximum": range.end()}))
    }

    pub(super) fn flag() -> Self {
        Self::of(json!({"type": "boolean"}))
    }

    pub(super) fn any(expected: &str) -> Self {
        Self::of(json!({ "description": expected }))
    }

    pub(super) fn list(self) -> Self {
        Self::of(json!({"type": "array", "items": self.schema}))
    }

    pub(super) fn map(self) -> Self {
        Self::of(json!({"type": "object", "additionalProperties": self.schema}))
    }

    pub(super) fn optional(self) -> Self {
        Self { presence: Presence::Optional, ..self }
    }

    pub(super) fn required(self) -> Self {
        Self { presence: Presence::Required, ..self }
    }

    pub(super) fn or(self, default: Value) -> Self {
        Self { presence: Presence::Or(default), ..self }
    }

    /// Required unless there is a default.
    pub(super) fn or_required(self, default: Option<Value>) -> Self {
        match default {
            Some(default) => self.or(default),
            None => self.required(),
        }
    }
}
