//! Reading a configuration from GGUF metadata.

use super::{
    Config, Family, GenerationRules, IMAGE_TEXT, PreprocessConfig, ResizeRule, SpecialTokens, TextConfig, VisionConfig,
};
use crate::gguf::keys::{self, own, text, tokenizer, vision};
use crate::gguf::{Gguf, GgufFile};
use crate::{Error, Result};

impl Config {
    /// Reads the configuration from the text half and (for a pair) the vision half.
    ///
    /// # Errors
    /// When a key is missing or impossible, or the files are of another architecture.
    pub fn from_files(files: &[GgufFile]) -> Result<Self> {
        let text_file = &files[0];
        let architecture = text_file.string(keys::ARCHITECTURE)?.unwrap_or("unknown");
        let families = [Family::Gemma, Family::Gemma2];
        let family =
            |name: fn(Family) -> &'static str| families.into_iter().find(|family| name(*family) == architecture);
        let (family, vision_file) = match (
            family(Family::single_architecture),
            family(Family::architecture),
            files.get(1),
        ) {
            (Some(family), _, None) => (family, text_file),
            (_, Some(family), Some(file)) if file.string(keys::ARCHITECTURE)? == Some(keys::CLIP) => (family, file),
            (_, Some(_), Some(file)) => {
                return Err(Error::model(file.gguf().name(), "not a vision file (architecture 'clip')"));
            }
            (_, Some(_), None) => {
                let reason = "this file holds the text half only; name the vision half with --mmproj";
                return Err(Error::model(text_file.gguf().name(), reason));
            }
            _ => {
                let reason = format!(
                    "architecture '{architecture}' is not supported; Gemmule runs PaliGemma 1 and 2 (paligemma, paligemma2, or \
                     gemma, gemma2 with clip)"
                );
                return Err(Error::model(text_file.gguf().name(), reason));
            }
        };
        let (text_reader, vision_reader) = (Reader(text_file.gguf()), Reader(vision_file.gguf()));
        let text = read_text(&text_reader, family)?;
        let vision = read_vision(&vision_reader)?;
        if vision_reader.size(vision::PROJECTION)? != text.hidden {
            return Err(
                vision_reader.error("its projection does not fit the text half: these files are no pair".to_owned())
            );
        }
        let preprocess = PreprocessConfig {
            resample: vision_reader.token(own::RESAMPLE)?.unwrap_or(3),
            resize_rule: read_resize_rule(&vision_reader, vision_file)?,
            rescale: read_rescale(&vision_reader)?,
            mean: vision_reader.channels(vision::IMAGE_MEAN)?,
            deviation: vision_reader.channels(vision::IMAGE_STD)?,
        };
        preprocess.check().map_err(|reason| vision_reader.error(reason))?;
        let special = read_special(&text_reader, text_file, text.vocabulary)?;
        let generation = read_generation(&text_reader, text_file, text.vocabulary)?;
        Ok(Self { text, vision, preprocess, special, generation })
    }
}

/// Largest value of any dimension: far beyond every model of the family, far below any overflow.
const LARGEST: usize = 1 << 24;

/// Values of a file's keys, checked.
struct Reader<'a>(&'a Gguf);

impl Reader<'_> {
    fn error(&self, reason: String) -> Error {
        Error::model(self.0.name(), reason)
    }
    fn require<T>(&self, key: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| self.error(format!("key '{key}' is missing")))
    }
    fn size(&self, key: &str) -> Result<usize> {
        self.check_size(key, self.require(key, self.0.unsigned(key)?)?)
    }
    fn check_size(&self, key: &str, value: u64) -> Result<usize> {
        let size = usize::try_from(value).ok().filter(|size| (1..=LARGEST).contains(size));
        size.ok_or_else(|| self.error(format!("key '{key}' is {value}, which is no possible size")))
    }
    fn optional_size(&self, key: &str) -> Result<Option<usize>> {
        self.0.unsigned(key)?.map(|value| self.check_size(key, value)).transpose()
    }
    fn float(&self, key: &str) -> Result<f32> {
        self.require(key, self.0.float(key)?)
    }
    /// A positive number; absent or zero means "none".
    fn cap(&self, key: &str) -> Result<Option<f32>> {
        Ok(self.0.float(key)?.filter(|cap| *cap > 0.0))
    }
    fn token(&self, key: &str) -> Result<Option<u32>> {
        let id = self.0.unsigned(key)?;
        id.map(|id| u32::try_from(id).map_err(|_| self.error(format!("key '{key}' is {id}, no token id")))).transpose()
    }
    fn channels(&self, key: &str) -> Result<[f32; 3]> {
        let values = self.0.floats(key)?.unwrap_or_else(|| vec![0.5; 3]);
        values.try_into().map_err(|_| self.error(format!("key '{key}' must have three values")))
    }
}

fn read_text(reader: &Reader<'_>, family: Family) -> Result<TextConfig> {
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

fn read_generation(reader: &Reader<'_>, file: &GgufFile, vocabulary: usize) -> Result<GenerationRules> {
    let Some(text) = file.string(own::GENERATION)? else { return Ok(GenerationRules::default()) };
    let rules = serde_json::from_str::<GenerationRules>(text).map_err(|error| error.to_string());
    let rules = rules.and_then(|rules| rules.check(vocabulary).map(|()| rules));
    rules.map_err(|reason| reader.error(format!("key '{}' cannot be obeyed: {reason}", own::GENERATION)))
}

fn read_resize_rule(reader: &Reader<'_>, file: &GgufFile) -> Result<ResizeRule> {
    let Some(name) = file.string(own::RESIZE_RULE)? else { return Ok(ResizeRule::default()) };
    let rule = ResizeRule::from_name(name);
    rule.ok_or_else(|| {
        reader.error(format!("key '{}' is '{name}', which is not known: use a newer gemmule", own::RESIZE_RULE))
    })
}

/// Earlier files have it in single precision, which is not enough for the last bit of a pixel's value.
fn read_rescale(reader: &Reader<'_>) -> Result<f64> {
    const USUAL: f64 = 1.0 / 255.0;
    let value = reader.0.double(own::RESCALE)?.unwrap_or(USUAL);
    Ok(if value as f32 == USUAL as f32 { USUAL } else { value })
}

/// Rows of the embedding; llama.cpp's tools leave the key out.
fn read_vocabulary(reader: &Reader<'_>, family: Family) -> Result<usize> {
    let key = family.key(text::VOCABULARY);
    if let Some(size) = reader.optional_size(&key)? {
        return Ok(size);
    }
    let embedding = reader.0.tensors().iter().find(|tensor| tensor.name == keys::tensor::TOKEN_EMBEDDING);
    let rows = embedding.and_then(|tensor| tensor.dimensions.get(1)).copied();
    reader.check_size(&key, reader.require(&key, rows)?)
}

fn read_vision(reader: &Reader<'_>) -> Result<VisionConfig> {
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

fn read_special(reader: &Reader<'_>, file: &GgufFile, vocabulary: usize) -> Result<SpecialTokens> {
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
