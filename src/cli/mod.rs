//! The command line: parsing, then one module per command. Results go to stdout, everything else to stderr.

mod answers;
mod batch;
mod bench;
mod embed;
mod eval;
mod inspect;
mod rows;
mod run;
mod score;
mod trace;
mod watch;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};
use gemmule::quant::isa;
use gemmule::sched::MOST_THREADS;
use gemmule::{CancelHandle, Model, Picture, Session, SessionOptions};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

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
}

/// Which model to open.
#[derive(Args, Clone)]
struct ModelArguments {
    /// GGUF file; without it the bundled easy-VQA model answers.
    #[arg(short, long, value_name = "MODEL.gguf")]
    model: Option<PathBuf>,
    /// The vision half, where MODEL.gguf holds the text half only.
    #[arg(long, value_name = "FILE", requires = "model")]
    mmproj: Option<PathBuf>,
    /// Keep the files in memory, so that no answer waits for the disk when memory is short.
    #[arg(long, requires = "model")]
    mlock: bool,
    /// Read the files into memory in place of mapping them: for files that may be written or shortened meanwhile.
    #[arg(long, requires = "model")]
    no_mmap: bool,
}

/// What to show the model.
#[derive(Args, Clone)]
struct ImageArguments {
    /// A picture: JPEG, PNG, WebP, GIF, BMP or TIFF; - is stdin. Several are shown to the model in order.
    #[arg(short, long = "image", value_name = "IMAGE", required = true)]
    images: Vec<PathBuf>,
    /// Take IMAGE as a file of an animated GIF or WebP, or as a directory of pictures, and show N frames of it, evenly spaced.
    #[arg(long, value_name = "N", value_parser = parse_frames)]
    frames: Option<usize>,
    /// Refuse damaged pictures, which are read as far as they go otherwise, with a note.
    #[arg(long)]
    strict: bool,
}

fn parse_threads(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|threads| (1..=MOST_THREADS).contains(threads))
        .ok_or_else(|| format!("choose a number from 1 to {MOST_THREADS}"))
}

fn parse_frames(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|frames| (1..=4096).contains(frames))
        .ok_or_else(|| "choose a number from 1 to 4096".to_owned())
}

fn parse_isa(name: &str) -> Result<String, isa::IsaError> {
    isa::select(Some(name)).map(|_| name.to_owned())
}

/// How to compute.
#[derive(Args, Clone)]
struct ComputeArguments {
    /// Threads [default: the physical cores this process may use].
    #[arg(short, long, value_name = "N", value_parser = parse_threads)]
    threads: Option<usize>,
    /// Threads that generate tokens after the first [default: as --threads].
    #[arg(long, value_name = "N", value_parser = parse_threads)]
    generation_threads: Option<usize>,
    /// Instruction set; `gemmule --version` lists them [default: the environment's GEMMULE_ISA, else the best].
    #[arg(long, value_name = "NAME", value_parser = parse_isa)]
    isa: Option<String>,
}

impl ModelArguments {
    fn open(&self) -> Result<Model> {
        let model = match (&self.model, &self.mmproj) {
            (Some(_), _) if self.no_mmap => Model::copy(&self.files().collect::<Vec<_>>())?,
            (Some(model), Some(mmproj)) => Model::open_pair(model, mmproj)?,
            (Some(model), None) => Model::open(model)?,
            (None, _) => bundled()?,
        };
        if self.mlock {
            model.lock()?;
        }
        Ok(model)
    }

    /// The files that are read.
    fn files(&self) -> impl Iterator<Item = &Path> {
        self.model.iter().chain(&self.mmproj).map(PathBuf::as_path)
    }

    fn name(&self) -> String {
        self.model.as_ref().map_or("bundled easy-VQA model".to_owned(), |path| path.display().to_string())
    }
}

#[cfg(feature = "bundled-model")]
fn bundled() -> Result<Model> {
    Ok(Model::bundled()?)
}

#[cfg(not(feature = "bundled-model"))]
fn bundled() -> Result<Model> {
    anyhow::bail!("this build has no bundled model; name a file with --model")
}

impl ComputeArguments {
    fn session(&self, model: &Model) -> Result<Session> {
        self.session_until(model, CancelHandle::default())
    }

    /// A session that `cancel` ends.
    fn session_until(&self, model: &Model, cancel: CancelHandle) -> Result<Session> {
        let options = SessionOptions {
            threads: self.threads,
            generation_threads: self.generation_threads,
            isa: self.isa.clone(),
            cancel,
        };
        Ok(Session::new(model, &options)?)
    }
}

impl ImageArguments {
    /// The files that are read.
    fn files(&self) -> impl Iterator<Item = &Path> {
        self.images.iter().map(PathBuf::as_path)
    }

