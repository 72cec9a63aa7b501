//! When a standing queue must be shortened.
