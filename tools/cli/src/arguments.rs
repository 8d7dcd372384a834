//! Arguments that several commands have.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use gemmule::gguf::GgufFile;
use gemmule::{CancelHandle, MOST_THREADS, Model, Picture, Session, SessionOptions};
use gemmule_quant::{Format, Kernels};
use gemmule_quantize::{is_checkpoint, parse_format};

use crate::cache::Cached;
use crate::output::print_note;

/// Arguments that do not go together: the program ends as it does for those that cannot be read.
#[derive(Debug)]
pub(super) struct WrongUsage(pub(super) &'static str);

impl std::fmt::Display for WrongUsage {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.0)
    }
}

impl std::error::Error for WrongUsage {}

/// Which model to open.
#[derive(Args, Clone)]
pub(super) struct ModelArguments {
    /// A GGUF file; or a checkpoint, which is converted once: its directory, its name in Hugging Face's local cache
    /// (google/paligemma2-3b-mix-224), or an .npz file of big_vision. Without it the bundled easy-VQA model answers.
    #[arg(short, long, value_name = "MODEL")]
    model: Option<PathBuf>,
    /// Type that a checkpoint's matrices are converted to, as for gemmule-quantize [default: q4_0; for calibrate q8_0].
    #[arg(long = "type", value_name = "TYPE", requires = "model", value_parser = parse_format)]
    body: Option<Format>,
    /// The vision half, where MODEL is a GGUF file that holds the text half only.
    #[arg(long, value_name = "FILE", requires = "model")]
    pub(super) mmproj: Option<PathBuf>,
    /// Keep the files in memory, so that no answer waits for the disk when memory is short.
    #[arg(long, requires = "model")]
    mlock: bool,
    /// Read the files into memory in place of mapping them: for files that may be written or shortened meanwhile.
    #[arg(long, requires = "model")]
    no_mmap: bool,
}

/// What to show the model.
#[derive(Args, Clone)]
pub(super) struct ImageArguments {
    /// A picture: JPEG, PNG, WebP, GIF, BMP or TIFF; - is stdin. Several are shown to the model in order.
    #[arg(short, long = "image", value_name = "IMAGE", required = true)]
    images: Vec<PathBuf>,
    /// Take IMAGE as a file of an animated GIF or WebP, or as a directory of pictures, and show N frames of it, evenly spaced.
    #[arg(long, value_name = "N", value_parser = parse_frames)]
    frames: Option<usize>,
    /// Refuse damaged pictures. Without this they are read as far as they go, with a note.
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

fn parse_isa(name: &str) -> Result<String, gemmule_quant::isa::IsaError> {
    Kernels::select(Some(name)).map(|_| name.to_owned())
}

/// How to compute.
#[derive(Args, Clone)]
pub(super) struct ComputeArguments {
    /// Threads [default: the physical cores this process may use].
    #[arg(short, long, value_name = "N", value_parser = parse_threads)]
    pub(super) threads: Option<usize>,
    /// Threads that generate tokens after the first [default: as --threads].
    #[arg(long, value_name = "N", value_parser = parse_threads)]
    generation_threads: Option<usize>,
    /// Instruction set; `gemmule --version` lists them [default: the environment's GEMMULE_ISA, else the best].
    #[arg(long, value_name = "NAME", value_parser = parse_isa)]
    isa: Option<String>,
}

impl ModelArguments {
    pub(super) fn open(&self) -> Result<Model> {
        let model = match self.named() {
            Some(named) => named.open(self.no_mmap)?,
            None => bundled()?,
        };
        if self.mlock {
            model.lock()?;
        }
        Ok(model)
    }

    fn named(&self) -> Option<NamedModel<'_>> {
        let mmproj = self.mmproj.as_deref();
        self.model.as_ref().map(|model| NamedModel { model, body: self.body, mmproj })
    }

