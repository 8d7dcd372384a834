use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::answers::Output;
use crate::arguments::{ComputeArguments, ImageArguments, ModelArguments};
use crate::tensors::Tensors;

/// Write the features of pictures, and the decoder's hidden states, as safetensors.
///
/// Writes `image_features` [images, N, hidden], what the decoder sees of the pictures, and with a prompt
/// `last_hidden_state` [T, hidden], the decoder's output for every position after the last norm (float32).
#[derive(Args)]
pub(super) struct Embed {
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    images: ImageArguments,
    /// A prompt about the pictures; without one, only the pictures are looked at.
    #[arg(short, long)]
    prompt: Option<String>,
    /// Where to write; - is stdout.
    #[arg(short, long, value_name = "OUT.safetensors")]
    output: PathBuf,
    #[command(flatten)]
    compute: ComputeArguments,
}

impl Embed {
    pub(super) fn execute(self) -> Result<()> {
        let output = Output::new(&self.output, self.model.files().chain(self.images.files()))?;
        let model = self.model.open()?;
        let mut session = self.compute.session(&model)?;
        let pictures = self.images.open()?;
        session.show(&pictures)?;
        let (tokens, hidden) = (model.config().vision.tokens(), model.config().text.hidden);
        let states = self.prompt.as_ref().map(|prompt| session.hidden_states(prompt)).transpose()?;
        let mut tensors = Tensors::default();
        tensors.floats("image_features", vec![pictures.len(), tokens, hidden], session.image_features());
        if let Some(states) = &states {
            tensors.floats("last_hidden_state", vec![states.len() / hidden, hidden], states);
        }
        tensors.write(&output)
    }
}
