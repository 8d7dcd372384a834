//! `gemmule calibrate`: what a model's matrices are multiplied with.

mod measure;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use gemmule::gguf::GgufFile;
use gemmule::image::pictures_in;
use gemmule::{CancelHandle, GenerateOptions, Model, Session};
use gemmule_common::files::{OutputFile, directory_of};
use gemmule_common::memory::check_room;
use gemmule_common::platform::free_space;
use gemmule_quant::Format;
use gemmule_quantize::checked_output;
use gemmule_quantize::statistics::{About, Gatherer, Settings, Statistics};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::arguments::{ComputeArguments, ModelArguments};
use crate::interrupt::{end_with, finish_first};
use crate::output::{Resumable, print_note};
use crate::rows::{self, Reading, Seen, Shown, Work};

use self::measure::{Journal, Measurement};

/// How often what was gathered is saved.
const SAVE: Duration = Duration::from_secs(600);

/// Gather what a conversion needs to round well: statistics of the inputs of a model's matrices.
///
/// The model sees your pictures and prompts, and what its matrices are multiplied with is counted. `gemmule-quantize --calibration STATS.gguf`
/// then rounds a checkpoint of this model so that its outputs change little, to the same types, of the same size and speed. Take 64
/// pictures or more, of the kind that the model is for, and a file that rounds little: bf16, f32 or q8_0, which is fastest. A checkpoint is
/// converted to q8_0 unless --type says otherwise.
///
/// Rows are those of `gemmule batch`. With "answers", of which the first counts (or an "answer" or "suffix"), the model runs with that answer, else with
/// its own. Without a manifest every prompt of --prompts is asked about every picture of --images.
///
/// The file has llama.cpp's layout, and `llama-quantize --imatrix` reads it. What is gathered is saved every ten minutes in
/// STATS.gguf.partial; the same command goes on where an interrupted one ended.
#[derive(Args)]
pub(super) struct Calibrate {
    /// Prompts about pictures, and perhaps answers.
    #[arg(long, value_name = "MANIFEST.jsonl", required_unless_present = "images", conflicts_with_all = ["images", "prompts"])]
    manifest: Option<PathBuf>,
    /// A folder of pictures.
    #[arg(long, value_name = "DIRECTORY", requires = "prompts")]
    images: Option<PathBuf>,
    /// A text file with a prompt on each line.
    #[arg(long, value_name = "FILE", requires = "images")]
    prompts: Option<PathBuf>,
    /// The statistics.
    #[arg(short, long, value_name = "STATS.gguf")]
    output: PathBuf,
    /// Gather the products of inputs with each other, too, with which rounding errors make up for each other: far better, and large. They
    /// are gathered in blocks of at most so many inputs, 4096 where no number is given; more of them take more memory, and time of a conversion.
    #[arg(long, value_name = "COLUMNS", num_args = 0..=1, require_equals = true, default_missing_value = "4096",
        value_parser = clap::value_parser!(u32).range(256..=65536))]
    full: Option<u32>,
    /// How many times a token of text counts as much as one of a picture.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = parse_weight)]
    text_weight: f32,
    #[command(flatten)]
    model: ModelArguments,
    /// Measure, too, how far errors of each kind of matrix move answers: `gemmule-quantize --bits` gives every matrix its type by that. It is
    /// measured on so many rows (32 where no number is given), evenly spread, each of which is run about 25 times. The model must be a file of 8
    /// bits or more.
    #[arg(long, value_name = "ROWS", num_args = 0..=1, require_equals = true, default_missing_value = "32", requires = "model",
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    sensitivity: Option<u32>,
    /// Most tokens of the model's own answers, where a row does not say.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 256)]
    max_tokens: usize,
    /// Refuse damaged pictures, which are read as far as they go otherwise.
    #[arg(long)]
    strict: bool,
    /// Replace STATS.gguf, and what an interrupted run of other rows or options, or of another model, has gathered.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    compute: ComputeArguments,
}

fn parse_weight(text: &str) -> Result<f32, String> {
    let weight = text.parse().ok().filter(|weight: &f32| (1e-3..=1e3).contains(weight));
    weight.ok_or_else(|| "choose a number from 0.001 to 1000".to_owned())
}

