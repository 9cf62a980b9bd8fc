//! The `ebb` program.

mod allocator;

use std::process::ExitCode;

fn main() -> ExitCode {
    ebb::cli::main()
}
