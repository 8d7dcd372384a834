//! Reading a configuration from GGUF metadata.

use super::{Family, GenerationRules, IMAGE_TEXT, ResizeRule, SpecialTokens, TextConfig, VisionConfig};
use crate::gguf::keys::{self, own, text, tokenizer, vision};
use crate::gguf::{Gguf, GgufFile};
use crate::{Error, Result};

/// Largest value of any dimension: far beyond every model of the family, far below any overflow.
const LARGEST: usize = 1 << 24;

/// Values of a file's keys, checked.
pub(super) struct Reader<'a>(pub(super) &'a Gguf);

impl Reader<'_> {
    pub(super) fn error(&self, reason: String) -> Error {
        Error::model(self.0.name(), reason)
    }
    pub(super) fn require<T>(&self, key: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| self.error(format!("key '{key}' is missing")))
    }
    pub(super) fn size(&self, key: &str) -> Result<usize> {
        self.check_size(key, self.require(key, self.0.unsigned(key)?)?)
    }
    pub(super) fn check_size(&self, key: &str, value: u64) -> Result<usize> {
        let size = usize::try_from(value).ok().filter(|size| (1..=LARGEST).contains(size));
        size.ok_or_else(|| self.error(format!("key '{key}' is {value}, which is no possible size")))
    }
    pub(super) fn optional_size(&self, key: &str) -> Result<Option<usize>> {
        self.0.unsigned(key)?.map(|value| self.check_size(key, value)).transpose()
    }
    pub(super) fn float(&self, key: &str) -> Result<f32> {
        self.require(key, self.0.float(key)?)
    }
    /// A positive number; absent or zero means "none".
    pub(super) fn cap(&self, key: &str) -> Result<Option<f32>> {
        Ok(self.0.float(key)?.filter(|cap| *cap > 0.0))
    }
    pub(super) fn token(&self, key: &str) -> Result<Option<u32>> {
        let id = self.0.unsigned(key)?;
        id.map(|id| u32::try_from(id).map_err(|_| self.error(format!("key '{key}' is {id}, no token id")))).transpose()
    }
    pub(super) fn channels(&self, key: &str) -> Result<[f32; 3]> {
        let values = self.0.floats(key)?.unwrap_or_else(|| vec![0.5; 3]);
        values.try_into().map_err(|_| self.error(format!("key '{key}' must have three values")))
    }
}

pub(super) fn read_text(reader: &Reader<'_>, family: Family) -> Result<TextConfig> {
    let key = |key: &str| family.key(key);
    let (layers, heads, kv_heads) = (
        reader.size(&key(text::BLOCK_COUNT))?,
        reader.size(&key(text::HEAD_COUNT))?,
        reader.size(&key(text::HEAD_COUNT_KV))?,
    );
    let (hidden, head_dim) = (reader.size(&key(text::EMBEDDING_LENGTH))?, reader.size(&key(text::KEY_LENGTH))?);
    let sliding_window = reader.optional_size(&key(text::SLIDING_WINDOW))?;
    let sliding_layers = reader
        .0
        .booleans(own::SLIDING_LAYERS)?
        .unwrap_or_else(|| TextConfig::alternating_layers(layers, sliding_window));
    if reader.optional_size(&key(text::VALUE_LENGTH))?.is_some_and(|len| len != head_dim) {
        return Err(reader.error("keys and values of different lengths are not supported".to_owned()));
    }
    // llama.cpp's converter writes no scale: all but the 27B model scale by head_dim, that one by hidden / heads.
    let assumed_scale = if layers == 46 { hidden as f32 / heads as f32 } else { head_dim as f32 }.powf(-0.5);
    let config = TextConfig {
        family,
        context: reader.size(&key(text::CONTEXT_LENGTH))?,
        hidden,
        layers,
        feed_forward: reader.size(&key(text::FEED_FORWARD_LENGTH))?,
        heads,
        kv_heads,
        head_dim,
        rms_epsilon: reader.float(&key(text::RMS_EPSILON))?,
        attention_softcap: reader.cap(&key(text::ATTENTION_SOFTCAP))?,
        final_softcap: reader.cap(&key(text::FINAL_SOFTCAP))?,
        sliding_window,
        sliding_layers,
        attention_scale: reader.0.float(&key(text::ATTENTION_SCALE))?.unwrap_or(assumed_scale),
        rope_base: reader.0.float(&key(text::ROPE_BASE))?.unwrap_or(10_000.0),
        vocabulary: read_vocabulary(reader, family)?,
    };
    config.check().map_err(|reason| reader.error(reason))?;
    Ok(config)
}

