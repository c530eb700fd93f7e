//! The documents that operators apply: each is held by the schema of what reads it, beside a misspelt copy that is
//! refused. Knows the committed files, not how they were made.

mod chain;
mod crd;
mod documents;
mod edge;
mod envoy;
mod kong;
mod mesh;
