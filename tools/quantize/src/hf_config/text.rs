//! The decoder's settings: `text_config`.

use anyhow::{Context, Result, bail, ensure};
use gemmule::config::{Family, MOST_LAYERS, TextConfig};
use serde_json::Value;

use super::generation;
use super::section::{OF_EVERY_CONFIG, Section, check_activation};

pub(super) fn layers(section: &Section<'_>, default: usize) -> Result<usize> {
    let layers = section.size("num_hidden_layers", Some(default))?;
    // Checked before lists of that length are made.
    ensure!(layers <= MOST_LAYERS, "{}: {layers} layers are beyond any known model", section.name);
    Ok(layers)
}

pub(super) fn read(section: &Section<'_>) -> Result<TextConfig> {
    let kind = section.given("model_type");
    let family = match kind.map(|kind| kind.as_str().unwrap_or_default()).unwrap_or("gemma") {
        "gemma" => Family::Gemma,
        "gemma2" => Family::Gemma2,
        kind => bail!(
            "{}: model type '{kind}' is not supported, only 'gemma' and 'gemma2' (PaliGemma 1 and 2)",
            section.name
        ),
    };
    section.neutral(&["attention_bias", "quantization_config", "per_layer_config", "use_moe", "enable_moe_block"])?;
    if let Some(causal) = section.given("is_causal").filter(|causal| **causal != true) {
        return Err(section.wrong("is_causal", causal, "which is not supported"));
    }
    // The top level says whether the embedding is tied.
    section.irrelevant(&[
        "tie_word_embeddings",
        "use_bidirectional_attention",
        "num_image_tokens",
        "cache_implementation",
    ]);
    section.irrelevant(&OF_EVERY_CONFIG);
    section.irrelevant(&generation::KEYS);
    let text = if family == Family::Gemma { read_gemma(section)? } else { read_gemma2(section)? };
    ensure!(text.rms_epsilon >= 0.0, "{}: 'rms_norm_eps' is {}, below zero", section.name, text.rms_epsilon);
    section.warn_of_others();
    Ok(text)
}

fn read_gemma2(section: &Section<'_>) -> Result<TextConfig> {
    check_activation(section, "hidden_activation", &[])?;
    section.irrelevant(&["hidden_act"]);
    let layers = layers(section, 26)?;
    let sliding_window = match section.value("sliding_window") {
        Some(Value::Null) => None,
        _ => Some(section.size("sliding_window", Some(4096))?),
    };
    let query_scalar = section.float("query_pre_attn_scalar", 256.0)?;
    ensure!(query_scalar > 0.0, "{}: 'query_pre_attn_scalar' is {query_scalar}, not above zero", section.name);
    Ok(TextConfig {
        family: Family::Gemma2,
        context: section.size("max_position_embeddings", Some(8192))?,
        hidden: section.size("hidden_size", Some(2304))?,
        layers,
        feed_forward: section.size("intermediate_size", Some(9216))?,
        heads: section.size("num_attention_heads", Some(8))?,
        kv_heads: section.size("num_key_value_heads", Some(4))?,
        head_dim: section.size("head_dim", Some(256))?,
        rms_epsilon: section.float("rms_norm_eps", 1e-6)?,
        attention_softcap: section.cap("attn_logit_softcapping", Some(50.0))?,
        final_softcap: section.cap("final_logit_softcapping", Some(30.0))?,
        sliding_window,
        sliding_layers: read_layer_types(section, layers, sliding_window)?,
        attention_scale: (f64::from(query_scalar)).powf(-0.5) as f32,
        rope_base: read_rope_base(section)?,
        vocabulary: section.size("vocab_size", Some(256_000))?,
    })
}

