//! The command line: the only file that knows clap.
