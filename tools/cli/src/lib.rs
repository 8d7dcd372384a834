//! The `gemmule` program: one module per command. Results go to stdout, everything else to stderr.
//!
//! The program is a library so that completions for shells and manuals can be made from its arguments.

mod answers;
mod arguments;
mod batch;
mod bench;
mod cache;
mod calibrate;
mod compare;
mod embed;
mod eval;
mod inspect;
mod interrupt;
mod output;
mod rows;
mod run;
mod score;
mod tensors;
mod trace;
mod watch;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use gemmule_quant::isa;

use self::arguments::WrongUsage;
use self::output::{is_broken_pipe, print_note};

/// PaliGemma 1 and 2 on the CPU: captions, answers, text, boxes, masks.
///
/// Exit codes: 0 success, 1 failure (a message says why), 2 wrong usage.
#[derive(Parser)]
#[command(name = "gemmule", version, long_version = long_version(), max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Run),
    Batch(batch::Batch),
    Eval(eval::Eval),
    Score(score::Score),
    Embed(embed::Embed),
    Watch(watch::Watch),
    Inspect(inspect::Inspect),
    Trace(trace::Trace),
    Bench(bench::Bench),
    Calibrate(calibrate::Calibrate),
    Compare(compare::Compare),
}

fn long_version() -> String {
    let names = |sets: &mut dyn Iterator<Item = isa::Isa>| sets.map(isa::Isa::name).collect::<Vec<_>>().join(" ");
    format!(
        "{}\nbuilt for {}-{}\ninstruction sets compiled in: {}\ninstruction sets found: {}",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::ARCH,
        std::env::consts::OS,
        names(&mut isa::Isa::COMPILED.iter().copied()),
        names(&mut isa::available()),
    )
}

/// The program's commands and arguments.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the program.
pub fn main() -> ExitCode {
    gemmule_common::process::prepare("gemmule");
    let result = match Cli::parse().command {
        Command::Run(command) => command.execute(),
        Command::Batch(command) => command.execute(),
        Command::Eval(command) => command.execute(),
        Command::Score(command) => command.execute(),
        Command::Embed(command) => command.execute(),
        Command::Watch(command) => command.execute(),
        Command::Inspect(command) => command.execute(),
        Command::Trace(command) => command.execute(),
        Command::Bench(command) => command.execute(),
        Command::Calibrate(command) => command.execute(),
        Command::Compare(command) => command.execute(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(WrongUsage(message)) = error.downcast_ref() {
                refuse(message);
            }
            print_note(&format!("gemmule: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Ends the program as clap does for arguments that do not go together.
fn refuse(message: &str) -> ! {
    let mut program = Cli::command();
    program.build();
    let name = std::env::args_os().nth(1).unwrap_or_default();
    let command = program.find_subcommand_mut(name).expect("the command that runs");
    command.error(clap::error::ErrorKind::ArgumentConflict, message).exit()
}