fn read_layer_types(section: &Section<'_>, layers: usize, window: Option<usize>) -> Result<Vec<bool>> {
    let key = "layer_types";
    let Some(value) = section.given(key) else { return Ok(TextConfig::alternating_layers(layers, window)) };
    let types = value.as_array().ok_or_else(|| section.wrong(key, value, "no list"))?;
    ensure!(types.len() == layers, "{}: '{key}' has {} entries for {layers} layers", section.name, types.len());
    let slides = |kind: &Value| match kind.as_str() {
        Some("sliding_attention") => Ok(true),
        Some("full_attention" | "attention") => Ok(false),
        _ => Err(section.wrong(key, kind, "neither sliding_attention nor full_attention")),
    };
    let slides: Vec<bool> = types.iter().map(slides).collect::<Result<_>>()?;
    ensure!(
        window.is_some() || !slides.contains(&true),
        "{}: '{key}' has sliding_attention, and 'sliding_window' is null",
        section.name
    );
    Ok(slides)
}

/// Gemma 1: no cap on scores, no window, scores scaled by the head's size.
fn read_gemma(section: &Section<'_>) -> Result<TextConfig> {
    // transformers 5 takes "gelu" for the tanh form, too, since that is what the models were trained with.
    check_activation(section, "hidden_act", &["gelu"])?;
    section.irrelevant(&["hidden_activation", "attn_logit_softcapping", "query_pre_attn_scalar", "layer_types"]);
    if let Some(window) = section.given("sliding_window") {
        return Err(section.wrong("sliding_window", window, "which PaliGemma 1 does not have"));
    }
    let (layers, head_dim) = (layers(section, 28)?, section.size("head_dim", Some(256))?);
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
        final_softcap: section.cap("final_logit_softcapping", None)?,
        sliding_window: None,
        sliding_layers: vec![false; layers],
        attention_scale: (head_dim as f64).powf(-0.5) as f32,
        rope_base: read_rope_base(section)?,
        vocabulary: section.size("vocab_size", Some(256_000))?,
    })
}

/// `rope_theta`, or the same within `rope_scaling` or, where that is absent, `rope_parameters`. Scaled variants are not supported.
fn read_rope_base(section: &Section<'_>) -> Result<f32> {
    const DEFAULT: f64 = 10_000.0;
    let filled = |key: &str| -> Result<Option<(String, Section<'_>)>> {
        let inner = section.optional_section(key)?;
        let is_empty = section.given(key).and_then(Value::as_object).is_none_or(serde_json::Map::is_empty);
        Ok(inner.filter(|_| !is_empty).map(|inner| (key.to_owned(), inner)))
    };
    let (scaling, parameters) = (filled("rope_scaling")?, filled("rope_parameters")?);
    section.irrelevant(&["rope_theta"]);
    let base = section.given("rope_theta");
    let base = base.map_or(Ok(DEFAULT as f32), |value| section.as_float("rope_theta", value))?;
    let base = match scaling.or(parameters) {
        None => base,
        Some((key, inner)) => {
            // "type" is the old name.
            let kind = inner.value("rope_type").or_else(|| inner.value("type"));
            inner.irrelevant(&["factor", "partial_rotary_factor", "original_max_position_embeddings"]);
            let factor = inner.given("factor").and_then(Value::as_f64);
            match kind.map(|kind| kind.as_str().unwrap_or("null")) {
                // "dynamic" changes nothing up to the context's length, and longer sequences are refused.
                None | Some("default" | "dynamic") => {}
                Some("linear") if factor == Some(1.0) => {}
                Some(_) => {
                    let kind = kind.context("it was found")?;
                    return Err(inner.wrong("rope_type", kind, "which is not supported, only 'default'"));
                }
            }
            let nested = inner.given("full_attention").is_some() || inner.given("sliding_attention").is_some();
            ensure!(!nested, "{}: '{key}' differs by the kind of layer, which is not supported", section.name);
            inner.given("rope_theta").map_or(Ok(base), |value| inner.as_float("rope_theta", value))?
        }
    };
    ensure!(base > 0.0, "{}: 'rope_theta' is {base}, not above zero", section.name);
    Ok(base)
}
