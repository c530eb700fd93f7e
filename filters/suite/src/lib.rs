//! The fused filter.
