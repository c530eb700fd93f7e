//! Tests of the edge document.
