//! What operators do.
