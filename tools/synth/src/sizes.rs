//! The released sizes.

use gemmule::config::{Config, GenerationRules};
use gemmule::config::{Family, PreprocessConfig, ResizeRule, SpecialTokens, TextConfig, VisionConfig};
use serde_json::{Value, json};

/// A released size, by PaliGemma's name (the decoder is Gemma 2 2B, 9B or 27B).
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Size {
    #[value(name = "3b")]
    B3,
    #[value(name = "10b")]
    B10,
    #[value(name = "28b")]
    B28,
}

pub(crate) const IMAGE_TOKEN: u32 = 257_152;

pub(crate) fn config(size: Size, image_size: usize) -> Config {
    let (hidden, layers, heads, kv_heads, head_dim, feed_forward, query_scalar) = match size {
        Size::B3 => (2304, 26, 8, 4, 256, 9216, 256.0f32),
        Size::B10 => (3584, 42, 16, 8, 256, 14336, 256.0),
        Size::B28 => (4608, 46, 32, 16, 128, 36864, 144.0),
    };
    Config {
        text: TextConfig {
            family: Family::Gemma2,
            context: 8192,
            hidden,
            layers,
            feed_forward,
            heads,
            kv_heads,
            head_dim,
            rms_epsilon: 1e-6,
            attention_softcap: Some(50.0),
            final_softcap: Some(30.0),
            sliding_window: Some(4096),
            sliding_layers: TextConfig::alternating_layers(layers, Some(4096)),
            attention_scale: query_scalar.powf(-0.5),
            rope_base: 10_000.0,
            vocabulary: 257_216,
        },
        vision: VisionConfig {
            image_size,
            patch_size: 14,
            hidden: 1152,
            feed_forward: 4304,
            padded_feed_forward: 4304,
            layers: 27,
            heads: 16,
            epsilon: 1e-6,
        },
        preprocess: PreprocessConfig {
            resample: 3,
            resize_rule: ResizeRule::default(),
            rescale: 1.0 / 255.0,
            mean: [0.5; 3],
            deviation: [0.5; 3],
        },
        special: SpecialTokens { image: IMAGE_TOKEN, bos: 2, eos: vec![1], pad: 0 },
        generation: GenerationRules::default(),
    }
}

/// `config.json` as the released ones are: defaults left out, stale entries present.
pub(crate) fn config_json(config: &Config) -> Value {
    let (text, vision) = (&config.text, &config.vision);
    json!({
        "architectures": ["PaliGemmaForConditionalGeneration"], "model_type": "paligemma", "hidden_size": 2048,
        "image_token_index": IMAGE_TOKEN, "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0,
        "projection_dim": text.hidden, "_vocab_size": 257_152,
        "text_config": {
            "model_type": "gemma2", "hidden_size": text.hidden, "intermediate_size": text.feed_forward,
            "num_hidden_layers": text.layers, "num_attention_heads": text.heads, "num_key_value_heads": text.kv_heads,
            "head_dim": text.head_dim, "query_pre_attn_scalar": (1.0 / text.attention_scale.powi(2)).round(),
            "hidden_activation": "gelu_pytorch_tanh", "vocab_size": text.vocabulary, "num_image_tokens": vision.tokens(),
        },
        "vision_config": {
            "model_type": "siglip_vision_model", "hidden_size": vision.hidden, "intermediate_size": vision.feed_forward,
            "num_hidden_layers": vision.layers, "num_attention_heads": vision.heads, "patch_size": vision.patch_size,
            "image_size": vision.image_size, "projection_dim": text.hidden, "vision_use_head": false,
            "hidden_act": "gelu_pytorch_tanh",
        },
    })
}

pub(crate) fn preprocessor_json(side: usize) -> Value {
    json!({
        "image_processor_type": "SiglipImageProcessor", "do_resize": true, "do_rescale": true, "do_normalize": true,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "resample": 3, "rescale_factor": 1.0 / 255.0,
        "size": { "height": side, "width": side },
    })
}
