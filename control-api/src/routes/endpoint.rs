//! One endpoint of the public listener: what it is called, what it takes and answers, and who serves it. The conventions
//! of design §4 stand around it by its manner, so that a new one has them by being in the table; the OpenAPI document, the
//! rules that bodies are judged by and the router are made of the same table. Knows no operation.

use axum::{
    Extension,
    extract::DefaultBodyLimit,
    handler::Handler,
    middleware::{from_fn, from_fn_with_state},
    routing::{MethodFilter, MethodRouter, on},
};

use crate::{
    accept,
    access::{guard, tenant_in_path},
    bodies, cache, condition, once,
    paging::Filters,
    routes::{Api, streams::sse, tenant_config},
};

/// A body larger than this is refused before it is judged, unless the endpoint says otherwise.
pub const BODY_BYTES: usize = 64 * 1024;

/// How an endpoint behaves, and so what stands around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// In front of the guard, with conventions of its own protocol.
    Public,
    /// In front of the guard, and the same for everybody: as [`Self::Read`].
    Document,
    /// Shows one thing: `ETag`, `If-None-Match`.
    Read,
    /// Shows many: pages, and as [`Self::Read`].
    List,
    /// Makes something or does something once: `Idempotency-Key`.
    Act,
    /// Changes something that exists: `If-Match` is required.
    Change,
    /// States a fact; stating it again changes nothing.
    State,
    /// Shows what is too long to be held: line by line, without a tag.
    Stream,
    /// Tells what happens while it happens (server-sent events), besides what there is where it has a schema: without a tag.
    Tells,
    /// Takes something away.
    Remove,
}

/// An endpoint.
pub struct Endpoint {
    /// Upper case.
    pub method: &'static str,
    /// The template, as in the role matrix.
    pub path: String,
    /// `operationId`.
    pub name: String,
    pub summary: &'static str,
    pub manner: Manner,
    /// The schema of its body.
    pub body: Option<&'static str>,
    pub body_bytes: usize,
    /// Whether the body is a merge patch and may say so (RFC 7396).
    pub merges: bool,
    /// Status and schema of a success; of a list's items.
    pub answer: (u16, Option<&'static str>),
    pub filters: &'static [&'static str],
    served: MethodRouter<Api>,
}

// === impl Endpoint ===

impl Endpoint {
    fn new<H: Handler<T, Api>, T: 'static>(
        (method, path): (&'static str, &str),
        name: &str,
        summary: &'static str,
        manner: Manner,
        handler: H,
    ) -> Self {
        let filter = match method {
            "GET" => MethodFilter::GET,
            "PUT" => MethodFilter::PUT,
            "PATCH" => MethodFilter::PATCH,
            "DELETE" => MethodFilter::DELETE,
            _ => MethodFilter::POST,
        };
        Self {
            method,
            path: path.to_owned(),
            name: name.to_owned(),
            summary,
            manner,
            body: None,
            body_bytes: BODY_BYTES,
            merges: false,
            answer: (200, None),
            filters: &[],
            served: on(filter, handler),
        }
    }

    /// In front of the guard.
    pub fn public<H: Handler<T, Api>, T: 'static>(
        at: (&'static str, &str),
        name: &str,
        summary: &'static str,
        handler: H,
    ) -> Self {
        Self::new(at, name, summary, Manner::Public, handler)
    }

