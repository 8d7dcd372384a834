use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use gemmule::gguf::GgufFile;
use gemmule::gguf::{TensorInfo, ValueType, keys};
use gemmule_quant::Format;
use gemmule_quantize::parse_format;
use serde_json::{Value, json};

use crate::arguments::NamedModel;
use crate::output::print_json;

/// Show what a model file holds: configuration, formats, sizes, tokenizer, tensors.
#[derive(Args)]
pub(super) struct Inspect {
    /// A GGUF file, or a checkpoint, as --model of the other commands.
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// Type that a checkpoint's matrices are converted to, as for gemmule-quantize [default: q4_0].
    #[arg(long = "type", value_name = "TYPE", value_parser = parse_format)]
    body: Option<Format>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Longest string that is printed whole.
const SHOWN: usize = 120;

impl Inspect {
    pub(super) fn execute(self) -> Result<()> {
        let file = NamedModel { model: &self.model, body: self.body, mmproj: None }.file()?;
        if self.json { print_json(&to_json(&file)) } else { print(&file) }
    }
}

/// Values and bytes of one type.
#[derive(Default)]
struct Total {
    tensors: usize,
    elements: u64,
    bytes: u64,
}

fn totals(tensors: &[TensorInfo]) -> BTreeMap<&'static str, Total> {
    let mut totals: BTreeMap<&'static str, Total> = BTreeMap::new();
    for tensor in tensors {
        let total = totals.entry(tensor.type_name()).or_default();
        total.tensors += 1;
        total.elements += tensor.elements();
        total.bytes += tensor.range.len() as u64;
    }
    totals
}

fn value_json(file: &GgufFile, key: &str, value_type: ValueType, count: Option<u64>) -> Value {
    match (file.gguf().value(key), count) {
        (Some(value), None | Some(0..=64)) if !is_long(value) => value.clone(),
        (_, Some(count)) => json!({ "elements": count }),
        _ if value_type == ValueType::String => {
            json!({ "bytes": file.string(key).ok().flatten().map_or(0, str::len) })
        }
        _ => Value::Null,
    }
}

fn is_long(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.len() > SHOWN)
}

fn to_json(file: &GgufFile) -> Value {
    let metadata: serde_json::Map<String, Value> = file
        .gguf()
        .keys()
        .map(|(key, value_type, count)| (key.to_owned(), value_json(file, key, value_type, count)))
        .collect();
    let tensors: Vec<Value> = file
        .gguf()
        .tensors()
        .iter()
        .map(|tensor| {
            json!({ "name": tensor.name, "type": tensor.type_name(), "dimensions": tensor.dimensions,
                    "offset": tensor.range.start, "bytes": tensor.range.len() })
        })
        .collect();
    json!({ "file": file.gguf().name(), "bytes": file.bytes().len(), "metadata": metadata, "tensors": tensors })
}

fn print(file: &GgufFile) -> Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let (gguf, architecture) = (file.gguf(), file.string(keys::ARCHITECTURE)?.unwrap_or("unknown"));
    writeln!(
        out,
        "{}: {architecture}, {:.1} MB, {} tensors\n",
        gguf.name(),
        file.bytes().len() as f64 / 1e6,
        gguf.tensors().len()
    )?;
    for (key, value_type, count) in gguf.keys() {
        let value = value_json(file, key, value_type, count);
        let text = match (value.as_str(), value.get("elements"), value.get("bytes")) {
            (Some(text), ..) => text.replace('\n', "\\n"),
            (_, Some(count), _) => format!("({count} elements)"),
            (_, _, Some(bytes)) => format!("({bytes} bytes)"),
            _ => value.to_string(),
        };
        writeln!(out, "{key:<48} {text}")?;
    }
    writeln!(out, "\n{:<8} {:>8} {:>14} {:>12} {:>8}", "type", "tensors", "weights", "MB", "bits")?;
    for (name, total) in totals(gguf.tensors()) {
        let bits = total.bytes as f64 * 8.0 / total.elements as f64;
        let megabytes = total.bytes as f64 / 1e6;
        writeln!(out, "{name:<8} {:>8} {:>14} {megabytes:>12.2} {bits:>8.2}", total.tensors, total.elements)?;
    }
    writeln!(out)?;
    for tensor in gguf.tensors() {
        let sizes: Vec<String> = tensor.dimensions.iter().map(u64::to_string).collect();
        writeln!(out, "{:<40} {:<6} {}", tensor.name, tensor.type_name(), sizes.join(" x "))?;
    }
    Ok(out.flush()?)
}
