//! The `ebb` program: reads the command line, does what it says, and ends with the exit code that tells how it went.

mod allocator;

use std::process::ExitCode;

fn main() -> ExitCode {
    ebb::cli::main()
}
