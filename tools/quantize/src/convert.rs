//! The work itself: read a stretch of rows, encode it, write it, tensor after tensor.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use gemmule::files;
use gemmule::gguf::writer::{TensorPlan, Writer, planned_size};
use gemmule::quant::{Format, Kernels};
use indicatif::{ProgressBar, ProgressStyle};
use rayon::prelude::*;

use crate::checkpoint::{Checkpoint, Source};
use crate::plan::{Class, Item, OutputFile, source_of};

/// Values that one task reads and encodes: small enough that all threads' tasks stay far below the memory limit.
const STRETCH: usize = 1 << 20;

/// What is known of one class in one format.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Total {
    weights: u64,
    bytes: u64,
    squared_error: f64,
    squared: f64,
}

impl Total {
    /// Of rows without an original that they could differ from.
    pub(crate) fn exact(weights: u64, bytes: u64) -> Self {
        Self { weights, bytes, ..Self::default() }
    }

    fn add(&mut self, other: &Total) {
        self.weights += other.weights;
        self.bytes += other.bytes;
        self.squared_error += other.squared_error;
        self.squared += other.squared;
    }
}

impl Total {
    /// Adds a row's errors. Sums run in eight lanes, so that they are as fast as the encoding.
    fn add_errors(&mut self, exact: &[f32], stored: &[f32]) {
        let (mut error, mut square) = ([0.0f32; 8], [0.0f32; 8]);
        for (exact, stored) in exact.chunks(8).zip(stored.chunks(8)) {
            for (lane, (exact, stored)) in exact.iter().zip(stored).enumerate() {
                error[lane] += (exact - stored) * (exact - stored);
                square[lane] += exact * exact;
            }
        }
        self.squared_error += error.iter().map(|sum| f64::from(*sum)).sum::<f64>();
        self.squared += square.iter().map(|sum| f64::from(*sum)).sum::<f64>();
    }
}

type Totals = BTreeMap<(Class, Format), Total>;

/// Makes the rows of a tensor: `count` rows from `first` on, encoded.
pub(crate) type MakeRows<'a> = dyn Fn(&Item, usize, usize) -> Result<(Vec<u8>, Total)> + Sync + 'a;

/// Converts a checkpoint.
pub(crate) fn convert(checkpoint: &Checkpoint, outputs: &[OutputFile]) -> Result<()> {
    let kernels = gemmule::quant::isa::select(None)?;
    write(outputs, &|item, first, count| {
        encode_stretch(kernels, checkpoint, (item, source_of(checkpoint, item)?), (first, count))
    })
}

/// Writes files whose tensors `make` makes; each appears under its name when all are complete.
pub(crate) fn write(outputs: &[OutputFile], make: &MakeRows<'_>) -> Result<()> {
    // Ending in order removes the unfinished file.
    let interrupted = watch_for_interrupts()?;

    let plans: Vec<Vec<TensorPlan>> =
        outputs.iter().map(|output| output.items.iter().map(TensorPlan::from).collect()).collect();
    let sizes = outputs.iter().zip(&plans).map(|(output, plan)| planned_size(&output.metadata, plan));
    let total = sizes.sum();
    check_space(&outputs[0].path, total)?;
    let bar = ProgressBar::new(total);
    let style = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta} left  {msg}")?;
    bar.set_style(style);

    let mut totals = Totals::new();
    let mut finished = Vec::new();
    for (output, plan) in outputs.iter().zip(plans) {
        let context = || output.path.display().to_string();
        let file = files::sibling(&output.path).with_context(context)?;
        let (mut writer, _) =
            Writer::new(BufWriter::with_capacity(1 << 20, file), &output.metadata, plan).with_context(context)?;
        for item in &output.items {
            bar.set_message(item.name.clone());
            let result = write_tensor(item, make, interrupted, |bytes| {
                bar.inc(bytes.len() as u64);
                writer.write(bytes).with_context(context)
            });
            let total = result.inspect_err(|_| bar.abandon())?;
            totals.entry((item.class, item.format)).or_default().add(&total);
        }
        let buffered = writer.finish().with_context(context)?;
        let file = buffered.into_inner().map_err(std::io::IntoInnerError::into_error).with_context(context)?;
        finished.push((file, &output.path));
    }
    go_on(interrupted)?;
    bar.finish_and_clear();
    for (file, path) in finished {
        files::persist(file, path).with_context(|| path.display().to_string())?;
    }
    report(outputs, &totals)
}

/// A flag that the signals set which ask a process to end. They concern the whole process, so all conversions share it.
fn watch_for_interrupts() -> Result<&'static AtomicBool> {
    static INTERRUPTED: AtomicBool = AtomicBool::new(false);
    static WATCHED: LazyLock<std::result::Result<(), ctrlc::Error>> =
        LazyLock::new(|| ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed)));
    WATCHED.as_ref().context("cannot watch for interrupts")?;
    Ok(&INTERRUPTED)
}

