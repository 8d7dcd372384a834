//! Writing a configuration to GGUF metadata.

use super::Config;
use crate::gguf::keys::{own, text, tokenizer, vision};
use crate::gguf::writer::MetadataValue;

impl Config {
    /// The text half's keys.
    pub fn text_metadata(&self) -> Vec<(String, MetadataValue)> {
        let t = &self.text;
        let text_size = |key: &str, value| size(&t.family.key(key), value);
        let text_float = |key: &str, value| float(&t.family.key(key), value);
        let mut metadata = vec![
            text_size(text::CONTEXT_LENGTH, t.context),
            text_size(text::EMBEDDING_LENGTH, t.hidden),
            text_size(text::BLOCK_COUNT, t.layers),
            text_size(text::FEED_FORWARD_LENGTH, t.feed_forward),
            text_size(text::HEAD_COUNT, t.heads),
            text_size(text::HEAD_COUNT_KV, t.kv_heads),
            text_size(text::KEY_LENGTH, t.head_dim),
            text_size(text::VALUE_LENGTH, t.head_dim),
            text_float(text::RMS_EPSILON, t.rms_epsilon),
            // Zero, not absence: llama.cpp assumes Gemma 2's caps where the keys are absent.
            text_float(text::ATTENTION_SOFTCAP, t.attention_softcap.unwrap_or(0.0)),
            text_float(text::FINAL_SOFTCAP, t.final_softcap.unwrap_or(0.0)),
            text_float(text::ATTENTION_SCALE, t.attention_scale),
            text_float(text::ROPE_BASE, t.rope_base),
            text_size(text::VOCABULARY, t.vocabulary),
            boolean_array(own::SLIDING_LAYERS, &t.sliding_layers),
            size(own::IMAGE_TOKEN, self.special.image as usize),
            size(tokenizer::BOS, self.special.bos as usize),
            size(tokenizer::PADDING, self.special.pad as usize),
        ];
        let eos = self.special.eos.iter().map(|id| MetadataValue::Uint32(*id)).collect();
        metadata.push((own::EOS_TOKENS.to_owned(), MetadataValue::Array(eos)));
        if !self.generation.is_empty() {
            let rules = serde_json::to_string(&self.generation).expect("numbers have a form in JSON");
            metadata.push((own::GENERATION.to_owned(), MetadataValue::String(rules)));
        }
        metadata.extend(self.special.eos.first().map(|id| size(tokenizer::EOS, *id as usize)));
        metadata.extend(t.sliding_window.map(|window| text_size(text::SLIDING_WINDOW, window)));
        metadata
    }

    /// The vision half's keys.
    pub fn vision_metadata(&self) -> Vec<(String, MetadataValue)> {
        let (v, p) = (&self.vision, &self.preprocess);
        let channels = |key: &str, values: &[f32; 3]| {
            (key.to_owned(), MetadataValue::Array(values.iter().map(|value| MetadataValue::Float32(*value)).collect()))
        };
        vec![
            (vision::HAS_ENCODER.to_owned(), MetadataValue::Bool(true)),
            (vision::PROJECTOR_TYPE.to_owned(), MetadataValue::String("paligemma".to_owned())),
            (vision::USE_GELU.to_owned(), MetadataValue::Bool(true)),
            size(vision::IMAGE_SIZE, v.image_size),
            size(vision::PATCH_SIZE, v.patch_size),
            size(vision::EMBEDDING_LENGTH, v.hidden),
            size(vision::FEED_FORWARD_LENGTH, v.feed_forward),
            size(own::VISION_PADDED_FEED_FORWARD, v.padded_feed_forward),
            size(vision::BLOCK_COUNT, v.layers),
            size(vision::PROJECTION, self.text.hidden),
            size(vision::HEAD_COUNT, v.heads),
            float(vision::EPSILON, v.epsilon),
            channels(vision::IMAGE_MEAN, &p.mean),
            channels(vision::IMAGE_STD, &p.deviation),
            size(own::RESAMPLE, p.resample as usize),
            (own::RESIZE_RULE.to_owned(), MetadataValue::String(p.resize_rule.name().to_owned())),
            (own::RESCALE.to_owned(), MetadataValue::Float64(p.rescale)),
        ]
    }
}

fn size(key: &str, value: usize) -> (String, MetadataValue) {
    (key.to_owned(), MetadataValue::Uint32(u32::try_from(value).expect("sizes are checked to be below 2^24")))
}

fn float(key: &str, value: f32) -> (String, MetadataValue) {
    (key.to_owned(), MetadataValue::Float32(value))
}

fn boolean_array(key: &str, values: &[bool]) -> (String, MetadataValue) {
    (key.to_owned(), MetadataValue::Array(values.iter().map(|value| MetadataValue::Bool(*value)).collect()))
}
