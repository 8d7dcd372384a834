//! `config.json`, `generation_config.json` and `preprocessor_config.json`, with the defaults that `transformers` fills in.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use gemmule::model::config::{Config, Family, MOST_LAYERS, PreprocessConfig, SpecialTokens, TextConfig, VisionConfig};
use serde_json::Value;

/// What the checkpoint's JSON files say.
pub(crate) struct HfModel {
    pub(crate) config: Config,
    /// The directory's name.
    pub(crate) name: String,
}

/// A JSON object and the file it came from.
struct Section<'a> {
    value: &'a Value,
    name: String,
}

impl Section<'_> {
    /// A number; `default` where the key is absent.
    fn size(&self, key: &str, default: Option<usize>) -> Result<usize> {
        match (self.value.get(key), default) {
            (None | Some(Value::Null), Some(default)) => Ok(default),
            (None | Some(Value::Null), None) => bail!("{}: '{key}' is missing", self.name),
            (Some(value), _) => value
                .as_u64()
                .filter(|value| (1..=1 << 24).contains(value))
                .map(|value| value as usize)
                .with_context(|| format!("{}: '{key}' is {value}, no possible size", self.name)),
        }
    }

    fn layers(&self, default: Option<usize>) -> Result<usize> {
        let layers = self.size("num_hidden_layers", default)?;
        // Before as many entries are made.
        ensure!(layers <= MOST_LAYERS, "{}: {layers} layers are beyond any known model", self.name);
        Ok(layers)
    }

    fn float(&self, key: &str, default: f64) -> Result<f32> {
        match self.value.get(key) {
            None | Some(Value::Null) => Ok(default as f32),
            Some(value) => self.as_float(key, value),
        }
    }

    fn as_float(&self, key: &str, value: &Value) -> Result<f32> {
        let value = value.as_f64().filter(|value| value.is_finite());
        value.map(|value| value as f32).with_context(|| format!("{}: '{key}' is no number", self.name))
    }

    /// As [`float`](Self::float), where an explicit null means that there is none.
    fn optional(&self, key: &str, default: f64) -> Result<Option<f32>> {
        match self.value.get(key) {
            None => Ok(Some(default as f32)),
            Some(Value::Null) => Ok(None),
            Some(value) => self.as_float(key, value).map(|value| Some(value).filter(|value| *value > 0.0)),
        }
    }

    /// A key that must have one value, or be absent.
    fn expect(&self, key: &str, expected: &Value) -> Result<()> {
        match self.value.get(key) {
            None | Some(Value::Null) => Ok(()),
            Some(value) if value == expected => Ok(()),
            Some(value) => bail!("{}: '{key}' is {value}; only {expected} is supported", self.name),
        }
    }

    fn section(&self, key: &str) -> Result<Section<'_>> {
        let value = self.value.get(key).filter(|value| value.is_object());
        let value = value.with_context(|| format!("{}: '{key}' is missing", self.name))?;
        Ok(Section { value, name: format!("{} ({key})", self.name) })
    }
}

fn read_json(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| format!("{}: not JSON", path.display()))
}

/// As [`read_json`]; an empty object where the file is absent.
fn read_optional(path: &Path) -> Result<Value> {
    if path.exists() { read_json(path) } else { Ok(Value::Object(serde_json::Map::new())) }
}

pub(crate) fn read(directory: &Path) -> Result<HfModel> {
    let path = directory.join("config.json");
    let json = read_json(&path)?;
    let top = Section { value: &json, name: path.display().to_string() };
    let kind = json["model_type"].as_str().unwrap_or("unknown");
    ensure!(kind == "paligemma", "{}: model type '{kind}' is not supported, only 'paligemma'", path.display());
    let text = read_text(&top.section("text_config")?)?;
    let vision = read_vision(&top.section("vision_config")?)?;
    for checked in [text.check(), vision.check()] {
        checked.map_err(anyhow::Error::msg).with_context(|| path.display().to_string())?;
    }
    let path = directory.join("preprocessor_config.json");
    let preprocess =
        read_preprocess(&Section { value: &read_optional(&path)?, name: path.display().to_string() }, &vision)?;
    let generation = read_optional(&directory.join("generation_config.json"))?;
    let special = read_special(&json, &generation)?;
    let tokens = special.eos.iter().chain([&special.image, &special.bos, &special.pad]);
    for token in tokens {
        ensure!(
            (*token as usize) < text.vocabulary,
            "{}: the special token {token} lies outside the vocabulary of {}",
            top.name,
            text.vocabulary
        );
    }
    let name =
        directory.canonicalize().ok().and_then(|path| path.file_name().map(|name| name.to_string_lossy().into_owned()));
    let family = text.family;
    Ok(HfModel {
        config: Config { text, vision, preprocess, special },
        name: name.unwrap_or_else(|| family.single_architecture().to_owned()),
    })
}

