//! What is malformed, ambiguous or hostile stops here, on both sides; what is odd but valid passes.
//!
//! Every row is sent as the bytes it is, and judged by the bytes the other side reads.

mod frames;
mod requests;
