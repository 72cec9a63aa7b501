//! h
/// h
#[derive(Debug)]
pub struct Health;
