//! The JSON files of a checkpoint, with the defaults that `transformers` fills in: every key that changes what is computed is
//! used, or refused by name. (transformers 5.23; where 4.57 differs, the newer one is followed.)

mod generation;
mod picture;
mod section;
mod text;

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use gemmule::config::Config;
use gemmule::config::{ResizeRule, SpecialTokens, VisionConfig};
use section::{OF_EVERY_CONFIG, Section, check_activation, whole};

use crate::{advice, json};

/// What the checkpoint's JSON files say.
pub(crate) struct HfModel {
    pub(crate) config: Config,
    /// The directory's name.
    pub(crate) name: String,
    /// Whether the output head is the embedding.
    pub(crate) tied: bool,
    /// The file of the weights, where the configuration names one.
    pub(crate) weights: Option<String>,
    /// What `generate` would do and is not done here, as JSON.
    pub(crate) not_obeyed: Option<String>,
}

pub(crate) fn read(directory: &Path, resize: Option<ResizeRule>) -> Result<HfModel> {
    let path = directory.join("config.json");
    let name = path.display().to_string();
    ensure!(path.exists(), "{}: config.json is missing: fetch the whole checkpoint", directory.display());
    let value = json::read(&path)?;
    let top = Section::new(&value, name.clone())?;
    let kind = top.value("model_type").and_then(|kind| kind.as_str()).unwrap_or("unknown");
    ensure!(kind == "paligemma", "{name}: model type '{kind}' is not supported, only 'paligemma'");
    advice::check_quantization(&value, &name)?;
    let text_section = top.section("text_config")?;
    let text = text::read(&text_section)?;
    let vision = read_vision(&top.section("vision_config")?)?;
    for checked in [text.check(), vision.check()] {
        checked.map_err(anyhow::Error::msg).with_context(|| name.clone())?;
    }
    let preprocess = picture::read(directory, &vision, resize)?;
    let generation = generation::read(directory, &top, &text_section, text.vocabulary)?;
    let image = read_image_token(&top)?;
    let pad = top.given("pad_token_id").and_then(section::token).unwrap_or(0);
    let special = SpecialTokens {
        image,
        bos: u32::try_from(generation.bos)
            .ok()
            .with_context(|| format!("{name}: 'bos_token_id' is {}", generation.bos))?,
        eos: generation.ends,
        pad: u32::try_from(pad).unwrap_or(0),
    };
    for (token, source) in [(special.image, &name), (special.bos, &generation.bos_source), (special.pad, &name)] {
        ensure!(
            (token as usize) < text.vocabulary,
            "{source}: the special token {token} lies outside the vocabulary of {}",
            text.vocabulary
        );
    }
    let tied = top.switch("tie_word_embeddings", true)?;
    let weights = match top.given("transformers_weights") {
        None => None,
        Some(value) => {
            let name = value.as_str().filter(|name| Path::new(name).file_name().is_some());
            Some(name.ok_or_else(|| top.wrong("transformers_weights", value, "no file name"))?.to_owned())
        }
    };
    top.neutral(&["is_encoder_decoder", "decoder", "text_encoder"])?;
    top.irrelevant(&OF_EVERY_CONFIG);
    top.irrelevant(&[
        "projection_dim",
        "hidden_size",
        "vocab_size",
        "num_hidden_layers",
        "vision_feature_layer",
        "num_image_tokens",
        "attn_logit_softcapping",
        "final_logit_softcapping",
        "rope_theta",
        "num_key_value_heads",
    ]);
    top.irrelevant(&generation::KEYS);
    top.warn_of_others();
    let stem = directory.canonicalize().ok();
    let stem = stem.and_then(|path| path.file_name().map(|name| name.to_string_lossy().into_owned()));
    let family = text.family;
    Ok(HfModel {
        config: Config { text, vision, preprocess, special, generation: generation.rules },
        name: stem.unwrap_or_else(|| family.single_architecture().to_owned()),
        tied,
        weights,
        not_obeyed: generation.not_obeyed,
    })
}

/// `image_token_id`, or its old name; the new one counts where both are there.
fn read_image_token(top: &Section<'_>) -> Result<u32> {
    const DEFAULT: u32 = 256_000;
    let (new, old) = ("image_token_id", "image_token_index");
    let (key, value) = match (top.given(new), top.given(old)) {
        (Some(value), _) => (new, value),
        (None, Some(value)) => (old, value),
        (None, None) => return Ok(DEFAULT),
    };
    let id = whole(value).and_then(|id| u32::try_from(id).ok());
    id.ok_or_else(|| top.wrong(key, value, "no token"))
}

fn read_vision(section: &Section<'_>) -> Result<VisionConfig> {
    if let Some(kind) = section.given("model_type").filter(|kind| *kind != "siglip_vision_model") {
        return Err(section.wrong("model_type", kind, "only siglip_vision_model is supported"));
    }
    check_activation(section, "hidden_act", &[])?;
    let channels = section.size("num_channels", Some(3))?;
    ensure!(channels == 3, "{}: 'num_channels' is {channels}, only 3 is supported", section.name);
    let feed_forward = section.size("intermediate_size", Some(3072))?;
    section.irrelevant(&OF_EVERY_CONFIG);
    section.irrelevant(&[
        "vision_use_head",
        "projection_dim",
        "projector_hidden_act",
        "num_positions",
        "num_image_tokens",
    ]);
    let vision = VisionConfig {
        image_size: section.size("image_size", Some(224))?,
        patch_size: section.size("patch_size", Some(16))?,
        hidden: section.size("hidden_size", Some(768))?,
        feed_forward,
        padded_feed_forward: feed_forward,
        layers: text::layers(section, 12)?,
        heads: section.size("num_attention_heads", Some(12))?,
        epsilon: section.float("layer_norm_eps", 1e-6)?,
    };
    section.warn_of_others();
    if vision.epsilon <= 0.0 {
        bail!("{}: 'layer_norm_eps' is {}, not above zero", section.name, vision.epsilon);
    }
    Ok(vision)
}
