//! The `gemmule` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    gemmule_cli::main()
}