fn read_text(section: &Section<'_>) -> Result<TextConfig> {
    let family = match section.value["model_type"].as_str().unwrap_or("gemma") {
        "gemma" => Family::Gemma,
        "gemma2" => Family::Gemma2,
        kind => bail!(
            "{}: model type '{kind}' is not supported, only 'gemma' and 'gemma2' (PaliGemma 1 and 2)",
            section.name
        ),
    };
    let activation = Value::from("gelu_pytorch_tanh");
    section.expect("hidden_activation", &activation)?;
    section.expect("attention_bias", &Value::from(false))?;
    section.expect("tie_word_embeddings", &Value::from(true))?;
    if family == Family::Gemma {
        return read_gemma(section);
    }
    let layers = section.layers(Some(26))?;
    let head_dim = section.size("head_dim", Some(256))?;
    let sliding_window = match section.value.get("sliding_window") {
        Some(Value::Null) => None,
        _ => Some(section.size("sliding_window", Some(4096))?),
    };
    let sliding_layers = match section.value.get("layer_types").and_then(Value::as_array) {
        None => TextConfig::alternating_layers(layers, sliding_window),
        Some(types) => {
            let types: Option<Vec<bool>> = types
                .iter()
                .map(|kind| match kind.as_str() {
                    Some("sliding_attention") => Some(true),
                    Some("full_attention") => Some(false),
                    _ => None,
                })
                .collect();
            types
                .filter(|types| types.len() == layers)
                .with_context(|| format!("{}: 'layer_types' is not understood", section.name))?
        }
    };
    let query_scalar = section.float("query_pre_attn_scalar", 256.0)?;
    ensure!(query_scalar > 0.0, "{}: 'query_pre_attn_scalar' is not positive", section.name);
    Ok(TextConfig {
        family,
        context: section.size("max_position_embeddings", Some(8192))?,
        hidden: section.size("hidden_size", Some(2304))?,
        layers,
        feed_forward: section.size("intermediate_size", Some(9216))?,
        heads: section.size("num_attention_heads", Some(8))?,
        kv_heads: section.size("num_key_value_heads", Some(4))?,
        head_dim,
        rms_epsilon: section.float("rms_norm_eps", 1e-6)?,
        attention_softcap: section.optional("attn_logit_softcapping", 50.0)?,
        final_softcap: section.optional("final_logit_softcapping", 30.0)?,
        sliding_window,
        sliding_layers,
        attention_scale: (f64::from(query_scalar)).powf(-0.5) as f32,
        rope_base: read_rope_base(section)?,
        vocabulary: section.size("vocab_size", Some(256_000))?,
    })
}

/// Gemma 1: no caps, no window, scores scaled by the head's size.
fn read_gemma(section: &Section<'_>) -> Result<TextConfig> {
    section.expect("hidden_act", &Value::from("gelu_pytorch_tanh"))?;
    let (layers, head_dim) = (section.layers(Some(28))?, section.size("head_dim", Some(256))?);
    Ok(TextConfig {
        family: Family::Gemma,
        context: section.size("max_position_embeddings", Some(8192))?,
        hidden: section.size("hidden_size", Some(3072))?,
        layers,
        feed_forward: section.size("intermediate_size", Some(24_576))?,
        heads: section.size("num_attention_heads", Some(16))?,
        kv_heads: section.size("num_key_value_heads", Some(16))?,
        head_dim,
        rms_epsilon: section.float("rms_norm_eps", 1e-6)?,
        attention_softcap: None,
        final_softcap: None,
        sliding_window: None,
        sliding_layers: vec![false; layers],
        attention_scale: (head_dim as f64).powf(-0.5) as f32,
        rope_base: read_rope_base(section)?,
        vocabulary: section.size("vocab_size", Some(256_000))?,
    })
}

