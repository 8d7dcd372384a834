//! Writes what packages ship beside the programs: completions for shells, and a manual for each command.
//! `cargo run -p gemmule-cli --example shipped -- DIRECTORY`.

use std::path::Path;

use clap_complete::{Shell, generate_to};

fn main() -> std::io::Result<()> {
    let directory = std::env::args_os().nth(1).expect("name a directory");
    let directory = Path::new(&directory);
    std::fs::create_dir_all(directory)?;
    for (name, command) in
        [("gemmule", gemmule_cli::command()), ("gemmule-quantize", gemmule_quantize::program::command())]
    {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            generate_to(shell, &mut command.clone(), name, directory)?;
        }
        // The programs' own manuals are written by hand.
        for part in command.get_subcommands().filter(|part| part.get_name() != "help") {
            let title = format!("{name}-{}", part.get_name());
            let mut page = Vec::new();
            let part = part.clone().name(title.clone()).bin_name(format!("{name} {}", part.get_name()));
            clap_mangen::Man::new(part).render(&mut page)?;
            std::fs::write(directory.join(format!("{title}.1")), page)?;
        }
    }
    Ok(())
}
