//! The work itself: read a chunk of rows, encode it, write it, tensor after tensor.

use std::cell::RefCell;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::Path;
use std::thread::ScopedJoinHandle;

use anyhow::{Context, Result, ensure};
use gemmule::CancelHandle;
use gemmule::gguf::writer::{TensorPlan, Writer, planned_size};
use gemmule_common::{files, platform};
use gemmule_quant::{EncodeError, Kernels};
use rayon::prelude::*;

use crate::checkpoint::{Checkpoint, Source};
use crate::plan::{Item, OutputFile, source_of};
use crate::rounding::Rounding;
use crate::summary::{Summary, Total};

/// Values that one task reads and encodes: enough that its start is cheap, few enough that all threads end together.
const CHUNK: usize = 1 << 18;
/// Chunks per thread in a batch. One batch is made while the one before it is written.
const CHUNKS_AT_ONCE: usize = 16;
/// Values that are read and encoded in one go: they and what becomes of them stay in a core's own cache.
const PIECE: usize = 1 << 14;

/// Encoded rows and what is known of them.
pub(crate) struct Made {
    pub(crate) bytes: Vec<u8>,
    pub(crate) total: Total,
}

/// Makes the rows of tensors.
pub(crate) trait Maker: Sync {
    /// Gets ready for the first of `items`, and says how many of them, one at least, can be made then.
    fn prepare(&self, items: &[Item]) -> Result<usize> {
        Ok(items.len())
    }

    /// Rows of a tensor, encoded.
    fn make(&self, item: &Item, rows: Range<usize>) -> Result<Made>;
}

/// A check that runs in parallel with the work.
pub(crate) type Check<'scope> = ScopedJoinHandle<'scope, Result<()>>;

/// How far a conversion has come.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Progress<'a> {
    /// Bytes of the outputs that are written.
    pub done: u64,
    /// Bytes that the outputs will have.
    pub total: u64,
    /// The tensor that was written last.
    pub tensor: &'a str,
}

/// Follows a conversion, and may end it.
#[derive(Default)]
pub struct Watcher<'a> {
    /// Ends the conversion, from any thread; nothing is left of it then.
    pub cancel: CancelHandle,
    /// Called for each part that is written.
    pub progress: Option<&'a mut (dyn FnMut(Progress<'_>) + Send)>,
}

impl std::fmt::Debug for Watcher<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Watcher").field("cancel", &self.cancel).finish_non_exhaustive()
    }
}

/// Rows of a checkpoint, each rounded by itself.
pub(crate) struct Plain<'a> {
    kernels: Kernels,
    pub(crate) checkpoint: &'a Checkpoint,
}

impl<'a> Plain<'a> {
    pub(crate) fn new(checkpoint: &'a Checkpoint) -> Result<Self> {
        Ok(Self { kernels: Kernels::select(None)?, checkpoint })
    }
}

impl Plain<'_> {
    /// Rows of a tensor as they are before they are encoded.
    pub(crate) fn rows(&self, item: &Item, rows: Range<usize>) -> Result<Vec<f32>> {
        let mut scratch = Scratch::default();
        read_rows(self.checkpoint, item, source_of(self.checkpoint, item)?, rows, &mut scratch)?;
        Ok(scratch.values)
    }
}

impl Maker for Plain<'_> {
    fn make(&self, item: &Item, rows: Range<usize>) -> Result<Made> {
        self.encode(item, source_of(self.checkpoint, item)?, rows, None)
    }
}

