use anyhow::Result;
use clap::Args;
use serde_json::json;

use crate::arguments::{ComputeArguments, ImageArguments, ModelArguments};
use crate::output::print_json;

/// Say how likely each of several given answers is.
///
/// Prints each choice with its probability among the choices, the likeliest first. A choice's probability is that of
/// exactly this answer, its end included; one prefill serves all choices, and nothing is generated.
#[derive(Args)]
pub(super) struct Score {
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    images: ImageArguments,
    /// What to ask, such as "answer en is the door open?".
    #[arg(short, long)]
    prompt: String,
    /// A possible answer, such as "yes"; give the option once for each.
    #[arg(short, long = "choice", value_name = "TEXT", required = true)]
    choices: Vec<String>,
    /// Print one JSON object, the choices in the order given.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compute: ComputeArguments,
}

impl Score {
    pub(super) fn execute(self) -> Result<()> {
        let model = self.model.open()?;
        let mut session = self.compute.session(&model)?;
        session.show(&self.images.open()?)?;
        let mut choices = session.score(&self.prompt, &self.choices)?;
        if self.json {
            let choices: Vec<_> = choices
                .iter()
                .map(|choice| json!({ "text": choice.text, "probability": choice.probability, "logprob": choice.log_probability }))
                .collect();
            return print_json(&json!({ "prompt": self.prompt, "choices": choices }));
        }
        choices.sort_by(|a, b| b.probability.total_cmp(&a.probability));
        for choice in choices {
            crate::output::print_line(&format!("{:.4}  {}", choice.probability, choice.text))?;
        }
        Ok(())
    }
}
