//! The `gemmule-quantize` program.

fn main() -> std::process::ExitCode {
    gemmule_quantize::main()
}