impl Calibrate {
    pub(super) fn execute(mut self) -> Result<()> {
        // A checkpoint is not to be rounded to 4 bits unasked.
        self.model = self.model.or_type(Format::Q8_0);
        ensure!(self.output != Path::new("-"), "statistics need a file; name one");
        let (manifest, _made) = self.manifest()?;
        let inputs = self.model.files().chain([manifest.as_path()]).chain(self.prompts.as_deref());
        let Resumable { output, partial, journal } = Resumable::new(&self.output, inputs, self.force)?;
        checked_output(&output, self.force)?;
        OutputFile::probe(&partial).with_context(|| format!("cannot write {}", partial.display()))?;
        let seen = rows::look_at_all(&manifest)?;
        let model = self.model.open()?;
        let settings = Settings::new().block(self.full.map(|block| block as usize)).text_weight(self.text_weight);
        let needed = settings.memory(model.config());
        print_note(&format!(
            "gemmule: the statistics take {} MB of memory and as much of the disk",
            needed.div_ceil(1_000_000)
        ));
        check_room(needed, "the statistics")?;
        let free = free_space(directory_of(&output)).unwrap_or(u64::MAX);
        ensure!(needed as u64 <= free, "{}: the disk has {} MB left: make room", output.display(), free / 1_000_000);
        let files = self.sensitivity.map(|_| self.model.paths()).transpose()?.unwrap_or_default();
        for path in &files {
            gemmule_quantize::sensitivity::check(GgufFile::open(path)?.gguf())
                .with_context(|| path.display().to_string())?;
        }

        let mut work = Gathering {
            gatherer: Arc::new(Gatherer::new(settings, self.compute.threads)?),
            about: self.about(&model, &seen)?,
            partial,
            saved: Instant::now(),
        };
        work.go_on(self.force)?;
        if work.about.rows > 0 {
            let (done, total) = (work.about.rows, seen.count);
            print_note(&format!("{done} of {total} rows are in {} already: going on", work.partial.display()));
        }
        let stop = CancelHandle::default();
        // A row is gathered as a whole, or it would count twice when the work goes on.
        let options = self.compute.options().observer(work.gatherer.clone());
        let mut shown = Shown::new(Session::new(&model, &options)?);
        end_with(&stop)?;

        let bar = rows::progress(seen.count, work.about.rows as usize)?;
        let done = std::thread::scope(|scope| -> Result<()> {
            let first = work.about.rows as usize;
            // An earlier run has shown these pictures to the tower.
            let seen_before = first > 0 && rows::is_about_the_same(&manifest, first)?;
            let reading = Reading { path: &manifest, seen, first, strict: self.strict, watcher: &rows::Nobody };
            let rows = rows::read(scope, reading)?;
            while let Some((input, asked)) = rows.next(&stop) {
                let row = work.about.rows;
                let one = || -> Result<()> {
                    let asked = asked?;
                    work.gatherer.begin(asked.pictures.len() * model.config().vision.tokens());
                    work.gatherer.leave_tower_out(seen_before && row as usize == first);
                    self.ask(&model, shown.show(&asked)?, &asked, &input)
                };
                let _whole = finish_first();
                one().and_then(|()| work.gatherer.end()).with_context(|| {
                    format!(
                        "{}: row {row} (what was gathered before is in {})",
                        manifest.display(),
                        work.partial.display()
                    )
                })?;
                work.about.rows += 1;
                bar.inc(1);
                work.save_at_times()?;
            }
            rows.finish()
        });
        bar.finish_and_clear();
        let total = seen.count;
        if done.is_err() || (stop.is_cancelled() && (work.about.rows as usize) < total) {
            return work.stopped(done, total);
        }
        if let Some(rows) = self.sensitivity {
            // It is read again.
            work.gatherer.save(&work.partial, &work.about)?;
            let measurement = Measurement {
                model: &model,
                files,
                gatherer: &work.gatherer,
                statistics: &work.partial,
                manifest: &manifest,
                seen,
                rows: rows as usize,
                strict: self.strict,
                options: self.compute.options().cancel(stop.clone()),
                stop: &stop,
                journal: Journal::open(&journal, json!([work.about.settings, rows])),
            };
            measurement.run(&|session, asked, input| self.answer(&model, session, asked, input))?;
        }
        let _whole = finish_first();
        work.gatherer.save(&output, &work.about)?;
        // What is in it is in the output.
        let _ = std::fs::remove_file(&work.partial);
        let _ = std::fs::remove_file(&journal);
        print_note(&format!("gemmule: wrote {}; gemmule-quantize --calibration takes it", output.display()));
        Ok(())
    }

