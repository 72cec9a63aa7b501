//! (rules follow)