/// Writes files whose tensors `maker` makes; each appears under its name when all are complete and `check` has succeeded.
pub(crate) fn write(
    outputs: &[OutputFile],
    maker: &dyn Maker,
    watcher: &mut Watcher<'_>,
    check: Option<Check<'_>>,
) -> Result<Summary> {
    let Watcher { cancel, progress } = watcher;
    let mut watch = Watch { cancel, check };

    let plans: Vec<Vec<TensorPlan>> =
        outputs.iter().map(|output| output.items.iter().map(TensorPlan::from).collect()).collect();
    let sizes = outputs.iter().zip(&plans).map(|(output, plan)| planned_size(&output.metadata, plan));
    let total = sizes.sum();
    check_space(&outputs[0].path, total)?;
    let mut summary = Summary::default();
    let mut done = 0;
    let mut finished = Vec::new();
    for (output, plan) in outputs.iter().zip(plans) {
        let context = || output.path.display().to_string();
        let file = files::OutputFile::create(&output.path).with_context(context)?;
        let (mut writer, _) =
            Writer::new(BufWriter::new(WriteBehind::new(file)), &output.metadata, plan).with_context(context)?;
        let mut store = |item: &Item, made: Made| {
            done += made.bytes.len() as u64;
            if let Some(progress) = progress {
                progress(Progress { done, total, tensor: &item.name });
            }
            summary.totals.entry((item.class, item.format)).or_default().add(&made.total);
            writer.write(&made.bytes).with_context(context)
        };
        write_tensors(&output.items, maker, &mut watch, &mut store)?;
        let buffered = writer.finish().with_context(context)?;
        let file = buffered.into_inner().map_err(std::io::IntoInnerError::into_error).with_context(context)?;
        finished.push((file.file, &output.path));
    }
    watch.finish()?;
    for (file, path) in finished {
        let context = || path.display().to_string();
        let bytes = file.as_file().metadata().with_context(context)?.len();
        file.finish().with_context(context)?;
        summary.add_file(path.clone(), bytes);
    }
    Ok(summary)
}

/// A file that the system begins to store while more is written, so that little is left to wait for at its end.
struct WriteBehind {
    file: files::OutputFile,
    written: u64,
    begun: u64,
}

impl WriteBehind {
    /// Bytes whose storing is begun together.
    const STEP: u64 = 32 << 20;

    fn new(file: files::OutputFile) -> Self {
        Self { file, written: 0, begun: 0 }
    }
}

