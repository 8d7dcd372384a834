//! Conversion by statistics of the matrices' inputs.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};

use crate::convert::{Made, Maker, Plain};
use crate::plan::{Item, source_of};
use crate::rounding::Rounding;
use crate::statistics::Statistics;

/// Rows of a checkpoint, rounded so that a matrix's outputs change little where there are statistics of its inputs.
pub(crate) struct Calibrated<'a> {
    plain: Plain<'a>,
    statistics: &'a Statistics,
    /// For the items that are made now.
    rounding: Mutex<Option<Arc<Rounding>>>,
}

impl<'a> Calibrated<'a> {
    pub(crate) fn new(plain: Plain<'a>, statistics: &'a Statistics) -> Self {
        Self { plain, statistics, rounding: Mutex::default() }
    }

    /// The matrix whose inputs an item has, if it is rounded by them.
    fn owner(&self, item: &Item) -> Option<&str> {
        self.statistics.owner(&item.name).filter(|_| item.format.info().integer)
    }
}

impl Maker for Calibrated<'_> {
    fn prepare(&self, items: &[Item]) -> Result<usize> {
        let first = &items[0];
        let owner = self.owner(first);
        let alike = |item: &&Item| self.owner(item) == owner && (owner.is_none() || item.columns == first.columns);
        let count = items.iter().take_while(alike).count();
        let rounding = owner.map(|owner| {
            let moments = self.statistics.moments(owner)?.padded(first.columns);
            self.statistics.rounding(owner, &moments).map(Arc::new)
        });
        *self.rounding.lock().unwrap_or_else(PoisonError::into_inner) = rounding.transpose()?;
        Ok(count)
    }

    fn make(&self, item: &Item, rows: Range<usize>) -> Result<Made> {
        let rounding = self.rounding.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.plain.encode(item, source_of(self.plain.checkpoint, item)?, rows, rounding.as_deref())
    }
}

/// Checks that statistics are of a model with these tensors; warns of matrices that have none.
///
/// # Errors
/// When they are of another model.
pub(crate) fn check(statistics: &Statistics, items: &[Item]) -> Result<()> {
    let by_name: HashMap<&str, &Item> = items.iter().map(|item| (item.name.as_str(), item)).collect();
    for tensor in statistics.tensors() {
        let item = by_name.get(tensor);
        let item = item.with_context(|| {
            format!("it has statistics of {tensor}, which this model lacks: it is of another model")
        })?;
        let (found, filled) = (statistics.columns(tensor)?, item.filled().1);
        ensure!(
            found == item.columns || found == filled,
            "it has statistics of {found} inputs of {tensor}, which has {filled}: it is of another model"
        );
    }
    let is_used = |item: &Item| item.format.info().integer && statistics.owner(&item.name).is_some();
    ensure!(
        items.iter().any(is_used),
        "no matrix is rounded by it: take a type of blocks, such as q4_k, or no statistics"
    );
    let missing: Vec<_> = items
        .iter()
        .filter(|item| item.format.info().integer && statistics.owner(&item.name).is_none())
        .map(|item| item.name.as_str())
        .collect();
    if let [first, ..] = missing[..] {
        log::warn!(
            "{} matrices have no statistics, such as {first}: each of their weights counts the same",
            missing.len()
        );
    }
    Ok(())
}
