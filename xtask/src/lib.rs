//! xtask as a library: the tests start the same stack.