pub(super) fn read_generation(reader: &Reader<'_>, file: &GgufFile, vocabulary: usize) -> Result<GenerationRules> {
    let Some(text) = file.string(own::GENERATION)? else { return Ok(GenerationRules::default()) };
    let rules = serde_json::from_str::<GenerationRules>(text).map_err(|error| error.to_string());
    let rules = rules.and_then(|rules| rules.check(vocabulary).map(|()| rules));
    rules.map_err(|reason| reader.error(format!("key '{}' cannot be obeyed: {reason}", own::GENERATION)))
}

pub(super) fn read_resize_rule(reader: &Reader<'_>, file: &GgufFile) -> Result<ResizeRule> {
    let Some(name) = file.string(own::RESIZE_RULE)? else { return Ok(ResizeRule::default()) };
    let rule = ResizeRule::from_name(name);
    rule.ok_or_else(|| {
        reader.error(format!("key '{}' is '{name}', which is not known: use a newer gemmule", own::RESIZE_RULE))
    })
}

/// Earlier files have it in single precision, which is not enough for the last bit of a pixel's value.
pub(super) fn read_rescale(reader: &Reader<'_>) -> Result<f64> {
    const USUAL: f64 = 1.0 / 255.0;
    let value = reader.0.double(own::RESCALE)?.unwrap_or(USUAL);
    Ok(if value as f32 == USUAL as f32 { USUAL } else { value })
}

/// Rows of the embedding; llama.cpp's tools leave the key out.
pub(super) fn read_vocabulary(reader: &Reader<'_>, family: Family) -> Result<usize> {
    let key = family.key(text::VOCABULARY);
    if let Some(size) = reader.optional_size(&key)? {
        return Ok(size);
    }
    let embedding = reader.0.tensors().iter().find(|tensor| tensor.name == keys::tensor::TOKEN_EMBEDDING);
    let rows = embedding.and_then(|tensor| tensor.dimensions.get(1)).copied();
    reader.check_size(&key, reader.require(&key, rows)?)
}

pub(super) fn read_vision(reader: &Reader<'_>) -> Result<VisionConfig> {
    let feed_forward = reader.size(vision::FEED_FORWARD_LENGTH)?;
    let config = VisionConfig {
        image_size: reader.size(vision::IMAGE_SIZE)?,
        patch_size: reader.size(vision::PATCH_SIZE)?,
        hidden: reader.size(vision::EMBEDDING_LENGTH)?,
        feed_forward,
        padded_feed_forward: reader.optional_size(own::VISION_PADDED_FEED_FORWARD)?.unwrap_or(feed_forward),
        layers: reader.size(vision::BLOCK_COUNT)?,
        heads: reader.size(vision::HEAD_COUNT)?,
        epsilon: reader.float(vision::EPSILON)?,
    };
    config.check().map_err(|reason| reader.error(reason))?;
    Ok(config)
}

pub(super) fn read_special(reader: &Reader<'_>, file: &GgufFile, vocabulary: usize) -> Result<SpecialTokens> {
    let image = match reader.token(own::IMAGE_TOKEN)? {
        Some(image) => image,
        None => {
            let tokens = reader.0.strings(tokenizer::TOKENS, file.bytes())?.unwrap_or_default();
            let image = tokens.iter().position(|token| *token == IMAGE_TEXT);
            let reason = || {
                format!(
                    "key '{}' is missing and no token is '{IMAGE_TEXT}': it is the text half of no PaliGemma",
                    own::IMAGE_TOKEN
                )
            };
            image.ok_or_else(|| reader.error(reason()))? as u32
        }
    };
    let eos = match reader.0.unsigned_array(own::EOS_TOKENS)? {
        Some(ids) => ids.into_iter().filter_map(|id| u32::try_from(id).ok()).collect(),
        None => vec![reader.token(tokenizer::EOS)?.unwrap_or(1)],
    };
    let bos = reader.token(tokenizer::BOS)?.unwrap_or(2);
    let pad = reader.token(tokenizer::PADDING)?.unwrap_or(0);
    if eos.iter().chain([&bos, &pad]).any(|id| *id as usize >= vocabulary) {
        return Err(reader.error(format!("a special token lies outside the vocabulary of {vocabulary}")));
    }
    Ok(SpecialTokens { image, bos, eos, pad })
}
