mod reader;
mod source;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use gemmule::image::Size;
use gemmule::{CancelHandle, GenerateOptions, Model, Session};
use serde_json::{Value, json};

use self::reader::{Arrived, Slot, Source};
use self::source::{FrameArguments, Input};
use crate::answers::{self, FormArguments, Found, ObjectArguments, ProbabilityArguments};
use crate::arguments::{ComputeArguments, ModelArguments};
use crate::interrupt::end_with;
use crate::output::{print_json, print_note};

/// Answer a prompt about every frame that a camera or film sends, as fast as the machine can.
///
/// SOURCE is a camera such as /dev/video0, a file, a FIFO, "-" for stdin, or a directory that pictures are put into. A stream is
/// Motion JPEG or YUV4MPEG2, which are recognized, or raw frames with --format and --size. While a frame is answered, newer ones
/// come in; the newest is answered next, and those before it are dropped and counted.
///
/// Each answer is a line of JSON: "frame" (its number from 0), "file" (for a directory), "time" (when it came, in seconds since 1970),
/// "latency" (from then to the answer, in milliseconds), "dropped" (so far) and what `run --json` prints but for "prompt" and "timings";
/// or "error" for a frame that is damaged.
/// Ends with the stream, and in order when it is interrupted.
///
/// A film: ffmpeg -loglevel error -i FILM -pix_fmt yuv420p -f yuv4mpegpipe - | gemmule watch - --every-frame -p "caption en"
#[derive(Args)]
pub(crate) struct Watch {
    /// Camera, file, FIFO, directory, or "-" for stdin.
    #[arg(default_value = "-")]
    source: PathBuf,
    #[command(flatten)]
    model: ModelArguments,
    /// What to ask about every frame.
    #[arg(short, long)]
    prompt: String,
    #[command(flatten)]
    frames: FrameArguments,
    /// Look at a part of each frame only: its left and upper edge, width and height in pixels. Boxes are still those of the whole frame.
    #[arg(long, value_name = "LEFT,TOP,WIDTH,HEIGHT", value_parser = parse_region)]
    region: Option<[u32; 4]>,
    /// Time for each frame in milliseconds, from its arrival on; an answer that takes longer is cut short.
    #[arg(long, value_name = "MS")]
    budget: Option<u64>,
    /// Answer every frame and let the source wait: for films, and for all pictures of a directory.
    #[arg(long)]
    every_frame: bool,
    /// Most tokens of an answer.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 64)]
    max_tokens: usize,
    #[command(flatten)]
    form: FormArguments,
    #[command(flatten)]
    probabilities: ProbabilityArguments,
    /// Refuse damaged frames, which are read as far as they go otherwise; their lines get "damaged".
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    objects: ObjectArguments,
    #[command(flatten)]
    compute: ComputeArguments,
}

fn parse_region(text: &str) -> Result<[u32; 4], String> {
    let numbers: Option<Vec<u32>> = text.split(',').map(|number| number.parse().ok()).collect();
    let region: Option<[u32; 4]> = numbers.and_then(|numbers| numbers.try_into().ok());
    region
        .filter(|[.., width, height]| *width > 0 && *height > 0)
        .ok_or_else(|| "give left, top, width and height in pixels, such as 0,120,640,240".to_owned())
}

impl Watch {
    pub(crate) fn execute(self) -> Result<()> {
        let input = self.frames.input(&self.source, self.every_frame)?;
        self.form.constraint().map_or(Ok(()), |constraint| constraint.check())?;
        let model = self.model.open()?;
        let stop = CancelHandle::default();
        let mut session = self.compute.session_until(&model, stop.clone())?;
        end_with(&stop)?;

        let slot = Arc::new(Slot::default());
        let (shared, source, every) = (Arc::clone(&slot), self.source.clone(), self.every_frame);
        // The thread may wait for ever for a source that sends nothing, so it is never joined.
        let reader = std::thread::Builder::new().spawn(move || {
            let result = match input {
                Input::Directory => reader::follow(&source, &shared, every),
                Input::Stream(format) => reader::read(&source, format, &shared, every),
                #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
                Input::Camera(options) => reader::film(&source, &options, &shared),
            };
            shared.end(result);
        });
        reader.context("cannot start a thread that reads the frames")?;

        let (start, mut answered, mut failed) = (Instant::now(), 0u64, 0u64);
        while let Some((arrived, dropped)) = slot.take(&stop) {
            let answer = self.answer(&model, &mut session, &arrived);
            if stop.is_cancelled() && answer.is_err() {
                break;
            }
            let mut value = answer.unwrap_or_else(|error| {
                failed += 1;
                json!({ "error": format!("{error:#}") })
            });
            let time = arrived.time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
            (value["frame"], value["time"]) = (json!(arrived.number), json!(time));
            if let Source::File(path) = &arrived.frame {
                value["file"] = json!(path.display().to_string());
            }
            value["latency"] = json!((arrived.at.elapsed().as_secs_f64() * 1e5).round() / 1e2);
            value["dropped"] = json!(dropped);
            print_json(&value)?;
            answered += 1;
        }
        let state = slot.lock();
        let rate = answered as f64 / start.elapsed().as_secs_f64();
        let dropped = state.dropped;
        print_note(&format!(
            "{answered} frames answered, {failed} of them failed, {dropped} dropped, {rate:.1} per second"
        ));
        if stop.is_cancelled() {
            return Ok(());
        }
        if let Some(Err(error)) = &state.over {
            bail!("{error:#}");
        }
        ensure!(answered > 0, "{}: it held no frames", self.source.display());
        ensure!(failed < answered, "{}: every frame failed, see \"error\" in the answers", self.source.display());
        Ok(())
    }

    fn answer(&self, model: &Model, session: &mut Session, arrived: &Arrived) -> Result<Value> {
        let whole = [arrived.frame.to_picture()?];
        if let (true, Some(reason)) = (self.strict, whole[0].damage()) {
            bail!("the frame is damaged: {reason}");
        }
        let part = self.region.map(|[left, top, width, height]| whole[0].crop(left, top, Size::new(width, height)));
        let part = part.transpose()?.map(|part| [part]);
        let pictures = part.as_ref().unwrap_or(&whole);
        session.show(pictures)?;
        let options = GenerateOptions::new()
            .max_tokens(self.max_tokens)
            .probabilities(true)
            .probability_base(self.probabilities.base())
            .constraint(self.form.constraint())
            .deadline(self.budget.map(|budget| arrived.at + Duration::from_millis(budget)));
        let answer = session.ask(&self.prompt, &options)?;
        let mut found = Found::read(&self.objects, session, model, &answer, pictures)?;
        if let Some([left, top, ..]) = self.region {
            found.move_into(&pictures[0], left, top, &whole[0]);
        }
        answers::to_json(model, self.probabilities.base(), &answer, &found, &whole)
    }
}
