//! What the SDK calls for a host, and the context that each call is for. The only file that implements its traits: of
//! their provided methods none is used, since they unwrap what a host sends (`abi` has the host's functions, and
//! `cargo xtask wasm` refuses a module that imports more than we call).
//! Knows no policy.

use gatehouse_edge::Parts;
use proxy_wasm::{
    traits::{Context, HttpContext, RootContext},
    types::{Action, ContextType},
};

use crate::{root::Root, stream::Stream};

/// A root context that takes `parts` of the request path. Made by [`crate::module!`].
pub fn root(parts: Parts) -> Box<dyn RootContext> {
    Box::new(RootCallbacks(Root::new(parts)))
}

struct RootCallbacks(Root);

impl Context for RootCallbacks {
    fn on_http_call_response(
        &mut self,
        token: u32,
        headers: usize,
        body_size: usize,
        _trailers: usize,
    ) {
        self.0.on_answer(token, headers, body_size);
    }
}

impl RootContext for RootCallbacks {
    fn on_configure(&mut self, _size: usize) -> bool {
        self.0.on_configure()
    }

    fn on_tick(&mut self) {
        self.0.on_tick();
    }

    fn create_http_context(&self, _context: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(StreamCallbacks(Stream::new(self.0.engine()))))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct StreamCallbacks(Stream);

impl Context for StreamCallbacks {
    fn on_http_call_response(
        &mut self,
        token: u32,
        headers: usize,
        body_size: usize,
        _trailers: usize,
    ) {
        self.0.on_answer(token, headers, body_size);
    }
}

impl HttpContext for StreamCallbacks {
    fn on_http_request_headers(&mut self, _count: usize, _ended: bool) -> Action {
        self.0.on_request_headers()
    }

    fn on_http_request_body(&mut self, size: usize, _ended: bool) -> Action {
        self.0.on_request_body(size)
    }

    fn on_http_request_trailers(&mut self, _count: usize) -> Action {
        self.0.on_request_trailers()
    }

    fn on_http_response_headers(&mut self, _count: usize, ended: bool) -> Action {
        self.0.on_response_headers(ended)
    }

    fn on_http_response_body(&mut self, size: usize, ended: bool) -> Action {
        self.0.on_response_body(size, ended)
    }

    fn on_http_response_trailers(&mut self, _count: usize) -> Action {
        self.0.on_response_trailers()
    }
}