    fn open(&self) -> Result<Vec<Picture>> {
        if let Some(frames) = self.frames {
            let films = self.images.iter().map(|path| gemmule::image::frames(path, frames));
            let films = films.collect::<gemmule::Result<Vec<_>>>()?;
            for (film, path) in films.iter().zip(&self.images) {
                film.iter().try_for_each(|frame| self.check_damage(frame, path))?;
            }
            return Ok(films.concat());
        }
        let pictures = open_pictures(&self.images)?;
        pictures.iter().zip(&self.images).try_for_each(|(picture, path)| self.check_damage(picture, path))?;
        Ok(pictures)
    }

    /// Refuses a damaged picture where that is wanted, else says that it is damaged.
    fn check_damage(&self, picture: &Picture, path: &Path) -> Result<()> {
        if let Some(reason) = picture.damage() {
            let path = path.display();
            ensure!(!self.strict, "{path}: it is damaged: {reason}");
            print_note(&format!(
                "gemmule: note: {path} is damaged ({reason}) and read as far as it goes; --strict refuses it"
            ));
        }
        Ok(())
    }

    /// Whether the model is sure to see one picture only.
    fn is_single(&self) -> bool {
        self.images.len() == 1 && self.frames.is_none_or(|frames| frames == 1)
    }
}

/// Tensors for a safetensors file.
#[derive(Default)]
struct Tensors<'a>(HashMap<&'a str, (Dtype, Vec<usize>, &'a [u8])>);

impl<'a> Tensors<'a> {
    fn floats(&mut self, name: &'a str, shape: Vec<usize>, values: &'a [f32]) {
        self.0.insert(name, (Dtype::F32, shape, bytemuck::cast_slice(values)));
    }

    fn integers(&mut self, name: &'a str, values: &'a [i64]) {
        self.0.insert(name, (Dtype::I64, vec![values.len()], bytemuck::cast_slice(values)));
    }

    fn write(self, output: &answers::Output<'_>) -> Result<()> {
        let views =
            self.0.into_iter().map(|(name, (kind, shape, bytes))| Ok((name, TensorView::new(kind, shape, bytes)?)));
        let bytes = safetensors::serialize(views.collect::<Result<HashMap<_, _>>>()?, None)?;
        output.write(&bytes)
    }
}

fn open_pictures(paths: &[PathBuf]) -> Result<Vec<Picture>> {
    let open = |path: &PathBuf| {
        Ok(if path == Path::new("-") { Picture::read("stdin", std::io::stdin().lock())? } else { Picture::open(path)? })
    };
    paths.iter().map(open).collect()
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

pub(crate) fn main() -> ExitCode {
    gemmule::process::prepare("gemmule");
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
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            print_note(&format!("gemmule: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Ends the program as clap does for arguments that do not go together.
fn wrong_usage(message: &str) -> ! {
    use clap::CommandFactory;
    let mut program = Cli::command();
    program.build();
    let name = std::env::args_os().nth(1).unwrap_or_default();
    let command = program.find_subcommand_mut(name).expect("the command that runs");
    command.error(clap::error::ErrorKind::ArgumentConflict, message).exit()
}

/// Whoever read stdout has had enough: no failure of ours.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Prints one JSON object on a line of stdout.
fn print_json(value: &serde_json::Value) -> Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, value).map_err(std::io::Error::from)?;
    writeln!(out)?;
    Ok(out.flush()?)
}

/// Prints a line of text to stdout.
fn print_line(text: &str) -> Result<()> {
    use std::io::Write;
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

/// Prints a line to stderr, where somebody may read it.
fn print_note(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Ends work in order at the first interruption, and the program at the second: whoever asks twice does not want to wait. It ends soon
/// after the first one, too, where work does not: nobody reads stdout, say.
fn end_with(stop: &CancelHandle) -> Result<()> {
    const PATIENCE: std::time::Duration = std::time::Duration::from_secs(3);
    let handle = stop.clone();
    let handler = move || {
        if handle.is_cancelled() {
            std::process::exit(1);
        }
        handle.cancel();
        // Where there is no memory for it, the second signal has to do.
        let _ = std::thread::Builder::new().spawn(|| {
            std::thread::sleep(PATIENCE);
            std::process::exit(1);
        });
    };
    ctrlc::set_handler(handler).context("cannot watch for interrupts: allow more threads or memory (ulimit -u, -v)")
}

/// The most physical memory this process has held, in bytes.
fn peak_memory() -> Option<u64> {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).ok()?;
    Some(usage.max_rss() as u64 * 1024)
}

/// Memory of this process that is no file's pages, in bytes (Linux).
fn anonymous_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("no /proc").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}
