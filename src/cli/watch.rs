use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
use gemmule::image::{Camera, CameraFormat, CameraOptions};
use gemmule::image::{
    FrameLayout, FrameShape, FrameStream, Matrix, PixelFormat, Range, StreamFormat, StreamFrame, pictures_in,
};
use gemmule::{CancelHandle, GenerateOptions, Model, Picture, Session};
use serde_json::{Value, json};

use super::answers::{self, FormArguments, Found, ObjectArguments, ProbabilityArguments};
use super::rows::open_regular;
use super::{ComputeArguments, ModelArguments, end_with, print_json, print_note, wrong_usage};

/// Answer a prompt about every frame that a camera or film sends, as fast as the machine can.
///
/// SOURCE is a camera such as /dev/video0, a file, a FIFO, "-" for stdin, or a directory that pictures are put into. A stream is
/// Motion JPEG or YUV4MPEG2, which tell themselves what they are, or raw frames with --format and --size. While a frame is answered newer ones come in;
/// the newest is answered next, and those before it are dropped and counted.
///
/// Each answer is a line of JSON: "frame" (its number from 0), of a directory "file", "time" (when it came, in seconds since 1970), "latency" (from then
/// to the answer, in milliseconds), "dropped" (so far) and what `run --json` prints but for "prompt" and "timings"; or "error" for
/// a frame that is damaged.
/// Ends with the stream, and in order when it is interrupted.
///
/// A film: ffmpeg -loglevel error -i FILM -pix_fmt yuv420p -f yuv4mpegpipe - | gemmule watch - --every-frame -p "caption en"
#[derive(Args)]
pub(super) struct Watch {
    /// Camera, file, FIFO, directory, or "-" for stdin.
    #[arg(default_value = "-")]
    source: PathBuf,
    #[command(flatten)]
    model: ModelArguments,
    /// What to ask about every frame.
    #[arg(short, long)]
    prompt: String,
    /// mjpeg, y4m, or how raw frames' bytes stand for pixels: rgb8, bgr8, rgba8, bgra8, mono8, yuyv, uyvy, nv12, i420, i422, i444. Of a
    /// camera: what it is to send [default: raw frames if it has them].
    #[arg(long, value_name = "NAME", value_parser = parse_format)]
    format: Option<Format>,
    /// Size of raw frames in pixels, such as 640x480. Of a camera: what it is to send [default: as it is set].
    #[arg(long, value_name = "WIDTHxHEIGHT", value_parser = parse_size)]
    size: Option<(u32, u32)>,
    /// Where rows of raw frames lie [default: rows touch, or v4l2 with --row-step].
    #[arg(long, value_enum, value_name = "NAME", requires = "size")]
    layout: Option<Layout>,
    /// Bytes from the beginning of one row of raw frames to that of the next; of the first plane where there are several.
    #[arg(long, value_name = "BYTES", requires = "size")]
    row_step: Option<usize>,
    /// The same of the planes of colours [default: as the layout says].
    #[arg(long, value_name = "BYTES", requires = "size")]
    chroma_step: Option<usize>,
    /// Whose weights YUV has: bt601, bt709 or bt2020 [default: bt601 up to 576 rows, bt709 above].
    #[arg(long, value_name = "NAME", value_parser = parse_matrix)]
    matrix: Option<Matrix>,
    /// Which numbers YUV has: limited (16 to 235) or full (0 to 255) [default: what the stream says, else limited].
    #[arg(long, value_name = "NAME", value_parser = parse_range)]
    range: Option<Range>,
    /// Look at a part of each frame only: its left and upper edge, width and height in pixels. Boxes stay those of the frame.
    #[arg(long, value_name = "LEFT,TOP,WIDTH,HEIGHT", value_parser = parse_region)]
    region: Option<[u32; 4]>,
    /// Time for each frame in milliseconds, from its coming on; an answer that takes longer is cut short.
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

/// Conventions of raw frames.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Layout {
    /// Rows touch (ffmpeg's rawvideo).
    Tight,
    /// Rows of every plane are padded to four bytes.
    Gstreamer,
    /// Rows are --row-step bytes apart, those of colours in proportion.
    V4l2,
}

fn parse_name<T: Copy>(names: &[(&str, T)], text: &str) -> Result<T, String> {
    let known: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
    let found = names.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
    found.ok_or_else(|| format!("choose one of {}", known.join(", ")))
}