impl Write for WriteBehind {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.written += count as u64;
        if self.written - self.begun >= Self::STEP {
            platform::begin_to_store(self.file.as_file(), self.begun, self.written - self.begun);
            self.begun = self.written;
        }
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// What ends a conversion early.
struct Watch<'a, 'scope> {
    cancel: &'a CancelHandle,
    check: Option<Check<'scope>>,
}

impl Watch<'_, '_> {
    /// Fails once the conversion was cancelled, or the check has failed.
    fn go_on(&mut self) -> Result<()> {
        ensure!(!self.cancel.is_cancelled(), "interrupted; nothing was changed");
        if let Some(check) = self.check.take_if(|check| check.is_finished()) {
            check.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(())
    }

    /// As [`go_on`](Self::go_on), when the check has ended.
    fn finish(&mut self) -> Result<()> {
        self.go_on()?;
        let check = self.check.take().map(ScopedJoinHandle::join);
        check.map_or(Ok(()), |check| check.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }
}

/// Fails before the work where the disk cannot hold the result.
fn check_space(path: &Path, needed: u64) -> Result<()> {
    let directory = files::directory_of(path);
    let Some(free) = platform::free_space(directory) else { return Ok(()) };
    ensure!(
        needed <= free,
        "{}: the output needs {} MB, the disk has {} MB left: make room, or name another place (checkpoints that are run are converted into GEMMULE_CACHE)",
        directory.display(),
        needed.div_ceil(1_000_000),
        free / 1_000_000
    );
    Ok(())
}

/// Makes tensors and hands their bytes to `store` in order.
fn write_tensors(
    items: &[Item],
    maker: &dyn Maker,
    watch: &mut Watch<'_, '_>,
    store: &mut (impl FnMut(&Item, Made) -> Result<()> + Send),
) -> Result<()> {
    let mut made = Vec::new();
    let mut rest = items;
    while !rest.is_empty() {
        watch.go_on()?;
        let (ready, later) = rest.split_at(maker.prepare(rest)?);
        rest = later;
        let chunks: Vec<(&Item, Range<usize>)> = ready.iter().flat_map(chunks_of).collect();
        for batch in chunks.chunks(rayon::current_num_threads() * CHUNKS_AT_ONCE) {
            watch.go_on()?;
            // One batch is written while the next is made, whichever tensors they belong to.
            let (written, next) = rayon::join(
                || made.drain(..).try_for_each(|(item, chunk)| store(item, chunk)),
                || batch.par_iter().map(|(item, rows)| Ok((*item, maker.make(item, rows.clone())?))).collect(),
            );
            written?;
            let next: Result<Vec<_>> = next;
            made = next?;
        }
    }
    made.into_iter().try_for_each(|(item, chunk)| store(item, chunk))
}

/// A tensor's rows in parts that one task makes.
fn chunks_of(item: &Item) -> impl Iterator<Item = (&Item, Range<usize>)> {
    let at_once = (CHUNK / item.columns).clamp(1, item.rows);
    (0..item.rows).step_by(at_once).map(move |first| (item, first..item.rows.min(first + at_once)))
}

/// What one thread works with, kept from chunk to chunk: new memory would have to be cleared each time.
#[derive(Default)]
struct Scratch {
    bytes: Vec<u8>,
    present: Vec<f32>,
    values: Vec<f32>,
}

impl Plain<'_> {
    /// Reads, transforms and encodes rows, with the help of a rounding where there is one.
    pub(crate) fn encode(
        &self,
        item: &Item,
        source: &Source,
        rows: Range<usize>,
        rounding: Option<&Rounding>,
    ) -> Result<Made> {
        thread_local!(static SCRATCH: RefCell<Scratch> = RefCell::default());
        let Self { kernels, checkpoint } = self;
        let row_bytes = item.format.row_bytes(item.columns).context("the plan has rows of whole blocks")?;
        let mut bytes = vec![0; rows.len() * row_bytes];
        let mut total =
            Total { weights: (rows.len() * item.columns) as u64, bytes: bytes.len() as u64, ..Total::default() };
        // A rounding takes many rows at a time, in tasks of its own; its thread may begin with other rows meanwhile.
        let rows_at_once = if rounding.is_some() { rows.len() } else { (PIECE / item.columns).max(1) };
        let mut scratch = SCRATCH.take();
        for (index, out) in bytes.chunks_mut(rows_at_once * row_bytes).enumerate() {
            let first = rows.start + index * rows_at_once;
            read_rows(checkpoint, item, source, first..first + out.len() / row_bytes, &mut scratch)?;
            let encoded = match rounding {
                None => kernels.encode_row(item.format, &scratch.values, out),
                Some(rounding) => rounding.round(item.format, &scratch.values, out),
            };
            if let Err(error) = encoded {
                let (row, error) = match error {
                    EncodeError::NotFinite(at) => (at / item.columns, EncodeError::NotFinite(at % item.columns)),
                    other => (0, other),
                };
                let (path, name) = (checkpoint.path(source).display(), &source.name);
                return Err(error).with_context(|| format!("{path}: tensor '{name}', row {}", first + row));
            }
            let (error, square) = kernels.squared_error(item.format, out, &scratch.values);
            total.squared_error += error;
            total.squared += square;
        }
        SCRATCH.set(scratch);
        Ok(Made { bytes, total })
    }
}

/// Fills `scratch.values` with rows as they are to be encoded.
fn read_rows(
    checkpoint: &Checkpoint,
    item: &Item,
    source: &Source,
    rows: Range<usize>,
    scratch: &mut Scratch,
) -> Result<()> {
    let (first, count) = (rows.start, rows.len());
    let Scratch { bytes, present, values, .. } = scratch;
    let (filled_rows, filled_columns) = item.filled();
    let present_rows = filled_rows.saturating_sub(first).min(count);
    values.resize(count * item.columns, 0.0);
    if filled_columns == item.columns {
        let (read, rest) = values.split_at_mut(present_rows * item.columns);
        checkpoint.read_into(source, first * item.columns, read, bytes)?;
        rest.fill(0.0);
    } else {
        present.resize(present_rows * filled_columns, 0.0);
        checkpoint.read_into(source, first * filled_columns, present, bytes)?;
        values.fill(0.0);
        for (row, present) in values.chunks_exact_mut(item.columns).zip(present.chunks_exact(filled_columns)) {
            row[..filled_columns].copy_from_slice(present);
        }
    }
    if item.plus_one {
        values.iter_mut().for_each(|value| *value += 1.0);
    }
    Ok(())
}