    /// The files that are read.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        self.model.iter().chain(&self.mmproj).map(PathBuf::as_path)
    }

    /// With another type for a checkpoint, where none was asked for.
    pub(super) fn or_type(mut self, body: Format) -> Self {
        if self.model.as_ref().is_some_and(|model| is_checkpoint(model)) {
            self.body = self.body.or(Some(body));
        }
        self
    }

    /// The files that are run, a checkpoint's in the cache included; open the model first.
    ///
    /// # Errors
    /// When it is no model of a file, or its files are not to be mapped.
    pub(super) fn paths(&self) -> Result<Vec<PathBuf>> {
        if self.no_mmap {
            bail!(WrongUsage("--sensitivity maps the model's files: leave --no-mmap out"));
        }
        let named = self.named().context("the bundled model is no file: name one with --model")?;
        Ok(match named.cached()? {
            Some(cached) => vec![cached.path().to_owned()],
            None => self.files().map(Path::to_owned).collect(),
        })
    }

    pub(super) fn name(&self) -> String {
        self.named().map_or("bundled easy-VQA model".to_owned(), |named| named.to_string())
    }
}

/// A model that an argument names.
pub(super) struct NamedModel<'a> {
    /// A GGUF file, or a checkpoint.
    pub(super) model: &'a Path,
    /// The type that a checkpoint's matrices are converted to; Q4_0, unless told otherwise.
    pub(super) body: Option<Format>,
    /// The vision half that goes with a GGUF file.
    pub(super) mmproj: Option<&'a Path>,
}

impl NamedModel<'_> {
    /// Maps the files, or copies them into memory. A checkpoint is converted first, where it has not been before.
    pub(super) fn open(&self, copy: bool) -> Result<Model> {
        if let Some(cached) = self.cached()? {
            let file = cached.open()?;
            return Ok(if copy { Model::copy(&[cached.path()])? } else { Model::from_files(vec![file])? });
        }
        Ok(match self.mmproj {
            _ if copy => Model::copy(&[self.model].into_iter().chain(self.mmproj).collect::<Vec<_>>())?,
            Some(mmproj) => Model::open_pair(self.model, mmproj)?,
            None => Model::open(self.model)?,
        })
    }

    /// Maps the file that is named, or that a checkpoint is converted to.
    pub(super) fn file(&self) -> Result<GgufFile> {
        match self.cached()? {
            Some(cached) => cached.open(),
            None => Ok(GgufFile::open(self.model)?),
        }
    }

    /// The place in the cache, where a checkpoint is named.
    fn cached(&self) -> Result<Option<Cached>> {
        if !is_checkpoint(self.model) {
            if self.body.is_some() {
                bail!(WrongUsage(
                    "--type says what a checkpoint is converted to (--other-type and --against-type, too): the model named is a file of a type already"
                ));
            }
            return Ok(None);
        }
        if self.mmproj.is_some() {
            bail!(WrongUsage("--mmproj goes with a GGUF file: a checkpoint has both halves"));
        }
        Cached::of(self.model, self.body()).map(Some)
    }

    fn body(&self) -> Format {
        self.body.unwrap_or(Format::Q4_0)
    }
}

impl std::fmt::Display for NamedModel<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}", self.model.display())?;
        if is_checkpoint(self.model) { write!(out, " ({})", self.body()) } else { Ok(()) }
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
    pub(super) fn session(&self, model: &Model) -> Result<Session> {
        self.session_until(model, CancelHandle::default())
    }

    /// A session that `cancel` ends.
    pub(super) fn session_until(&self, model: &Model, cancel: CancelHandle) -> Result<Session> {
        Ok(Session::new(model, &self.options().cancel(cancel))?)
    }

    pub(super) fn options(&self) -> SessionOptions {
        SessionOptions::new().threads(self.threads).generation_threads(self.generation_threads).isa(self.isa.as_deref())
    }
}

impl ImageArguments {
    /// The files that are read.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        self.images.iter().map(PathBuf::as_path)
    }

    pub(super) fn open(&self) -> Result<Vec<Picture>> {
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
    pub(super) fn is_single(&self) -> bool {
        self.images.len() == 1 && self.frames.is_none_or(|frames| frames == 1)
    }
}

pub(super) fn open_pictures(paths: &[PathBuf]) -> Result<Vec<Picture>> {
    let open = |path: &PathBuf| {
        Ok(if path == Path::new("-") { Picture::read("stdin", std::io::stdin().lock())? } else { Picture::open(path)? })
    };
    paths.iter().map(open).collect()
}