fn parse_matrix(text: &str) -> Result<Matrix, String> {
    parse_name(&Matrix::NAMES, text)
}

fn parse_range(text: &str) -> Result<Range, String> {
    parse_name(&Range::NAMES, text)
}

#[derive(Clone, Copy)]
enum Format {
    Mjpeg,
    Y4m,
    Raw(PixelFormat),
}

fn parse_format(text: &str) -> Result<Format, String> {
    let raw = || PixelFormat::NAMES.iter().find(|(name, _)| *name == text).map(|(_, format)| Format::Raw(*format));
    match text {
        "mjpeg" => Ok(Format::Mjpeg),
        "y4m" => Ok(Format::Y4m),
        _ => raw().ok_or_else(|| "choose one of those that --help lists".to_owned()),
    }
}

fn parse_size(text: &str) -> Result<(u32, u32), String> {
    let size = text.split_once('x').and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)));
    size.ok_or_else(|| "give width and height, such as 640x480".to_owned())
}

fn parse_region(text: &str) -> Result<[u32; 4], String> {
    let numbers: Option<Vec<u32>> = text.split(',').map(|number| number.parse().ok()).collect();
    let region: Option<[u32; 4]> = numbers.and_then(|numbers| numbers.try_into().ok());
    region
        .filter(|[.., width, height]| *width > 0 && *height > 0)
        .ok_or_else(|| "give left, top, width and height in pixels, such as 0,120,640,240".to_owned())
}

/// What frames come from.
enum Input {
    Directory,
    Stream(Option<StreamFormat>),
    #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
    Camera(CameraOptions),
}

/// A frame that has come.
struct Arrived {
    number: u64,
    at: Instant,
    time: SystemTime,
    frame: Source,
}

impl Arrived {
    fn now(number: u64, frame: Source) -> Self {
        Self { number, at: Instant::now(), time: SystemTime::now(), frame }
    }
}

enum Source {
    Stream(StreamFrame),
    File(PathBuf),
}

impl Source {
    fn to_picture(&self) -> Result<Picture> {
        match self {
            Self::Stream(frame) => Ok(frame.to_picture()?),
            Self::File(path) => open_regular(path),
        }
    }
}

/// Between the reader and the one who answers: room for the newest frame.
#[derive(Default)]
struct Slot {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    newest: Option<Arrived>,
    dropped: u64,
    /// The source has ended, in order or not.
    over: Option<Result<()>>,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the newest frame in the place of the one before; with `wait`, only once that was taken.
    fn put(&self, arrived: Arrived, wait: bool) {
        let mut state = self.lock();
        while wait && state.newest.is_some() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.dropped += u64::from(state.newest.is_some());
        state.newest = Some(arrived);
        self.changed.notify_all();
    }