    /// `GET` of what anybody may read.
    pub fn document<H: Handler<T, Api>, T: 'static>(
        path: &str,
        name: &str,
        summary: &'static str,
        handler: H,
    ) -> Self {
        Self::new(("GET", path), name, summary, Manner::Document, handler)
    }

    /// `GET` of one thing.
    pub fn read<H: Handler<T, Api>, T: 'static>(
        path: &str,
        name: &str,
        summary: &'static str,
        handler: H,
    ) -> Self {
        Self::new(("GET", path), name, summary, Manner::Read, handler)
    }

    /// `GET` of many; `item` is the schema of one.
    pub fn list<H: Handler<T, Api>, T: 'static>(
        path: &str,
        name: &str,
        summary: &'static str,
        handler: H,
    ) -> Self {
        Self::new(("GET", path), name, summary, Manner::List, handler)
    }

    /// `GET` of what is too long to be held: it has no tag.
    pub fn stream<H: Handler<T, Api>, T: 'static>(
        path: &str,
        name: &str,
        summary: &'static str,
        handler: H,
    ) -> Self {
        Self::new(("GET", path), name, summary, Manner::Stream, handler)
    }

    /// `GET` of what happens, as it happens.
    pub fn tells<H: Handler<T, Api>, T: 'static>(
        path: &str,
        name: &str,
        summary: &'static str,
        handler: H,
    ) -> Self {
        Self::new(("GET", path), name, summary, Manner::Tells, handler)
    }

    /// `POST`.
    pub fn act<H: Handler<T, Api>, T: 'static>(
        path: &str,
        name: &str,
        summary: &'static str,
        handler: H,
    ) -> Self {
        Self::new(("POST", path), name, summary, Manner::Act, handler)
    }

    /// `PUT` or `PATCH` of what exists.
    pub fn change<H: Handler<T, Api>, T: 'static>(
        at: (&'static str, &str),
        name: &str,
        summary: &'static str,
        handler: H,
    ) -> Self {
        Self::new(at, name, summary, Manner::Change, handler)
    }

    /// `PUT` of a fact.
    pub fn state<H: Handler<T, Api>, T: 'static>(
        path: &str,
        name: &str,
        summary: &'static str,
        handler: H,
    ) -> Self {
        Self::new(("PUT", path), name, summary, Manner::State, handler).answers(204, None)
    }

    /// `DELETE`.
    pub fn remove<H: Handler<T, Api>, T: 'static>(
        path: &str,
        name: &str,
        summary: &'static str,
        handler: H,
    ) -> Self {
        Self::new(("DELETE", path), name, summary, Manner::Remove, handler).answers(204, None)
    }

    /// What a success looks like.
    pub fn answers(mut self, status: u16, schema: impl Into<Option<&'static str>>) -> Self {
        self.answer = (status, schema.into());
        self
    }

    /// What it takes.
    pub fn takes(mut self, schema: &'static str) -> Self {
        self.body = Some(schema);
        self
    }

    /// What it takes is a merge patch.
    pub fn merges(mut self) -> Self {
        self.merges = true;
        self
    }

    /// How large that may be.
    pub fn up_to(mut self, bytes: usize) -> Self {
        self.body_bytes = bytes;
        self
    }

    /// What a list can be narrowed by.
    pub fn narrowed_by(mut self, filters: &'static [&'static str]) -> Self {
        self.filters = filters;
        self
    }

    /// The media type of a success; `None` where that has no content.
    pub fn media(&self) -> Option<&'static str> {
        match (self.path.as_str(), self.manner, self.answer.1) {
            ("/.well-known/jwks.json", ..) => Some("application/jwk-set+json"),
            ("/api/v1/openapi.json", ..) => Some("application/vnd.oai.openapi+json;version=3.1"),
            ("/api/v1/reference", ..) => Some("text/html; charset=utf-8"),
            (tenant_config::SCHEMA_PATH, ..) => Some("application/schema+json"),
            (_, Manner::Stream, _) => Some("application/x-ndjson"),
            (_, Manner::Tells, None) => Some(sse::MEDIA),
            (.., Some(_)) => Some("application/json"),
            (.., None) => None,
        }
    }

    /// The media type of a success for who asks to follow.
    pub fn followed(&self) -> Option<&'static str> {
        (self.manner == Manner::Tells && self.answer.1.is_some()).then_some(sse::MEDIA)
    }

    /// Its part of the router. The outermost layer is the last: first the guard, so that who may not call learns nothing
    /// of what a request should be.
    pub fn serve(self, api: &Api) -> MethodRouter<Api> {
        let media = self.media().map(|usual| accept::Media { usual, followed: self.followed() });
        let judged = |served: MethodRouter<Api>| match media {
            Some(media) => served.route_layer(from_fn_with_state(media, accept::judge)),
            None => served,
        };
        let served = self.served;
        let served = match self.manner {
            Manner::Public => return judged(served),
            Manner::Document => return judged(served.route_layer(from_fn(condition::tagged))),
            Manner::Read => served.route_layer(from_fn(condition::tagged)),
            Manner::List => served
                .route_layer(from_fn(condition::tagged))
                .route_layer(Extension(Filters(self.filters))),
            Manner::Act => served.route_layer(from_fn_with_state(api.clone(), once::layer)),
            Manner::Change => served.route_layer(from_fn(condition::require)),
            Manner::State | Manner::Remove | Manner::Stream | Manner::Tells => served,
        };
        // What changes tenants and their members is beside what runs in them.
        let remembered = self.method != "GET" && self.path.starts_with("/api/v1/factory/");
        let served = match remembered {
            true => served.route_layer(from_fn_with_state(api.clone(), cache::forgotten_after)),
            false => served,
        };
        let served = judged(served.route_layer(from_fn_with_state(api.clone(), bodies::judge)));
        let served = match self.path.contains("{tenant}") {
            true => served.route_layer(from_fn(tenant_in_path)),
            false => served,
        };
        served
            .route_layer(from_fn_with_state(api.clone(), guard))
            .layer(DefaultBodyLimit::max(self.body_bytes))
    }
}
