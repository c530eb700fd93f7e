//! The model of a rate limit: windows, verdicts, header values.