    /// The newest frame and how many were dropped so far; none when the source has ended or `stop` is set.
    fn take(&self, stop: &CancelHandle) -> Option<(Arrived, u64)> {
        let mut state = self.lock();
        loop {
            if stop.is_cancelled() {
                return None;
            }
            if let Some(arrived) = state.newest.take() {
                self.changed.notify_all();
                return Some((arrived, state.dropped));
            }
            if state.over.is_some() {
                return None;
            }
            // A signal does not wake us.
            let waited = self.changed.wait_timeout(state, Duration::from_millis(50));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Watch {
    pub(super) fn execute(self) -> Result<()> {
        let input = self.input();
        self.form.constraint().map_or(Ok(()), |constraint| constraint.check())?;
        let model = self.model.open()?;
        let stop = CancelHandle::default();
        let mut session = self.compute.session_until(&model, stop.clone())?;
        end_with(&stop)?;

        let slot = Arc::new(Slot::default());
        let (shared, source, every) = (Arc::clone(&slot), self.source.clone(), self.every_frame);
        // It may wait for a source that sends nothing for ever, so nobody waits for it.
        let reader = std::thread::Builder::new().spawn(move || {
            let result = match input {
                Input::Directory => follow(&source, &shared, every),
                Input::Stream(format) => read(&source, format, &shared, every),
                #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
                Input::Camera(options) => film(&source, &options, &shared),
            };
            shared.lock().over = Some(result);
            shared.changed.notify_all();
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

    fn input(&self) -> Input {
        #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
        if Camera::is_one(&self.source) {
            let format = self.format.map(|format| match format {
                Format::Raw(format) => CameraFormat::Raw(format),
                Format::Mjpeg => CameraFormat::Jpeg,
                Format::Y4m => {
                    wrong_usage("a camera sends no y4m: leave --format out, or choose mjpeg or a raw format")
                }
            });
            if self.every_frame {
                wrong_usage("--every-frame is for films: a camera does not wait");
            }
            if self.row_step.is_some() || self.chroma_step.is_some() || self.layout.is_some() {
                wrong_usage(
                    "--layout, --row-step and --chroma-step are for raw frames of other sources: a camera tells its own",
                );
            }
            if self.matrix.is_some() || self.range.is_some() {
                wrong_usage("--matrix and --range are for other sources: a camera tells its own");
            }
            return Input::Camera(CameraOptions { format, size: self.size });
        }
        let format = self.stream_format();
        if self.source.is_dir() { Input::Directory } else { Input::Stream(format) }
    }

    fn stream_format(&self) -> Option<StreamFormat> {
        let y4m = StreamFormat::Y4m { matrix: self.matrix, range: self.range };
        let has_colours = self.matrix.is_some() || self.range.is_some();
        match (self.format, self.size) {
            (Some(Format::Raw(format)), Some(size)) => Some(StreamFormat::Raw(self.shape(format, size))),
            (Some(Format::Raw(_)), None) => wrong_usage("raw frames need --size WIDTHxHEIGHT"),
            (_, Some(_)) => wrong_usage("--size is for raw frames: name their --format, such as rgb8"),
            (Some(Format::Y4m), None) => Some(y4m),
            (_, None) if has_colours => {
                wrong_usage("--matrix and --range are for raw frames and --format y4m: JPEG pictures have their own")
            }
            (Some(Format::Mjpeg), None) => Some(StreamFormat::Mjpeg),
            (None, None) => None,
        }
    }

    /// How raw frames lie.
    fn shape(&self, format: PixelFormat, size: (u32, u32)) -> FrameShape {
        let shape = match (self.layout, self.row_step) {
            (None | Some(Layout::Tight), None) => FrameShape::tight(format, size),
            (Some(Layout::Gstreamer), None) => FrameShape::gstreamer(format, size),
            (Some(Layout::V4l2), None) => wrong_usage("--layout v4l2 needs --row-step, the camera's bytesperline"),
            (None | Some(Layout::V4l2), Some(row_step)) => match self.chroma_step {
                // Both steps are told: nothing is in proportion.
                Some(_) => FrameShape::tight(format, size)
                    .map(|shape| FrameShape { layout: FrameLayout { row_step, ..shape.layout }, ..shape }),
                None => FrameShape::v4l2(format, size, row_step),
            },
            (Some(_), Some(_)) => wrong_usage("--row-step goes with --layout v4l2, or with none"),
        };
        let shape = shape.map(|mut shape| {
            if let Some(step) = self.chroma_step {
                if shape.layout.chroma_step == 0 {
                    wrong_usage("--chroma-step is for formats with planes of colours: nv12, i420, i422, i444");
                }
                shape.layout.chroma_step = step;
            }
            shape.colours.matrix = self.matrix.unwrap_or(shape.colours.matrix);
            shape.colours.range = self.range.unwrap_or(shape.colours.range);
            shape
        });
        shape.filter(|shape| shape.least_len().is_some()).unwrap_or_else(|| {
            wrong_usage("--size, --row-step and --chroma-step do not fit the format: no side may be zero, rows must fit their steps, and pairs need even widths")
        })
    }

    fn answer(&self, model: &Model, session: &mut Session, arrived: &Arrived) -> Result<Value> {
        let whole = [arrived.frame.to_picture()?];
        if let (true, Some(reason)) = (self.strict, whole[0].damage()) {
            bail!("the frame is damaged: {reason}");
        }
        let part = self.region.map(|[left, top, width, height]| whole[0].crop((left, top), (width, height)));
        let part = part.transpose()?.map(|part| [part]);
        let pictures = part.as_ref().unwrap_or(&whole);
        session.show(pictures)?;
        let options = GenerateOptions {
            max_tokens: self.max_tokens,
            probabilities: true,
            probability_base: self.probabilities.base(),
            constraint: self.form.constraint(),
            deadline: self.budget.map(|budget| arrived.at + Duration::from_millis(budget)),
            ..GenerateOptions::default()
        };
        let answer = session.ask(&self.prompt, &options, |_| ControlFlow::Continue(()))?;
        let mut found = Found::read(&self.objects, session, model, (&answer, pictures))?;
        if let Some([left, top, ..]) = self.region {
            found.move_into(&pictures[0], (left, top), &whole[0]);
        }
        answers::to_json((model, self.probabilities.base()), &answer, &found, &whole)
    }
}

/// Reads a stream to its end.
fn read(path: &Path, format: Option<StreamFormat>, slot: &Slot, every: bool) -> Result<()> {
    let context = || path.display().to_string();
    let reader: Box<dyn BufRead> = if path == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(BufReader::with_capacity(1 << 16, File::open(path).with_context(context)?))
    };
    // Frames would drift apart where their size is not what was told.
    if let (Some(len), Ok(file)) = (format.as_ref().and_then(StreamFormat::frame_len), std::fs::metadata(path))
        && file.is_file()
    {
        ensure!(
            file.len().is_multiple_of(len as u64),
            "{}: its {} bytes are no whole number of frames of {len}: check --size, --format and --layout",
            path.display(),
            file.len()
        );
    }
    let mut stream = FrameStream::new(reader, format).with_context(context)?;
    while let Some(frame) = stream.next_frame().with_context(context)? {
        slot.put(Arrived::now(frame.number(), Source::Stream(frame)), every);
    }
    Ok(())
}

/// A camera that sends nothing for so long has failed.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
const SILENCE: Duration = Duration::from_secs(10);

/// Takes frames from a camera until it is gone.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
fn film(path: &Path, options: &CameraOptions, slot: &Slot) -> Result<()> {
    let mut camera = Camera::open(path, options)?;
    print_note(&format!("{}: {}", path.display(), camera.description()));
    loop {
        let frame = camera.next_frame(SILENCE)?;
        let frame = frame.with_context(|| {
            format!("{}: no usable frame for {} seconds: plug the camera in again", path.display(), SILENCE.as_secs())
        })?;
        slot.put(Arrived::now(frame.number(), Source::Stream(frame)), false);
    }
}

/// How often a directory is looked at, and how many looks a file must have stayed as it is to be whole.
const LOOK: Duration = Duration::from_millis(20);
const SETTLED: u32 = 5;

/// Watches a directory for newer pictures, until it is gone.
fn follow(directory: &Path, slot: &Slot, every: bool) -> Result<()> {
    /// When a file was changed, its length, and for how many looks it has been so.
    type Seen = (SystemTime, u64, u32);
    let mut known: HashMap<PathBuf, Seen> = HashMap::new();
    let (mut number, mut first) = (0, true);
    loop {
        let paths = match pictures_in(directory) {
            // None yet is no error here.
            Err(gemmule::Error::Picture { .. }) => Vec::new(),
            paths => paths?,
        };
        let mut settled = Vec::new();
        for path in &paths {
            let file = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file);
            let Some((changed, length)) = file.and_then(|file| Some((file.modified().ok()?, file.len()))) else {
                continue;
            };
            let looks = known.get(path).filter(|seen| (seen.0, seen.1) == (changed, length));
            let seen = (changed, length, looks.map_or(0, |seen| seen.2.saturating_add(1)));
            known.insert(path.clone(), seen);
            if seen.2 == SETTLED {
                settled.push((changed, path.clone()));
            }
        }
        known.retain(|path, _| paths.binary_search(path).is_ok());
        settled.sort();
        // Of what was there before, the newest.
        if std::mem::take(&mut first) && !every {
            let newest = paths.iter().filter_map(|path| known.get(path).map(|seen| (seen.0, path.clone()))).max();
            for (path, seen) in &mut known {
                let is_newest = newest.as_ref().is_some_and(|newest| newest.1 == *path);
                seen.2 = if is_newest { 0 } else { SETTLED };
            }
        }
        for (_, path) in settled {
            slot.put(Arrived::now(number, Source::File(path)), every);
            number += 1;
        }
        if !directory.is_dir() {
            bail!("{}: the directory is gone", directory.display());
        }
        std::thread::sleep(LOOK);
    }
}
