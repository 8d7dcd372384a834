use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::answers::Output;
use crate::arguments::{ComputeArguments, ModelArguments, open_pictures};
use crate::tensors::Tensors;

/// Write every stage of one prefill as safetensors, to compare with the reference.
///
/// Writes `pixel_values` [images, 3, S, S], `image_features` [images, N, hidden], `input_ids` [T] and `logits_last`
/// [vocabulary] (float32, int64 for the ids; logits after the softcap, as transformers returns them).
#[derive(Args)]
pub(super) struct Trace {
    #[command(flatten)]
    model: ModelArguments,
    /// A picture, - for stdin; several are shown to the model in order, none makes a text-only prefix.
    #[arg(short, long = "image", value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// What to ask.
    #[arg(short, long)]
    prompt: String,
    /// Where to write; - is stdout.
    #[arg(short, long, value_name = "OUT.safetensors")]
    output: PathBuf,
    #[command(flatten)]
    compute: ComputeArguments,
}

impl Trace {
    pub(super) fn execute(self) -> Result<()> {
        let images = self.images.iter().map(PathBuf::as_path);
        let output = Output::new(&self.output, self.model.files().chain(images))?;
        let model = self.model.open()?;
        let mut session = self.compute.session(&model)?;
        let pictures = open_pictures(&self.images)?;
        let trace = session.trace(&pictures, &self.prompt)?;
        let (config, images) = (model.config(), pictures.len());
        let side = config.vision.image_size;
        let ids: Vec<i64> = trace.input_ids.iter().copied().map(i64::from).collect();
        let mut tensors = Tensors::default();
        tensors.floats("pixel_values", vec![images, 3, side, side], &trace.pixel_values);
        let features = vec![images, config.vision.tokens(), config.text.hidden];
        tensors.floats("image_features", features, &trace.image_features);
        tensors.integers("input_ids", &ids);
        tensors.floats("logits_last", vec![config.text.vocabulary], &trace.logits);
        tensors.write(&output)
    }
}
