//! Installs what is missing, pinned, under `.gatehouse/`.