/// Fails once the process was asked to end.
fn go_on(interrupted: &AtomicBool) -> Result<()> {
    ensure!(!interrupted.load(Ordering::Relaxed), "interrupted; nothing was changed");
    Ok(())
}

/// Fails before the work where the disk cannot hold the result.
fn check_space(path: &Path, needed: u64) -> Result<()> {
    let directory = files::directory_of(path);
    let Ok(stat) = nix::sys::statvfs::statvfs(directory) else { return Ok(()) };
    // On 32-bit machines these are narrower.
    #[allow(clippy::unnecessary_cast)]
    let free = stat.blocks_available() as u64 * stat.fragment_size() as u64;
    ensure!(
        needed <= free,
        "{}: the output needs {:.2} GB, the disk has {:.2} GB left",
        directory.display(),
        needed as f64 / 1e9,
        free as f64 / 1e9
    );
    Ok(())
}

/// Makes one tensor and hands its bytes to `write` in order.
fn write_tensor(
    item: &Item,
    make: &MakeRows<'_>,
    interrupted: &AtomicBool,
    mut write: impl FnMut(&[u8]) -> Result<()> + Send,
) -> Result<Total> {
    let rows_at_once = (STRETCH / item.columns).clamp(1, item.rows);
    let stretches: Vec<usize> = (0..item.rows).step_by(rows_at_once).collect();
    let mut total = Total::default();
    let mut store = |made: Vec<Result<(Vec<u8>, Total)>>| -> Result<()> {
        made.into_iter().try_for_each(|stretch| {
            let (bytes, part) = stretch?;
            total.add(&part);
            write(&bytes)
        })
    };
    let mut made = Vec::new();
    for batch in stretches.chunks(rayon::current_num_threads() * 2) {
        go_on(interrupted)?;
        // One batch is written while the next is made.
        let make_batch = || batch.par_iter().map(|first| make(item, *first, rows_at_once.min(item.rows - first)));
        let (written, next) = rayon::join(|| store(std::mem::take(&mut made)), || make_batch().collect());
        written?;
        made = next;
    }
    store(made)?;
    Ok(total)
}

/// Reads, transforms and encodes `count` rows from `first` on.
fn encode_stretch(
    kernels: &dyn Kernels,
    checkpoint: &Checkpoint,
    (item, source): (&Item, &Source),
    (first, count): (usize, usize),
) -> Result<(Vec<u8>, Total)> {
    let (filled_rows, filled_columns) = item.filled();
    let present = filled_rows.saturating_sub(first).min(count);
    let values = checkpoint.read(source, first * filled_columns, present * filled_columns)?;
    let row_bytes = item.format.row_bytes(item.columns).context("the plan has rows of whole blocks")?;
    let mut bytes = vec![0; count * row_bytes];
    let mut total = Total { weights: (count * item.columns) as u64, bytes: bytes.len() as u64, ..Total::default() };
    let (mut row, mut decoded) = (vec![0.0; item.columns], vec![0.0; item.columns]);
    for (index, out) in bytes.chunks_exact_mut(row_bytes).enumerate() {
        row.fill(0.0);
        if index < present {
            row[..filled_columns].copy_from_slice(&values[index * filled_columns..][..filled_columns]);
        }
        if item.plus_one {
            row.iter_mut().for_each(|value| *value += 1.0);
        }
        kernels.encode_row(item.format, &row, out).with_context(|| {
            format!("{}: tensor '{}', row {}", checkpoint.path(source).display(), source.name, first + index)
        })?;
        kernels.decode_row(item.format, out, &mut decoded);
        total.add_errors(&row, &decoded);
    }
    Ok((bytes, total))
}

/// The closing table.
fn report(outputs: &[OutputFile], totals: &Totals) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{:<14} {:<6} {:>14} {:>11} {:>7} {:>12}",
        "tensors", "type", "weights", "MB", "bits", "error (RMS)"
    )?;
    let mut sum = Total::default();
    for ((class, format), total) in totals {
        print_line(&mut out, class.name(), format.name(), total)?;
        sum.add(total);
    }
    print_line(&mut out, "all", "", &sum)?;
    for output in outputs {
        let size = std::fs::metadata(&output.path)?.len();
        writeln!(out, "wrote {} ({:.1} MB)", output.path.display(), size as f64 / 1e6)?;
    }
    Ok(())
}

fn print_line(out: &mut impl Write, class: &str, format: &str, total: &Total) -> Result<()> {
    let error = if total.squared > 0.0 { (total.squared_error / total.squared).sqrt() } else { 0.0 };
    let bits = total.bytes as f64 * 8.0 / total.weights as f64;
    let megabytes = total.bytes as f64 / 1e6;
    writeln!(
        out,
        "{class:<14} {format:<6} {:>14} {megabytes:>11.2} {bits:>7.2} {:>11.4}%",
        total.weights,
        error * 100.0
    )?;
    Ok(())
}
