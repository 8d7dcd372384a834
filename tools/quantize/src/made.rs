//! Models that are made up rather than converted.

use anyhow::{Result, ensure};
use gemmule::config::Config;
use gemmule_quant::Format;

use std::ops::Range;

use crate::convert::{self, Made, Maker, Watcher};
use crate::plan::{Item, Plan, Types};
use crate::summary::{Summary, Total};
use crate::target::Target;
use crate::{hf_config, vocabulary};

/// A model that is made up rather than converted.
#[derive(Debug)]
pub struct MadeModel {
    /// The configuration.
    pub config: Config,
    /// The name it gets.
    pub name: String,
    /// Hugging Face's `tokenizer.json`.
    pub tokenizer_json: String,
    /// Type of the decoder's matrices; the others follow from it as in a conversion.
    pub body: Format,
}

/// Rows of a tensor that are to be made.
#[derive(Clone, Copy, Debug)]
pub struct RowsToMake<'a> {
    /// The tensor's name in the file.
    pub tensor: &'a str,
    /// Storage format.
    pub format: Format,
    /// Values of a row.
    pub columns: usize,
    /// First row.
    pub first: usize,
    /// Number of rows.
    pub count: usize,
    /// Whether they are weights of an RMSNorm, which lie around one.
    pub norm: bool,
}

/// Writes a made-up model, whose rows `make` gives in their storage format, with the names and keys of a conversion.
///
/// # Errors
/// When the files cannot be written or rows have the wrong size.
pub fn write_made(
    model: MadeModel,
    target: &Target,
    watcher: &mut Watcher<'_>,
    make: impl Fn(RowsToMake<'_>) -> Vec<u8> + Sync,
) -> Result<Summary> {
    let outputs = target.paths()?;
    let MadeModel { mut config, name, tokenizer_json, body } = model;
    let plan = Plan::new(&mut config, &Types::new(body, None, None));
    vocabulary::check(&tokenizer_json, &config)?;
    let vocabulary = vocabulary::metadata(tokenizer_json, &config)?;
    let model = hf_config::HfModel { config, name, tied: true, weights: None, not_obeyed: None };
    let files = plan.files(&model, vocabulary, &outputs);
    convert::write(&files, &MadeUp(make), watcher, None)
}

/// Makes rows with a function.
struct MadeUp<F>(F);

impl<F: Fn(RowsToMake<'_>) -> Vec<u8> + Sync> Maker for MadeUp<F> {
    fn make(&self, item: &Item, rows: Range<usize>) -> Result<Made> {
        let (tensor, format, columns) = (item.name.as_str(), item.format, item.columns);
        let (first, count) = (rows.start, rows.len());
        let bytes = (self.0)(RowsToMake { tensor, format, columns, first, count, norm: item.plus_one });
        let size = format.row_bytes(columns).map(|row| row * count);
        ensure!(size == Some(bytes.len()), "{tensor}: {} bytes made, {size:?} needed", bytes.len());
        let total = Total::exact((count * columns) as u64, bytes.len() as u64);
        Ok(Made { bytes, total })
    }
}

/// Every tensor that a checkpoint of this configuration has to hold: its name, without the prefixes in which layouts
/// differ (`language_model.norm.weight`, `vision_tower.post_layernorm.bias`), and its shape in PyTorch's order.
pub fn checkpoint_tensors(config: &Config) -> Vec<(String, Vec<usize>)> {
    let types = Types { body: Format::F32, embedding: Format::F32, vision: Format::F32 };
    Plan::new(&mut config.clone(), &types).sources()
}
