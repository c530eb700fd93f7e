//! Tokens, key sets and claims: parsing and judging, without IO.
