//! How one proxy-wasm host differs from another, as data. What is listed was measured in the real host.

/// A host's habits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Personality {
    /// For messages.
    pub name: &'static str,
    /// Header names reach the filter in lower case.
    pub lower_case_names: bool,
    /// A removed request header is gone for the upstream too.
    pub removal_reaches_upstream: bool,
    /// Whether `end_of_stream` tells the truth in request headers; where not, it is always false.
    pub end_of_stream_known: bool,
    /// A local reply passes through the filter's own `on_response_headers`.
    pub local_reply_passes_filter: bool,
    /// The foreign functions that can be there.
    pub foreign_functions: &'static [&'static str],
}

/// Envoy 1.40 with V8.
pub const ENVOY: Personality = Personality {
    name: "envoy",
    lower_case_names: true,
    removal_reaches_upstream: true,
    end_of_stream_known: true,
    local_reply_passes_filter: true,
    foreign_functions: &["verify_signature"],
};