    /// The rows: a file that was named, or one that is made of pictures and prompts and kept as long as what is returned.
    fn manifest(&self) -> Result<(PathBuf, Option<NamedTempFile>)> {
        let (Some(images), Some(prompts)) = (&self.images, &self.prompts) else {
            let manifest = self.manifest.clone().context("--manifest is missing")?;
            return Ok((manifest, None));
        };
        let text = std::fs::read_to_string(prompts).with_context(|| prompts.display().to_string())?;
        let asked: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        ensure!(!asked.is_empty(), "{}: it has no prompts", prompts.display());
        let mut file = NamedTempFile::new().context("cannot make a file for the rows")?;
        for picture in pictures_in(images)? {
            let picture = picture.canonicalize().with_context(|| picture.display().to_string())?;
            let picture = picture.to_str().with_context(|| format!("{}: its name is not UTF-8", picture.display()))?;
            for prompt in &asked {
                writeln!(file, "{}", json!({ "image": picture, "prompt": prompt }))?;
            }
        }
        file.flush()?;
        Ok((file.path().to_owned(), Some(file)))
    }

    /// What the file will say of itself before the first row.
    fn about(&self, model: &Model, seen: &Seen) -> Result<About> {
        let dataset = self.manifest.as_ref().or(self.images.as_ref()).map(|path| path.display().to_string());
        let settings = json!({
            "weights": model.fingerprint(),
            "rows": seen.to_string(),
            "block": self.full,
            "text_weight": self.text_weight,
            "max_tokens": self.max_tokens,
            "strict": self.strict,
        });
        Ok(About {
            dataset: dataset.unwrap_or_default(),
            rows: 0,
            image_tokens: u32::try_from(model.config().vision.tokens())?,
            settings: settings.to_string(),
        })
    }

    /// Runs a row, with its answer or the model's own.
    fn ask(&self, model: &Model, session: &mut Session, work: &Work, input: &Value) -> Result<()> {
        match given_answer(model, input)? {
            Some(tokens) => Ok(session.follow(&work.row.prompt, &tokens, |_, _| ())?),
            None => self.own_answer(session, work).map(drop),
        }
    }

    /// A row's answer, or the model's own.
    fn answer(&self, model: &Model, session: &mut Session, work: &Work, input: &Value) -> Result<Vec<u32>> {
        given_answer(model, input)?.map_or_else(|| self.own_answer(session, work), Ok)
    }

    fn own_answer(&self, session: &mut Session, work: &Work) -> Result<Vec<u32>> {
        let most = work.row.max_tokens.unwrap_or(self.max_tokens);
        let answer = session.ask(&work.row.prompt, &GenerateOptions::new().max_tokens(most))?;
        Ok(answer.token_ids())
    }
}

/// The answer that a row brings, and its end.
fn given_answer(model: &Model, row: &Value) -> Result<Option<Vec<u32>>> {
    let answers = rows::answers(row)?;
    let Some(answer) = answers.as_ref().and_then(|answers| answers.first()) else { return Ok(None) };
    let tokenizer = model.tokenizer()?;
    let mut tokens = tokenizer.encode(answer)?;
    tokens.extend(tokenizer.special().eos.first());
    Ok(Some(tokens))
}

/// Statistics under way.
struct Gathering {
    gatherer: Arc<Gatherer>,
    about: About,
    /// Where they are saved meanwhile.
    partial: PathBuf,
    saved: Instant,
}

impl Gathering {
    /// Goes on with what an earlier run has saved. With `anew` that of another run is left aside.
    fn go_on(&mut self, anew: bool) -> Result<()> {
        if !self.partial.exists() {
            return Ok(());
        }
        let open = || -> Result<(Statistics, u32)> {
            let held = Statistics::open(&self.partial)?;
            let (settings, rows) = held.progress()?;
            ensure!(
                settings == self.about.settings,
                "{}: it was gathered from other rows, with another model or other options",
                self.partial.display()
            );
            Ok((held, rows))
        };
        let (held, rows) = match open() {
            Ok(found) => found,
            Err(_) if anew => return Ok(()),
            Err(error) => {
                return Err(error.context("--force begins anew; or remove the file that an interrupted run has left"));
            }
        };
        self.gatherer.restore(&held)?;
        self.about.rows = rows;
        Ok(())
    }

    fn save_at_times(&mut self) -> Result<()> {
        if self.saved.elapsed() >= SAVE {
            self.gatherer.save(&self.partial, &self.about)?;
            self.saved = Instant::now();
        }
        Ok(())
    }

    /// Keeps what was gathered before an interruption or an error.
    fn stopped(&self, done: Result<()>, total: usize) -> Result<()> {
        let rows = self.about.rows;
        let _whole = finish_first();
        if rows > 0 {
            self.gatherer.save(&self.partial, &self.about)?;
        }
        done?;
        bail!("interrupted: {rows} of {total} rows are in {}; the same command goes on", self.partial.display())
    }
}
