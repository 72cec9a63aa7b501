//! The binary: parse, run, print the chain of causes, exit code.

use std::process::ExitCode;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[expect(clippy::print_stderr, reason = "the one place where the program speaks of its own failure")]
fn main() -> ExitCode {
    match vaxel::cli::main() {
        Ok(code) => code,
        Err(error) => {
            eprint!("vaxel: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprint!(": {error}");
                cause = error.source();
            }
            eprintln!();
            ExitCode::FAILURE
        }
    }
}
