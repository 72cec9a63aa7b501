//! Host and path patterns.
