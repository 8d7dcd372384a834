//! The `gemmule-quantize` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    gemmule_quantize::program::main()
}
