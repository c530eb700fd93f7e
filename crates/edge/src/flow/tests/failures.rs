//! Clients that fail to authenticate, and peers that need no limit.
