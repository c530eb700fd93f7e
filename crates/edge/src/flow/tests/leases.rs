//! Passes that a VM takes along, and what it tells of them.
