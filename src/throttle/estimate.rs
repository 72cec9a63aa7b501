//! What a slot's work usually takes.
