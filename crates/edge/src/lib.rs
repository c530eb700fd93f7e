//! The request path at the edge as a sans-IO policy.
