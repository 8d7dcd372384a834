//! What a conversion has written.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use gemmule_quant::Format;

use crate::plan::Class;

/// What is known of one class in one format.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Total {
    pub(crate) weights: u64,
    pub(crate) bytes: u64,
    pub(crate) squared_error: f64,
    pub(crate) squared: f64,
}

impl Total {
    /// The total of rows that have no original, and so no error.
    pub(crate) fn exact(weights: u64, bytes: u64) -> Self {
        Self { weights, bytes, ..Self::default() }
    }

    pub(crate) fn add(&mut self, other: &Total) {
        self.weights += other.weights;
        self.bytes += other.bytes;
        self.squared_error += other.squared_error;
        self.squared += other.squared;
    }
}

pub(crate) type Totals = BTreeMap<(Class, Format), Total>;

/// Types that were chosen for each matrix.
#[derive(Clone, Debug, Default)]
pub(crate) struct Allotment {
    /// Which matrices have which type, a line for each kind.
    pub(crate) table: Vec<String>,
    /// What their errors are expected to add to the divergence of answers, in nats for each token.
    pub(crate) divergence: f64,
}

/// A file that was written.
#[derive(Clone, Debug)]
struct Written {
    path: PathBuf,
    bytes: u64,
}

/// What a conversion has written, as a table when it is shown: sizes by type, and the error of rounding.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    pub(crate) totals: Totals,
    /// Types that were chosen for each matrix.
    pub(crate) allotment: Option<Allotment>,
    files: Vec<Written>,
}

impl Summary {
    /// Notes a file that is complete.
    pub(crate) fn add_file(&mut self, path: PathBuf, bytes: u64) {
        self.files.push(Written { path, bytes });
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{:<14} {:<6} {:>14} {:>11} {:>7} {:>12}",
            "tensors", "type", "weights", "MB", "bits", "error (RMS)"
        )?;
        let mut sum = Total::default();
        for ((class, format), total) in &self.totals {
            write_line(out, class.name(), format.name(), total)?;
            sum.add(total);
        }
        write_line(out, "all", "", &sum)?;
        if let Some(Allotment { table, divergence }) = &self.allotment {
            write!(
                out,
                "\nexpected divergence of answers, of the weights alone: about {divergence:.1e} nats a token (`gemmule compare` measures it)"
            )?;
            table.iter().try_for_each(|line| write!(out, "\n  {line}"))?;
        }
        for Written { path, bytes } in &self.files {
            write!(out, "\nwrote {} ({:.1} MB)", path.display(), *bytes as f64 / 1e6)?;
        }
        Ok(())
    }
}

fn write_line(out: &mut fmt::Formatter<'_>, class: &str, format: &str, total: &Total) -> fmt::Result {
    let error = if total.squared > 0.0 { (total.squared_error / total.squared).sqrt() } else { 0.0 };
    let bits = total.bytes as f64 * 8.0 / total.weights as f64;
    let megabytes = total.bytes as f64 / 1e6;
    write!(
        out,
        "\n{class:<14} {format:<6} {:>14} {megabytes:>11.2} {bits:>7.2} {:>11.4}%",
        total.weights,
        error * 100.0
    )
}
