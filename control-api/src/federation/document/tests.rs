//! Issuers as JSON: one good one, and one mistake at a time.