/// `rope_theta`, or the same within `rope_parameters`; scaled variants are not supported.
fn read_rope_base(section: &Section<'_>) -> Result<f32> {
    for key in ["rope_scaling", "rope_parameters"] {
        if section.value.get(key).is_some_and(Value::is_object) {
            let inner = section.section(key)?;
            inner.expect("rope_type", &Value::from("default"))?;
            if inner.value.get("rope_theta").is_some() {
                return inner.float("rope_theta", 10_000.0);
            }
        }
    }
    section.float("rope_theta", 10_000.0)
}

fn read_vision(section: &Section<'_>) -> Result<VisionConfig> {
    section.expect("model_type", &Value::from("siglip_vision_model"))?;
    section.expect("hidden_act", &Value::from("gelu_pytorch_tanh"))?;
    section.expect("num_channels", &Value::from(3))?;
    let feed_forward = section.size("intermediate_size", Some(3072))?;
    Ok(VisionConfig {
        image_size: section.size("image_size", Some(224))?,
        patch_size: section.size("patch_size", Some(16))?,
        hidden: section.size("hidden_size", Some(768))?,
        feed_forward,
        padded_feed_forward: feed_forward,
        layers: section.layers(Some(12))?,
        heads: section.size("num_attention_heads", Some(12))?,
        epsilon: section.float("layer_norm_eps", 1e-6)?,
    })
}

fn read_preprocess(section: &Section<'_>, vision: &VisionConfig) -> Result<PreprocessConfig> {
    for key in ["do_resize", "do_rescale", "do_normalize"] {
        section.expect(key, &Value::from(true))?;
    }
    if let Some(size) = section.value.get("size") {
        for side in ["height", "width"] {
            let found = size.get(side).and_then(Value::as_u64);
            ensure!(
                found == Some(vision.image_size as u64),
                "{}: size {side} is {found:?}, the vision tower takes {}",
                section.name,
                vision.image_size
            );
        }
    }
    let channels = |key: &str| -> Result<[f32; 3]> {
        let Some(value) = section.value.get(key) else { return Ok([0.5; 3]) };
        let values: Option<Vec<f32>> =
            value.as_array().and_then(|values| values.iter().map(|v| v.as_f64().map(|v| v as f32)).collect());
        values
            .and_then(|v| v.try_into().ok())
            .with_context(|| format!("{}: '{key}' is not three numbers", section.name))
    };
    let resample = section.value.get("resample").and_then(Value::as_u64).unwrap_or(3);
    ensure!(resample <= 5, "{}: resampling filter {resample} is unknown", section.name);
    Ok(PreprocessConfig {
        resample: resample as u32,
        rescale: section.float("rescale_factor", 1.0 / 255.0)?,
        mean: channels("image_mean")?,
        deviation: channels("image_std")?,
    })
}

fn read_special(config: &Value, generation: &Value) -> Result<SpecialTokens> {
    let ids = |value: &Value| -> Option<Vec<u32>> {
        match value {
            Value::Number(_) => Some(vec![u32::try_from(value.as_u64()?).ok()?]),
            Value::Array(values) => values.iter().map(|v| v.as_u64().and_then(|v| u32::try_from(v).ok())).collect(),
            _ => None,
        }
    };
    let find = |key: &str, default: u32| {
        let places = [generation, config, &config["text_config"]];
        places.iter().find_map(|place| ids(&place[key])).filter(|ids| !ids.is_empty()).unwrap_or_else(|| vec![default])
    };
    let image = ["image_token_index", "image_token_id"].iter().find_map(|key| ids(&config[*key]));
    let image = image.filter(|ids| !ids.is_empty());
    Ok(SpecialTokens {
        image: image.context("config.json: 'image_token_index' is missing")?[0],
        bos: find("bos_token_id", 2)[0],
        eos: find("eos_token_id", 1),
        pad: find("pad_token_id", 0)[0],
    })
}
